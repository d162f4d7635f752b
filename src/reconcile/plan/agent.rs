//! Is the agent there? The answer depends on the domain as much as on the link.

use chrono::{DateTime, Utc};

use super::{Look, after};
use crate::vm::{AgentConnectivity, DomainObservation, DomainState, Milestone};

pub(super) fn judge(look: &Look<'_>) -> AgentConnectivity {
    let never_seen = !look.passed(Milestone::FirstSeen);
    let silent_kind = if never_seen { AgentConnectivity::NeverSeen } else { AgentConnectivity::Offline };
    // What it was before this look; after a start of the controller, a known agent is `Unknown`.
    let before = look.memory.agent.unwrap_or(if never_seen {
        AgentConnectivity::NeverSeen
    } else {
        AgentConnectivity::Unknown
    });

    let facts = match &look.observed.domain {
        DomainObservation::Unknown => return unseen(look, before),
        DomainObservation::Absent => return silent_kind,
        DomainObservation::Present(facts) => facts,
    };
    if facts.channel.is_none() {
        return AgentConnectivity::Unsupported;
    }
    match facts.state {
        DomainState::Unknown => unseen(look, before),
        // Not running, but there: silence means nothing.
        DomainState::Paused | DomainState::Suspended => heard_lately(look).unwrap_or(before),
        DomainState::Shutoff | DomainState::Crashed => silent_kind,
        DomainState::Running | DomainState::Blocked | DomainState::ShuttingDown => {
            if let Some(verdict) = heard_lately(look) {
                return verdict;
            }
            if never_seen {
                return AgentConnectivity::NeverSeen;
            }
            match before {
                // Known from before, and this controller has not listened long enough to judge.
                AgentConnectivity::Unknown | AgentConnectivity::Unsupported
                    if look.now < after(look.memory.started_at, look.rules.offline_after) =>
                {
                    AgentConnectivity::Unknown
                }
                _ => AgentConnectivity::Offline,
            }
        }
    }
}

/// While the domain cannot be seen, its guest may be silent for any reason. That it is there is said
/// only as long as it is heard.
fn unseen(look: &Look<'_>, before: AgentConnectivity) -> AgentConnectivity {
    heard_lately(look).unwrap_or(match before {
        AgentConnectivity::Online => AgentConnectivity::Unknown,
        other => other,
    })
}

/// `Online`, if the open link was heard within the limit.
fn heard_lately(look: &Look<'_>) -> Option<AgentConnectivity> {
    let heard = look.observed.link.open()?.last_message_at?;
    (look.now < after(heard, look.rules.offline_after)).then_some(AgentConnectivity::Online)
}

/// When silence would change the verdict, if nothing else happens. Silence of an open link is
/// found by the engine's liveness sweep; here is only the end of "not heard since we started".
pub(super) fn wake_at(look: &Look<'_>) -> Option<DateTime<Utc>> {
    let end = after(look.memory.started_at, look.rules.offline_after);
    (judge(look) == AgentConnectivity::Unknown && end > look.now).then_some(end)
}
