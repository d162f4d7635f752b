//! Whose a domain is.

use super::ChangeError;
use crate::{
    failpoint::failpoint,
    hypervisor::GivenBack,
    reconcile::{apply::Hands, note},
    store::{ChangeOutcome, VmBundle},
    vm::{Effect, IdentityChange, SocketObservation},
};

pub(super) async fn carry_out(
    hands: &Hands,
    bundle: &VmBundle,
    change: IdentityChange,
) -> Result<ChangeOutcome, ChangeError> {
    let id = bundle.record.id;
    let effect = |at_once| if at_once { Effect::Live } else { Effect::NextBoot };
    match change {
        IdentityChange::Adopt => {
            let note = note::write(hands, &bundle.record, &bundle.resources).await?;
            let at_once = hands.hypervisor.adopt(id, hands.socket_path(id), note).await?;
            Ok(ChangeOutcome { effect: Some(effect(at_once)), ..ChangeOutcome::default() })
        }
        IdentityChange::Release => {
            let given_back = hands.hypervisor.release(id).await?;
            if given_back == GivenBack::Done {
                let path = hands.socket_path(id);
                // What somebody else put there is his, and no reason to keep the VM.
                let seen = hands.files.inspect_socket(&path).await;
                if matches!(seen, SocketObservation::Present | SocketObservation::Unknown) {
                    hands.files.remove_socket(&path).await?;
                    failpoint!("release.cleared");
                }
            }
            let effect = Some(effect(given_back == GivenBack::Done));
            Ok(ChangeOutcome { effect, released: true, ..ChangeOutcome::default() })
        }
    }
}
