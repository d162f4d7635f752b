//! Whether the system's first boot is finished, packages and first-boot commands included.
//!
//! cloud-init leaves two kinds of traces: under `/var`, what was once done for an instance, and
//! under `/run`, what it does in this boot. Neither suffices alone: an image that was booted
//! before carries somebody else's `/var`, and a later boot of a finished system begins with an
//! empty `/run`.

use std::{
    path::Path,
    time::{Duration, Instant},
};

use agent_protocol::FirstBootReport;

use crate::{
    read,
    settings::{self, FirstBootMode, Settings},
};

/// How long to wait for the first sign of cloud-init where no sign says that it will run.
const SILENCE: Duration = Duration::from_secs(180);
/// A result file beyond this is cut, and then no JSON.
const MAX_RESULT_BYTES: usize = 256 << 10;
const MAX_ERRORS: usize = 20;

/// What can be seen of cloud-init.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
struct Traces {
    /// The final stage of this boot is over.
    result: bool,
    /// It has begun in this boot, or systemd's generator says that it will.
    at_work: bool,
    /// It was told not to run.
    disabled: bool,
    /// Some instance was finished once.
    instance_finished: bool,
    /// That instance is this machine, not the one the image was made on.
    instance_is_ours: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Verdict {
    Finished,
    Working,
    /// No sign of it at all: wait a while, then say so.
    Silent,
}

fn judge(traces: Traces) -> Verdict {
    if traces.result || traces.disabled {
        return Verdict::Finished;
    }
    if traces.instance_finished && (traces.instance_is_ours || !traces.at_work) {
        // A later boot: what cloud-init does now is its routine of every boot.
        return Verdict::Finished;
    }
    if traces.at_work { Verdict::Working } else { Verdict::Silent }
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
        match judge(traces(root, self.vm_id.as_deref())) {
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
        true
    }
}

fn traces(root: &Path, vm_id: Option<&str>) -> Traces {
    let run = root.join("run/cloud-init");
    let instance = root.join("var/lib/cloud/instance");
    let name = std::fs::read_link(&instance)
        .ok()
        .and_then(|target| Some(target.file_name()?.to_string_lossy().into_owned()));
    Traces {
        result: run.join("result.json").exists(),
        at_work: run.join("status.json").exists() || run.join("enabled").exists(),
        disabled: run.join("disabled").exists() || root.join("etc/cloud/cloud-init.disabled").exists(),
        instance_finished: instance.join("boot-finished").exists(),
        instance_is_ours: matches!((name, vm_id), (Some(n), Some(id)) if n.eq_ignore_ascii_case(id)),
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
    use std::{fs, os::unix::fs::symlink};

    use super::*;

    #[test]
    fn each_stage_of_a_machines_life_is_told_apart() {
        let none = Traces::default();
        let table = [
            ("the first boot has begun", Traces { at_work: true, ..none }, Verdict::Working),
            (
                "an image that was booted elsewhere",
                Traces { at_work: true, instance_finished: true, ..none },
                Verdict::Working,
            ),
            ("the final stage is over", Traces { at_work: true, result: true, ..none }, Verdict::Finished),
            (
                "a later boot, before or during cloud-init",
                Traces { at_work: true, instance_finished: true, instance_is_ours: true, ..none },
                Verdict::Finished,
            ),
            ("removed after the first boot", Traces { instance_finished: true, ..none }, Verdict::Finished),
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
        let cloud = root.path().join("var/lib/cloud");
        fs::create_dir_all(cloud.join("instances/ID-1")).unwrap();
        fs::create_dir_all(root.path().join("run/cloud-init")).unwrap();
        fs::write(root.path().join("run/cloud-init/enabled"), "").unwrap();
        symlink(cloud.join("instances/ID-1"), cloud.join("instance")).unwrap();
        fs::write(cloud.join("instances/ID-1/boot-finished"), "").unwrap();
        assert!(first_boot("id-1").look(root.path(), Instant::now()));
        assert!(!first_boot("id-2").look(root.path(), Instant::now()), "another machine's disk");
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
