//! The command line, as clap reads it; man pages and completions are made of it too.

use std::{ffi::OsString, path::PathBuf};

use clap::{ArgAction, Args, Parser, Subcommand, ValueEnum};

/// Virtual machines of an Infinibay host: listed, made, commanded and watched.
#[derive(Debug, Parser)]
#[command(
    name = "infinibay",
    version,
    max_term_width = 100,
    after_help = "\
A VM is named by its name or its id; what has the form of an id is taken for one.

Exit status:
    0  done                              74  local input or output
   64  the command line                  75  not now; the same may go well later
   65  refused by the API                76  exec: cut off before its outcome was known
   66  not found                         77  no valid token, or no right to do that
   69  the daemon is not reached         78  the profile, or whom https believes
   70  the daemon's fault               124  over its time
   73  the operation failed             130  interrupted
exec ends with the status of the guest's command. With --json, failures are JSON too, on
standard error, with the API's stable code."
)]
pub struct Cli {
    /// What holds for every command.
    #[command(flatten)]
    pub common: Common,
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// What holds for every command.
#[derive(Debug, Args)]
pub struct Common {
    /// The profile to use [default: default]
    #[arg(long, global = true, value_name = "NAME", env = "INFINIBAY_PROFILE")]
    pub profile: Option<String>,
    /// Where the daemon is; its token then comes from INFINIBAY_TOKEN, or from a profile for that URL
    #[arg(long, global = true, value_name = "URL", env = "INFINIBAY_URL")]
    pub url: Option<String>,
    /// Believe the authorities in this PEM file, and no others, for https; `login` keeps them in the
    /// profile
    // An empty variable names no file, which a path's own parser would refuse.
    #[arg(long, global = true, value_name = "FILE", env = "INFINIBAY_CA", value_hint = clap::ValueHint::FilePath)]
    pub ca: Option<OsString>,
    /// JSON for programs instead of words for people
    #[arg(long, global = true)]
    pub json: bool,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Sign in, and keep a token in the profile
    Login(Login),
    /// End a profile's token, and forget the profile
    Logout(Logout),
    /// Show who the token is for
    Whoami,
    /// Of a VM.
    #[command(flatten)]
    Vm(VmCommand),
    /// The same commands, for who likes to say so: `infinibay vm list`
    #[command(name = "vm", subcommand, hide = true)]
    OfVm(VmCommand),
    /// Write man pages and shell completions into a directory
    #[command(hide = true)]
    Generate {
        /// Where
        dir: PathBuf,
    },
}

/// What to do with VMs.
#[derive(Debug, Subcommand)]
pub enum VmCommand {
    /// List VMs
    #[command(visible_alias = "ls")]
    List,
    /// Show everything about a VM
    Show(Which),
    /// Make a VM and follow how it comes up
    Create(Box<Create>),
    /// Start VMs
    Start(Started),
    /// Power VMs off, politely first
    Stop(Power),
    /// Reboot VMs
    #[command(visible_alias = "restart")]
    Reboot(Power),
    /// Run a shell line in a VM; ends with its exit status
    Exec(Exec),
    /// Show what a VM wrote to its serial console
    Logs(Logs),
    /// Show a VM's readings as small charts
    Metrics(Metrics),
    /// Show what happens to VMs
    Events(Events),
    /// List, make, revert to and delete snapshots
    #[command(subcommand, visible_alias = "snapshot")]
    Snapshots(Snapshots),
    /// Delete a VM with its disks
    Delete(Delete),
}

/// One VM.
#[derive(Debug, Args)]
pub struct Which {
    /// Name or id
    pub vm: String,
}

/// Whether to wait.
#[derive(Debug, Clone, Copy, Args)]
pub struct Wait {
    /// Do not wait until it is done; print the operation
    #[arg(long)]
    pub no_wait: bool,
}

/// `start`.
#[derive(Debug, Args)]
pub struct Started {
    /// Names or ids
    #[arg(required = true)]
    pub vms: Vec<String>,
    /// Whether to wait.
    #[command(flatten)]
    pub wait: Wait,
}

/// `stop`, `reboot`.
#[derive(Debug, Args)]
pub struct Power {
    /// Names or ids
    #[arg(required = true)]
    pub vms: Vec<String>,
    /// At once, without asking the guest; what it has not written is lost
    #[arg(long)]
    pub force: bool,
    /// Whether to wait.
    #[command(flatten)]
    pub wait: Wait,
}

/// `delete`.
#[derive(Debug, Args)]
pub struct Delete {
    /// Names or ids
    #[arg(required = true)]
    pub vms: Vec<String>,
    /// Do not ask whether that is meant
    #[arg(long, short)]
    pub yes: bool,
    /// Whether to wait.
    #[command(flatten)]
    pub wait: Wait,
}

/// `login`.
#[derive(Debug, Args)]
pub struct Login {
    /// Sign in with this e-mail address and a password, and have a token issued; else a token is
    /// asked for
    #[arg(long)]
    pub email: Option<String>,
    /// Days for which the issued token is good
    #[arg(long, default_value_t = 90, value_parser = clap::value_parser!(i32).range(1..=3650), requires = "email")]
    pub days: i32,
    /// Issue a token that can look and not touch
    #[arg(long, requires = "email")]
    pub read_only: bool,
}

/// `logout`.
#[derive(Debug, Clone, Copy, Args)]
pub struct Logout {
    /// Leave the token good, and do not ask the daemon
    #[arg(long)]
    pub keep_token: bool,
    /// Forget the profile also where the token cannot be ended; it stays good then
    #[arg(long, conflicts_with = "keep_token")]
    pub force: bool,
}

/// What a VM boots with.
#[derive(Debug, Clone, Copy, ValueEnum)]
pub enum Firmware {
    /// The old one
    Bios,
    /// UEFI
    Uefi,
    /// UEFI with secure boot
    UefiSecureBoot,
}

/// `create`.
#[derive(Debug, Args)]
#[command(group = clap::ArgGroup::new("system").required(true).args(["image", "install"]))]
pub struct Create {
    /// Its name, unique on the host
    pub name: String,
    /// Made of this image of the library
    #[arg(long)]
    pub image: Option<String>,
    /// Installed from this disc of the library
    #[arg(long, value_name = "MEDIUM")]
    pub install: Option<String>,
    /// Virtual processors
    #[arg(long, default_value_t = 1)]
    pub vcpus: i32,
    /// Memory, as in 1024, 1024M, 2G; MiB without a letter
    #[arg(long, default_value = "1024", value_parser = mebibytes)]
    pub memory: i32,
    /// Size of the disk in GiB [default: the image's]
    #[arg(long, value_name = "GIB")]
    pub disk: Option<i32>,
    /// Storage pool [default: the host's choice]
    #[arg(long)]
    pub pool: Option<String>,
    /// libvirt network, or `none` [default: the host's choice]
    #[arg(long)]
    pub network: Option<String>,
    /// What it boots with
    #[arg(long, value_enum, default_value = "bios")]
    pub firmware: Firmware,
    /// Give it a TPM 2.0
    #[arg(long)]
    pub tpm: bool,
    /// Package mirror for --install
    #[arg(long, requires = "install")]
    pub mirror: Option<String>,
    /// The first user in the guest
    #[arg(long)]
    pub user: Option<String>,
    /// Read the first user's password from standard input
    #[arg(long, requires = "user")]
    pub password_stdin: bool,
    /// A file with public SSH keys for the first user; may be repeated
    #[arg(long, value_name = "FILE", action = ArgAction::Append)]
    pub ssh_key: Vec<PathBuf>,
    /// What the guest calls itself
    #[arg(long)]
    pub hostname: Option<String>,
    /// Time zone, as in Europe/Berlin
    #[arg(long)]
    pub timezone: Option<String>,
    /// A package for the first boot to install; may be repeated
    #[arg(long, value_name = "NAME", action = ArgAction::Append)]
    pub package: Vec<String>,
    /// Whether to wait.
    #[command(flatten)]
    pub wait: Wait,
}

/// `exec`.
#[derive(Debug, Args)]
pub struct Exec {
    /// Name or id
    pub vm: String,
    /// Seconds that it may take, waiting for its turn included
    #[arg(long, default_value_t = 30, value_parser = clap::value_parser!(i32).range(1..=86_400))]
    pub timeout: i32,
    /// The shell in the guest [default: the agent's]
    #[arg(long)]
    pub shell: Option<String>,
    /// The directory in the guest
    #[arg(long, value_name = "DIR")]
    pub workdir: Option<String>,
    /// A variable of its environment; may be repeated
    #[arg(long, value_name = "NAME=VALUE", action = ArgAction::Append, value_parser = variable)]
    pub env: Vec<(String, String)>,
    /// The shell line; several words are joined by spaces, as ssh does
    #[arg(required = true, trailing_var_arg = true, allow_hyphen_values = true)]
    pub line: Vec<String>,
}

/// `logs`.
#[derive(Debug, Args)]
pub struct Logs {
    /// Name or id
    pub vm: String,
    /// Go on with what is added, until Ctrl-C or the VM's end
    #[arg(long, short)]
    pub follow: bool,
    /// Bytes from the end to begin with
    #[arg(long, default_value_t = 65_536, value_parser = clap::value_parser!(i32).range(1..=1_048_576))]
    pub bytes: i32,
}

/// `metrics`.
#[derive(Debug, Args)]
pub struct Metrics {
    /// Name or id
    pub vm: String,
    /// How far to look back
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(i64).range(1..=17_520))]
    pub hours: i64,
}

/// `events`.
#[derive(Debug, Args)]
pub struct Events {
    /// Names or ids [default: all there are]
    pub vms: Vec<String>,
    /// Go on with what happens, until Ctrl-C; without it, what is kept of the past is shown
    #[arg(long, short)]
    pub follow: bool,
    /// Of the past, who asked for what, too; for admins
    #[arg(long, conflicts_with = "follow")]
    pub audit: bool,
}

/// When a snapshot of the disks is taken, whether the guest's file systems come to rest first.
#[derive(Debug, Clone, Copy, ValueEnum)]
pub enum Quiesce {
    /// Where they can
    IfPossible,
    /// Or no snapshot is taken
    Required,
    /// Not tried
    Never,
}

/// `snapshots`.
#[derive(Debug, Subcommand)]
pub enum Snapshots {
    /// Show a VM's snapshots as a tree
    #[command(visible_alias = "ls")]
    List(Which),
    /// Take one
    Create {
        /// Name or id
        vm: String,
        /// The snapshot's name
        name: String,
        /// What it is for
        #[arg(long, default_value = "")]
        description: String,
        /// Of a running VM, the disks alone
        #[arg(long)]
        no_memory: bool,
        /// With --no-memory, whether the guest's file systems come to rest first
        #[arg(long, value_enum, default_value = "if-possible")]
        quiesce: Quiesce,
        /// Whether to wait.
        #[command(flatten)]
        wait: Wait,
    },
    /// Put the VM back; what is in no snapshot is lost
    Revert {
        /// Name or id
        vm: String,
        /// The snapshot's name
        name: String,
        /// Do not ask whether that is meant
        #[arg(long, short)]
        yes: bool,
        /// Whether to wait.
        #[command(flatten)]
        wait: Wait,
    },
    /// Delete one
    Delete {
        /// Name or id
        vm: String,
        /// The snapshot's name
        name: String,
        /// And all that were taken after it
        #[arg(long)]
        children: bool,
        /// Do not ask whether that is meant
        #[arg(long, short)]
        yes: bool,
        /// Whether to wait.
        #[command(flatten)]
        wait: Wait,
    },
}

/// MiB of `1024`, `512M`, `2G`.
fn mebibytes(text: &str) -> Result<i32, String> {
    let (number, factor) = match text.strip_suffix(['g', 'G']) {
        Some(number) => (number, 1024),
        None => (text.strip_suffix(['m', 'M']).unwrap_or(text), 1),
    };
    let number = number.parse::<i32>().ok().filter(|number| *number > 0);
    number.and_then(|number| number.checked_mul(factor)).ok_or_else(|| "as in 1024, 1024M or 2G".into())
}

/// `NAME=VALUE`.
fn variable(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((name, value)) if !name.is_empty() => Ok((name.into(), value.into())),
        _ => Err("as in NAME=VALUE".into()),
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::{Cli, mebibytes};

    #[test]
    fn the_command_line_is_sound() {
        Cli::command().debug_assert();
    }

    #[test]
    fn memory_has_units() {
        assert_eq!(mebibytes("1024"), Ok(1024));
        assert_eq!(mebibytes("512M"), Ok(512));
        assert_eq!(mebibytes("2G"), Ok(2048));
        for wrong in ["", "G", "0", "-1", "1T", "1.5G", "9999999G"] {
            assert!(mebibytes(wrong).is_err(), "{wrong}");
        }
    }
}
