//! The hardware address of a VM's network card.

use sha2::{Digest, Sha256};

use crate::vm::VmId;

/// The address given to a VM's card: `52:54:00` and three bytes of a hash
/// of the id, lower-case. Derived, so that a definition written twice is the same, and an address
/// can be looked up in the DHCP leases without asking libvirt.
///
/// Two VMs share an address with a probability of one in 16.7 million, as with libvirt's own
/// random choice.
#[must_use]
pub fn mac_address(id: VmId) -> String {
    let hash = Sha256::digest(id.uuid().as_bytes());
    format!("52:54:00:{:02x}:{:02x}:{:02x}", hash[0], hash[1], hash[2])
}

/// The address given to a card that is plugged in later, by its number from 1.
#[must_use]
pub fn extra_mac_address(id: VmId, number: u32) -> String {
    let hash = Sha256::new().chain_update(id.uuid().as_bytes()).chain_update(number.to_be_bytes()).finalize();
    format!("52:54:00:{:02x}:{:02x}:{:02x}", hash[0], hash[1], hash[2])
}

#[cfg(test)]
mod tests {
    use super::{extra_mac_address, mac_address};

    #[test]
    fn the_address_of_an_id_never_changes() {
        let mac = |id: &str| mac_address(id.parse().unwrap());
        assert_eq!(mac("018f3c5e-7a10-7cc2-9d1b-6f0f3a2b4c5d"), "52:54:00:0c:0c:17");
        assert_ne!(mac("018f3c5e-7a10-7cc2-9d1b-6f0f3a2b4c5d"), mac("018f3c5e-7a10-7cc2-9d1b-6f0f3a2b4c5e"));
        let id = "018f3c5e-7a10-7cc2-9d1b-6f0f3a2b4c5d".parse().unwrap();
        let all: std::collections::BTreeSet<_> =
            (1..8).map(|number| extra_mac_address(id, number)).chain([mac_address(id)]).collect();
        assert_eq!(all.len(), 8);
    }
}
