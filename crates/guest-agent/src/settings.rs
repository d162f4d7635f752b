//! Settings, from the environment alone: the agent must run where there is no file to read.
//! A bad value is reported and its default used; an agent that refuses to start cannot be
//! repaired from outside.

use std::{path::PathBuf, time::Duration};

use crate::read;

/// Where to learn that the first boot is finished.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum FirstBootMode {
    /// cloud-init does the first boot's work.
    CloudInit,
    /// Nobody does: finished from the start.
    None,
}

/// What the host's envelopes are worth, where there is a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum SealMode {
    /// None is opened and none is made.
    Off,
    /// They are opened; until the first one, bare commands are carried out too.
    Accept,
    /// Only they count.
    Require,
}

/// Where the medium of the first boot puts the key.
const SEAL_KEY: &str = "/etc/infiniservice/seal.key";

/// All settings.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Settings {
    /// `INFINIBAY_VM_ID`; without it the machine's own UUID, which the hypervisor sets.
    pub(crate) vm_id: Option<String>,
    /// `INFINIBAY_DEVICE`: the port; without it the port is looked for.
    pub(crate) device: Option<PathBuf>,
    /// `INFINIBAY_METRICS_INTERVAL`, seconds, 1 to 86400, default 30.
    pub(crate) metrics_interval: Duration,
    /// `INFINIBAY_KEEP_ALIVE_INTERVAL`, seconds, 1 to 3600, default 20.
    pub(crate) keep_alive_interval: Duration,
    /// `INFINIBAY_MAX_COMMANDS`: commands at once, 1 to 32, default 4.
    pub(crate) max_commands: usize,
    /// `INFINIBAY_FIRST_BOOT`: `cloud-init` or `none`, default `none`.
    pub(crate) first_boot: FirstBootMode,
    /// `INFINIBAY_SEAL`: `off`, `accept` or `require`, default `accept`.
    pub(crate) seal: SealMode,
    /// `INFINIBAY_SEAL_KEY`: the key's file.
    pub(crate) seal_key: PathBuf,
}

impl Settings {
    /// From the environment of this process, with what was wrong in it.
    pub(crate) fn from_environment() -> (Self, Vec<String>) {
        let (mut settings, complaints) =
            Self::read(|name| std::env::var_os(name).map(|v| v.to_string_lossy().into_owned()));
        if settings.vm_id.is_none() {
            settings.vm_id = machine_uuid();
        }
        (settings, complaints)
    }

    fn read(lookup: impl Fn(&str) -> Option<String>) -> (Self, Vec<String>) {
        let mut complaints = Vec::new();
        // An environment file written by a template often leaves `NAME=` behind.
        let lookup = |name: &str| lookup(name).map(|v| v.trim().to_owned()).filter(|v| !v.is_empty());
        let mut number = |name: &str, default: u32, max: u32| match lookup(name) {
            None => default,
            Some(text) => match text.parse::<u32>() {
                Ok(value) if (1..=max).contains(&value) => value,
                _ => {
                    complaints.push(format!("{name}: {text:?} is not 1 to {max}; {default} is used"));
                    default
                }
            },
        };
        let metrics_interval = Duration::from_secs(number("INFINIBAY_METRICS_INTERVAL", 30, 86_400).into());
        let keep_alive_interval =
            Duration::from_secs(number("INFINIBAY_KEEP_ALIVE_INTERVAL", 20, 3600).into());
        let max_commands = number("INFINIBAY_MAX_COMMANDS", 4, 32) as usize;

        let vm_id = lookup("INFINIBAY_VM_ID").filter(|id| {
            let fits = id.len() <= 64 && id.chars().all(|c| c.is_ascii_alphanumeric() || "-_.".contains(c));
            if !fits {
                complaints.push(format!("INFINIBAY_VM_ID: {id:?} is no id; it is ignored"));
            }
            fits
        });
        let mut path = |name: &str| {
            lookup(name).map(PathBuf::from).filter(|path| {
                if path.is_relative() {
                    complaints.push(format!("{name}: {path:?} is not absolute; it is ignored"));
                }
                path.is_absolute()
            })
        };
        let device = path("INFINIBAY_DEVICE");
        let seal_key = path("INFINIBAY_SEAL_KEY").unwrap_or_else(|| SEAL_KEY.into());
        let first_boot = match lookup("INFINIBAY_FIRST_BOOT").as_deref() {
            Some("cloud-init") => FirstBootMode::CloudInit,
            None | Some("none") => FirstBootMode::None,
            Some(other) => {
                complaints.push(format!("INFINIBAY_FIRST_BOOT: {other:?} is not cloud-init or none"));
                FirstBootMode::None
            }
        };
        let seal = match lookup("INFINIBAY_SEAL").as_deref() {
            Some("off") => SealMode::Off,
            None | Some("accept") => SealMode::Accept,
            Some("require") => SealMode::Require,
            Some(other) => {
                complaints.push(format!(
                    "INFINIBAY_SEAL: {other:?} is not off, accept or require; require is used"
                ));
                SealMode::Require
            }
        };
        let this = Self {
            vm_id,
            device,
            metrics_interval,
            keep_alive_interval,
            max_commands,
            first_boot,
            seal,
            seal_key,
        };
        (this, complaints)
    }
}

/// The UUID that the firmware shows, in lower case.
pub(crate) fn machine_uuid() -> Option<String> {
    let uuid = read::line("/sys/class/dmi/id/product_uuid")?.to_ascii_lowercase();
    (uuid.len() == 36 && uuid.chars().all(|c| c.is_ascii_hexdigit() || c == '-')).then_some(uuid)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(pairs: &[(&str, &str)]) -> (Settings, Vec<String>) {
        Settings::read(|name| pairs.iter().find(|(n, _)| *n == name).map(|(_, v)| (*v).to_owned()))
    }

    #[test]
    fn defaults_hold_without_an_environment() {
        let (settings, complaints) = read(&[]);
        assert!(complaints.is_empty());
        assert_eq!(settings.metrics_interval, Duration::from_secs(30));
        assert_eq!(settings.keep_alive_interval, Duration::from_secs(20));
        assert_eq!((settings.max_commands, settings.first_boot), (4, FirstBootMode::None));
        assert_eq!((settings.vm_id, settings.device), (None, None));
        assert_eq!((settings.seal, settings.seal_key), (SealMode::Accept, PathBuf::from(SEAL_KEY)));
    }

    #[test]
    fn each_bad_value_is_reported_and_replaced() {
        let (settings, complaints) = read(&[
            ("INFINIBAY_METRICS_INTERVAL", "0"),
            ("INFINIBAY_KEEP_ALIVE_INTERVAL", "20s"),
            ("INFINIBAY_MAX_COMMANDS", "-3"),
            ("INFINIBAY_FIRST_BOOT", "maybe"),
            ("INFINIBAY_VM_ID", "a b"),
            ("INFINIBAY_DEVICE", "vport0p1"),
            ("INFINIBAY_SEAL_KEY", "seal.key"),
        ]);
        assert_eq!(complaints.len(), 7, "{complaints:?}");
        assert_eq!(settings, read(&[]).0);
        // Whoever wrote something there did not mean less.
        let (settings, complaints) = read(&[("INFINIBAY_SEAL", "required")]);
        assert_eq!((settings.seal, complaints.len()), (SealMode::Require, 1));
    }

    #[test]
    fn good_values_are_taken() {
        let (settings, complaints) = read(&[
            ("INFINIBAY_METRICS_INTERVAL", "5"),
            ("INFINIBAY_MAX_COMMANDS", " 8 "),
            ("INFINIBAY_FIRST_BOOT", "cloud-init"),
            ("INFINIBAY_SEAL", "off"),
            ("INFINIBAY_VM_ID", "550e8400-e29b-41d4-a716-446655440000"),
            ("INFINIBAY_DEVICE", "/dev/x"),
        ]);
        assert!(complaints.is_empty(), "{complaints:?}");
        assert_eq!((settings.max_commands, settings.first_boot), (8, FirstBootMode::CloudInit));
        assert_eq!(settings.seal, SealMode::Off);
        assert_eq!(settings.metrics_interval, Duration::from_secs(5));
        assert_eq!(settings.vm_id.as_deref(), Some("550e8400-e29b-41d4-a716-446655440000"));
    }
}
