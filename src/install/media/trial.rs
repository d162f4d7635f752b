//! Every template filled in for made-up VMs: a mistake in one is found at start, not when somebody
//! waits for an installation.

use std::path::PathBuf;

use super::{InstallAgent, InstallFamily, InstallInputs, MediaError, plan_media};
use crate::vm::WindowsRelease;
use crate::{
    install::recipe::{Recipe, RecipeError, Recipes, trial_failed},
    vm::{
        Base, Firmware, FirstBootSecret, Image, ImageFormat, NetworkAttachment, OsFamily, Provisioning,
        Unattended, VmId, VmName, VmSpec,
    },
};

const MAC: &str = "52:54:00:00:00:01";

/// Renders all templates with little and with all that can be asked for.
pub(in crate::install) fn try_every_recipe(recipes: &Recipes) -> Result<(), RecipeError> {
    for (family, recipe) in [
        (InstallFamily::Ubuntu, Recipe::Autoinstall),
        (InstallFamily::Debian, Recipe::Preseed),
        (InstallFamily::RedHat, Recipe::Kickstart),
        (InstallFamily::Windows(WindowsRelease::Windows11), Recipe::Autounattend),
        (InstallFamily::Windows(WindowsRelease::Server2022), Recipe::Autounattend),
    ] {
        for full in [false, true] {
            attempt(recipes, family, full).map_err(|error| trial_failed(recipe, error))?;
        }
    }
    Ok(())
}

fn attempt(recipes: &Recipes, family: InstallFamily, full: bool) -> Result<(), MediaError> {
    let windows = matches!(family, InstallFamily::Windows(_));
    let network = if full { NetworkAttachment::User } else { NetworkAttachment::None };
    let spec = made_up(network, settings(windows, full)).map_err(|_| MediaError::Input {
        what: "a made-up VM",
        value: String::new(),
        reason: "has names that are none",
    })?;
    let inputs = InstallInputs {
        id: VmId::generate(),
        spec: &spec,
        mac: MAC,
        url: None,
        seal: None,
        progress_url: None,
        volume_label: Some("Made-up 1"),
        mirror: (full && !windows).then_some("https://mirror.example/some/where"),
        uefi: full || family == InstallFamily::Windows(WindowsRelease::Windows11),
        edition: (full && windows).then_some("Windows Made-up"),
        medium_language: None,
    };
    plan_media(family, recipes, &inputs, InstallAgent::None).map(drop)
}

fn settings(windows: bool, full: bool) -> Unattended {
    let secret = |text: &str| Some(FirstBootSecret::new(text.to_owned()));
    let some = |text: &str| full.then(|| text.to_owned());
    Unattended {
        user: (full || windows).then(|| "ada".to_owned()),
        password_hash: (full && !windows).then(|| "$6$salt$hash".to_owned()),
        password: if windows { secret("made up") } else { None },
        ssh_keys: some("ssh-ed25519 AAAA made up").into_iter().collect(),
        hostname: some("made-up"),
        timezone: some("Europe/Madrid"),
        locale: some("es_ES.UTF-8"),
        keyboard: some(if windows { "es" } else { "es(cat)" }),
        product_key: if full && windows { secret("AAAAA-BBBBB-CCCCC-DDDDD-EEEEE") } else { None },
        packages: if windows { Vec::new() } else { some("nginx").into_iter().collect() },
        first_boot_commands: some("true").into_iter().collect(),
    }
}

fn made_up(network: NetworkAttachment, unattended: Unattended) -> Result<VmSpec, Box<dyn std::error::Error>> {
    Ok(VmSpec {
        devices: crate::vm::Plugged::default(),
        origin: crate::vm::Origin::Created,
        keeping: crate::vm::PowerKeeping::default(),
        name: "made-up".parse::<VmName>()?,
        firmware: Firmware::Bios,
        tpm: false,
        base: Base::Image(Image {
            name: "made-up".parse()?,
            description: String::new(),
            os_family: OsFamily::Linux,
            provisioning: Provisioning::None,
            disk: PathBuf::new(),
            format: ImageFormat::Qcow2,
            virtual_bytes: 1,
            sha256: String::new(),
            kernel: None,
        }),
        vcpus: 1,
        memory_mib: VmSpec::MIN_MEMORY_MIB,
        disk_bytes: 1,
        pool: "default".parse()?,
        network,
        unattended,
    })
}
