//! Whatever a guest sends is counted, each kind for itself, and the link goes on.

mod support;

use infinibay::{
    agents::{GuestFrame, Links},
    config::AgentsConfig,
    vm::{CommandId, CommandOutcome, GuestCommand, LinkCounters, LinkObservation, SafeAction, VmId},
};
use support::guest::{DEADLINE, FakeGuest, eventually, well_behaved};

type Counter = fn(&LinkCounters) -> u64;

struct Hostility {
    name: &'static str,
    bytes: Vec<u8>,
    counter: Counter,
    times: u64,
}

fn hostilities() -> Vec<Hostility> {
    let malformed: Counter = |c| c.malformed;
    let wrong_shape: Counter = |c| c.wrong_shape;
    let case = |name, bytes: Vec<u8>, counter, times| Hostility { name, bytes, counter, times };
    let tiny_objects = format!("[{}0]", r#"{"a":0},"#.repeat(12_000));
    let reading = |system: &str| {
        format!(r#"{{"type":"metrics","timestamp":"2026-01-01T00:00:00Z","data":{{"system":{system}}}}}"#)
    };
    let lines = |lines: &[&str]| lines.iter().flat_map(|line| [line.as_bytes(), b"\n"].concat()).collect();
    vec![
        case("garbage", lines(&["nonsense", "[1]", "42", "{]"]), malformed, 4),
        case("no UTF-8", b"\xff\xfe\x00{\"type\":\"ping\"}\xff\n".to_vec(), malformed, 1),
        case("nested deeply", [b"[".repeat(5_000), b"\n".to_vec()].concat(), malformed, 1),
        case("2 MiB without a newline", [vec![b'a'; 2 << 20], b"\n".to_vec()].concat(), |c| c.oversized, 1),
        case(
            "wrong shapes",
            lines(&[
                r#"{"type":"metrics"}"#,
                r#"{"type":"metrics","timestamp":"never","data":{"system":{}}}"#,
                r#"{"type":"keep_alive","sequence_number":-1,"timestamp":0}"#,
                r#"{"type":"handshake","timestamp":5}"#,
                r#"{"id":1,"success":true}"#,
            ]),
            wrong_shape,
            5,
        ),
        case(
            "envelopes, which prove nothing by themselves",
            lines(&[r#"{"type":"signed","v":1,"ts":1790000000000,"nonce":"n","payload":"{}","sig":"00"}"#]),
            |c| c.sealed,
            1,
        ),
        case("types nobody knows", lines(&[r#"{"type":"later"}"#, r#"{"a":1}"#]), |c| c.unknown_type, 2),
        case(
            "answers nobody asked for",
            lines(&[
                r#"{"id":"7","success":true}"#,
                r#"{"id":"00000000-0000-0000-0000-000000000000","success":true,"stdout":"x"}"#,
            ]),
            |c| c.unsolicited,
            2,
        ),
        case(
            "a reading that would fill the database",
            format!(
                "{{\"type\":\"metrics\",\"timestamp\":\"2026-01-01T00:00:00Z\",\"data\":{{\"system\":{{\"x\":\"{}\"}}}}}}\n",
                "y".repeat(500_000)
            )
            .into_bytes(),
            |c| c.too_large,
            1,
        ),
        case(
            "little text that would take much memory",
            lines(&[
                &reading(&tiny_objects),
                &format!(r#"{{"type":"error","error":"x","details":{tiny_objects}}}"#),
                &format!(r#"{{"id":"7","success":true,"data":{tiny_objects}}}"#),
            ]),
            |c| c.oversized,
            3,
        ),
        case(
            "readings that would take much memory in one batch",
            lines(&[&format!(
                r#"{{"type":"metrics_batch","messages":[{}]}}"#,
                reading(&format!("[{}0]", r#"{"a":0},"#.repeat(5_000)))
            )]),
            |c| c.too_large,
            1,
        ),
    ]
}

#[tokio::test]
async fn each_kind_is_counted_and_commands_go_on() {
    for Hostility { name, bytes, counter, times } in hostilities() {
        let dir = tempfile::tempdir().unwrap();
        let guest =
            FakeGuest::listen(dir.path(), VmId::generate(), move |s, r| well_behaved(s, r, 1, bytes.clone()));
        let (links, _inbox) = Links::new(AgentsConfig::default());
        links.open(guest.vm, guest.path.clone());
        let counted = || links.observe(guest.vm).open().map(|open| counter(&open.counters));
        eventually(name, || counted().filter(|&n| n >= times)).await;
        let command = GuestCommand::Safe(SafeAction::OsInfo);
        let outcome = links.execute(guest.vm, CommandId::generate(), &command, DEADLINE).await.unwrap();
        assert!(matches!(outcome, CommandOutcome::Answered { success: true, .. }), "{name}: {outcome:?}");
        assert_eq!(counted(), Some(times), "{name}");
        assert_eq!(guest.connections(), 1, "{name}: the connection was not kept");
        links.shutdown(DEADLINE).await;
    }
}

/// Sends `opening` and nothing else.
async fn only(mut stream: tokio::net::UnixStream, opening: Vec<u8>) -> std::io::Result<()> {
    tokio::io::AsyncWriteExt::write_all(&mut stream, &opening).await?;
    std::future::pending().await
}

#[tokio::test]
async fn rubbish_proves_nobody_alive() {
    let rubbish = [
        &b"nonsense\n{\"type\":\"metrics\"}\n{\"type\":\"later\"}\n{\"a\":1}\n"[..],
        b"{\"id\":\"00000000-0000-0000-0000-000000000000\",\"success\":true}\n",
    ]
    .concat();
    let dir = tempfile::tempdir().unwrap();
    let guest = FakeGuest::listen(dir.path(), VmId::generate(), move |s, _| only(s, rubbish.clone()));
    let (links, _inbox) = Links::new(AgentsConfig::default());
    links.open(guest.vm, guest.path.clone());
    let open = eventually("everything is read", || match links.observe(guest.vm) {
        LinkObservation::Open(open) if open.counters.unsolicited == 1 => Some(open),
        _ => None,
    })
    .await;
    assert_eq!((open.last_message_at, open.skew), (None, None));
    assert_eq!((open.counters.malformed, open.counters.wrong_shape, open.counters.unknown_type), (1, 1, 2));
    let command = GuestCommand::Safe(SafeAction::OsInfo);
    let refused = links.execute(guest.vm, CommandId::generate(), &command, DEADLINE).await;
    assert_eq!(refused, Err(infinibay::agents::LinkError::NotConnected), "nothing is sent before it spoke");
}

#[tokio::test]
async fn trees_of_tiny_objects_are_not_passed_on() {
    let hostile = |system: &str| {
        format!(
            "{{\"type\":\"metrics\",\"timestamp\":\"2026-01-01T00:00:00Z\",\"data\":{{\"system\":{system}}}}}\n"
        )
    };
    let tree = format!("[{}0]", r#"{"a":0},"#.repeat(15_000));
    assert!(tree.len() < 128 << 10, "its text alone would pass");
    // Behind a fragment, too, whose open string hides it.
    let lines = [hostile(&tree), format!("{{\"type\":\"met{}", hostile(&tree)), hostile("42")].concat();
    let dir = tempfile::tempdir().unwrap();
    let guest = FakeGuest::listen(dir.path(), VmId::generate(), move |s, r| {
        well_behaved(s, r, 1, lines.clone().into())
    });
    let (links, mut inbox) = Links::new(AgentsConfig::default());
    links.open(guest.vm, guest.path.clone());
    for expected in ["an ordinary one", "the last one"] {
        let frame = tokio::time::timeout(DEADLINE, inbox.frames.recv()).await.expect("a frame in time");
        let Some(GuestFrame::Metrics { system, .. }) = frame else { panic!("{expected}: {frame:?}") };
        assert!(
            system.text.starts_with('{') || &*system.text == "42",
            "{expected}: a hostile tree was passed on"
        );
    }
    let open = links.observe(guest.vm).open().cloned().unwrap();
    assert_eq!((open.counters.oversized, open.counters.malformed, open.counters.dropped), (1, 1, 0));
    let command = GuestCommand::Safe(SafeAction::OsInfo);
    let outcome = links.execute(guest.vm, CommandId::generate(), &command, DEADLINE).await.unwrap();
    assert!(matches!(outcome, CommandOutcome::Answered { success: true, .. }), "{outcome:?}");
}

#[tokio::test]
async fn a_message_behind_a_fragment_is_delivered() {
    let whole = r#"{"type":"metrics","timestamp":"2026-01-01T00:00:00Z","data":{"system":{"cpu":42}}}"#;
    let spoilt = format!("{{\"type\":\"metrics\",\"timest{whole}\n");
    let dir = tempfile::tempdir().unwrap();
    let guest = FakeGuest::listen(dir.path(), VmId::generate(), move |s, _| only(s, spoilt.clone().into()));
    let (links, mut inbox) = Links::new(AgentsConfig::default());
    links.open(guest.vm, guest.path.clone());
    let frame = tokio::time::timeout(DEADLINE, inbox.frames.recv()).await.expect("a frame in time");
    let Some(GuestFrame::Metrics { vm, system, .. }) = frame else { panic!("{frame:?}") };
    assert_eq!((vm, &*system.text), (guest.vm, r#"{"cpu":42}"#));
    let counters = eventually("it counts", || links.observe(guest.vm).open().map(|open| open.counters)).await;
    assert_eq!((counters.malformed, counters.frames), (1, 1));
}

#[tokio::test]
async fn text_that_a_database_cannot_keep_is_changed_on_the_way_in() {
    let lines = concat!(
        r#"{"type":"metrics","timestamp":"2026-01-01T00:00:00Z","data":{"system":{"a\u0000":"\u0000"}}}"#,
        "\n",
        r#"{"type":"error","error":"x\u0000\u001b[31m","details":{"y":"\u0000"}}"#,
        "\n"
    );
    let dir = tempfile::tempdir().unwrap();
    let guest = FakeGuest::listen(dir.path(), VmId::generate(), move |s, _| only(s, lines.into()));
    let (links, mut inbox) = Links::new(AgentsConfig::default());
    links.open(guest.vm, guest.path.clone());
    let mut next = async || {
        let frame = tokio::time::timeout(DEADLINE, inbox.frames.recv()).await.expect("a frame in time");
        frame.expect("the links live")
    };
    let GuestFrame::Metrics { system, .. } = next().await else { panic!("no reading") };
    assert_eq!(&*system.text, r#"{"a\u0000":"\u0000"}"#, "kept as bytes, which may hold anything");
    let GuestFrame::Error { error, details, .. } = next().await else { panic!("no error") };
    assert_eq!((error.as_str(), details), ("x[31m", serde_json::json!({"y": "\u{fffd}"})));
}
