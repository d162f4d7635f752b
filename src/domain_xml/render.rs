//! A new domain's XML, from a template and a specification.
//!
//! Templates say how a VM is built and are files that an operator may replace, so a rendered text
//! is not trusted: it must be a whole document and carry the identity, the metadata and the
//! channel that the rest of the house relies on. What an operator wrote is tried with VMs of every
//! shape before any is made from it.

mod trial;

use std::{
    path::{Path, PathBuf},
    sync::Arc,
};

use minijinja::{AutoEscape, Environment, ErrorKind, Output, State, UndefinedBehavior, Value, context};

use super::{
    AGENT_CHANNEL, FactsError, METADATA_NAMESPACE, METADATA_SCHEMA,
    boot_edit::{boots_kernel, drives_with},
    document::{Document, escape_attribute},
    mac_address, read_facts,
    syntax::is_xml_text,
};
use crate::{
    template::{Place, ReadError, TemplateText},
    vm::{Firmware, InstallerBoot, NetworkAttachment, OsFamily, VmId, VmSpec},
};

/// The hypervisor that a domain is written for; libvirt's `domain/@type`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DomainKind {
    /// Hardware virtualisation.
    Kvm,
    /// Software emulation.
    Qemu,
    /// libvirt's test driver.
    Test,
}

impl DomainKind {
    fn as_str(self) -> &'static str {
        match self {
            Self::Kvm => "kvm",
            Self::Qemu => "qemu",
            Self::Test => "test",
        }
    }
}

/// What a domain is made from.
#[derive(Debug, Clone, Copy)]
pub struct DomainInputs<'a> {
    /// The domain's UUID.
    pub id: VmId,
    /// Name, sizes, network, image.
    pub spec: &'a VmSpec,
    /// The hypervisor.
    pub kind: DomainKind,
    /// The disk, a qcow2 file, absolute.
    pub disk_path: &'a Path,
    /// The seed medium, an ISO file, absolute.
    pub seed_path: Option<&'a Path>,
    /// The agent channel's socket, absolute.
    pub socket_path: &'a Path,
    /// Where the serial console is written to, absolute.
    pub console_log: Option<&'a Path>,
    /// What it boots with while a system is installed on it; `None`: it boots as its image says, or
    /// from its disk.
    pub installer: Option<&'a InstallerBoot>,
}

/// Why no domain came out.
#[derive(Debug, thiserror::Error)]
pub enum RenderError {
    /// A template file cannot be read.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// A template is no template, or asks for a value that there is not.
    #[error("the domain template {place}")]
    Template {
        /// Where.
        place: Place,
        /// Why.
        #[source]
        source: minijinja::Error,
    },
    /// Nobody has said how such a VM is built.
    #[error("there is no domain template {0}; one can be put into the templates directory")]
    NoTemplate(&'static str),
    /// A path that cannot stand in XML.
    #[error("the path {0:?} is not absolute, or is not UTF-8")]
    Path(PathBuf),
    /// What came out cannot be read as a domain.
    #[error("the domain template {place} does not give a domain")]
    NotADomain {
        /// Where, as far as what came out tells.
        place: Place,
        /// Why.
        #[source]
        source: FactsError,
    },
    /// What came out is a domain, but not the one that was asked for.
    #[error("the domain template {place} does not carry the VM's {part}")]
    Missing {
        /// Where it stands, or where it would.
        place: Place,
        /// What is missing or wrong.
        part: &'static str,
    },
    /// A VM to try templates with cannot be thought up.
    #[error("the domain templates cannot be tried out: {0}")]
    Trial(String),
}

/// The templates, compiled. Clones share them.
#[derive(Debug, Clone)]
pub struct Templates {
    environment: Arc<Environment<'static>>,
    texts: Arc<[TemplateText]>,
}

fn file_name(family: OsFamily) -> &'static str {
    match family {
        OsFamily::Linux => "linux.xml",
        OsFamily::Windows => "windows.xml",
    }
}

fn built_in(family: OsFamily) -> &'static str {
    match family {
        OsFamily::Linux => include_str!("../../domain-templates/linux.xml"),
        OsFamily::Windows => include_str!("../../domain-templates/windows.xml"),
    }
}

impl Templates {
    /// The built-in templates, replaced by those of the same name in `dir`. Each of these is filled
    /// in for made-up VMs of every shape, so that a mistake is found here. Reads files: not for an
    /// async thread.
    ///
    /// # Errors
    /// A file that is there and cannot be read, compiled or filled in, or whose domain lacks something.
    /// One that is not there is none.
    pub fn load(dir: Option<&Path>) -> Result<Self, RenderError> {
        let templates = Self::compile(dir)?;
        for family in OsFamily::ALL {
            if templates.text(file_name(family)).is_some_and(|text| text.path.is_some()) {
                trial::try_every_shape(&templates, family)?;
            }
        }
        Ok(templates)
    }

    fn compile(dir: Option<&Path>) -> Result<Self, RenderError> {
        let mut environment = Environment::new();
        environment.set_undefined_behavior(UndefinedBehavior::Strict);
        environment.set_auto_escape_callback(|_| AutoEscape::Custom("xml".into()));
        environment.set_formatter(write_escaped);
        let mut texts = Vec::new();
        for family in OsFamily::ALL {
            let name = file_name(family);
            let text = TemplateText::load(dir, name, built_in(family))?;
            environment
                .add_template_owned(name, text.text.clone())
                .map_err(|source| RenderError::Template { place: text.at(source.line()), source })?;
            texts.push(text);
        }
        Ok(Self { environment: Arc::new(environment), texts: texts.into() })
    }

    /// Whether there is a template for VMs of this family.
    #[must_use]
    pub fn has(&self, family: OsFamily) -> bool {
        self.environment.get_template(file_name(family)).is_ok()
    }

    fn text(&self, name: &str) -> Option<&TemplateText> {
        self.texts.iter().find(|text| text.name == name)
    }
}

/// Writes every value escaped, also one that a template calls safe: nothing that is filled in is
/// ever XML.
fn write_escaped(
    out: &mut Output<'_>,
    state: &mut State<'_, '_>,
    value: &Value,
) -> Result<(), minijinja::Error> {
    if value.is_undefined() || value.is_none() {
        let reason = format!("an unset value is written out in {}", state.name());
        return Err(minijinja::Error::new(ErrorKind::UndefinedError, reason));
    }
    let text = value.to_string();
    if !is_xml_text(&text) {
        return Err(minijinja::Error::new(
            ErrorKind::BadSerialization,
            "XML cannot carry a character of a value",
        ));
    }
    // Line ends and tabs would be read back as blanks from an attribute.
    let escaped = escape_attribute(&text).replace('\t', "&#9;").replace('\n', "&#10;").replace('\r', "&#13;");
    out.write_str(&escaped).map_err(minijinja::Error::from)
}

fn path_text(path: &Path) -> Result<&str, RenderError> {
    path.to_str().filter(|_| path.is_absolute()).ok_or_else(|| RenderError::Path(path.to_owned()))
}

/// The XML of a new domain.
///
/// # Errors
/// See [`RenderError`].
pub fn render(templates: &Templates, inputs: &DomainInputs<'_>) -> Result<String, RenderError> {
    let spec = inputs.spec;
    let name = file_name(spec.os_family());
    let none = || RenderError::NoTemplate(name);
    let template = templates.environment.get_template(name).map_err(|_| none())?;
    let text = templates.text(name).ok_or_else(none)?;
    let of_image = spec.image().and_then(|image| image.kernel.as_ref());
    let kernel = match inputs.installer.map_or(of_image, |installer| installer.kernel.as_ref()) {
        Some(boot) => context! {
            kernel => path_text(&boot.kernel)?,
            initrd => boot.initrd.as_deref().map(path_text).transpose()?,
            cmdline => boot.cmdline.as_str(),
        },
        None => Value::from(()),
    };
    let network = match &spec.network {
        NetworkAttachment::Network(network) => context! { kind => "network", name => network.as_str() },
        NetworkAttachment::User => context! { kind => "user" },
        NetworkAttachment::None => context! { kind => "none" },
    };
    let discs = inputs.installer.map_or(&[][..], |installer| &installer.discs);
    let discs = (b'a'..=b'z')
        .zip(discs)
        .map(|(letter, disc)| {
            Ok(context! { target => format!("sd{}", char::from(letter)), file => path_text(disc)? })
        })
        .collect::<Result<Vec<Value>, RenderError>>()?;
    let context = context! {
        id => inputs.id.to_string(),
        name => spec.name.as_str(),
        kind => inputs.kind.as_str(),
        memory_mib => spec.memory_mib,
        vcpus => spec.vcpus,
        kernel,
        network,
        firmware => context! {
            uefi => spec.firmware.is_uefi(),
            secure_boot => spec.firmware == Firmware::UefiSecureBoot,
        },
        tpm => spec.tpm,
        installed => spec.installation().is_some(),
        virtio_drivers => spec.installation().is_some_and(|installation| installation.drivers.is_some()),
        disk => path_text(inputs.disk_path)?,
        seed => inputs.seed_path.map(path_text).transpose()?,
        socket => path_text(inputs.socket_path)?,
        console_log => inputs.console_log.map(path_text).transpose()?,
        // What an attempt at an installation wrote is taken for what it came to: the next begins anew.
        console_append => if inputs.installer.is_some() { "off" } else { "on" },
        discs,
        // An installer that wants to boot anew has done its work; one that goes on by itself does so.
        on_reboot => if inputs.installer.is_some() && !reboots_by_itself(spec) { "destroy" } else { "restart" },
        mac => mac_address(inputs.id),
        channel_name => AGENT_CHANNEL,
        metadata_namespace => METADATA_NAMESPACE,
        metadata_schema => METADATA_SCHEMA,
    };
    let xml = template.render(context).map_err(|source| {
        // One may include the other.
        let of = source.name().and_then(|name| templates.text(name)).unwrap_or(text);
        RenderError::Template { place: of.at(source.line()), source }
    })?;
    check(text, &xml, inputs)?;
    Ok(xml)
}

fn reboots_by_itself(spec: &VmSpec) -> bool {
    spec.installation().is_some_and(|installation| installation.family.reboots_by_itself())
}

/// What a text lacks, and the words that stand where it would.
type Lack = (&'static str, &'static [&'static str]);

/// What of an installer's boot a text lacks.
fn lacks_installer(xml: &str, installer: &InstallerBoot) -> Result<Option<Lack>, FactsError> {
    let drives = drives_with(xml, &installer.discs).map_err(|error| FactsError(error.to_string()))?;
    let kernel = boots_kernel(xml)?;
    Ok(if drives.len() < installer.discs.len() {
        Some(("installer's discs", &["in discs", "<devices"]))
    } else if kernel != installer.kernel.is_some() {
        Some(("installer's kernel", &["<kernel", "<os"]))
    } else {
        None
    })
}

fn check(text: &TemplateText, xml: &str, inputs: &DomainInputs<'_>) -> Result<(), RenderError> {
    if let Err(malformed) = Document::parse(xml) {
        let before = xml.get(..malformed.offset).unwrap_or(xml);
        let place = text.gave(xml, before.matches('\n').count() + 1);
        return Err(RenderError::NotADomain { place, source: malformed.into() });
    }
    let not_a_domain = |source| RenderError::NotADomain { place: text.mentions(&["<domain", "<"]), source };
    let facts = read_facts(xml).map_err(not_a_domain)?;
    let (part, stands_at): (_, &[&str]) = if facts.id != inputs.id {
        ("id", &["<uuid"])
    } else if facts.name != inputs.spec.name.as_str() {
        ("name", &["<name"])
    } else if facts.channel.is_none_or(|channel| channel.path != inputs.socket_path) {
        ("agent channel", &["{{ channel_name", AGENT_CHANNEL, "{{ socket", "<channel", "<devices"])
    } else if !facts.managed {
        ("metadata element", &["{{ metadata_namespace", METADATA_NAMESPACE, "<metadata"])
    } else {
        let lacking = inputs.installer.map(|installer| lacks_installer(xml, installer)).transpose();
        match lacking.map_err(not_a_domain)?.flatten() {
            Some(lack) => lack,
            None => return Ok(()),
        }
    };
    Err(RenderError::Missing { place: text.mentions(&[stands_at, &["<domain"]].concat()), part })
}

#[cfg(test)]
mod tests;
