//! Whether the system's first boot is finished, packages and first-boot commands included.
//!
//! cloud-init says what it does in this boot, under `/run`, and takes back at the beginning of
//! each boot what it said under `/var` about the first one. So that a later boot need not wait
//! for its routine, the agent remembers, together with the machine it remembers it for: a copied
//! disk carries the memory along, but not the machine's UUID.

use std::{
    path::Path,
    time::{Duration, Instant},
};

use agent_protocol::FirstBootReport;
use serde::{Deserialize, Serialize};

use crate::{
    log::note,
    read,
    settings::{self, FirstBootMode, Settings},
};

/// How long to wait for the first sign of cloud-init where no sign says that it will run.
const SILENCE: Duration = Duration::from_secs(180);
/// A result file beyond this is cut, and then no JSON.
const MAX_RESULT_BYTES: usize = 256 << 10;
const MAX_ERRORS: usize = 20;
/// Holds a [`Memory`].
const MEMORY: &str = "var/lib/infiniservice/first-boot.json";

/// What is remembered of a finished first boot.
#[derive(Debug, Serialize, Deserialize)]
struct Memory {
    vm_id: String,
    errors: Vec<String>,
}

/// What can be seen of cloud-init.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
struct Traces {
    /// The final stage of this boot is over.
    result: bool,
    /// It has begun in this boot, or systemd's generator says that it will.
    at_work: bool,
    /// It was told not to run.
    disabled: bool,
    /// It has finished a boot and not begun another.
    boot_finished: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Verdict {
    Finished,
    Working,
    /// No sign of it at all: wait a while, then say so.
    Silent,
}

fn judge(traces: Traces) -> Verdict {
    if traces.result || traces.disabled || (traces.boot_finished && !traces.at_work) {
        Verdict::Finished
    } else if traces.at_work {
        Verdict::Working
    } else {
        Verdict::Silent
    }
}

/// Looks until the first boot is finished, then no more.
#[derive(Debug)]
pub(crate) struct FirstBoot {
    mode: FirstBootMode,
    vm_id: Option<String>,
    since: Instant,
    report: FirstBootReport,
}

impl FirstBoot {
    /// Looks at once.
    pub(crate) fn new(settings: &Settings, now: Instant) -> Self {
        // The firmware's UUID cannot be a leftover of a copied disk; the settings can.
        let vm_id = settings::machine_uuid().or_else(|| settings.vm_id.clone());
        let mut this =
            Self { mode: settings.first_boot, vm_id, since: now, report: FirstBootReport::default() };
        this.look(Path::new("/"), now);
        this
    }

    /// As last seen.
    pub(crate) fn report(&self) -> &FirstBootReport {
        &self.report
    }

    /// Looks again; true if the first boot has just become finished.
    pub(crate) fn look(&mut self, root: &Path, now: Instant) -> bool {
        if self.report.finished {
            return false;
        }
        if self.mode == FirstBootMode::None {
            self.report.finished = true;
            return true;
        }
        if let Some(memory) = self.recall(root) {
            self.report = FirstBootReport { finished: true, errors: memory.errors };
            return true;
        }
        match judge(traces(root)) {
            Verdict::Working => return false,
            Verdict::Silent if now.saturating_duration_since(self.since) < SILENCE => return false,
            Verdict::Silent => {
                self.report.errors = vec!["cloud-init was expected and never ran".to_owned()];
            }
            Verdict::Finished => {
                let path = root.join("run/cloud-init/result.json");
                if path.exists() {
                    self.report.errors = errors(&read::bytes(path, MAX_RESULT_BYTES).unwrap_or_default());
                }
            }
        }
        self.report.finished = true;
        self.remember(root);
        true
    }

    fn recall(&self, root: &Path) -> Option<Memory> {
        let memory: Memory =
            serde_json::from_slice(&read::bytes(root.join(MEMORY), MAX_RESULT_BYTES).ok()?).ok()?;
        (Some(&memory.vm_id) == self.vm_id.as_ref()).then_some(memory)
    }

    /// Without the memory a later boot is reported a little later, that is all.
    fn remember(&self, root: &Path) {
        let Some(vm_id) = self.vm_id.clone() else { return };
        let memory = Memory { vm_id, errors: self.report.errors.clone() };
        let path = root.join(MEMORY);
        let folder = path.parent().map_or(Ok(()), std::fs::create_dir_all);
        if let Err(e) = folder
            .and_then(|()| Ok(serde_json::to_vec(&memory)?))
            .and_then(|text| std::fs::write(&path, text))
        {
            note(format_args!("remember the first boot: {e}"));
        }
    }
}

fn traces(root: &Path) -> Traces {
    let run = root.join("run/cloud-init");
    Traces {
        result: run.join("result.json").exists(),
        at_work: run.join("status.json").exists() || run.join("enabled").exists(),
        disabled: run.join("disabled").exists() || root.join("etc/cloud/cloud-init.disabled").exists(),
        boot_finished: root.join("var/lib/cloud/instance/boot-finished").exists(),
    }
}

/// The errors of a result file. One that cannot be read is an error too: silence would be praise.
fn errors(result: &[u8]) -> Vec<String> {
    let Ok(result) = serde_json::from_slice::<serde_json::Value>(result) else {
        return vec!["the result of cloud-init cannot be read".to_owned()];
    };
    let list = result.pointer("/v1/errors").and_then(serde_json::Value::as_array);
    list.into_iter()
        .flatten()
        .take(MAX_ERRORS)
        .map(|e| read::printable(e.as_str().unwrap_or(&e.to_string()), 500))
        .collect()
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn each_stage_of_a_machines_life_is_told_apart() {
        let none = Traces::default();
        let table = [
            ("the first boot has begun", Traces { at_work: true, ..none }, Verdict::Working),
            (
                "an image that was booted elsewhere, before cloud-init looks at it",
                Traces { at_work: true, boot_finished: true, ..none },
                Verdict::Working,
            ),
            ("the final stage is over", Traces { at_work: true, result: true, ..none }, Verdict::Finished),
            ("removed after the first boot", Traces { boot_finished: true, ..none }, Verdict::Finished),
            ("disabled", Traces { disabled: true, ..none }, Verdict::Finished),
            ("not there", none, Verdict::Silent),
        ];
        for (name, traces, verdict) in table {
            assert_eq!(judge(traces), verdict, "{name}");
        }
    }

    fn first_boot(id: &str) -> FirstBoot {
        FirstBoot {
            mode: FirstBootMode::CloudInit,
            vm_id: Some(id.to_owned()),
            since: Instant::now(),
            report: FirstBootReport::default(),
        }
    }

    #[test]
    fn a_first_boot_ends_with_its_result_and_its_errors() {
        let root = tempfile::tempdir().unwrap();
        let run = root.path().join("run/cloud-init");
        fs::create_dir_all(&run).unwrap();
        fs::write(run.join("status.json"), "{}").unwrap();
        let mut boot = first_boot("id-1");
        let later = Instant::now() + SILENCE * 2;
        assert!(!boot.look(root.path(), later) && !boot.report().finished);
        fs::write(run.join("result.json"), r#"{"v1":{"errors":["no mirror\u001b[31m", 7]}}"#).unwrap();
        assert!(boot.look(root.path(), later));
        assert_eq!(boot.report().errors, ["no mirror [31m", "7"]);
        assert!(!boot.look(root.path(), later), "told twice");
    }

    #[test]
    fn a_later_boot_is_finished_before_cloud_init_is() {
        let root = tempfile::tempdir().unwrap();
        let run = root.path().join("run/cloud-init");
        fs::create_dir_all(&run).unwrap();
        fs::write(run.join("result.json"), r#"{"v1":{"errors":["no mirror"]}}"#).unwrap();
        assert!(first_boot("id-1").look(root.path(), Instant::now()));
        // The next boot: nothing but the memory is left.
        fs::remove_file(run.join("result.json")).unwrap();
        fs::write(run.join("enabled"), "").unwrap();
        let mut later = first_boot("id-1");
        assert!(later.look(root.path(), Instant::now()));
        assert_eq!(later.report().errors, ["no mirror"]);
        assert!(!first_boot("id-2").look(root.path(), Instant::now()), "another machine's disk");
        // A memory that was torn by a crash is none.
        fs::write(root.path().join(MEMORY), "{\"vm_id\":\"id-1\",").unwrap();
        assert!(!first_boot("id-1").look(root.path(), Instant::now()));
    }

    #[test]
    fn a_missing_cloud_init_is_waited_for_and_then_reported() {
        let root = tempfile::tempdir().unwrap();
        let mut boot = first_boot("id-1");
        assert!(!boot.look(root.path(), boot.since));
        assert!(boot.look(root.path(), boot.since + SILENCE));
        assert_eq!(boot.report().errors.len(), 1);
        assert_eq!(errors(b"{\"v1\""), ["the result of cloud-init cannot be read"]);
    }
}
