use proptest::prelude::*;

use super::*;
use crate::{GuestMessage, HostMessage};

const NOW: i64 = 1_790_000_000_000;

fn key() -> SealKey {
    SealKey::new(std::array::from_fn(|at| u8::try_from(at).unwrap()))
}

fn nonce() -> Uuid {
    "550e8400-e29b-41d4-a716-446655440000".parse().unwrap()
}

/// As the other end reads it.
fn read(line: &[u8]) -> Signed {
    match GuestMessage::decode(line.strip_suffix(b"\n").unwrap()).unwrap() {
        GuestMessage::Signed(envelope) => envelope,
        other => panic!("{other:?}"),
    }
}

/// Made by another implementation (Python's `hmac`), under the key 00 01 02 … 1f.
#[test]
fn known_answers() {
    for (ts, payload, sig) in [
        (NOW, r#"{"type":"Metrics"}"#, "771aef33e405b330e06cf026d3dc7f3e1ca43fb2442356208f945f1b0c11dbda"),
        (0, "", "e3324eb8d90f529df1857429342e689c01bde893119b64dd5205561dc51eee98"),
        (
            -1,
            "{\"id\":\"7\",\"stdout\":\"a\\n\\\"\\\\é\"}",
            "03dc74909e86f6b9d2046b8b0438d1e5f020a41b5f8330bf9070e2ad3fa5447d",
        ),
    ] {
        let envelope = read(&seal(&key(), ts, nonce(), payload).unwrap());
        assert_eq!((envelope.v, envelope.ts, envelope.payload.as_str()), (1, ts, payload));
        assert_eq!((envelope.nonce, envelope.sig.as_str()), (nonce().to_string(), sig));
    }
}

#[test]
fn whatever_is_changed_breaks_the_seal() {
    let whole = read(&seal(&key(), NOW, nonce(), r#"{"type":"Metrics"}"#).unwrap());
    assert_eq!(verify(&key(), &whole), Ok(nonce()));
    let upper = Signed { sig: whole.sig.to_uppercase(), ..whole.clone() };
    assert_eq!(verify(&key(), &upper), Ok(nonce()), "digits of either case");
    type Change = fn(&mut Signed);
    let changed: [(&str, Change); 10] = [
        ("another version", |it| it.v = 2),
        ("another time", |it| it.ts += 1),
        ("another nonce", |it| it.nonce.replace_range(..1, "6")),
        ("the nonce in other letters", |it| it.nonce = it.nonce.to_uppercase()),
        ("no nonce", |it| it.nonce.clear()),
        ("another payload", |it| it.payload.push(' ')),
        ("no payload", |it| it.payload.clear()),
        ("another signature", |it| it.sig.replace_range(63.., if it.sig.ends_with('0') { "1" } else { "0" })),
        ("a part of the signature", |it| it.sig.truncate(62)),
        ("no hexadecimal", |it| it.sig.replace_range(..2, "zz")),
    ];
    for (what, change) in changed {
        let mut envelope = whole.clone();
        change(&mut envelope);
        assert_eq!(verify(&key(), &envelope), Err(SealError::BadSeal), "{what}");
    }
    assert_eq!(verify(&SealKey::new([7; 32]), &whole), Err(SealError::BadSeal), "another key");
    // The line feeds between the parts leave no way to move a boundary.
    let shifted =
        Signed { nonce: format!("{}\n{}", whole.nonce, whole.payload), payload: String::new(), ..whole };
    assert_eq!(verify(&key(), &shifted), Err(SealError::BadSeal), "a moved boundary");
}

#[test]
fn the_window_is_five_minutes_around_the_others_clock() {
    let guest = NOW - 86_400_000;
    let id = |n: u128| Uuid::from_u128(n);
    // (our time, its time, verdict) one after the other; the guest is a day behind.
    let mut window = SealWindow::begin(NOW, guest, nonce());
    assert_eq!(window.offset(), -86_400_000);
    let table = [
        (0, 0, 1, Ok(())),
        (10, -1, 2, Err(SealError::Stale)),
        (1_000, 1_000 + SEAL_WINDOW_MS, 3, Ok(())),
        (1_000, 1_001 + SEAL_WINDOW_MS, 4, Err(SealError::Stale)),
        (1_000, 86_400_000, 5, Err(SealError::Stale)),
        (400_000, 100_000, 6, Ok(())),
        (400_000, 99_999, 7, Err(SealError::Stale)),
        (400_000, 100_000, 6, Err(SealError::Replayed)),
        (400_000, 100_000, 8, Ok(())),
    ];
    for (row, (later, ts, n, verdict)) in table.into_iter().enumerate() {
        assert_eq!(window.admit(NOW + later, guest + ts, id(n)), verdict, "row {row}");
    }
    assert_eq!(window.admit(NOW, guest, nonce()), Err(SealError::Stale), "what opened it, later");
    let mut window = SealWindow::begin(NOW, guest, nonce());
    assert_eq!(window.admit(NOW, guest, nonce()), Err(SealError::Replayed), "what opened it, at once");
    for ts in [i64::MIN, i64::MAX] {
        assert_eq!(window.admit(NOW, ts, id(9)), Err(SealError::Stale));
        assert_eq!(SealWindow::begin(NOW, ts, id(9)).admit(i64::MIN, NOW, id(1)), Err(SealError::Stale));
    }
}

#[test]
fn no_secret_is_shown() {
    let secret = hex(key().expose());
    let told = format!("{:?} {:?} {}", key(), Some(key()), SealError::BadSeal);
    assert!(!told.contains(&secret) && !told.contains("31, ") && told.contains("***"), "{told}");
}

#[test]
fn a_key_travels_as_a_file_with_the_machine_that_it_is_for() {
    let file = key().file(nonce());
    assert_eq!(SealKey::of_file(&file), Some((nonce(), key())));
    for bad in ["", "\n", "key", &file[..file.len() - 2], &file.replace(' ', "\t"), &file.replace("1f", "1g")]
    {
        assert_eq!(SealKey::of_file(bad), None, "{bad:?}");
    }
    assert_eq!(SealKey::of(key().expose()), Some(key()));
    assert_eq!(SealKey::of(&[0; 31]), None);
}

/// Both ends have one key: what one wrote must mean nothing when it is sent back to it.
#[test]
fn no_message_means_anything_to_the_end_that_wrote_it() {
    let host = [
        HostMessage::Metrics,
        HostMessage::Seal { challenge: nonce().to_string(), answers: nonce().to_string() },
        HostMessage::KeepAliveResponse { sequence_number: 1, timestamp: chrono::DateTime::UNIX_EPOCH },
        HostMessage::UnsafeCommand {
            id: "1".into(),
            raw_command: "true".into(),
            shell: None,
            timeout: Some(1),
            working_dir: None,
            env_vars: None,
        },
    ];
    for message in host {
        let line = message.encode();
        let back = GuestMessage::decode(line.strip_suffix(b"\n").unwrap());
        assert!(matches!(back, Ok(GuestMessage::Unknown { .. })), "{message:?} came back as {back:?}");
    }
    for guest in [
        r#"{"type":"handshake","timestamp":"2026-11-03T10:00:00Z"}"#,
        r#"{"type":"metrics","timestamp":"2026-11-03T10:00:00Z","data":{"system":{}}}"#,
        r#"{"type":"response","id":"7","success":true}"#,
        r#"{"id":"7","success":true}"#,
        r#"{"type":"keep_alive","sequence_number":1,"timestamp":0}"#,
    ] {
        assert!(serde_json::from_str::<HostMessage>(guest).is_err(), "{guest}");
    }
}

#[test]
fn a_sealed_line_is_bounded_before_it_is_made() {
    let most = MAX_FRAME_BYTES - SEAL_OVERHEAD_BYTES;
    let line = seal(&key(), i64::MIN, nonce(), &"x".repeat(most)).unwrap();
    assert!(line.len() <= MAX_FRAME_BYTES + 1, "{} bytes", line.len());
    for payload in ["x".repeat(most + 1), "\"".repeat(most / 2 + 1)] {
        assert!(seal(&key(), 0, nonce(), &payload).unwrap_err().bytes > MAX_FRAME_BYTES);
    }
}

proptest! {
    #[test]
    fn what_is_sealed_is_read_back_and_its_length_was_known(
        bytes in any::<[u8; 32]>(),
        ts in any::<i64>(),
        nonce in any::<u128>(),
        payload in "\\PC{0,60}|[\u{0}-\u{ff}]{0,40}",
    ) {
        let (key, nonce) = (SealKey::new(bytes), Uuid::from_u128(nonce));
        let line = seal(&key, ts, nonce, &payload).unwrap();
        prop_assert_eq!(line.iter().filter(|&&b| b == b'\n').count(), 1);
        let envelope = read(&line);
        prop_assert_eq!(&envelope.payload, &payload);
        prop_assert_eq!(verify(&key, &envelope), Ok(nonce));
        let escapes = line.len() - payload.len();
        prop_assert!(line.len() <= sealed_bytes(&payload) + 1, "{escapes}");
        prop_assert!(sealed_bytes(&payload) < line.len() + 40, "it is reckoned with hardly more than it takes");
    }

    #[test]
    fn a_payload_of_json_at_most_doubles(text in "\\PC{0,60}|[\u{0}-\u{ff}]{0,40}") {
        let payload = serde_json::json!({ "stdout": text }).to_string();
        prop_assert!(sealed_bytes(&payload) <= 2 * payload.len() + SEAL_OVERHEAD_BYTES);
    }

    /// Whatever is sent, in whatever order: nothing is admitted twice, nothing outside of the window is,
    /// and little is remembered.
    #[test]
    fn nothing_is_admitted_twice_or_out_of_time(
        skew in -SEAL_WINDOW_MS * 1000..SEAL_WINDOW_MS * 1000,
        sent in proptest::collection::vec((0i64..2000, -SEAL_WINDOW_MS * 2..SEAL_WINDOW_MS * 2, 0u128..40), 0..1500),
    ) {
        let mut window = SealWindow::begin(NOW, NOW + skew, Uuid::nil());
        let mut admitted = std::collections::HashSet::new();
        let mut now = NOW;
        for (passes, off, nonce) in sent {
            now += passes;
            let ts = now + skew + off;
            let id = Uuid::from_u128(nonce);
            if window.admit(now, ts, id).is_ok() {
                prop_assert!(admitted.insert((ts, id)), "admitted twice");
                prop_assert!(off.abs() <= SEAL_WINDOW_MS && ts >= NOW + skew);
            }
            prop_assert!(window.seen.len() <= SEAL_MEMORY);
        }
    }

    /// An honest end is admitted always: its messages come in order, however many.
    #[test]
    fn who_speaks_in_order_is_heard(count in 1usize..2000, step in 0i64..3) {
        let mut window = SealWindow::begin(NOW, NOW, Uuid::nil());
        for n in 1..=count {
            let at = NOW + i64::try_from(n).unwrap() * step;
            let verdict = window.admit(at, at, Uuid::from_u128(n as u128));
            // More than are remembered, all of one millisecond.
            let too_many = step == 0 && n >= SEAL_MEMORY;
            prop_assert!(verdict.is_ok() || too_many, "{n}: {verdict:?}");
        }
    }
}
