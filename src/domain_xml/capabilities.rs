//! What libvirt says that a machine can have, as far as new VMs may ask for it.

use super::{
    document::{Document, Element},
    facts::FactsError,
};
use crate::vm::MachineFacts;

/// Reads `virConnectGetDomainCapabilities`. What is not said to be there is not.
///
/// # Errors
/// Text that is no XML.
pub fn read_capabilities(xml: &str) -> Result<MachineFacts, FactsError> {
    let document = Document::parse(xml)?;
    let child = |parent, name| document.children(parent, name).next();
    let os = child(document.root(), "os").filter(is_supported);
    let loader = os.and_then(|os| child(os, "loader")).filter(is_supported);
    let tpm =
        child(document.root(), "devices").and_then(|devices| child(devices, "tpm")).filter(is_supported);
    let offers = |element: Option<&Element<'_>>, name, value| match element {
        Some(element) => offers(&document, element, name, value),
        None => Ok(false),
    };
    let uefi = offers(os, "firmware", "efi")?;
    Ok(MachineFacts {
        uefi,
        secure_boot: uefi && offers(loader, "secure", "yes")?,
        tpm: offers(tpm, "backendModel", "emulator")?
            && offers(tpm, "backendVersion", "2.0")?
            && offers(tpm, "model", "tpm-crb")?,
    })
}

fn is_supported(element: &&Element<'_>) -> bool {
    element.value("supported") == Some("yes")
}

/// Whether the element's list of that name has the value.
fn offers(
    document: &Document<'_>,
    element: &Element<'_>,
    name: &str,
    value: &str,
) -> Result<bool, FactsError> {
    for list in document.children(element, "enum").filter(|list| list.value("name") == Some(name)) {
        for offered in document.children(list, "value") {
            if document.text_of(offered)?.trim() == value {
                return Ok(true);
            }
        }
    }
    Ok(false)
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALL: &str = "<domainCapabilities><os supported='yes'><enum name='firmware'><value>efi</value></enum>
        <loader supported='yes'><enum name='type'><value>pflash</value></enum>
        <enum name='secure'><value>yes</value><value>no</value></enum></loader></os>
        <devices><tpm supported='yes'><enum name='model'><value>tpm-tis</value><value>tpm-crb</value></enum>
        <enum name='backendModel'><value>passthrough</value><value>emulator</value></enum>
        <enum name='backendVersion'><value>1.2</value><value>2.0</value></enum></tpm></devices></domainCapabilities>";

    #[test]
    fn only_what_is_said_to_be_there_is() {
        let read = |xml: &str| read_capabilities(xml).unwrap();
        let all = MachineFacts { uefi: true, secure_boot: true, tpm: true };
        assert_eq!(read(ALL), all);
        assert_eq!(read("<domainCapabilities/>"), MachineFacts::default());
        for (from, to, expected) in [
            ("<value>efi</value>", "", MachineFacts { tpm: true, ..MachineFacts::default() }),
            ("<value>yes</value>", "", MachineFacts { secure_boot: false, ..all }),
            ("<value>emulator</value>", "", MachineFacts { tpm: false, ..all }),
            ("<value>2.0</value>", "", MachineFacts { tpm: false, ..all }),
            ("<value>tpm-crb</value>", "", MachineFacts { tpm: false, ..all }),
            ("<tpm supported='yes'>", "<tpm supported='no'>", MachineFacts { tpm: false, ..all }),
            (
                "<loader supported='yes'>",
                "<loader supported='no'>",
                MachineFacts { secure_boot: false, ..all },
            ),
        ] {
            assert!(ALL.contains(from), "{from}");
            assert_eq!(read(&ALL.replace(from, to)), expected, "without {from}");
        }
        assert!(read_capabilities("<domainCapabilities>").is_err());
    }
}
