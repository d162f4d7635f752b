//! What the host is and has, and which kind of domain it can run.

use virt::{connect::Connect, sys};

use super::{
    error::is_connection_failure,
    ffi,
    session::{Call, absent_as_none},
};
use crate::{
    config::DomainTypeSetting,
    domain_xml::read_capabilities,
    hypervisor::{DomainType, HostFacts, HypervisorError, Lease, NetworkFacts, PoolFacts},
    vm::{MachineFacts, VmId},
};

pub(super) fn facts(call: &Call<'_>) -> Result<HostFacts, HypervisorError> {
    let node = call.ask(Connect::node_info)?;
    Ok(HostFacts {
        hostname: call.ask(Connect::hostname)?,
        uri: call.ask(Connect::uri)?,
        libvirt_version: version(call.ask(Connect::lib_version)?),
        // A driver without a hypervisor of its own has none to tell.
        hypervisor_version: call.ask_raw(Connect::hyp_version).ok().map(version),
        arch: node.model,
        cpus: node.cpus,
        memory_bytes: node.memory.saturating_mul(1024),
        // Not every driver knows.
        free_memory_bytes: call.ask_raw(Connect::free_memory).unwrap_or(0),
        pools: pools(call)?,
        networks: networks(call)?,
        machine: machine(call)?,
    })
}

/// Of the machine that the domain templates ask for.
fn machine(call: &Call<'_>) -> Result<MachineFacts, HypervisorError> {
    const ARCH: &str = "x86_64";
    const MACHINE: &str = "q35";
    match call.ask_raw(|conn| conn.domain_capabilities(None, Some(ARCH), Some(MACHINE), None, 0)) {
        Ok(xml) => read_capabilities(&xml).map_err(|error| call.invalid(error)),
        Err(error) if is_connection_failure(&error) => Err(call.sort(error)),
        Err(error) => {
            tracing::debug!(%error, "this driver has no such machine, and so neither UEFI nor a TPM");
            Ok(MachineFacts::default())
        }
    }
}

fn pools(call: &Call<'_>) -> Result<Vec<PoolFacts>, HypervisorError> {
    let mut pools = Vec::new();
    for pool in call.ask(|conn| conn.list_all_storage_pools(0))? {
        let Some(info) = absent_as_none(call.ask(|_| pool.info()))? else { continue };
        pools.push(PoolFacts {
            name: pool.name().map_err(|error| call.sort(error))?,
            active: info.state == sys::VIR_STORAGE_POOL_RUNNING
                || info.state == sys::VIR_STORAGE_POOL_DEGRADED,
            capacity_bytes: info.capacity,
            available_bytes: info.available,
        });
    }
    pools.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(pools)
}

fn networks(call: &Call<'_>) -> Result<Vec<NetworkFacts>, HypervisorError> {
    let mut networks = Vec::new();
    for (active, flags) in
        [(true, sys::VIR_CONNECT_LIST_NETWORKS_ACTIVE), (false, sys::VIR_CONNECT_LIST_NETWORKS_INACTIVE)]
    {
        for network in call.ask(|conn| conn.list_all_networks(flags))? {
            networks.push(NetworkFacts { name: network.name().map_err(|error| call.sort(error))?, active });
        }
    }
    networks.sort_by(|a, b| a.name.cmp(&b.name));
    // One that was started between the two lists is in both.
    networks.dedup_by(|a, b| a.name == b.name);
    Ok(networks)
}

pub(super) fn leases(call: &Call<'_>, network: &str) -> Result<Vec<Lease>, HypervisorError> {
    let network = call.ask(|conn| conn.lookup_network_by_name(network))?;
    let leases = call.ask(|_| ffi::dhcp_leases(&network))?;
    Ok(leases
        .into_iter()
        .filter(|lease| !lease.mac.is_empty() && !lease.ip.is_empty())
        .map(|lease| Lease { mac: lease.mac.to_ascii_lowercase(), ip: lease.ip })
        .collect())
}

pub(super) fn domain_named(call: &Call<'_>, name: &str) -> Result<Option<VmId>, HypervisorError> {
    let Some(domain) = absent_as_none(call.ask(|conn| conn.lookup_domain_by_name(name)))? else {
        return Ok(None);
    };
    domain.uuid().map(|uuid| Some(VmId(uuid))).map_err(|error| call.sort(error))
}

pub(super) fn domain_type(
    call: &Call<'_>,
    setting: DomainTypeSetting,
) -> Result<DomainType, HypervisorError> {
    if let Some(known) = call.session().domain_type.get() {
        return Ok(*known);
    }
    let found = if call.ask(Connect::driver_type)?.eq_ignore_ascii_case("test") {
        // Its domains have no other type, whatever is configured.
        DomainType::Test
    } else {
        match setting {
            DomainTypeSetting::Kvm => DomainType::Kvm,
            DomainTypeSetting::Qemu => DomainType::Qemu,
            DomainTypeSetting::Auto if works_with_kvm(call)? => DomainType::Kvm,
            DomainTypeSetting::Auto => DomainType::Qemu,
        }
    };
    Ok(*call.session().domain_type.get_or_init(|| found))
}

/// `/dev/kvm` alone is no proof: where the processor cannot virtualise, it may be a stub on which
/// guests hang.
fn works_with_kvm(call: &Call<'_>) -> Result<bool, HypervisorError> {
    let cpuinfo = std::fs::read_to_string("/proc/cpuinfo")
        .map_err(|error| call.invalid(format_args!("cannot read /proc/cpuinfo: {error}")))?;
    if !virtualises(&cpuinfo) {
        return Ok(false);
    }
    match call.ask_raw(|conn| conn.domain_capabilities(None, None, None, Some("kvm"), 0)) {
        Ok(_) => Ok(true),
        Err(error) if is_connection_failure(&error) => Err(call.sort(error)),
        Err(error) => {
            tracing::info!(%error, "no KVM on this host; domains will be emulated");
            Ok(false)
        }
    }
}

/// Whether the processor's flags name Intel's or AMD's virtualisation.
fn virtualises(cpuinfo: &str) -> bool {
    cpuinfo
        .lines()
        .filter_map(|line| line.split_once(':'))
        .filter(|(key, _)| key.trim() == "flags")
        .any(|(_, flags)| flags.split_ascii_whitespace().any(|flag| flag == "vmx" || flag == "svm"))
}

/// libvirt packs versions into one number.
fn version(packed: u32) -> String {
    format!("{}.{}.{}", packed / 1_000_000, packed / 1_000 % 1_000, packed % 1_000)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_processors_own_flags_count() {
        let cases = [
            ("flags\t\t: fpu vmx sse2\n", true),
            ("flags\t\t: fpu svm\n", true),
            ("flags\t\t: fpu sse2 hypervisor\n", false),
            ("vmx flags\t: vnmi preemption_timer\nflags\t: fpu\n", false),
            ("model name\t: svm vmx\n", false),
            ("flags\t: vmxnet svm_lock\n", false),
            ("", false),
        ];
        for (cpuinfo, expected) in cases {
            assert_eq!(virtualises(cpuinfo), expected, "{cpuinfo:?}");
        }
    }

    #[test]
    fn versions_are_unpacked() {
        assert_eq!(version(11_003_000), "11.3.0");
        assert_eq!(version(7_002_019), "7.2.19");
    }
}
