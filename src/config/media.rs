//! Values of the section `media` that are lists: directories, and networks of addresses.

use std::{
    net::{IpAddr, Ipv6Addr},
    path::{Component, Path, PathBuf},
};

use super::value::ConfigValue;

/// Directories, separated by commas.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Directories(pub Vec<PathBuf>);

impl ConfigValue for Directories {
    const EXPECTS: &'static str = "absolute paths of directories, separated by commas";
    fn parse(text: &str) -> Result<Self, String> {
        let paths: Vec<_> = entries(text).map(PathBuf::from).collect();
        let plain = |path: &Path| {
            path.is_absolute() && path.components().all(|part| !matches!(part, Component::ParentDir))
        };
        if paths.iter().all(|path| plain(path)) {
            Ok(Self(paths))
        } else {
            Err("is not a list of absolute paths without '..', separated by commas".to_owned())
        }
    }
}

/// Networks of addresses, separated by commas.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Networks(Vec<(IpAddr, u8)>);

impl Networks {
    /// Whether one of them holds the address. An IPv4 address in IPv6's clothes is the former.
    #[must_use]
    pub fn contains(&self, address: IpAddr) -> bool {
        let address = address.to_canonical();
        self.0.iter().any(|&(network, bits)| match (network, address) {
            (IpAddr::V4(_), IpAddr::V4(_)) => same(widened(network), widened(address), 96 + bits),
            (IpAddr::V6(_), IpAddr::V6(_)) => same(widened(network), widened(address), bits),
            _ => false,
        })
    }
}

fn widened(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(v4) => v4.to_ipv6_mapped().to_bits(),
        IpAddr::V6(v6) => Ipv6Addr::to_bits(v6),
    }
}

fn same(a: u128, b: u128, bits: u8) -> bool {
    bits == 0 || (a ^ b) >> (128 - u32::from(bits)) == 0
}

impl ConfigValue for Networks {
    const EXPECTS: &'static str = "addresses or networks, separated by commas, as in 192.168.7.0/24, fd00::5";
    fn parse(text: &str) -> Result<Self, String> {
        let network = |entry: &str| {
            let (address, bits) = match entry.split_once('/') {
                Some((address, bits)) => (address.parse::<IpAddr>().ok()?, Some(bits.parse::<u8>().ok()?)),
                None => (entry.parse::<IpAddr>().ok()?, None),
            };
            let most = if address.is_ipv4() { 32 } else { 128 };
            let bits = bits.unwrap_or(most);
            (bits <= most).then_some((address, bits))
        };
        let networks: Option<Vec<_>> = entries(text).map(network).collect();
        networks.map(Self).ok_or_else(|| format!("is not a list of {}", Self::EXPECTS))
    }
}

pub(super) fn entries(text: &str) -> impl Iterator<Item = &str> {
    text.split(',').map(str::trim).filter(|entry| !entry.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn networks_hold_addresses() {
        let networks = Networks::parse("192.168.7.0/24, 127.0.0.2,fd00::/8").unwrap();
        for (address, held) in [
            ("192.168.7.255", true),
            ("192.168.8.0", false),
            ("127.0.0.2", true),
            ("127.0.0.1", false),
            ("::ffff:127.0.0.2", true),
            ("fd12::1", true),
            ("fe80::1", false),
        ] {
            assert_eq!(networks.contains(address.parse().unwrap()), held, "{address}");
        }
        assert!(Networks::parse("0.0.0.0/0").unwrap().contains("10.0.0.1".parse().unwrap()));
        assert!(!Networks::parse("").unwrap().contains("10.0.0.1".parse().unwrap()));
        for bad in ["10.0.0.0/33", "::/129", "localhost", "10.0.0.0/-1", "10/8"] {
            assert!(Networks::parse(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn directories_are_absolute() {
        assert_eq!(Directories::parse("/a, /b/c,").unwrap().0, [PathBuf::from("/a"), PathBuf::from("/b/c")]);
        for bad in ["a", "/a,b", "/a/../b"] {
            assert!(Directories::parse(bad).is_err(), "{bad}");
        }
    }
}
