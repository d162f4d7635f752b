//! Domain XML as text: rendered from a template, read for the few facts we need, and edited
//! without touching any byte that is not ours.

mod adoption;
mod boot_edit;
mod capabilities;
mod channel;
pub(crate) mod document;
mod edit;
mod facts;
mod hardware;
mod hardware_edit;
mod mac;
mod malformed;
mod note;
mod render;
mod syntax;
mod uuid;

pub use adoption::{AdoptionError, adopt_domain, gave_channel, release_domain, settled_note};
pub use boot_edit::{boot_from_disk, drives_with};
pub use capabilities::read_capabilities;
pub use channel::{ChannelError, Injection, channel_element, inject_channel, remove_channel};
pub use facts::{FactsError, XmlFacts, read_facts};
pub use hardware::{Card, DiskFacts, DiskKind, Hardware, InterfaceSource, read_hardware, waiting};
pub use hardware_edit::{
    DeviceName, HardwareError, NewDevice, add_device, device_element, remove_device, set_medium, set_size,
};
pub use mac::{extra_mac_address, mac_address};
pub use malformed::Malformed;
pub use note::{FoundNote, Note, find_note, note_element, put_note};
pub use render::{DomainInputs, DomainKind, RenderError, Templates, render};

/// The name of the agent's virtio-serial port, on the host in the channel's `<target>`, in the
/// guest under `/dev/virtio-ports/`.
pub const AGENT_CHANNEL: &str = "org.infinibay.agent";

/// The XML namespace of our element in a domain's `<metadata>`.
pub const METADATA_NAMESPACE: &str = "urn:infinibay:domain";

/// The version of that element.
pub const METADATA_SCHEMA: &str = "2";
