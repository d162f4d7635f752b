//! A pass: one scan, and what every VM's task made of it. How long it takes as a whole is what a host
//! with many VMs is judged by, and nobody sees it whole: the tasks share it, and the last one to let
//! go of it knows.

use tokio::time::Instant;

/// See the module.
#[derive(Debug)]
pub(super) struct Pass {
    pub(super) begun: Instant,
}

impl Drop for Pass {
    fn drop(&mut self) {
        metrics::histogram!("infinibay_pass_seconds").record(self.begun.elapsed().as_secs_f64());
    }
}
