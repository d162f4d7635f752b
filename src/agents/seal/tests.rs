use agent_protocol::SealOffer;

use super::*;

const KEY: [u8; 32] = [7; 32];

fn sealing(required: bool) -> Sealing {
    Sealing { key: SealKey::new(KEY), required }
}

/// A guest's line; its clock is years off.
fn message(offer: Option<&SealOffer>) -> String {
    serde_json::json!({ "type": "handshake", "timestamp": "2001-01-01T00:00:00Z", "seal": offer }).to_string()
}

fn greeting(offer: Option<&SealOffer>) -> GuestMessage {
    GuestMessage::decode(message(offer).as_bytes()).unwrap()
}

fn asking() -> SealOffer {
    SealOffer { challenge: Some(Uuid::new_v4().to_string()), answers: None }
}

fn envelope(line: &[u8]) -> Signed {
    match GuestMessage::decode(line.strip_suffix(b"\n").unwrap()).unwrap() {
        GuestMessage::Signed(envelope) => envelope,
        other => panic!("{other:?}"),
    }
}

fn sealed(key: [u8; 32], ts: i64, payload: &str) -> Signed {
    envelope(&agent_protocol::seal(&SealKey::new(key), ts, Uuid::new_v4(), payload).unwrap())
}

/// The agent's answer to what we wrote.
fn answer_to(line: &[u8]) -> String {
    let opening = envelope(line);
    verify(&SealKey::new(KEY), &opening).unwrap();
    let HostMessage::Seal { challenge, .. } = serde_json::from_str(&opening.payload).unwrap() else {
        panic!()
    };
    message(Some(&SealOffer { challenge: None, answers: Some(challenge) }))
}

const TS: i64 = 1_000_000_000_000;

fn open(sealing: &Sealing, now: Instant) -> Seal<'_> {
    let mut seal = Seal::new(Some(sealing), now);
    seal.bare(&greeting(Some(&asking())), now);
    let line = seal.next_line(now).unwrap();
    let opened = seal.open(sealed(KEY, TS, &answer_to(&line)), now, &mut LinkCounters::default());
    assert!(opened.unwrap().opens && seal.told() == LinkSeal::Sealed && seal.is_ready());
    seal
}

/// What was counted for an envelope that was refused.
fn counted(seal: &mut Seal<'_>, envelope: Signed, now: Instant) -> LinkCounters {
    let mut counters = LinkCounters::default();
    assert_eq!(seal.open(envelope, now, &mut counters), None);
    counters
}

#[tokio::test]
async fn a_vm_without_a_key_is_served_as_ever() {
    let now = Instant::now();
    for (policy, key) in [(SealPolicy::Require, None), (SealPolicy::Off, Some(SealKey::new(KEY)))] {
        let sealing = Sealing::of(policy, key);
        let mut seal = Seal::new(sealing.as_ref(), now);
        assert_eq!(seal.bare(&greeting(Some(&asking())), now), Bare::Taken);
        assert_eq!(seal.bare(&GuestMessage::Ping, now), Bare::Taken);
        assert_eq!((seal.told(), seal.is_ready(), seal.next_line(now)), (LinkSeal::Unused, true, None));
        assert!(!seal.is_refused(now + PATIENCE * 9));
        assert_eq!(counted(&mut seal, sealed(KEY, TS, "{}"), now).sealed, 1);
        assert_eq!(seal.wrap(b"x\n".to_vec()).unwrap(), b"x\n");
    }
}

#[tokio::test]
async fn what_opened_the_exchange_and_what_follows_counts_once() {
    let (sealing, now) = (sealing(false), Instant::now());
    let mut seal = open(&sealing, now);
    let ping = sealed(KEY, TS + 1, r#"{"type":"ping"}"#);
    let opened = seal.open(ping.clone(), now, &mut LinkCounters::default()).unwrap();
    assert_eq!(opened, Opened { payload: r#"{"type":"ping"}"#.to_owned(), opens: false });
    assert_eq!(counted(&mut seal, ping.clone(), now).replayed, 1);
    let changed = Signed { payload: r#"{"type":"pong"}"#.to_owned(), ..ping.clone() };
    assert_eq!(counted(&mut seal, changed, now).bad_seal, 1);
    assert_eq!(counted(&mut seal, sealed([8; 32], TS + 1, "{}"), now).bad_seal, 1);
    assert!(seal.next_line(now).is_none(), "who has no key makes us write nothing");
    assert_eq!(counted(&mut seal, sealed(KEY, TS - 1, "{}"), now).stale, 1);
    assert_eq!(counted(&mut seal, sealed(KEY, TS + 3_600_000, "{}"), now).stale, 1);
    assert_eq!(seal.next_line(now).unwrap(), HostMessage::Metrics.encode(), "its clock was set: greet anew");
    assert_eq!(counted(&mut seal, sealed(KEY, TS + 3_600_000, "{}"), now).stale, 1);
    assert!(seal.next_line(now).is_none(), "not all the time");
    assert_eq!(seal.bare(&GuestMessage::Ping, now), Bare::Refused);
    // Over the next connection, what was recorded of this one is of no use.
    let mut next = Seal::new(Some(&sealing), now);
    assert_eq!(counted(&mut next, ping, now).stale, 1);
    let line = seal.wrap(b"{\"type\":\"Metrics\"}\n".to_vec()).unwrap();
    assert_eq!(envelope(&line).payload, r#"{"type":"Metrics"}"#);
}

#[tokio::test]
async fn only_the_answer_to_the_very_question_opens() {
    let (sealing, now) = (sealing(true), Instant::now());
    let mut seal = Seal::new(Some(&sealing), now);
    assert_eq!(seal.bare(&greeting(Some(&asking())), now), Bare::Noted);
    let recorded = sealed(KEY, TS, &answer_to(&seal.next_line(now).unwrap()));
    // Asked anew, before it answered.
    assert_eq!(seal.bare(&greeting(Some(&asking())), now), Bare::Noted);
    assert!(!seal.is_ready());
    let line = seal.next_line(now).unwrap();
    for payload in [recorded, sealed(KEY, TS, &message(None)), sealed(KEY, TS, r#"{"type":"ping"}"#)] {
        assert_eq!(counted(&mut seal, payload, now).stale, 1);
    }
    assert_eq!(seal.told(), LinkSeal::Unsealed);
    assert!(seal.open(sealed(KEY, TS, &answer_to(&line)), now, &mut LinkCounters::default()).unwrap().opens);
}

#[tokio::test]
async fn an_agent_that_speaks_without_is_heard_or_refused_by_the_policy() {
    let now = Instant::now();
    let accepted = sealing(false);
    let mut seal = Seal::new(Some(&accepted), now);
    for message in [greeting(None), GuestMessage::Ping, greeting(Some(&SealOffer::default()))] {
        assert_eq!(seal.bare(&message, now), Bare::Taken);
    }
    assert!(seal.is_ready() && !seal.is_refused(now + PATIENCE * 9));
    assert_eq!(seal.told(), LinkSeal::Unsealed);

    let required = sealing(true);
    // The announcement was stripped from it.
    let mut seal = Seal::new(Some(&required), now);
    assert_eq!(seal.bare(&greeting(None), now), Bare::Refused);
    assert!(seal.is_refused(now) && seal.told() == LinkSeal::Refused && !seal.is_ready());
    // It never greets.
    let mut seal = Seal::new(Some(&required), now);
    assert_eq!(seal.bare(&GuestMessage::Ping, now), Bare::Refused);
    assert_eq!(seal.next_line(now).unwrap(), HostMessage::Metrics.encode(), "it may have greeted before");
    assert_eq!(seal.bare(&GuestMessage::Ping, now), Bare::Refused);
    assert!(!seal.is_refused(now) && !seal.is_ready());
    assert_eq!(seal.next_look(), Some(now + PATIENCE));
    assert!(seal.is_refused(now + PATIENCE));
}

#[tokio::test]
async fn an_agent_with_another_key_gets_its_time_and_no_more() {
    let now = Instant::now();
    for (required, verdict) in [(false, LinkSeal::Unsealed), (true, LinkSeal::Refused)] {
        let sealing = sealing(required);
        let mut seal = Seal::new(Some(&sealing), now);
        seal.bare(&greeting(Some(&asking())), now);
        assert!(!seal.is_ready(), "commands wait");
        assert_eq!(counted(&mut seal, sealed([8; 32], TS, "{}"), now).bad_seal, 1);
        assert_eq!(seal.is_refused(now + PATIENCE), required);
        assert_eq!((seal.told(), seal.is_ready()), (verdict, !required));
    }
}

#[tokio::test]
async fn an_agent_that_was_restarted_opens_the_exchange_anew() {
    let (sealing, now) = (sealing(true), Instant::now());
    let mut seal = open(&sealing, now);
    assert_eq!(seal.bare(&greeting(Some(&asking())), now), Bare::Noted);
    assert!(!seal.is_ready() && seal.told() == LinkSeal::Unsealed);
    let line = seal.next_line(now).unwrap();
    // Since its own clock goes on from elsewhere, too.
    seal.open(sealed(KEY, TS - 9_999_999, &answer_to(&line)), now, &mut LinkCounters::default()).unwrap();
    assert!(seal.is_ready());
    // One that lost its key is not taken for it.
    assert_eq!(seal.bare(&greeting(None), now), Bare::Refused);
    assert!(seal.is_refused(now));
}
