//! The fleet as a process of its own, so that its work is not measured as ours.

use std::{
    fmt::Write as _,
    io::{BufRead as _, BufReader},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::{Arc, Mutex},
    thread::JoinHandle,
    time::Duration,
};

use serde_json::Value;
use uuid::Uuid;

use crate::support::daemon::wait;

/// Ended when dropped.
pub(crate) struct FleetProcess {
    child: Child,
    said: Arc<Mutex<Said>>,
    reader: Option<JoinHandle<()>>,
}

#[derive(Default)]
struct Said {
    ready: Option<Vec<Uuid>>,
    report: Option<Value>,
    end: Option<Value>,
}

impl FleetProcess {
    /// Guests of these ids and kinds (`well-behaved`, …) in `dir`; `more` goes to the program. Blocks
    /// until all sockets are bound.
    pub(crate) fn start(dir: &Path, guests: &[(Uuid, &str)], more: &[&str]) -> Self {
        let mut ids = String::new();
        for (vm, kind) in guests {
            writeln!(ids, "{vm} {kind}").expect("a String takes all");
        }
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), ids).unwrap();
        let mut child = Command::new(program())
            .arg("--dir")
            .arg(dir)
            .arg("--ids")
            .arg(file.path())
            .args(more)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("starting the fleet; scripts/bench builds it");
        let said = Arc::new(Mutex::new(Said::default()));
        let out = BufReader::new(child.stdout.take().expect("piped"));
        let reader = std::thread::spawn({
            let said = Arc::clone(&said);
            move || {
                for line in out.lines().map_while(Result::ok) {
                    let mut line: Value = serde_json::from_str(&line).expect("the fleet speaks JSON");
                    let mut said = said.lock().expect("the fleet's words");
                    if let Some(ready) = line["ready"].as_array() {
                        let id = |guest: &Value| guest["vm"].as_str()?.parse().ok();
                        said.ready = ready.iter().map(id).collect();
                    } else if line["report"].is_object() {
                        said.report = Some(line["report"].take());
                    } else {
                        said.end = Some(line);
                    }
                }
            }
        });
        let ready = Arc::clone(&said);
        wait("the fleet's sockets", Duration::from_secs(120), || {
            assert!(child.try_wait().unwrap().is_none(), "the fleet ended; what it said is above");
            ready.lock().expect("the fleet's words").ready.take()
        });
        Self { child, said, reader: Some(reader) }
    }

    /// The sums of a second ago.
    pub(crate) fn report(&self) -> Option<Value> {
        self.said.lock().expect("the fleet's words").report.clone()
    }

    /// Ends it; its last word: `end` with the sums, `guests` with each guest's counts.
    pub(crate) fn end(mut self) -> Value {
        drop(self.child.stdin.take());
        self.child.wait().unwrap();
        self.reader.take().expect("one end").join().expect("the fleet's words");
        self.said.lock().expect("the fleet's words").end.take().expect("a last word")
    }
}

impl Drop for FleetProcess {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Beside the bench's own executable, which stands in `deps`.
fn program() -> PathBuf {
    let own = std::env::current_exe().expect("a bench has a name");
    let beside = own.parent().and_then(Path::parent).expect("a directory").join("fleet");
    std::env::var_os("INFINIBAY_BENCH_FLEET").map_or(beside, PathBuf::from)
}
