//! IP addresses of the interfaces, asked of the kernel over netlink: `/proc` knows only those
//! of version 6.

use std::{
    collections::HashMap,
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    time::Duration,
};

use rustix::net::{
    AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, recv, send, socket_with, sockopt,
};

const RTM_NEWADDR: u16 = 20;
const RTM_GETADDR: u16 = 22;
const NLMSG_ERROR: u16 = 2;
const NLMSG_DONE: u16 = 3;
/// `NLM_F_REQUEST | NLM_F_DUMP`
const DUMP: u16 = 0x301;
const IFA_ADDRESS: u16 = 1;
const IFA_LOCAL: u16 = 2;
const HEADER: usize = 16;
const BODY: usize = 8;
/// `HEADER + BODY`, as the header counts.
const REQUEST: u32 = 24;
/// Addresses of one interface that are reported.
const MAX_PER_INTERFACE: usize = 16;
const MAX_DATAGRAMS: usize = 256;

/// Addresses by interface index.
pub(super) type Addresses = HashMap<u32, Vec<IpAddr>>;

/// All addresses, now.
pub(super) fn all() -> io::Result<Addresses> {
    // Routing is netlink's protocol 0.
    let socket = socket_with(AddressFamily::NETLINK, SocketType::RAW, SocketFlags::CLOEXEC, None)?;
    sockopt::set_socket_timeout(&socket, sockopt::Timeout::Recv, Some(Duration::from_secs(1)))?;
    let mut request = Vec::with_capacity(HEADER + BODY);
    request.extend(REQUEST.to_ne_bytes());
    request.extend(RTM_GETADDR.to_ne_bytes());
    request.extend(DUMP.to_ne_bytes());
    request.extend([0; 8 + BODY]);
    send(&socket, &request, SendFlags::empty())?;
    let mut found = Addresses::new();
    let mut buffer = vec![0; 32 << 10];
    for _ in 0..MAX_DATAGRAMS {
        let (_, count) = recv(&socket, buffer.as_mut_slice(), RecvFlags::empty())?;
        if !parse(&buffer[..count.min(buffer.len())], &mut found) {
            break;
        }
    }
    Ok(found)
}

fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_ne_bytes(bytes.get(at..at + 2)?.try_into().ok()?))
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_ne_bytes(bytes.get(at..at + 4)?.try_into().ok()?))
}

/// Reads one datagram; true if more will come.
fn parse(mut datagram: &[u8], found: &mut Addresses) -> bool {
    while let (Some(length), Some(kind)) = (u32_at(datagram, 0), u16_at(datagram, 4)) {
        let length = length as usize;
        if length < HEADER || length > datagram.len() || kind == NLMSG_DONE || kind == NLMSG_ERROR {
            return false;
        }
        if kind == RTM_NEWADDR
            && let Some((index, address)) = address(&datagram[HEADER..length])
        {
            let list = found.entry(index).or_default();
            if list.len() < MAX_PER_INTERFACE && !list.contains(&address) {
                list.push(address);
            }
        }
        datagram = &datagram[length.next_multiple_of(4).min(datagram.len())..];
    }
    true
}

fn address(message: &[u8]) -> Option<(u32, IpAddr)> {
    let index = u32_at(message, 4)?;
    let mut attributes = message.get(BODY..)?;
    let mut best = None;
    while let (Some(length), Some(kind)) = (u16_at(attributes, 0), u16_at(attributes, 2)) {
        let length = usize::from(length);
        let Some(value) = attributes.get(4..length) else { break };
        let address = match value.len() {
            4 => <[u8; 4]>::try_from(value).ok().map(|b| IpAddr::V4(Ipv4Addr::from(b))),
            16 => <[u8; 16]>::try_from(value).ok().map(|b| IpAddr::V6(Ipv6Addr::from(b))),
            _ => None,
        };
        // On a point-to-point link "address" is the other end and "local" is ours.
        if kind == IFA_LOCAL || (kind == IFA_ADDRESS && best.is_none()) {
            best = address.or(best);
        }
        attributes = &attributes[length.next_multiple_of(4).min(attributes.len())..];
    }
    best.map(|address| (index, address))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_loopback_address_is_found() {
        let all = all().expect("netlink answers");
        assert!(all.values().flatten().any(IpAddr::is_loopback), "{all:?}");
    }

    #[test]
    fn our_end_of_a_link_is_taken() {
        let mut message = vec![2, 32, 0, 0];
        message.extend(7u32.to_ne_bytes());
        for (kind, last) in [(IFA_ADDRESS, 1), (IFA_LOCAL, 2)] {
            message.extend(8u16.to_ne_bytes());
            message.extend(kind.to_ne_bytes());
            message.extend([10, 0, 0, last]);
        }
        assert_eq!(address(&message), Some((7, "10.0.0.2".parse().unwrap())));
    }

    proptest! {
        #[test]
        fn no_datagram_can_harm(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            parse(&bytes, &mut Addresses::new());
            address(&bytes);
        }
    }
}
