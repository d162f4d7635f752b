//! For whom a proxy asks. A header that anybody can send is believed only as far as those who wrote it are
//! trusted: each proxy appends the address that connected to it, so the list is read from its end, and the
//! first address that is no trusted proxy's is the one that counts. What stands before it may be invented.

use std::net::{IpAddr, SocketAddr};

use axum::http::{HeaderMap, HeaderName, header};

use crate::config::{Networks, ProxyHeader};

/// A chain of more proxies is no chain of ours.
const MAX_HOPS: usize = 32;

const X_FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");

/// The address of who asks, where `peer` connected.
pub(super) fn caller(peer: IpAddr, headers: &HeaderMap, trusted: &Networks, header: ProxyHeader) -> IpAddr {
    let peer = peer.to_canonical();
    if !trusted.contains(peer) {
        return peer;
    }
    let name = match header {
        ProxyHeader::XForwardedFor => X_FORWARDED_FOR,
        ProxyHeader::Forwarded => header::FORWARDED,
    };
    let lines: Vec<_> = headers.get_all(name).iter().map(|line| line.to_str().unwrap_or_default()).collect();
    let said = lines.join(",");
    let mut caller = peer;
    for hop in said.rsplit(',').take(MAX_HOPS) {
        let address = match header {
            ProxyHeader::XForwardedFor => address(hop),
            ProxyHeader::Forwarded => hop.split(';').find_map(|pair| {
                let (name, value) = pair.split_once('=')?;
                name.trim().eq_ignore_ascii_case("for").then(|| address(value.trim().trim_matches('"')))?
            }),
        };
        // Where one does not say, the one who wrote it is all that is known.
        let Some(address) = address else { return caller };
        caller = address;
        if !trusted.contains(caller) {
            return caller;
        }
    }
    caller
}

/// An address, with a port or without.
fn address(text: &str) -> Option<IpAddr> {
    let text = text.trim();
    let bare = text.strip_prefix('[').and_then(|text| text.strip_suffix(']')).unwrap_or(text);
    let parsed = bare.parse::<IpAddr>().or_else(|_| text.parse::<SocketAddr>().map(|socket| socket.ip()));
    parsed.ok().map(|address| address.to_canonical())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Config;

    fn trusted() -> Networks {
        let env = [("INFINIBAY__HTTP__TRUSTED_PROXIES".to_owned(), "10.0.0.0/8,fd00::/8".to_owned())].into();
        let file = tempfile::NamedTempFile::with_suffix(".toml").unwrap();
        let sources = crate::config::Sources { file: Some(file.path().into()), env, ..Default::default() };
        Config::load(&sources).unwrap().http.trusted_proxies
    }

    fn asked(peer: &str, header: ProxyHeader, lines: &[(&'static str, &str)]) -> String {
        let mut headers = HeaderMap::new();
        for (name, value) in lines {
            headers.append(*name, value.parse().unwrap());
        }
        caller(peer.parse().unwrap(), &headers, &trusted(), header).to_string()
    }

    #[test]
    fn only_a_trusted_proxy_is_believed_and_only_its_own_word() {
        use ProxyHeader::{Forwarded, XForwardedFor};
        let xff = |peer: &str, value: &str| asked(peer, XForwardedFor, &[("x-forwarded-for", value)]);
        assert_eq!(xff("192.0.2.1", "203.0.113.9"), "192.0.2.1", "a stranger's header counted");
        assert_eq!(xff("10.0.0.1", "203.0.113.9"), "203.0.113.9");
        assert_eq!(xff("::ffff:10.0.0.1", "203.0.113.9"), "203.0.113.9");
        assert_eq!(
            xff("10.0.0.1", "1.1.1.1, 203.0.113.9, 10.2.2.2"),
            "203.0.113.9",
            "an invented hop counted"
        );
        assert_eq!(xff("10.0.0.1", "203.0.113.9:4711"), "203.0.113.9");
        assert_eq!(xff("10.0.0.1", "[2001:db8::1]:4711"), "2001:db8::1");
        assert_eq!(xff("10.0.0.1", "unknown"), "10.0.0.1");
        assert_eq!(xff("10.0.0.1", "203.0.113.9, unknown"), "10.0.0.1");
        assert_eq!(xff("10.0.0.1", ""), "10.0.0.1");
        assert_eq!(xff("10.0.0.1", &"10.1.1.1,".repeat(1000)), "10.0.0.1");
        assert_eq!(xff("10.0.0.1", &["10.1.1.1"; 1000].join(",")), "10.1.1.1");
        let two = [("x-forwarded-for", "1.1.1.1"), ("x-forwarded-for", "203.0.113.9")];
        assert_eq!(asked("10.0.0.1", XForwardedFor, &two), "203.0.113.9");
        let other = [("forwarded", "for=1.1.1.1"), ("x-forwarded-for", "203.0.113.9")];
        assert_eq!(asked("10.0.0.1", XForwardedFor, &other), "203.0.113.9", "the other header counted");
        for (value, wanted) in [
            ("for=203.0.113.9;proto=https;by=10.0.0.1", "203.0.113.9"),
            ("for=1.1.1.1, proto=http;For=\"[2001:db8::1]:80\", for=10.3.3.3", "2001:db8::1"),
            ("for=_hidden", "10.0.0.1"),
            ("proto=https", "10.0.0.1"),
        ] {
            assert_eq!(asked("10.0.0.1", Forwarded, &[("forwarded", value)]), wanted, "{value}");
        }
    }
}
