//! Where connections go, with names that mean what the test wants.

use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpListener,
};

use super::*;
use crate::config::{Config, Sources};

/// A server at an address of loopback that answers everything with this; its port.
async fn server(address: &str, answer: &'static str) -> u16 {
    let listener = TcpListener::bind((address, 0)).await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let mut request = [0; 2048];
            assert!(stream.read(&mut request).await.unwrap() > 0);
            stream.write_all(answer.as_bytes()).await.unwrap();
        }
    });
    port
}

/// With names that lead there, each time to the next of the addresses, and `127.0.0.2` allowed.
fn fetcher(addresses: &'static [&'static str], asked: &Arc<AtomicUsize>) -> Fetcher {
    let env = [("INFINIBAY__MEDIA__ALLOW_ADDRESSES", "127.0.0.2")];
    let env = env.into_iter().map(|(name, value)| (name.to_owned(), value.to_owned())).collect();
    let config = Config::load(&Sources { env, ..Sources::default() }).unwrap().media;
    let asked = Arc::clone(asked);
    let resolver: Resolver = Arc::new(move |_, port| {
        let turn = asked.fetch_add(1, Ordering::SeqCst).min(addresses.len() - 1);
        let found = addresses[turn].split(',').map(|ip| SocketAddr::new(ip.parse().unwrap(), port)).collect();
        Box::pin(async move { Ok(found) })
    });
    Fetcher::new(config, resolver)
}

async fn ask(fetcher: &Fetcher, url: String) -> Result<u16, Failure> {
    fetcher.open(Url::parse(&url).unwrap(), 0, None, true).await.map(|response| response.status().as_u16())
}

#[tokio::test]
async fn a_name_that_leads_elsewhere_a_moment_later_leads_nowhere() {
    let port = server("127.0.0.2", "HTTP/1.1 200 Fine\r\ncontent-length: 0\r\n\r\n").await;
    let asked = Arc::default();
    // Of a name that no system knows: the connection goes to the address that was judged.
    let rebinding = fetcher(&["127.0.0.2", "127.0.0.1"], &asked);
    assert_eq!(ask(&rebinding, format!("http://rebind.invalid:{port}/")).await, Ok(200));
    assert_eq!(asked.load(Ordering::SeqCst), 1, "the name was resolved again");
    let refused = ask(&rebinding, format!("http://rebind.invalid:{port}/")).await.unwrap_err();
    assert_eq!((refused.code, refused.again), ("ADDRESS_REFUSED", false));
    assert!(refused.message.contains("loopback"), "{refused:?}");
}

#[tokio::test]
async fn one_bad_address_among_good_ones_is_enough() {
    let port = server("127.0.0.2", "HTTP/1.1 200 Fine\r\ncontent-length: 0\r\n\r\n").await;
    let mixed = fetcher(&["127.0.0.2,10.0.0.1"], &Arc::default());
    assert_eq!(
        ask(&mixed, format!("http://mixed.invalid:{port}/")).await.unwrap_err().code,
        "ADDRESS_REFUSED"
    );
    for literal in ["127.0.0.1", "[::1]", "[::ffff:127.0.0.1]", "0x7f.1", "169.254.169.254", "[fe80::1]"] {
        let refused = ask(&mixed, format!("http://{literal}:{port}/")).await.unwrap_err();
        assert_eq!(refused.code, "ADDRESS_REFUSED", "{literal}");
    }
}

#[tokio::test]
async fn each_redirect_is_judged_anew_and_there_are_not_many() {
    let asked = Arc::default();
    let port =
        server("127.0.0.2", "HTTP/1.1 302 There\r\nlocation: /again\r\ncontent-length: 0\r\n\r\n").await;
    let circle = fetcher(&["127.0.0.2"], &asked);
    let refused = ask(&circle, format!("http://circle.invalid:{port}/")).await.unwrap_err();
    assert_eq!(refused.code, "REDIRECT_REFUSED");
    assert_eq!(asked.load(Ordering::SeqCst), MAX_HOPS + 1);
    let inward = "HTTP/1.1 302 There\r\nlocation: http://other.invalid/\r\ncontent-length: 0\r\n\r\n";
    let port = server("127.0.0.2", inward).await;
    let inward = fetcher(&["127.0.0.2", "192.168.0.1"], &Arc::default());
    let refused = ask(&inward, format!("http://first.invalid:{port}/")).await.unwrap_err();
    assert_eq!((refused.code, refused.message.contains("private")), ("ADDRESS_REFUSED", true));
}
