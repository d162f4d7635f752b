//! What is plugged into a domain.

use infinibay::hypervisor::Devices;

use crate::simulation::controller::Ports;

impl Devices for Ports {}
