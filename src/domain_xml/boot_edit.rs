//! From an installer's domain to one that boots from its disk: what began the installation is taken
//! out, and every other byte left as it was. Done a second time it changes nothing.

use std::path::{Path, PathBuf};

use super::{
    channel::Injection,
    document::{Document, Element, escape_attribute},
    edit::{Edits, Markup, append_child, insert_after, removal_span},
    facts::FactsError,
    hardware_edit::{HardwareError, finish, parse},
};

/// Takes kernel, initial RAM disk, command line and the drives that hold one of `media` out of a
/// domain's configuration; has it boot from its disk, and boot anew when its guest does; and has what
/// is written to its console kept over its starts.
///
/// # Errors
/// [`HardwareError::Malformed`].
pub fn boot_from_disk(xml: &str, media: &[PathBuf]) -> Result<Injection, HardwareError> {
    let document = parse(xml)?;
    let domain = document.root();
    let mut edits = Edits::default();
    if let Some(os) = document.children(domain, "os").next() {
        boot_disk(&document, os, &mut edits);
    }
    for drive in drives_of(&document, media) {
        edits.remove(removal_span(xml, drive.span()));
    }
    let consoles = document.children(domain, "devices").flat_map(|devices| document.all_children(devices));
    for log in consoles
        .filter(|device| matches!(device.name, "serial" | "console"))
        .flat_map(|device| document.children(device, "log"))
        .filter(|log| log.value("append") == Some("off"))
    {
        let Some(file) = log.value("file") else { continue };
        edits.replace(log.span(), &format!("<log file='{}' append='on'/>", escape_attribute(file)));
    }
    match document.children(domain, "on_reboot").next() {
        Some(reboot) if document.text_of(reboot)?.trim() != "restart" => {
            edits.replace(reboot.span(), "<on_reboot>restart</on_reboot>");
        }
        // Restarting is what libvirt does where nothing is said.
        _ => {}
    }
    Ok(finish(&document, edits))
}

fn boot_disk(document: &Document<'_>, os: &Element<'_>, edits: &mut Edits) {
    for name in ["kernel", "initrd", "cmdline"] {
        for element in document.children(os, name) {
            edits.remove(removal_span(document.text, element.span()));
        }
    }
    let boots = || document.children(os, "boot");
    for other in boots().filter(|boot| boot.value("dev") != Some("hd")) {
        edits.remove(removal_span(document.text, other.span()));
    }
    if boots().any(|boot| boot.value("dev") == Some("hd")) || orders_devices(document) {
        return;
    }
    let disk = Markup::Line("<boot dev='hd'/>".to_owned());
    match document.children(os, "type").next() {
        Some(kind) => insert_after(document, os, kind, &disk, edits),
        None => append_child(document, os, disk, edits),
    }
}

/// Whether devices say themselves in which order they are booted from, which excludes the other way.
fn orders_devices(document: &Document<'_>) -> bool {
    let all = document.children(document.root(), "devices");
    all.flat_map(|devices| document.all_children(devices))
        .any(|device| document.children(device, "boot").next().is_some())
}

/// The drives that hold one of `media`, by their targets.
///
/// # Errors
/// [`HardwareError::Malformed`].
pub fn drives_with(xml: &str, media: &[PathBuf]) -> Result<Vec<String>, HardwareError> {
    let document = parse(xml)?;
    let targets = drives_of(&document, media)
        .filter_map(|drive| document.children(drive, "target").next()?.value("dev"))
        .map(str::to_owned);
    Ok(targets.collect())
}

/// Whether the domain is booted with a kernel of its own.
pub(super) fn boots_kernel(xml: &str) -> Result<bool, FactsError> {
    let document = Document::parse(xml)?;
    let mut all = document.children(document.root(), "os");
    Ok(all.any(|os| document.children(os, "kernel").next().is_some()))
}

fn drives_of<'d>(
    document: &'d Document<'d>,
    media: &'d [PathBuf],
) -> impl Iterator<Item = &'d Element<'d>> + 'd {
    let all = document.children(document.root(), "devices");
    all.flat_map(|devices| document.children(devices, "disk")).filter(move |disk| {
        let source = document.children(disk, "source").next().and_then(|source| source.value("file"));
        disk.value("device") == Some("cdrom")
            && source.is_some_and(|file| media.iter().any(|medium| medium == Path::new(file)))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const INSTALLER: &str = "<domain>
  <os>
    <type>hvm</type>
    <kernel>/seeds/a.kernel</kernel>
    <initrd>/seeds/a.initrd</initrd>
    <cmdline>auto=true</cmdline>
  </os>
  <on_reboot>destroy</on_reboot>
  <devices>
    <disk type='file' device='disk'>
      <source file='/pool/a'/>
      <target dev='vda'/>
    </disk>
    <disk type='file' device='cdrom'>
      <source file='/media/a &amp; b.iso'/>
      <target dev='sda'/>
    </disk>
    <disk type='file' device='cdrom'>
      <source file='/pool/mine.iso'/>
      <target dev='sdb'/>
    </disk>
    <serial type='pty'>
      <log file='/console/a &amp; b.log' append='off'/>
    </serial>
    <console type='pty'/>
  </devices>
</domain>";

    #[test]
    fn what_began_the_installation_goes_and_nothing_else() {
        let media = [PathBuf::from("/media/a & b.iso")];
        assert_eq!(drives_with(INSTALLER, &media).unwrap(), ["sda"]);
        let edited = boot_from_disk(INSTALLER, &media).unwrap();
        let expected = "<domain>
  <os>
    <type>hvm</type>
    <boot dev='hd'/>
  </os>
  <on_reboot>restart</on_reboot>
  <devices>
    <disk type='file' device='disk'>
      <source file='/pool/a'/>
      <target dev='vda'/>
    </disk>
    <disk type='file' device='cdrom'>
      <source file='/pool/mine.iso'/>
      <target dev='sdb'/>
    </disk>
    <serial type='pty'>
      <log file='/console/a &amp; b.log' append='on'/>
    </serial>
    <console type='pty'/>
  </devices>
</domain>";
        assert_eq!(edited.xml, expected);
        assert!(!boot_from_disk(&edited.xml, &media).unwrap().changed, "done twice it changed again");
    }

    #[test]
    fn the_disk_is_booted_from_and_nothing_before_it() {
        let windows =
            "<domain><os><type>hvm</type><boot dev='hd'/><boot dev='cdrom'/></os><devices/></domain>";
        let edited = boot_from_disk(windows, &[]).unwrap().xml;
        assert_eq!(edited, "<domain><os><type>hvm</type><boot dev='hd'/></os><devices/></domain>");
        let ordered = "<domain><os><type>hvm</type><kernel>/k</kernel></os><devices>\
                       <disk><boot order='1'/></disk></devices></domain>";
        assert!(!boot_from_disk(ordered, &[]).unwrap().xml.contains("boot dev"));
    }
}
