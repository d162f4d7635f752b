use super::*;

const KEY: [u8; 32] = [7; 32];

/// The host's side of an exchange with an agent under test.
struct Host {
    key: SealKey,
    ts: i64,
}

impl Host {
    fn sealed(&self, message: &HostMessage) -> Vec<u8> {
        let line = message.encode();
        let payload = std::str::from_utf8(line.strip_suffix(b"\n").unwrap()).unwrap();
        let mut sealed = seal(&self.key, self.ts, Uuid::new_v4(), payload).unwrap();
        sealed.pop();
        sealed
    }

    fn opening(&self, asked: &SealOffer) -> Vec<u8> {
        let answers = asked.challenge.clone().unwrap();
        self.sealed(&HostMessage::Seal { challenge: "host".into(), answers })
    }
}

fn command() -> HostMessage {
    HostMessage::UnsafeCommand {
        id: "1".into(),
        raw_command: "true".into(),
        shell: None,
        timeout: Some(1),
        working_dir: None,
        env_vars: None,
    }
}

fn bare(message: &HostMessage) -> Vec<u8> {
    let mut line = message.encode();
    line.pop();
    line
}

/// An agent with a key, a host with the same, and the exchange open.
fn open(demanded: bool) -> (Seal, Host, Instant) {
    let now = Instant::now();
    let mut agent = Seal::with(Some(SealKey::new(KEY)), demanded, now);
    // The host's clock is years off.
    let host = Host { key: SealKey::new(KEY), ts: 1_000_000_000_000 };
    let asked = agent.ask(now).unwrap();
    let opened = agent.take(host.opening(&asked), now);
    assert_eq!(opened, Taken::Opened(SealOffer { challenge: None, answers: Some("host".into()) }));
    (agent, host, now)
}

fn refused(taken: Taken) -> Refusal {
    match taken {
        Taken::Refused(why, _) => why,
        other => panic!("not refused: {other:?}"),
    }
}

#[test]
fn without_a_key_nothing_changes() {
    let mut agent = Seal::with(None, true, Instant::now());
    assert_eq!(agent.ask(Instant::now()), None);
    assert_eq!(agent.take(bare(&command()), Instant::now()), Taken::Line(bare(&command())));
    assert!(agent.wrap(b"x\n").is_none() && agent.holds_until().is_none());
}

#[test]
fn who_answered_the_question_is_obeyed_once_for_each_envelope() {
    let (mut agent, host, now) = open(false);
    let line = host.sealed(&command());
    assert_eq!(agent.take(line.clone(), now), Taken::Line(bare(&command())));
    assert_eq!(refused(agent.take(line.clone(), now)), Refusal::Seal(SealError::Replayed));
    let tampered = String::from_utf8(host.sealed(&command())).unwrap().replace("true", "tree").into_bytes();
    assert_eq!(refused(agent.take(tampered, now)), Refusal::Seal(SealError::BadSeal));
    let earlier = Host { ts: host.ts - 1, key: host.key.clone() };
    assert_eq!(refused(agent.take(earlier.sealed(&command()), now)), Refusal::Seal(SealError::Stale));
    assert_eq!(refused(agent.take(bare(&command()), now)), Refusal::Unsealed);
    let stranger = Host { key: SealKey::new([8; 32]), ts: host.ts };
    assert_eq!(refused(agent.take(stranger.sealed(&command()), now)), Refusal::Seal(SealError::BadSeal));
    // What was sent before the host end went is of no use afterwards, although its time is right.
    agent.hung_up();
    let asked = agent.ask(now).unwrap();
    assert_eq!(refused(agent.take(host.sealed(&command()), now)), Refusal::Seal(SealError::Stale));
    let later = Host { ts: host.ts + 1000, key: host.key.clone() };
    assert!(matches!(agent.take(later.opening(&asked), now), Taken::Opened(_)));
    assert_eq!(refused(agent.take(line, now)), Refusal::Seal(SealError::Stale));
}

#[test]
fn only_the_answer_to_the_very_question_opens() {
    let now = Instant::now();
    let mut agent = Seal::with(Some(SealKey::new(KEY)), false, now);
    let host = Host { key: SealKey::new(KEY), ts: 5 };
    let first = agent.ask(now).unwrap();
    assert_eq!(agent.ask(now).unwrap(), first, "asked again");
    let recorded = host.opening(&first);
    assert!(matches!(agent.take(recorded.clone(), now), Taken::Opened(_)));
    assert_eq!(refused(agent.take(recorded.clone(), now)), Refusal::Seal(SealError::Replayed));
    agent.hung_up();
    assert_ne!(agent.ask(now).unwrap(), first);
    assert_eq!(refused(agent.take(recorded, now)), Refusal::Seal(SealError::Stale));
}

#[test]
fn bare_commands_count_until_the_exchange_is_open_and_never_where_it_is_demanded() {
    let now = Instant::now();
    for (demanded, obeyed) in [(false, true), (true, false)] {
        let mut agent = Seal::with(Some(SealKey::new(KEY)), demanded, now);
        agent.ask(now).unwrap();
        let keep_alive =
            HostMessage::KeepAliveResponse { sequence_number: 1, timestamp: chrono::DateTime::UNIX_EPOCH };
        agent.take(bare(&keep_alive), now);
        assert_eq!(agent.holds_until(), Some(now + PATIENCE));
        assert_eq!(matches!(agent.take(bare(&command()), now), Taken::Line(_)), obeyed);
        assert_eq!(agent.holds_until(), Some(now), "it does not seal: answers need not wait");
        // Anybody may ask for a greeting.
        assert!(matches!(agent.take(bare(&HostMessage::Metrics), now), Taken::Line(_)));
    }
    // One that has just come is greeted anew, and has to open the exchange again.
    let (mut agent, host, now) = open(true);
    assert!(matches!(agent.take(bare(&HostMessage::Metrics), now), Taken::Line(_)));
    let asked = agent.offer(now).unwrap();
    assert!(asked.challenge.is_some());
    assert_eq!(refused(agent.take(bare(&command()), now)), Refusal::Unsealed);
    assert!(matches!(agent.take(host.opening(&asked), now), Taken::Opened(_)));
    assert_eq!(agent.offer(now), Some(SealOffer::default()), "news ask nothing");
}

#[test]
fn a_clock_that_was_set_is_asked_for_anew_but_not_all_the_time() {
    let (mut agent, host, now) = open(false);
    let set = Host { ts: host.ts + 3_600_000, key: host.key };
    let why = refused(agent.take(set.sealed(&command()), now));
    assert_eq!(why, Refusal::Seal(SealError::Stale));
    assert!(agent.should_ask(why, now) && !agent.should_ask(why, now));
    assert!(agent.should_ask(why, now + ASK_INTERVAL));
    assert!(!agent.should_ask(Refusal::Seal(SealError::BadSeal), now + ASK_INTERVAL * 2));
    let asked = agent.ask(now).unwrap();
    assert!(matches!(agent.take(set.opening(&asked), now), Taken::Opened(_)));
    assert_eq!(agent.take(set.sealed(&command()), now), Taken::Line(bare(&command())));
}

#[test]
fn what_goes_out_is_sealed_once_the_exchange_is_open() {
    let (agent, host, _) = open(false);
    let line = agent.wrap(b"{\"id\":\"1\"}\n").unwrap().unwrap();
    let envelope = envelope(line.strip_suffix(b"\n").unwrap()).unwrap();
    assert_eq!(envelope.payload, "{\"id\":\"1\"}");
    verify(&host.key, &envelope).unwrap();
    assert!(agent.wrap(b"\n").is_none(), "an empty line ends what stood before it");
}

#[test]
fn the_key_is_read_from_a_file_that_is_ours_alone_and_this_machines() {
    use std::os::unix::fs::PermissionsExt as _;
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("seal.key");
    let machine: Uuid = settings::machine_uuid().map_or_else(Uuid::new_v4, |id| id.parse().unwrap());
    let (mut settings, _) = Settings::from_environment();
    settings.vm_id = Some(machine.to_string());
    settings.seal_key.clone_from(&path);
    let put = |text: &str, mode| {
        std::fs::write(&path, text).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).unwrap();
    };
    assert_eq!(read_key(&settings), None, "there is none");
    let file = SealKey::new(KEY).file(machine);
    put(&file, 0o600);
    assert_eq!(read_key(&settings), Some(SealKey::new(KEY)));
    put(&file, 0o640);
    assert_eq!(read_key(&settings), None, "others can read it");
    put(&SealKey::new(KEY).file(Uuid::new_v4()), 0o600);
    assert_eq!(read_key(&settings), None, "a copied disk's");
    put("rubbish", 0o600);
    assert_eq!(read_key(&settings), None);
    put(&file, 0o600);
    settings.seal = SealMode::Off;
    assert!(!Seal::new(&settings, Instant::now()).has_key());
}
