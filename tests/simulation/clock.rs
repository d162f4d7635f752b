//! The time and chance of a run.

use chrono::{DateTime, Utc};
use infinibay::reconcile::{Clock, Randomness};

use super::controller::Ports;

impl Clock for Ports {
    fn now(&self) -> DateTime<Utc> {
        self.world.state().now
    }
}

impl Randomness for Ports {
    fn jitter(&self) -> f64 {
        self.world.state().chance.fraction()
    }
}
