//! Size and devices in a domain's XML: changed, put in, taken out, with every other byte left as
//! it was. Each edit done a second time changes nothing.

use std::path::{Path, PathBuf};

use super::{
    channel::Injection,
    document::{Document, Element, escape_attribute},
    edit::{Edits, Markup, append_child, insert_after, removal_span},
    facts::FactsError,
    hardware::{InterfaceSource, mac_of, read_mib, read_vcpus, target_of},
    malformed::Malformed,
};

/// A device to be plugged in. Values are data: they are escaped here.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum NewDevice {
    /// A qcow2 disk on virtio.
    Disk {
        /// `vdb`, …
        target: String,
        /// The volume's file.
        path: PathBuf,
    },
    /// A drive for media, read-only.
    Drive {
        /// `sdb`, …
        target: String,
        /// Whether on SCSI, rather than SATA.
        scsi: bool,
        /// What is in it.
        medium: Option<PathBuf>,
    },
    /// A virtio network card.
    Interface {
        /// Lower-case, colon separated.
        mac: String,
        /// A libvirt network, or a bridge of the host.
        source: InterfaceSource,
    },
}

/// The name of a device that is plugged in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum DeviceName {
    /// A disk or drive, by its target.
    Disk(String),
    /// A network card, by its hardware address, lower-case.
    Interface(String),
}

/// Why a document was not edited.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum HardwareError {
    /// Not one whole, well-formed domain document.
    #[error("the domain XML cannot be read: {0}")]
    Malformed(String),
    /// Somebody laid out processors or memory one by one.
    #[error("the domain's <{0}> lays its processors or memory out one by one; change it with virsh edit")]
    LaidOut(&'static str),
    /// There is no such device.
    #[error("the domain has no drive {0}")]
    NoDrive(String),
}

impl From<Malformed> for HardwareError {
    fn from(malformed: Malformed) -> Self {
        Self::Malformed(malformed.to_string())
    }
}

impl From<FactsError> for HardwareError {
    fn from(error: FactsError) -> Self {
        Self::Malformed(error.0)
    }
}

impl NewDevice {
    /// What it is called once it is plugged in.
    #[must_use]
    pub fn name(&self) -> DeviceName {
        match self {
            Self::Disk { target, .. } | Self::Drive { target, .. } => DeviceName::Disk(target.clone()),
            Self::Interface { mac, .. } => DeviceName::Interface(mac.clone()),
        }
    }

    /// Its element alone, on one line, for plugging it into a running domain.
    ///
    /// # Errors
    /// A path that is not UTF-8.
    pub fn element(&self) -> Result<String, HardwareError> {
        Ok(self.markup()?.to_text(None))
    }

    fn markup(&self) -> Result<Markup, HardwareError> {
        let (start, children, end) = match self {
            Self::Disk { target, path } => (
                "<disk type='file' device='disk'>",
                vec![
                    "<driver name='qemu' type='qcow2' discard='unmap'/>".to_owned(),
                    source_tag(path)?,
                    format!("<target dev='{}' bus='virtio'/>", escape_attribute(target)),
                ],
                "</disk>",
            ),
            Self::Drive { target, scsi, medium } => {
                let bus = if *scsi { "scsi" } else { "sata" };
                let mut lines = vec!["<driver name='qemu' type='raw'/>".to_owned()];
                lines.extend(medium.as_deref().map(source_tag).transpose()?);
                lines.push(format!("<target dev='{}' bus='{bus}'/>", escape_attribute(target)));
                lines.push("<readonly/>".to_owned());
                ("<disk type='file' device='cdrom'>", lines, "</disk>")
            }
            Self::Interface { mac, source } => {
                let (start, key, name) = match source {
                    InterfaceSource::Network(name) => ("<interface type='network'>", "network", name),
                    InterfaceSource::Bridge(name) => ("<interface type='bridge'>", "bridge", name),
                };
                let lines = vec![
                    format!("<mac address='{}'/>", escape_attribute(mac)),
                    format!("<source {key}='{}'/>", escape_attribute(name)),
                    "<model type='virtio'/>".to_owned(),
                ];
                (start, lines, "</interface>")
            }
        };
        let children = children.into_iter().map(Markup::Line).collect();
        Ok(Markup::Open { start: start.to_owned(), children, end: end.to_owned() })
    }
}

fn source_tag(path: &Path) -> Result<String, HardwareError> {
    let text =
        path.to_str().ok_or_else(|| HardwareError::Malformed(format!("{} is not UTF-8", path.display())))?;
    Ok(format!("<source file='{}'/>", escape_attribute(text)))
}

/// Gives a domain so many processors and so much memory (MiB).
///
/// # Errors
/// [`HardwareError::Malformed`], [`HardwareError::LaidOut`].
pub fn set_size(xml: &str, vcpus: u32, memory_mib: u64) -> Result<Injection, HardwareError> {
    let document = parse(xml)?;
    let domain = document.root();
    let mut edits = Edits::default();
    match document.children(domain, "vcpu").next() {
        Some(vcpu) => set_vcpus(&document, vcpu, vcpus, &mut edits)?,
        None if vcpus == 1 => {}
        None => append_child(&document, domain, Markup::Line(format!("<vcpu>{vcpus}</vcpu>")), &mut edits),
    }
    if !edits.is_empty() {
        refuse(&document, "vcpus")?;
        refuse_in_cpu(&document, "topology")?;
    }
    let mut memory = Edits::default();
    let child = |name: &'static str| document.children(domain, name).next();
    let (most, current) = (child("memory"), child("currentMemory"));
    let mib = |element: Option<&Element<'_>>| element.map(|it| read_mib(&document, it)).transpose();
    let (most_mib, current_mib) = (mib(most)?, mib(current)?);
    // Room to grow that somebody left stays.
    let has_room = current_mib.is_some() && current_mib < most_mib && Some(memory_mib) <= most_mib;
    for element in [most.filter(|_| !has_room), current].into_iter().flatten() {
        set_memory(&document, element, memory_mib, &mut memory)?;
    }
    if !edits.is_empty() || !memory.is_empty() {
        refuse_in_cpu(&document, "numa")?;
    }
    edits.append(memory);
    Ok(finish(&document, edits))
}

fn set_vcpus(
    document: &Document<'_>,
    vcpu: &Element<'_>,
    vcpus: u32,
    edits: &mut Edits,
) -> Result<(), HardwareError> {
    let (current, max) = read_vcpus(document, vcpu)?;
    let attribute = vcpu.attribute("current");
    match attribute {
        Some(attribute) if current != vcpus => {
            edits.replace(attribute.value_span.clone(), &vcpus.to_string())
        }
        _ => {}
    }
    // Room to grow that somebody left stays.
    if max < vcpus || (attribute.is_none() && max != vcpus) {
        replace_text(vcpu, &vcpus.to_string(), edits);
    }
    Ok(())
}

fn set_memory(
    document: &Document<'_>,
    element: &Element<'_>,
    mib: u64,
    edits: &mut Edits,
) -> Result<(), HardwareError> {
    if read_mib(document, element)? == mib {
        return Ok(());
    }
    if let Some(unit) = element.attribute("unit") {
        edits.replace(unit.value_span.clone(), "KiB");
    }
    replace_text(element, &mib.saturating_mul(1024).to_string(), edits);
    Ok(())
}

fn replace_text(element: &Element<'_>, text: &str, edits: &mut Edits) {
    edits.replace(element.start_tag.end..element.end_tag.start, text);
}

fn refuse(document: &Document<'_>, name: &'static str) -> Result<(), HardwareError> {
    match document.children(document.root(), name).next() {
        Some(_) => Err(HardwareError::LaidOut(name)),
        None => Ok(()),
    }
}

fn refuse_in_cpu(document: &Document<'_>, name: &'static str) -> Result<(), HardwareError> {
    let mut cpus = document.children(document.root(), "cpu");
    match cpus.any(|cpu| document.children(cpu, name).next().is_some()) {
        true => Err(HardwareError::LaidOut(name)),
        false => Ok(()),
    }
}

/// Puts a device in. One of its name that is there already stays as it is.
///
/// # Errors
/// [`HardwareError::Malformed`].
pub fn add_device(xml: &str, device: &NewDevice) -> Result<Injection, HardwareError> {
    let document = parse(xml)?;
    let mut edits = Edits::default();
    if find(&document, &device.name()).is_none() {
        let markup = device.markup()?;
        let kind = if matches!(device, NewDevice::Interface { .. }) { "interface" } else { "disk" };
        let Some(devices) = document.children(document.root(), "devices").next() else {
            return Err(HardwareError::Malformed("there is no <devices>".to_owned()));
        };
        match document.children(devices, kind).last() {
            Some(sibling) => insert_after(&document, devices, sibling, &markup, &mut edits),
            None => append_child(&document, devices, markup, &mut edits),
        }
    }
    Ok(finish(&document, edits))
}

/// Takes a device out, with the line it stood on.
///
/// # Errors
/// [`HardwareError::Malformed`].
pub fn remove_device(xml: &str, name: &DeviceName) -> Result<Injection, HardwareError> {
    let document = parse(xml)?;
    let mut edits = Edits::default();
    if let Some(element) = find(&document, name) {
        edits.remove(removal_span(xml, element.span()));
    }
    Ok(finish(&document, edits))
}

/// Puts a medium into a drive, or takes it out.
///
/// # Errors
/// [`HardwareError::Malformed`], [`HardwareError::NoDrive`].
pub fn set_medium(xml: &str, target: &str, medium: Option<&Path>) -> Result<Injection, HardwareError> {
    let document = parse(xml)?;
    let drive = find(&document, &DeviceName::Disk(target.to_owned()));
    let Some(drive) = drive.filter(|drive| drive.value("device") == Some("cdrom")) else {
        return Err(HardwareError::NoDrive(target.to_owned()));
    };
    let mut edits = Edits::default();
    let source = document.children(drive, "source").next();
    match (source, medium) {
        (None, None) => {}
        (Some(source), None) => edits.remove(removal_span(xml, source.span())),
        (Some(source), Some(path)) if source.value("file").map(Path::new) == Some(path) => {}
        (Some(source), Some(path)) => edits.replace(source.span(), &source_tag(path)?),
        (None, Some(path)) => append_child(&document, drive, Markup::Line(source_tag(path)?), &mut edits),
    }
    let of_files = drive.value("type") == Some("file");
    if let Some(kind) = drive.attribute("type").filter(|_| !of_files && medium.is_some()) {
        edits.replace(kind.value_span.clone(), "file");
    }
    Ok(finish(&document, edits))
}

/// A device's element as it stands in a domain's XML; `None` if it has no such device.
///
/// # Errors
/// [`HardwareError::Malformed`].
pub fn device_element(xml: &str, name: &DeviceName) -> Result<Option<String>, HardwareError> {
    let document = parse(xml)?;
    Ok(find(&document, name).map(|element| xml[element.span()].to_owned()))
}

pub(super) fn parse(xml: &str) -> Result<Document<'_>, HardwareError> {
    let document = Document::parse(xml)?;
    let root = document.root();
    if root.name != "domain" || root.namespace.is_some() {
        return Err(HardwareError::Malformed(format!("the root element is <{}>, not <domain>", root.name)));
    }
    Ok(document)
}

fn find<'d>(document: &'d Document<'d>, name: &DeviceName) -> Option<&'d Element<'d>> {
    let kind = match name {
        DeviceName::Disk(_) => "disk",
        DeviceName::Interface(_) => "interface",
    };
    let all = document.children(document.root(), "devices");
    all.flat_map(|devices| document.children(devices, kind)).find(|element| match name {
        DeviceName::Disk(target) => target_of(document, element) == Some(target.as_str()),
        DeviceName::Interface(mac) => mac_of(document, element).as_ref() == Some(mac),
    })
}

pub(super) fn finish(document: &Document<'_>, edits: Edits) -> Injection {
    let changed = !edits.is_empty();
    Injection { xml: edits.apply(document.text), changed }
}

#[cfg(test)]
mod tests;
