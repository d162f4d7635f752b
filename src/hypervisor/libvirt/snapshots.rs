//! A domain's snapshots.

use super::LibvirtHypervisor;
use crate::hypervisor::Snapshots;

impl Snapshots for LibvirtHypervisor {}
