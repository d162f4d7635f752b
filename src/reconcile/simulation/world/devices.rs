//! Devices, simulated.

use super::World;
use crate::hypervisor::Devices;

impl Devices for World {}
