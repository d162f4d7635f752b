//! Ports that somebody listens on. Connections are not reported: there may be a great many, and
//! they are nobody's business.

use std::{
    collections::{BTreeMap, HashMap},
    fs,
};

use serde_json::{Value, json};

use crate::read;

const MAX_PORTS: usize = 128;
/// Descriptors looked at to find out who listens; then the rest stays without a name.
const MAX_DESCRIPTORS: usize = 20_000;
const TABLES: [(&str, &str); 4] = [("tcp", "tcp"), ("tcp6", "tcp"), ("udp", "udp"), ("udp6", "udp")];

/// `[{port, protocol, state, process_id|null, process_name|null, is_listening}]`
pub(super) fn listening() -> Vec<Value> {
    let mut ports = BTreeMap::new();
    for (table, protocol) in TABLES {
        let text = read::text(format!("/proc/net/{table}"), 512 << 10).unwrap_or_default();
        for (port, inode) in text.lines().skip(1).filter_map(|line| listener(line, protocol)) {
            if ports.len() < MAX_PORTS {
                ports.entry((port, protocol)).or_insert(inode);
            }
        }
    }
    if ports.is_empty() {
        return Vec::new();
    }
    let owners = owners(&ports.values().map(|inode| (*inode, ())).collect());
    ports
        .into_iter()
        .map(|((port, protocol), inode)| {
            let owner = owners.get(&inode);
            json!({
                "port": port,
                "protocol": protocol,
                "state": if protocol == "tcp" { "LISTEN" } else { "UNCONN" },
                "process_id": owner,
                "process_name": owner.and_then(|pid| read::line(format!("/proc/{pid}/comm")))
                    .map(|name| read::printable(&name, 64)),
                "is_listening": true,
            })
        })
        .collect()
}

/// Port and inode of a line of `/proc/net/{tcp,udp}` if it is a listener.
fn listener(line: &str, protocol: &str) -> Option<(u16, u64)> {
    let fields: Vec<&str> = line.split_ascii_whitespace().collect();
    let (_, port) = fields.get(1)?.rsplit_once(':')?;
    let (_, peer) = fields.get(2)?.rsplit_once(':')?;
    // 0A is LISTEN, 07 is an unconnected datagram socket.
    let wanted = if protocol == "tcp" { "0A" } else { "07" };
    if *fields.get(3)? != wanted || peer != "0000" {
        return None;
    }
    Some((u16::from_str_radix(port, 16).ok()?, fields.get(9)?.parse().ok()?))
}

/// The processes that hold these sockets.
fn owners(wanted: &HashMap<u64, ()>) -> HashMap<u64, u32> {
    let mut found = HashMap::new();
    let mut looked = 0;
    let Ok(processes) = fs::read_dir("/proc") else { return found };
    for entry in processes.filter_map(Result::ok) {
        let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse::<u32>().ok()) else {
            continue;
        };
        let Ok(descriptors) = fs::read_dir(entry.path().join("fd")) else { continue };
        for descriptor in descriptors.filter_map(Result::ok) {
            looked += 1;
            if looked > MAX_DESCRIPTORS || found.len() == wanted.len() {
                return found;
            }
            let inode = fs::read_link(descriptor.path()).ok().and_then(|target| {
                target.to_str()?.strip_prefix("socket:[")?.strip_suffix(']')?.parse::<u64>().ok()
            });
            if let Some(inode) = inode.filter(|i| wanted.contains_key(i)) {
                found.entry(inode).or_insert(pid);
            }
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn listeners_are_told_from_connections() {
        let line = |local: &str, peer: &str, state: &str| {
            format!(
                "   0: {local} {peer} {state} 00000000:00000000 00:00000000 00000000     0        0 4242 1"
            )
        };
        let any = "00000000:0000";
        assert_eq!(listener(&line("0100007F:0016", any, "0A"), "tcp"), Some((22, 4242)));
        assert_eq!(listener(&line("0100007F:0016", "0100007F:9999", "01"), "tcp"), None);
        assert_eq!(listener(&line("00000000:0044", any, "07"), "udp"), Some((68, 4242)));
        assert_eq!(listener("rubbish", "tcp"), None);
    }

    #[test]
    fn a_socket_of_ours_is_found_with_its_owner() {
        let socket = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let port = socket.local_addr().unwrap().port();
        let ports = listening();
        // A busy machine may have more listeners than are reported.
        if ports.len() < MAX_PORTS {
            let ours = ports.iter().find(|p| p["port"] == port && p["protocol"] == "tcp").expect("listed");
            assert_eq!(ours["process_id"], std::process::id());
        }
    }
}
