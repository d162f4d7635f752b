//! Debian's installer: a preseed file in its initial RAM disk, and no medium.

use minijinja::{Value, context};

use super::{
    InstallAgent, InstallFamily, InstallInputs, InstallMedia, MediaError, account_files, file,
    first_boot_service, linux_files,
};
use crate::{
    install::{
        check::{InvalidSetting, invalid, keyboard_parts},
        cpio::initrd_archive,
        recipe::{Recipe, Recipes},
        seed::{default_hostname, refuse_windows_settings},
    },
    vm::{NetworkAttachment, Unattended},
};

const DEFAULT_MIRROR: &str = "http://deb.debian.org/debian";
/// Accounts and groups that user-setup asks about again, at a priority that is never skipped.
const RESERVED: &str = include_str!("debian/reserved-users");

pub(super) fn media(
    recipes: &Recipes,
    inputs: &InstallInputs<'_>,
    agent: InstallAgent<'_>,
) -> Result<InstallMedia, MediaError> {
    let settings = &inputs.spec.unattended;
    refuse_windows_settings(settings)?;
    check_user(settings)?;
    let answers = recipes.render(Recipe::Preseed, &context(inputs)?)?;
    let mut files = vec![
        file("preseed.cfg", answers),
        file("infinibay/early.sh", include_str!("../scripts/debian-early.sh")),
        file("infinibay/watch.sh", include_str!("../scripts/debian-watch.sh")),
    ];
    files.extend(linux_files(InstallFamily::Debian, "none", inputs, agent)?);
    files.extend(first_boot_service(inputs));
    files.extend(account_files(inputs));
    let arguments = ["auto=true", "priority=critical", "console=ttyS0", "DEBIAN_FRONTEND=text"];
    Ok(InstallMedia {
        label: None,
        files: Vec::new(),
        kernel_args: arguments.map(str::to_owned).to_vec(),
        initrd_append: Some(initrd_archive(&files)?),
    })
}

fn check_user(settings: &Unattended) -> Result<(), InvalidSetting> {
    let Some(user) = &settings.user else { return Ok(()) };
    if !user.starts_with(|c: char| c.is_ascii_lowercase()) {
        return Err(invalid("unattended.user", "Debian's installer takes names that begin with a letter"));
    }
    if RESERVED.lines().any(|name| name == user) {
        return Err(invalid("unattended.user", "Debian keeps that name for itself"));
    }
    Ok(())
}

fn context(inputs: &InstallInputs<'_>) -> Result<Value, MediaError> {
    let (spec, settings) = (inputs.spec, &inputs.spec.unattended);
    let keyboard = settings.keyboard.as_deref().unwrap_or("us");
    let (layout, variant) = keyboard_parts(keyboard);
    let hostname = settings.hostname.clone().unwrap_or_else(|| default_hostname(&spec.name));
    let (host, domain) = match hostname.split_once('.') {
        Some((host, domain)) => (host, Some(domain)),
        None => (hostname.as_str(), None),
    };
    let mirror = inputs.mirror.unwrap_or(DEFAULT_MIRROR);
    let (scheme, rest) =
        mirror.split_once("://").ok_or_else(|| invalid("install.mirror", "is no address"))?;
    let (server, directory) = rest.split_once('/').unwrap_or((rest, ""));
    Ok(context! {
        locale => settings.locale.as_deref().unwrap_or("en_US.UTF-8"),
        keyboard => context! { name => keyboard, layout, variant },
        network => spec.network != NetworkAttachment::None,
        host,
        domain,
        mirror => context! {
            scheme,
            host => server,
            directory => format!("/{}", directory.trim_end_matches('/')),
        },
        user => settings.user.as_deref(),
        // An account with '!' cannot log in with a password.
        password_hash => settings.password_hash.as_deref().unwrap_or("!"),
        timezone => settings.timezone.as_deref().unwrap_or("UTC"),
        packages => Value::from_iter(settings.packages.iter().map(String::as_str)),
    })
}
