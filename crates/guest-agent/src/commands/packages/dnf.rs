//! Fedora, RHEL and their children.

use std::time::Duration;

use super::{Finished, KEEP_LIST, Outcome, must, not_installed, tool, unknown};
use crate::commands::answer::Failure;

pub(super) fn list(limit: Duration) -> Result<Finished, Failure> {
    must("rpm", &["-qa", "--qf", "%{NAME}\t%{VERSION}-%{RELEASE}\t%{ARCH}\n"], limit, KEEP_LIST)
}

pub(super) fn search(query: &str, limit: Duration) -> Result<String, Failure> {
    let pattern = format!("*{query}*");
    let format = "--queryformat=%{name}\t%{summary}\n";
    let arguments = ["-q", "repoquery", "--latest-limit=1", format, &pattern];
    // Old dnf adds a newline of its own to each line: empty lines are skipped by the reader.
    must("dnf", &arguments, limit, KEEP_LIST).map(|done| done.stdout.text())
}

pub(super) fn change(verb: &str, package: &str, limit: Duration) -> Result<Outcome, Failure> {
    // dnf takes a name it does not know for a pattern or a capability, and "nothing to do" for
    // success: ask first.
    let installed = tool("rpm", &["-q", "--", package], limit, KEEP_LIST)?.succeeded();
    if verb != "install" && !installed {
        return Err(not_installed(package));
    }
    if verb == "install" && !installed {
        let known = must("dnf", &["-q", "repoquery", "--queryformat=%{name}\n", package], limit, KEEP_LIST)?;
        if known.stdout.text().trim().is_empty() {
            return Err(unknown(package));
        }
    }
    super::change("dnf", &["-y", "-q", verb, package], limit)
}
