//! What is plugged into a domain, and how large it is.

use super::LibvirtHypervisor;
use crate::hypervisor::Devices;

impl Devices for LibvirtHypervisor {}
