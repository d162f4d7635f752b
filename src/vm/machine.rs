//! What a host has for machines besides processors, memory and disks, and what it lacks for one.

use super::Firmware;

/// What the host's hypervisor can give to a new VM.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct MachineFacts {
    /// UEFI firmware.
    pub uefi: bool,
    /// UEFI firmware that can boot securely.
    pub secure_boot: bool,
    /// An emulated TPM 2.0.
    pub tpm: bool,
}

/// What a host lacks for a VM, and who has it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Lacking {
    /// UEFI.
    #[error(
        "this host has no UEFI firmware for VMs; an operator has to install it (the package ovmf, or edk2)"
    )]
    Uefi,
    /// Secure boot.
    #[error(
        "this host has no UEFI firmware with secure boot for VMs; an operator has to install it (the package ovmf, \
         or edk2)"
    )]
    SecureBoot,
    /// A TPM.
    #[error(
        "this host has no TPM 2.0 for VMs; an operator has to install it (the packages swtpm and swtpm-tools)"
    )]
    Tpm,
}

impl MachineFacts {
    /// The first thing that a VM of that kind would miss here.
    #[must_use]
    pub fn lacks(self, firmware: Firmware, tpm: bool) -> Option<Lacking> {
        if !self.has(firmware) {
            return Some(match firmware {
                Firmware::UefiSecureBoot => Lacking::SecureBoot,
                Firmware::Bios | Firmware::Uefi => Lacking::Uefi,
            });
        }
        (tpm && !self.tpm).then_some(Lacking::Tpm)
    }

    /// What new VMs can boot with.
    pub fn firmware(self) -> impl Iterator<Item = Firmware> {
        [Firmware::Bios, Firmware::Uefi, Firmware::UefiSecureBoot]
            .into_iter()
            .filter(move |firmware| self.has(*firmware))
    }

    fn has(self, firmware: Firmware) -> bool {
        match firmware {
            Firmware::Bios => true,
            Firmware::Uefi => self.uefi,
            Firmware::UefiSecureBoot => self.secure_boot,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_there_is_named() {
        let (nothing, all) =
            (MachineFacts::default(), MachineFacts { uefi: true, secure_boot: true, tpm: true });
        let plain = MachineFacts { uefi: true, ..nothing };
        for (facts, firmware, tpm, expected) in [
            (nothing, Firmware::Bios, false, None),
            (nothing, Firmware::Bios, true, Some(Lacking::Tpm)),
            (nothing, Firmware::Uefi, true, Some(Lacking::Uefi)),
            (plain, Firmware::Uefi, false, None),
            (plain, Firmware::UefiSecureBoot, false, Some(Lacking::SecureBoot)),
            (plain, Firmware::Uefi, true, Some(Lacking::Tpm)),
            (all, Firmware::UefiSecureBoot, true, None),
        ] {
            assert_eq!(facts.lacks(firmware, tpm), expected, "{facts:?} {firmware:?} {tpm}");
        }
        assert_eq!(nothing.firmware().collect::<Vec<_>>(), [Firmware::Bios]);
        assert_eq!(all.firmware().count(), 3);
    }
}
