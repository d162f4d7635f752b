//! Snapshots, simulated.

use super::World;
use crate::hypervisor::Snapshots;

impl Snapshots for World {}
