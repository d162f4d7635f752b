//! What a copy of a cloud image's guest is told on its first boot: who it is now, and nothing else.
//!
//! To cloud-init it is a new instance, by the VM's id: it makes new SSH host keys, sets the host name
//! and the network, and runs what runs once per instance. What the first boot of the copied guest did
//! is on the disk: its accounts above all are left as they are, with their passwords and keys.

use serde_json::{Map, Value, json};

use super::{INSTALL_AGENT, keyboard_parts};
use crate::vm::VmSpec;

/// A machine id of its own, which systemd makes of the VM's UUID. A constant, like the agent's.
const NEW_MACHINE_ID: &str = r#"
: > /etc/machine-id
[ -L /var/lib/dbus/machine-id ] || rm -f /var/lib/dbus/machine-id
systemd-machine-id-setup
"#;

pub(super) fn user_data(spec: &VmSpec, hostname: &str, first_boot: bool) -> Value {
    let settings = &spec.unattended;
    let mut data = Map::new();
    let mut set = |key: &str, value: Value| data.insert(key.to_owned(), value);
    set("hostname", json!(hostname));
    set("manage_etc_hosts", json!("localhost"));
    // Without a list it would lock the image's own account again, and an empty one is none to its
    // schema: this one every system has, locked, and nobody uses.
    set("users", json!([{ "name": "nobody", "lock_passwd": true }]));
    // Said once more what was said to the copied guest, or it would go back to the image's own.
    if let Some(timezone) = &settings.timezone {
        set("timezone", json!(timezone));
    }
    if let Some(locale) = &settings.locale {
        set("locale", json!(locale));
    }
    if let Some((layout, variant)) = settings.keyboard.as_deref().map(keyboard_parts) {
        let mut keyboard = json!({ "layout": layout });
        if let Some(variant) = variant {
            keyboard["variant"] = json!(variant);
        }
        set("keyboard", keyboard);
    }
    if first_boot {
        let once = |name: &str, script: &str| json!(["cloud-init-per", "instance", name, "sh", "-c", script]);
        set("bootcmd", json!([once("machine-id", NEW_MACHINE_ID), once("infiniservice", INSTALL_AGENT)]));
    }
    Value::Object(data)
}

/// Asks for an address by the card's hardware address: by the machine id, which is the copied guest's
/// until this boot is over, it would be given that guest's.
pub(super) fn with_own_lease(mut network: Value) -> Value {
    let cards = network.get_mut("ethernets").and_then(Value::as_object_mut);
    for card in cards.into_iter().flat_map(Map::values_mut) {
        card["dhcp-identifier"] = json!("mac");
    }
    network
}
