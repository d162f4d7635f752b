//! A command's way to its link: it waits for a place, then for its answer.

use std::time::Duration;

use tokio::{
    sync::oneshot,
    time::{Instant, timeout_at},
};

use super::{LinkError, Links, flight::ANSWER_MARGIN, sending::Sending, session::Job, shared::Pending};
use crate::vm::{CommandId, CommandOutcome, GuestCommand, VmId};

/// The longest that a command is waited for, whatever its caller says.
const LONGEST: Duration = Duration::from_secs(7 * 24 * 3600);

impl Links {
    /// Sends a command and waits for its outcome. Waits for a free place first (one command in
    /// flight unless the agent announced more); that counts against `timeout`, and the agent is
    /// told what is left of it. Once sent, the command is waited for until `timeout` and a margin
    /// of 5 s more, so that the agent's own word on a command that it had to end comes in time.
    ///
    /// # Errors
    /// `NotConnected`, `Ended`, `NoPlace`: nothing was sent.
    pub async fn execute(
        &self,
        vm: VmId,
        id: CommandId,
        command: &GuestCommand,
        timeout: Duration,
    ) -> Result<CommandOutcome, LinkError> {
        self.execute_noting(vm, id, command, timeout, &Sending::default()).await
    }

    /// The same, for one who wants to know whether it was sent. Dropping the future detaches the
    /// caller: what was sent keeps its place until its answer, which is late then.
    ///
    /// # Errors
    /// `NotConnected`, `Ended`, `NoPlace`: nothing was sent.
    pub async fn execute_noting(
        &self,
        vm: VmId,
        id: CommandId,
        command: &GuestCommand,
        timeout: Duration,
        sending: &Sending,
    ) -> Result<CommandOutcome, LinkError> {
        let deadline = Instant::now() + timeout.min(LONGEST);
        let (reply, mut outcome) = oneshot::channel();
        // From here on the link counts as busy.
        let (jobs, shared, pending) = self
            .with_live(vm, |live| {
                let pending = live.shared.is_heard().then(|| Pending::new(&live.shared))?;
                Some((live.jobs.clone(), live.shared.clone(), pending))
            })
            .flatten()
            .ok_or(LinkError::NotConnected)?;
        let job = Job { id, command: command.clone(), deadline, sending: sending.clone(), reply, pending };
        match timeout_at(deadline, jobs.send(Box::new(job))).await {
            Ok(Ok(())) => {}
            Ok(Err(_)) => return Err(LinkError::Ended(shared.end())),
            Err(_) => return Err(LinkError::NoPlace),
        }
        // The link ended with the job unsent.
        let settle = |told: Result<_, _>| told.unwrap_or_else(|_| Err(LinkError::Ended(shared.end())));
        if let Ok(told) = timeout_at(deadline, &mut outcome).await {
            return settle(told);
        }
        // From here on it cannot be sent any more, so that what is said now stays true.
        if sending.withdraw() {
            // The link may have told why in this very moment.
            return outcome.try_recv().unwrap_or(Err(LinkError::NoPlace));
        }
        match timeout_at(deadline + ANSWER_MARGIN, outcome).await {
            Ok(told) => settle(told),
            Err(_) => Ok(CommandOutcome::TimedOut),
        }
    }
}
