//! A domain's snapshots.

use infinibay::hypervisor::Snapshots;

use crate::simulation::controller::Ports;

impl Snapshots for Ports {}
