//! Each kind of guest does what it says, as its client sees it.
#![allow(clippy::unwrap_used, reason = "a broken expectation ends the test")]

use std::{
    path::PathBuf,
    time::{Duration, Instant},
};

use agent_protocol::{FrameDecoder, GuestMessage, salvage};
use fleet::{Fleet, Frames, GuestPlan, Kind, Lie, Plan, Report};
use tempfile::TempDir;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::UnixStream,
    time::timeout,
};
use uuid::Uuid;

const DEADLINE: Duration = Duration::from_secs(20);

struct Scene {
    dir: TempDir,
    fleet: Fleet,
    vm: Uuid,
}

impl Scene {
    fn with(shape: impl FnOnce(GuestPlan) -> GuestPlan, kind: Kind, interval: Duration) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let vm = Uuid::new_v4();
        let guests = vec![shape(GuestPlan::new(vm, kind, interval, 7))];
        let fleet = Fleet::start(dir.path(), Plan { guests }).unwrap();
        Self { dir, fleet, vm }
    }

    fn of(kind: Kind, interval_ms: u64) -> Self {
        Self::with(|plan| plan, kind, Duration::from_millis(interval_ms))
    }

    fn path(&self) -> PathBuf {
        self.dir.path().join(format!("vm-{}.sock", self.vm))
    }

    async fn client(&self) -> Client {
        let stream = UnixStream::connect(self.path()).await.unwrap();
        Client { stream, decoder: FrameDecoder::new(1 << 20) }
    }

    fn report(&self) -> Report {
        self.fleet.report(self.vm).unwrap()
    }

    async fn reported(&self, what: &str, is: impl Fn(&Report) -> bool) -> Report {
        let begun = Instant::now();
        loop {
            let report = self.report();
            if is(&report) {
                return report;
            }
            assert!(begun.elapsed() < DEADLINE, "not in time: {what}; {report:?}");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }
}

struct Client {
    stream: UnixStream,
    decoder: FrameDecoder,
}

impl Client {
    async fn say(&mut self, line: &str) {
        self.stream.write_all(format!("{line}\n").as_bytes()).await.unwrap();
    }

    /// The next line; `None` where the guest hung up.
    async fn line(&mut self) -> Option<Vec<u8>> {
        let next = async {
            loop {
                if let Some(line) = self.decoder.next_frame() {
                    return Some(line.unwrap_or_default());
                }
                let mut buffer = [0; 65_536];
                match self.stream.read(&mut buffer).await {
                    Ok(0) | Err(_) => return None,
                    Ok(read) => self.decoder.push(&buffer[..read]),
                }
            }
        };
        timeout(DEADLINE, next).await.expect("a line in time")
    }

    async fn message(&mut self) -> GuestMessage {
        GuestMessage::decode(&self.line().await.unwrap()).unwrap()
    }

    async fn reading(&mut self) -> bool {
        matches!(self.message().await, GuestMessage::Metrics(_))
    }

    async fn greeted(&mut self) {
        let GuestMessage::Handshake(greeting) = self.message().await else { panic!("no greeting") };
        assert_eq!(greeting.max_concurrent_commands, Some(4));
    }

    /// The answer to a shell line, whatever comes before it.
    async fn answer(&mut self, id: &str, shell: &str) -> agent_protocol::Answer {
        self.say(&format!(r#"{{"type":"UnsafeCommand","id":"{id}","raw_command":"{shell}"}}"#)).await;
        loop {
            let line = self.line().await.unwrap();
            let message = GuestMessage::decode(&line).ok().or_else(|| salvage(&line, 1 << 20));
            if let Some(GuestMessage::Answer(answer)) = message {
                return answer;
            }
        }
    }
}

#[tokio::test]
async fn a_well_behaved_one_greets_reads_lines_and_answers() {
    let scene = Scene::of(Kind::WellBehaved, 10);
    let mut client = scene.client().await;
    client.greeted().await;
    assert!(client.reading().await && client.reading().await);
    // Two in one write, and one in two.
    let two = r#"{"type":"SafeCommand","id":"a","command_type":{"action":"OsInfo"}}
{"type":"Metrics"}"#;
    client.say(two).await;
    client.stream.write_all(br#"{"type":"UnsafeComm"#).await.unwrap();
    client.say(r#"and","id":"b","raw_command":"sleep 30"}"#).await;
    let mut answered = Vec::new();
    while answered.len() < 2 {
        if let GuestMessage::Answer(answer) = client.message().await {
            assert!(answer.success && answer.timestamp.is_some());
            answered.push((answer.id, answer.stdout));
        }
    }
    assert_eq!(answered, [("a".into(), "OsInfo".into()), ("b".into(), "sleep 30".into())]);
    let report = scene.report();
    assert_eq!((report.commands_received, report.commands_answered, report.connections), (2, 2, 1));
    assert!(report.frames_sent >= 3 && report.connected);
}

#[tokio::test]
async fn signs_of_life_come_at_their_interval() {
    let every = Some(Duration::from_millis(5));
    let scene = Scene::with(
        |plan| GuestPlan { keep_alive: every, ..plan },
        Kind::WellBehaved,
        Duration::from_secs(3600),
    );
    let mut client = scene.client().await;
    client.greeted().await;
    for number in 0..3 {
        let GuestMessage::KeepAlive(sign) = client.message().await else { panic!("no sign of life") };
        assert_eq!(sign.sequence_number, number);
    }
}

#[tokio::test]
async fn as_many_readings_as_asked_for_come_in_order_over_several_clients() {
    const ALL: usize = 500;
    let scene = Scene::with(|plan| plan.sending(ALL as u64), Kind::WellBehaved, Duration::ZERO);
    // As a tree: the client has read the line into one, which does not keep the order of its fields.
    let text = |line: &[u8]| match GuestMessage::decode(line) {
        Ok(GuestMessage::Metrics(metrics)) => {
            serde_json::from_str::<serde_json::Value>(&metrics.system.text).unwrap()
        }
        other => panic!("no reading: {other:?}"),
    };
    let frames: Vec<_> =
        Frames::render(7, ALL).iter().map(|frame| text(&frame.at(chrono::Utc::now()))).collect();

    let mut first = scene.client().await;
    first.greeted().await;
    for frame in &frames[..100] {
        assert_eq!(text(&first.line().await.unwrap()), *frame);
    }
    drop(first);
    // What the socket took and the first did not read is lost, as in a real channel; nothing else.
    let mut second = scene.client().await;
    second.greeted().await;
    let next = text(&second.line().await.unwrap());
    let from = frames.iter().position(|frame| *frame == next).unwrap();
    assert!((100..250).contains(&from), "{from}");
    for frame in &frames[from + 1..] {
        assert_eq!(text(&second.line().await.unwrap()), *frame);
    }
    let report = scene.reported("all are sent", |report| report.frames_sent == ALL as u64).await;
    assert_eq!(report.connections, 2);
    // It goes on answering.
    assert_eq!(second.answer("a", "x").await.id, "a");
}

#[tokio::test]
async fn a_second_client_is_heard_when_the_first_has_left() {
    let scene = Scene::of(Kind::WellBehaved, 3_600_000);
    let mut first = scene.client().await;
    first.greeted().await;
    let mut second = scene.client().await;
    second.say(r#"{"type":"UnsafeCommand","id":"early","raw_command":"x"}"#).await;
    // The first is served meanwhile, and the second is not.
    assert_eq!(first.answer("mine", "x").await.id, "mine");
    assert_eq!((scene.report().commands_received, scene.report().connections), (1, 1));
    assert!(second.stream.try_read(&mut [0; 16]).is_err(), "nothing is said to it yet");
    drop(first);
    second.greeted().await;
    let GuestMessage::Answer(answer) = second.message().await else { panic!("no answer") };
    assert_eq!(answer.id, "early");
}

#[tokio::test]
async fn readings_of_a_time_without_clients_are_kept_within_a_bound() {
    let scene = Scene::of(Kind::WellBehaved, 2);
    let begun = Instant::now();
    while begun.elapsed() < Duration::from_millis(100) {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    let mut client = scene.client().await;
    client.greeted().await;
    assert!(client.reading().await);
    let report = scene.reported("those kept are sent", |report| report.frames_sent >= 8).await;
    assert!(report.frames_given_up >= 30, "{report:?}");
}

#[tokio::test]
async fn a_quirky_one_keeps_the_first_line_of_what_it_reads_and_knows_few_actions() {
    let scene = Scene::of(Kind::Quirky, 3_600_000);
    let mut client = scene.client().await;
    assert!(client.reading().await && client.reading().await, "at its start, and no greeting");
    client
        .say(r#"{"type":"SafeCommand","id":"unknown","command_type":{"action":"CheckWindowsDefender"}}"#)
        .await;
    scene.reported("it is read", |report| report.commands_received == 1).await;
    let both = r#"{"type":"UnsafeCommand","id":"one","raw_command":"x"}
{"type":"UnsafeCommand","id":"two","raw_command":"y"}"#;
    client.say(both).await;
    let answer = client.answer("three", "z").await;
    assert!(answer.timestamp.is_none(), "bare");
    // The third may stand in the same read.
    scene.reported("an answer is sent", |report| report.commands_answered >= 1).await;
    assert!(["one", "three"].contains(&answer.id.as_str()), "{answer:?}");
    assert!(scene.report().commands_received <= 3, "{:?}", scene.report());
}

#[tokio::test]
async fn a_fragment_is_followed_by_the_whole_on_its_line() {
    let scene = Scene::of(Kind::Quirky, 5);
    let mut client = scene.client().await;
    loop {
        let line = client.line().await.unwrap();
        if GuestMessage::decode(&line).is_err() {
            assert!(matches!(salvage(&line, 1 << 20), Some(GuestMessage::Metrics(_))));
            break;
        }
    }
}

#[tokio::test]
async fn a_flooding_one_never_rests_and_answers() {
    let scene = Scene::of(Kind::Flooding, 30_000);
    let mut client = scene.client().await;
    client.greeted().await;
    for _ in 0..2_000 {
        assert!(client.reading().await);
    }
    assert_eq!(client.answer("a", "x").await.id, "a");
    assert!(scene.report().frames_sent > 2_000);
}

#[tokio::test]
async fn a_slow_one_drips_and_then_never_ends_its_line() {
    let scene = Scene::of(Kind::SlowDripping, 1000);
    let mut client = scene.client().await;
    let begun = Instant::now();
    assert!(client.reading().await && client.reading().await);
    assert!(begun.elapsed() > Duration::from_millis(1900), "{:?}", begun.elapsed());
    let report = scene.reported("the endless line is long", |report| report.bytes_sent > 1 << 20);
    let read = async {
        let mut buffer = vec![0; 65_536];
        loop {
            let read = client.stream.read(&mut buffer).await.unwrap();
            assert!(read > 0 && !buffer[..read].contains(&b'\n'));
        }
    };
    tokio::select! {
        report = report => assert_eq!(report.frames_sent, 2),
        () = read => {}
    }
}

#[tokio::test]
async fn a_silent_one_takes_all_and_says_nothing() {
    let scene = Scene::of(Kind::Silent, 1);
    let mut client = scene.client().await;
    client.say(&"x".repeat(1 << 20)).await;
    let report = scene.reported("all is read", |report| report.bytes_received == (1 << 20) + 1).await;
    assert_eq!(report.bytes_sent, 0);
}

#[tokio::test]
async fn one_that_never_reads_lets_the_channel_fill_and_talks_on() {
    let scene = Scene::of(Kind::NeverReading, 1);
    let mut client = scene.client().await;
    client.greeted().await;
    let filling = async { while client.stream.try_write(&[b'x'; 4096]).is_ok() {} };
    filling.await;
    for _ in 0..20 {
        assert!(client.reading().await);
    }
    assert_eq!(scene.report().bytes_received, 0);
    drop(client);
    scene.client().await.greeted().await;
}

#[tokio::test]
async fn a_storm_hangs_up_at_once_and_its_socket_comes_back() {
    let scene = Scene::of(Kind::Storm, 1);
    let begun = Instant::now();
    let mut served = 0;
    while served < 50 {
        assert!(begun.elapsed() < DEADLINE);
        let Ok(stream) = UnixStream::connect(scene.path()).await else {
            tokio::task::yield_now().await;
            continue;
        };
        let mut client = Client { stream, decoder: FrameDecoder::new(1 << 20) };
        assert!(client.line().await.is_none());
        served += 1;
    }
    // A client may have stood unheard at a socket that went.
    assert!(scene.report().connections >= 25);
}

#[tokio::test]
async fn a_liar_tells_every_lie() {
    let scene = Scene::with(|plan| plan.sending(3 * Lie::ALL.len() as u64), Kind::Liar, Duration::ZERO);
    let mut client = scene.client().await;
    let (mut refused, mut too_long) = (0, 0);
    for _ in 0..3 * Lie::ALL.len() {
        match client.line().await.unwrap() {
            line if line.is_empty() => too_long += 1,
            line => refused += u32::from(GuestMessage::decode(&line).is_err()),
        }
    }
    assert_eq!((too_long, refused), (3, 9), "malformed, not a number, wrong shape");
    // The last line is known to be too long before its end has come.
    let rest = tokio::spawn(async move { client.stream.read_to_end(&mut Vec::new()).await });
    let all = |report: &Report| Lie::ALL.iter().all(|lie| report.lies.get(lie) == Some(&3));
    scene.reported("every lie is told three times", all).await;
    rest.abort();
}

#[tokio::test]
async fn a_thousand_are_cheap_and_leave_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let plan = Plan::of(Kind::WellBehaved, 1_000, Duration::from_secs(3600), 1);
    let fleet = Fleet::start(dir.path(), plan).unwrap();
    let mut clients = Vec::new();
    for vm in fleet.ids() {
        let stream = UnixStream::connect(dir.path().join(format!("vm-{vm}.sock"))).await.unwrap();
        clients.push(Client { stream, decoder: FrameDecoder::new(1 << 20) });
    }
    for client in &mut clients {
        client.greeted().await;
    }
    assert_eq!(Report::total(&fleet.reports()).connected, 1_000);
    fleet.stop().await;
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
}
