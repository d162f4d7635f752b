//! Room for as many files as the configuration needs: each guest link is one. Systems start
//! services with a low soft limit, for the sake of programs that use `select`; we do not.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use crate::config::Config;

/// What is open besides links and WebSockets: databases, libvirt, images, the guests' listener.
const OTHERS: u64 = 1024;

/// Raises the soft limit to the hard one; warns where even that is too low.
pub(super) fn raise_limit(config: &Config) {
    let limit = getrlimit(Resource::Nofile);
    if let Some(raised) = raised(&limit) {
        match setrlimit(Resource::Nofile, raised) {
            Ok(()) => tracing::debug!(from = limit.current, to = limit.maximum, "more files may be open"),
            Err(error) => tracing::warn!(%error, "the limit of open files cannot be raised"),
        }
    }
    let needed = needed(config);
    let allowed = getrlimit(Resource::Nofile).current;
    if !suffices(allowed, needed) {
        tracing::warn!(
            allowed,
            needed,
            "fewer files may be open than agents.max_links and api.max_websockets need; raise the hard \
             limit (LimitNOFILE= in the unit), or lower them"
        );
    }
}

fn needed(config: &Config) -> u64 {
    u64::from(config.agents.max_links) + u64::from(config.api.max_websockets) + OTHERS
}

/// The limit to set; `None`: it is as high as may be. Here `None` in a limit means no limit.
fn raised(limit: &Rlimit) -> Option<Rlimit> {
    let as_high = match (limit.current, limit.maximum) {
        (None, _) => true,
        (Some(_), None) => false,
        (Some(current), Some(maximum)) => current >= maximum,
    };
    (!as_high).then_some(Rlimit { current: limit.maximum, maximum: limit.maximum })
}

fn suffices(allowed: Option<u64>, needed: u64) -> bool {
    allowed.is_none_or(|allowed| allowed >= needed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_soft_limit_becomes_the_hard_one() {
        for (current, maximum, expected) in [
            (Some(1024), Some(4096), Some(Some(4096))),
            (Some(1024), None, Some(None)),
            (Some(4096), Some(4096), None),
            (None, None, None),
        ] {
            let raised = raised(&Rlimit { current, maximum }).map(|limit| limit.current);
            assert_eq!(raised, expected, "{current:?} {maximum:?}");
        }
    }

    #[test]
    fn too_few_are_noticed() {
        let mut config = Config::default();
        config.agents.max_links = 10_000;
        config.api.max_websockets = 256;
        assert_eq!(needed(&config), 11_280);
        assert!(suffices(None, 11_280) && suffices(Some(11_280), 11_280) && !suffices(Some(11_279), 11_280));
    }

    #[test]
    fn this_process_gets_what_it_may_have() {
        raise_limit(&Config::default());
        let limit = getrlimit(Resource::Nofile);
        assert_eq!(limit.current, limit.maximum);
    }
}
