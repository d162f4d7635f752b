//! What an installer is given so that it asks nothing: the answers in its own format, the agent, and
//! what the first boot is to run; on a medium, in its initial RAM disk, or both.
//!
//! Pure: from a specification to bytes. Answers come from templates; scripts are the same for every
//! VM and find what differs in files beside them, so that no value ever enters a script.

mod debian;
mod redhat;
mod trial;
mod ubuntu;
mod windows;

pub(super) use trial::try_every_recipe;

use super::{
    agent::{AgentFiles, WindowsAgentFiles},
    check::{InvalidSetting, check, invalid},
    cpio::CpioError,
    recipe::{RecipeError, Recipes},
    seed::{AGENT_DIR, SealDelivery, SeedError, SeedFile, environment, is_plain_url},
};
use crate::vm::{InstallFamily, VmId, VmSpec};

const FIRST_BOOT_DIR: &str = "first-boot";
const MAX_VOLUME_LABEL: usize = 32;

/// What an installation is made from.
#[derive(Debug, Clone, Copy)]
pub struct InstallInputs<'a> {
    /// The VM.
    pub id: VmId,
    /// Its specification.
    pub spec: &'a VmSpec,
    /// The hardware address of its card.
    pub mac: &'a str,
    /// Where the guest may download the agent later; see [`super::SeedInputs::url`].
    pub url: Option<&'a str>,
    /// What its agent seals with, if it is given a key; see [`super::SeedInputs::seal`]. Only ours for
    /// Linux is.
    pub seal: Option<SealDelivery<'a>>,
    /// Where the installer reports its stages, a one-time token included. It gets
    /// `stage=WORD` by POST, or, from an installer that can only ask, as a query.
    pub progress_url: Option<&'a str>,
    /// The label of the medium that is installed from; Fedora and RHEL must be told.
    pub volume_label: Option<&'a str>,
    /// Where packages come from, such as `http://deb.debian.org/debian`; the installer's own choice
    /// when absent. Not for Windows.
    pub mirror: Option<&'a str>,
    /// Whether the VM has UEFI; Windows lays out its disk by that.
    pub uefi: bool,
    /// The name of the edition on Windows' medium, such as `Windows 11 Pro`; the first when absent.
    pub edition: Option<&'a str>,
    /// The language of Windows' medium, such as `en-US`, which is the default.
    pub medium_language: Option<&'a str>,
}

/// The agent that travels with an installation.
#[derive(Debug, Clone, Copy)]
pub enum InstallAgent<'a> {
    /// None is wanted.
    None,
    /// For Linux.
    Linux(&'a AgentFiles),
    /// For Windows.
    Windows(&'a WindowsAgentFiles),
}

/// What the installer is given.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InstallMedia {
    /// The label that the installer looks for; absent where it needs no medium.
    pub label: Option<&'static str>,
    /// The medium's files, for [`super::build_medium`]; hold secrets.
    pub files: Vec<SeedFile>,
    /// To be added to the kernel's command line, in this order.
    pub kernel_args: Vec<String>,
    /// To be appended to the initial RAM disk; holds secrets.
    pub initrd_append: Option<Vec<u8>>,
}

/// Why an installation cannot be prepared.
#[derive(Debug, thiserror::Error)]
pub enum MediaError {
    /// A setting that the family's format, or the family itself, cannot carry.
    #[error(transparent)]
    Setting(#[from] InvalidSetting),
    /// A value that is not a person's, and that the format cannot carry.
    #[error("{what} {value:?} {reason}")]
    Input {
        /// Which.
        what: &'static str,
        /// Its value.
        value: String,
        /// What is wrong.
        reason: &'static str,
    },
    /// The agent is another system's.
    #[error("the agent is for another system than {0:?}")]
    Agent(InstallFamily),
    /// A part that cloud images have too.
    #[error(transparent)]
    Seed(#[from] SeedError),
    /// The template.
    #[error(transparent)]
    Recipe(#[from] RecipeError),
    /// The initial RAM disk.
    #[error(transparent)]
    Initrd(#[from] CpioError),
}

/// What the installer of `family` is given to install the VM unattended.
///
/// # Errors
/// See [`MediaError`].
pub fn plan_media(
    family: InstallFamily,
    recipes: &Recipes,
    inputs: &InstallInputs<'_>,
    agent: InstallAgent<'_>,
) -> Result<InstallMedia, MediaError> {
    check(&inputs.spec.unattended)?;
    check_inputs(inputs)?;
    match family {
        InstallFamily::Ubuntu => ubuntu::media(recipes, inputs, agent),
        InstallFamily::Debian => debian::media(recipes, inputs, agent),
        InstallFamily::RedHat => redhat::media(recipes, inputs, agent),
        InstallFamily::Windows(release) => windows::media(release, recipes, inputs, agent),
    }
}

fn check_inputs(inputs: &InstallInputs<'_>) -> Result<(), MediaError> {
    let refuse = |what, value: &str, reason| Err(MediaError::Input { what, value: value.to_owned(), reason });
    if let Some(url) = inputs.progress_url.filter(|url| !is_plain_url(url)) {
        return refuse("the address for reports", url, "is not a plain http address");
    }
    if inputs.mirror.is_some_and(|mirror| !is_mirror(mirror)) {
        return Err(invalid("install.mirror", "is not a plain http address").into());
    }
    let label = |c: char| c.is_ascii_alphanumeric() || " ._-".contains(c);
    let fits = |text: &&str| {
        !text.is_empty() && text.len() <= MAX_VOLUME_LABEL && text.trim() == *text && text.chars().all(label)
    };
    if let Some(volume) = inputs.volume_label.filter(|text| !fits(text)) {
        return refuse("the medium's label", volume, "cannot be given to a kernel");
    }
    let octets = || inputs.mac.split(':');
    let octet = |octet: &str| octet.len() == 2 && octet.chars().all(|c| c.is_ascii_hexdigit());
    if octets().count() != 6 || !octets().all(octet) {
        return refuse("the hardware address", inputs.mac, "is none");
    }
    Ok(())
}

/// A plain address with a host: some installers are given that alone.
fn is_mirror(url: &str) -> bool {
    let host = url.split_once("://").map(|(_, rest)| rest);
    is_plain_url(url)
        && host.is_some_and(|host| host.starts_with(|c: char| c.is_ascii_alphanumeric() || c == '['))
}

fn file(path: &str, contents: impl Into<Vec<u8>>) -> SeedFile {
    SeedFile { path: path.to_owned(), contents: contents.into() }
}

/// What every Linux system gets beside its answers: the agent, our scripts, where to report to.
fn linux_files(
    family: InstallFamily,
    first_boot: &str,
    inputs: &InstallInputs<'_>,
    agent: InstallAgent<'_>,
) -> Result<Vec<SeedFile>, MediaError> {
    let mut files = vec![
        file("infinibay/report.sh", include_str!("scripts/report.sh")),
        file("infinibay/finish.sh", include_str!("scripts/finish.sh")),
        file("infinibay/inside.sh", include_str!("scripts/inside.sh")),
    ];
    files.extend(progress_file(inputs));
    match agent {
        InstallAgent::None => {}
        InstallAgent::Windows(_) => return Err(MediaError::Agent(family)),
        InstallAgent::Linux(agent) => {
            let mut add = |name: &str, contents: Vec<u8>| {
                files.push(file(&format!("{AGENT_DIR}/{name}"), contents));
            };
            add("infiniservice", agent.binary.clone());
            add("install-linux.sh", agent.installer.clone());
            add("infiniservice.service", agent.unit.clone());
            let environment =
                environment(inputs.id, super::seed::DEVICE, first_boot, inputs.url, inputs.seal)?;
            add("infiniservice.env", environment.into_bytes());
            if let Some((name, contents)) = inputs.seal.map(|seal| seal.file(inputs.id)) {
                add(name, contents);
            }
        }
    }
    Ok(files)
}

/// Whose rights and keys are put into the installed system, and which keys.
fn account_files(inputs: &InstallInputs<'_>) -> Vec<SeedFile> {
    let settings = &inputs.spec.unattended;
    let mut files = Vec::new();
    if settings.user.is_some() || !settings.ssh_keys.is_empty() {
        files.push(file("infinibay/user", format!("{}\n", settings.user.as_deref().unwrap_or("root"))));
    }
    if !settings.ssh_keys.is_empty() {
        files.push(file("infinibay/authorized_keys", settings.ssh_keys.join("\n") + "\n"));
    }
    files
}

fn progress_file(inputs: &InstallInputs<'_>) -> Option<SeedFile> {
    inputs.progress_url.map(|url| file("infinibay/progress-url", format!("{url}\n")))
}

/// Each command in a file of its own, run in the order of their names.
fn first_boot_files(inputs: &InstallInputs<'_>, ending: &str, head: &str) -> Vec<SeedFile> {
    let commands = inputs.spec.unattended.first_boot_commands.iter().enumerate();
    commands
        .map(|(index, command)| {
            let path = format!("{FIRST_BOOT_DIR}/{:03}{ending}", index + 1);
            file(&path, format!("{head}{command}\n"))
        })
        .collect()
}

/// What runs the commands of the first boot where no cloud-init does.
fn first_boot_service(inputs: &InstallInputs<'_>) -> Vec<SeedFile> {
    let mut files = first_boot_files(inputs, ".sh", "");
    if !files.is_empty() {
        files.push(file("infinibay/first-boot.sh", include_str!("scripts/first-boot.sh")));
        let unit = include_str!("scripts/infinibay-first-boot.service");
        files.push(file("infinibay/infinibay-first-boot.service", unit));
    }
    files
}
