//! Whether a guest can carry out an action at all, by what its agent said of itself. What it
//! cannot is refused before it is logged or sent: some agents never answer an action that they do
//! not know, and its caller would wait for nothing until the deadline.

use super::CommandError;
use crate::vm::{GuestCommand, OpenLink, Platform};

/// Refuses an action of another platform, or one that the agent did not name among its own. An
/// agent that never said is given the benefit of the doubt.
///
/// # Errors
/// `Unsupported`.
pub(super) fn supported(command: &GuestCommand, link: Option<&OpenLink>) -> Result<(), CommandError> {
    let (GuestCommand::Safe(action), Some(link)) = (command, link) else { return Ok(()) };
    let refuse = |reason: String| Err(CommandError::Unsupported { action: action.name(), reason });
    if let Some(platform) = link.platform.as_deref().and_then(Platform::of)
        && !action.platforms().contains(&platform)
    {
        let names: Vec<_> = action.platforms().iter().map(|platform| platform.name()).collect();
        let (names, platform) = (names.join(" and "), platform.word());
        return refuse(format!("is for {names} guests; this agent says it runs on {platform}"));
    }
    if let Some(actions) = &link.actions
        && !actions.iter().any(|offered| offered == action.name())
    {
        return refuse("is not among the actions that this agent offers".to_owned());
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use chrono::Utc;

    use super::*;
    use crate::vm::{FirstBoot, LinkCounters, LinkSeal, SafeAction, UnsafeCommand};

    fn link(platform: Option<&str>, actions: Option<&[&str]>) -> OpenLink {
        OpenLink {
            since: Utc::now(),
            last_message_at: Some(Utc::now()),
            greeted_at: None,
            version: None,
            platform: platform.map(str::to_owned),
            capabilities: Vec::new(),
            actions: actions.map(|names| names.iter().map(|name| (*name).to_owned()).collect()),
            reported_state: None,
            skew: None,
            first_boot: FirstBoot::NotReported,
            seal: LinkSeal::Unused,
            counters: LinkCounters::default(),
        }
    }

    fn refusal(action: &SafeAction, link: Option<&OpenLink>) -> Option<String> {
        let refused = supported(&GuestCommand::Safe(action.clone()), link).err()?;
        assert!(matches!(refused, CommandError::Unsupported { .. }), "{refused:?}");
        Some(refused.to_string())
    }

    #[test]
    fn what_an_agent_cannot_do_is_refused_with_the_reason() {
        let updates = SafeAction::CheckWindowsUpdates;
        assert_eq!(
            refusal(&updates, Some(&link(Some("linux"), None))).as_deref(),
            Some("CheckWindowsUpdates is for Windows guests; this agent says it runs on linux")
        );
        let some = link(Some("linux"), Some(&["OsInfo", "CheckWindowsUpdates"]));
        assert_eq!(
            refusal(&SafeAction::ServiceList, Some(&some)).as_deref(),
            Some("ServiceList is not among the actions that this agent offers")
        );
        assert!(refusal(&updates, Some(&some)).is_some_and(|why| why.contains("linux")));
        assert!(refusal(&SafeAction::OsInfo, Some(&link(None, Some(&[])))).is_some());
    }

    #[test]
    fn who_never_said_is_asked() {
        let updates = SafeAction::CheckWindowsUpdates;
        for link in [
            None,
            Some(link(None, None)),
            Some(link(Some("Windows"), None)),
            // A platform that we do not know says nothing of its actions.
            Some(link(Some("reactos"), None)),
            Some(link(None, Some(&["CheckWindowsUpdates"]))),
        ] {
            assert_eq!(refusal(&updates, link.as_ref()), None, "{link:?}");
        }
        assert_eq!(refusal(&SafeAction::OsInfo, Some(&link(Some("linux"), Some(&["OsInfo"])))), None);
        let line = GuestCommand::Unsafe(UnsafeCommand {
            raw_command: "true".to_owned(),
            shell: None,
            working_dir: None,
            env_vars: [].into(),
        });
        assert!(supported(&line, Some(&link(Some("linux"), Some(&[])))).is_ok());
    }
}
