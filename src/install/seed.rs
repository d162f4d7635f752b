//! What a cloud image reads on its first boot: cloud-init's NoCloud files, and the agent.

mod copied;

use serde_json::{Map, Value, json};

use super::{
    agent::AgentFiles,
    check::{InvalidSetting, check, invalid, is_hostname, keyboard_parts},
};
use crate::vm::{NetworkAttachment, OsFamily, SealKey, Unattended, VmId, VmName, VmSpec};

/// The agent's port in the guest.
pub(super) const DEVICE: &str = "/dev/virtio-ports/org.infinibay.agent";
/// Where the agent lies on the medium.
pub(super) const AGENT_DIR: &str = "infiniservice";
const MAX_URL: usize = 512;

/// Installs the agent from the medium. A constant: no value ever enters a shell text. It runs
/// before packages are fetched, so that progress can be seen, and needs no network. Where it
/// fails, or hangs, cloud-init notes it and goes on, and the next boot tries again.
const INSTALL_AGENT: &str = r#"
mounted=$(mktemp -d /run/infiniservice-seed.XXXXXX) || exit 1
trap 'umount "$mounted" 2>/dev/null; rmdir "$mounted"' EXIT
mount -t iso9660 -o ro -L cidata "$mounted" || exit 1
timeout 300 sh "$mounted/infiniservice/install-linux.sh"
"#;

/// What a seed is made from.
#[derive(Debug, Clone, Copy)]
pub struct SeedInputs<'a> {
    /// The VM.
    pub id: VmId,
    /// Its specification.
    pub spec: &'a VmSpec,
    /// The hardware address of its card. Every renderer of cloud-init finds a card by that; by a
    /// pattern of names, only some do.
    pub mac: &'a str,
    /// Where the guest may download the agent later, without a `/` at the end, such as
    /// `http://192.168.122.1:4001/infiniservice`.
    pub url: Option<&'a str>,
    /// What its agent seals with, if it is given a key.
    pub seal: Option<SealDelivery<'a>>,
}

/// How a key comes to an agent: as a file of its own beside the agent's, which its installer puts where
/// root alone can read it.
#[derive(Debug, Clone, Copy)]
pub struct SealDelivery<'a> {
    /// The key.
    pub key: &'a SealKey,
    /// Whether the agent is to obey nothing else.
    pub demanded: bool,
}

impl SealDelivery<'_> {
    /// The name of the file, on the medium and in the guest.
    const FILE: &'static str = "seal.key";

    pub(super) fn file(self, id: VmId) -> (&'static str, Vec<u8>) {
        (Self::FILE, self.key.file(id.uuid()).into_bytes())
    }

    /// What the agent is told by its environment.
    pub(super) fn mode(of: Option<Self>) -> Option<&'static str> {
        of.filter(|seal| seal.demanded).map(|_| "require")
    }
}

/// One file of the seed medium.
#[derive(Clone, PartialEq, Eq)]
pub struct SeedFile {
    /// Its place on the medium, such as `user-data` or `infiniservice/infiniservice.env`.
    pub path: String,
    /// Its contents. May hold secrets.
    pub contents: Vec<u8>,
}

impl std::fmt::Debug for SeedFile {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "SeedFile({}, {} bytes)", self.path, self.contents.len())
    }
}

/// Why there is no seed.
#[derive(Debug, thiserror::Error)]
pub enum SeedError {
    /// A setting that its destination cannot carry.
    #[error(transparent)]
    Setting(#[from] InvalidSetting),
    /// The download address cannot be used.
    #[error("the agent's download address {0:?} is not a plain http address")]
    Url(String),
    /// No recipe for that family.
    #[error("there is no recipe for the first boot of {0:?} guests")]
    Family(OsFamily),
    /// A value could not be written as JSON.
    #[error("writing {file}")]
    Json {
        /// The file.
        file: &'static str,
        /// Why.
        #[source]
        source: serde_json::Error,
    },
}

/// The files for the first boot, the agent included. None where the image provisions itself.
///
/// # Errors
/// See [`SeedError`].
pub fn seed_files(inputs: &SeedInputs<'_>, agent: &AgentFiles) -> Result<Vec<SeedFile>, SeedError> {
    if !inputs.spec.is_provisioned() {
        return Ok(Vec::new());
    }
    let mut files = cloud_init_files(inputs, true)?;
    let mut add = |name: &str, contents: Vec<u8>| {
        files.push(SeedFile { path: format!("{AGENT_DIR}/{name}"), contents });
    };
    add("infiniservice", agent.binary.clone());
    add("install-linux.sh", agent.installer.clone());
    add("infiniservice.service", agent.unit.clone());
    let settings = environment(inputs.id, DEVICE, "cloud-init", inputs.url, inputs.seal)?;
    add("infiniservice.env", settings.into_bytes());
    if let Some((name, contents)) = inputs.seal.map(|seal| seal.file(inputs.id)) {
        add(name, contents);
    }
    Ok(files)
}

/// The files that take the first ones' place once the guest is installed: the same instance, so
/// that cloud-init does nothing again, but no secrets and no agent. Host name and network stay,
/// because cloud-init looks at them on every boot.
///
/// # Errors
/// See [`SeedError`].
pub fn scrubbed_seed_files(inputs: &SeedInputs<'_>) -> Result<Vec<SeedFile>, SeedError> {
    if !inputs.spec.is_provisioned() {
        return Ok(Vec::new());
    }
    cloud_init_files(inputs, false)
}

fn cloud_init_files(inputs: &SeedInputs<'_>, first_boot: bool) -> Result<Vec<SeedFile>, SeedError> {
    let spec = inputs.spec;
    check(&spec.unattended)?;
    refuse_windows_settings(&spec.unattended)?;
    match spec.os_family() {
        OsFamily::Linux => {}
        family @ OsFamily::Windows => return Err(SeedError::Family(family)),
    }
    let hostname = spec.unattended.hostname.clone().unwrap_or_else(|| default_hostname(&spec.name));
    let meta_data = json!({ "instance-id": inputs.id.to_string(), "local-hostname": &hostname });
    let user_data = match spec.cloned_from() {
        Some(_) => copied::user_data(spec, &hostname, first_boot),
        None => user_data(spec, &hostname, first_boot),
    };
    Ok(vec![
        SeedFile {
            path: "user-data".to_owned(),
            contents: yaml("user-data", "#cloud-config\n", &user_data)?,
        },
        SeedFile { path: "meta-data".to_owned(), contents: yaml("meta-data", "", &meta_data)? },
        SeedFile {
            path: "network-config".to_owned(),
            contents: yaml("network-config", "", &network_config(inputs))?,
        },
    ])
}

pub(super) fn user_data(spec: &VmSpec, hostname: &str, first_boot: bool) -> Value {
    let settings = &spec.unattended;
    let mut data = Map::new();
    let mut set = |key: &str, value: Value| data.insert(key.to_owned(), value);
    set("hostname", json!(hostname));
    // The name resolves without DNS; without it sudo and many servers wait for one.
    set("manage_etc_hosts", json!("localhost"));
    if let Some(user) = &settings.user {
        let mut account = json!({
            "name": user,
            "sudo": "ALL=(ALL) NOPASSWD:ALL",
            "shell": "/bin/bash",
            // After the first boot too: were cloud-init made to run again, it must not lock it.
            "lock_passwd": settings.password_hash.is_none(),
        });
        // An empty list is none to cloud-init's schema.
        if !settings.ssh_keys.is_empty() {
            account["ssh_authorized_keys"] = json!(settings.ssh_keys);
        }
        if let Some(hash) = settings.password_hash.as_ref().filter(|_| first_boot) {
            account["passwd"] = json!(hash);
        }
        set("users", json!([account]));
    } else if !settings.ssh_keys.is_empty() {
        // For the account that the image brings.
        set("ssh_authorized_keys", json!(settings.ssh_keys));
    }
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
    if !settings.packages.is_empty() {
        set("package_update", json!(true));
        set("packages", json!(settings.packages));
    }
    if first_boot {
        // Once per instance, and again on the next boot if it failed.
        set("bootcmd", json!([["cloud-init-per", "instance", "infiniservice", "sh", "-c", INSTALL_AGENT]]));
        if !settings.first_boot_commands.is_empty() {
            let lines: Vec<_> =
                settings.first_boot_commands.iter().map(|line| json!(["sh", "-c", line])).collect();
            set("runcmd", json!(lines));
        }
    }
    Value::Object(data)
}

fn network_config(inputs: &SeedInputs<'_>) -> Value {
    let network = netplan(&inputs.spec.network, inputs.mac);
    if inputs.spec.cloned_from().is_some() { copied::with_own_lease(network) } else { network }
}

/// Netplan's words for the one card, or none.
pub(super) fn netplan(network: &NetworkAttachment, mac: &str) -> Value {
    let ethernets = match network {
        NetworkAttachment::Network(_) | NetworkAttachment::User => {
            json!({ "eth0": { "match": { "macaddress": mac }, "set-name": "eth0", "dhcp4": true } })
        }
        NetworkAttachment::None => json!({}),
    };
    json!({ "version": 2, "ethernets": ethernets })
}

/// What the agent's service reads: lines that systemd and a shell read alike, because no value
/// has a character that either would treat.
pub(super) fn environment(
    id: VmId,
    device: &str,
    first_boot: &str,
    url: Option<&str>,
    seal: Option<SealDelivery<'_>>,
) -> Result<String, SeedError> {
    let mut lines = vec![
        format!("INFINIBAY_VM_ID={id}"),
        format!("INFINIBAY_DEVICE={device}"),
        format!("INFINIBAY_FIRST_BOOT={first_boot}"),
    ];
    if let Some(mode) = SealDelivery::mode(seal) {
        lines.push(format!("INFINIBAY_SEAL={mode}"));
    }
    if let Some(url) = url {
        if !is_plain_url(url) {
            return Err(SeedError::Url(url.to_owned()));
        }
        lines.push(format!("INFINISERVICE_URL={url}"));
    }
    Ok(lines.join("\n") + "\n")
}

/// Whether an address has only what neither a shell nor any of the formats treats.
pub(super) fn is_plain_url(url: &str) -> bool {
    let rest = url.strip_prefix("http://").or_else(|| url.strip_prefix("https://"));
    let plain = |c: char| c.is_ascii_alphanumeric() || "._~:/[]-".contains(c);
    url.len() <= MAX_URL && rest.is_some_and(|rest| !rest.is_empty() && rest.chars().all(plain))
}

/// Settings that only Windows reads must not be accepted as if another system followed them.
pub(super) fn refuse_windows_settings(settings: &Unattended) -> Result<(), InvalidSetting> {
    if settings.product_key.is_some() {
        return Err(invalid("unattended.productKey", "only Windows has product keys"));
    }
    if settings.password.is_some() {
        return Err(invalid("unattended.password", "a system that knows hashes is given a hash"));
    }
    Ok(())
}

/// A host name made of the VM's name, which may have characters that a host name may not.
pub(super) fn default_hostname(name: &VmName) -> String {
    let labels: Vec<String> = name
        .as_str()
        .split('.')
        .map(|label| label.replace('_', "-").trim_matches('-').to_owned())
        .filter(|label| !label.is_empty())
        .collect();
    let hostname = labels.join(".");
    debug_assert!(is_hostname(&hostname), "{name} gave {hostname}");
    hostname
}

/// JSON that YAML 1.1 readers take for the same value. They refuse, or treat as line ends, some
/// characters that JSON lets stand in a string; outside of strings JSON has none of them.
fn yaml(file: &'static str, head: &str, value: &Value) -> Result<Vec<u8>, SeedError> {
    let json = serde_json::to_string_pretty(value).map_err(|source| SeedError::Json { file, source })?;
    let mut text = head.to_owned();
    text.push_str(&yaml_safe(&json));
    text.push('\n');
    Ok(text.into_bytes())
}

/// JSON with those characters escaped that YAML 1.1 readers take for something else.
pub(super) fn yaml_safe(json: &str) -> String {
    let mut text = String::with_capacity(json.len());
    for c in json.chars() {
        match c {
            '\u{7f}'..='\u{9f}' | '\u{2028}' | '\u{2029}' | '\u{feff}' | '\u{fffe}' | '\u{ffff}' => {
                text.push_str(&format!("\\u{:04x}", u32::from(c)));
            }
            c => text.push(c),
        }
    }
    text
}

#[cfg(test)]
mod tests;
