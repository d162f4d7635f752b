//! Anaconda, the installer of Fedora, RHEL and what is made from it: a kickstart file on a medium
//! that it looks for.

use minijinja::{Value, context};

use super::{
    InstallAgent, InstallFamily, InstallInputs, InstallMedia, MediaError, account_files, file,
    first_boot_service, linux_files,
};
use crate::{
    install::{
        check::{InvalidSetting, invalid, keyboard_parts},
        recipe::{Recipe, Recipes},
        seed::{default_hostname, refuse_windows_settings},
    },
    vm::{NetworkAttachment, Unattended},
};

const OEMDRV: &str = "OEMDRV";

pub(super) fn media(
    recipes: &Recipes,
    inputs: &InstallInputs<'_>,
    agent: InstallAgent<'_>,
) -> Result<InstallMedia, MediaError> {
    let settings = &inputs.spec.unattended;
    refuse_windows_settings(settings)?;
    check_packages(settings)?;
    let volume = inputs.volume_label.ok_or(MediaError::Input {
        what: "the medium's label",
        value: String::new(),
        reason: "must be known, because the kernel is told where the rest of the installer is",
    })?;
    let mut files = vec![file("ks.cfg", recipes.render(Recipe::Kickstart, &context(inputs))?)];
    files.extend(linux_files(InstallFamily::RedHat, "none", inputs, agent)?);
    files.extend(first_boot_service(inputs));
    files.extend(account_files(inputs));
    let kernel_args = vec![
        // A blank would end the argument.
        format!("inst.stage2=hd:LABEL={}", volume.replace(' ', "\\x20")),
        format!("inst.ks=hd:LABEL={OEMDRV}:/ks.cfg"),
        "inst.cmdline".to_owned(),
        "console=ttyS0".to_owned(),
    ];
    Ok(InstallMedia { label: Some(OEMDRV), files, kernel_args, initrd_append: None })
}

/// A name that no package has would be passed over in silence.
fn check_packages(settings: &Unattended) -> Result<(), InvalidSetting> {
    match settings.packages.iter().position(|name| name.contains(['=', ':'])) {
        Some(index) => Err(invalid(
            "unattended.packages",
            format!(
                "entry {}: Fedora and RHEL write a version as name-version, without '=' or ':'",
                index + 1
            ),
        )),
        None => Ok(()),
    }
}

fn context(inputs: &InstallInputs<'_>) -> Value {
    let (spec, settings) = (inputs.spec, &inputs.spec.unattended);
    let (layout, variant) = keyboard_parts(settings.keyboard.as_deref().unwrap_or("us"));
    let spaced = variant.map_or_else(|| layout.to_owned(), |variant| format!("{layout} ({variant})"));
    context! {
        locale => settings.locale.as_deref().unwrap_or("en_US.UTF-8"),
        keyboard => context! { layout, variant, spaced },
        timezone => settings.timezone.as_deref().unwrap_or("UTC"),
        network => spec.network != NetworkAttachment::None,
        mac => inputs.mac,
        hostname => settings.hostname.clone().unwrap_or_else(|| default_hostname(&spec.name)),
        mirror => inputs.mirror,
        user => settings.user.as_deref(),
        password_hash => settings.password_hash.as_deref(),
        packages => Value::from_iter(settings.packages.iter().map(String::as_str)),
    }
}
