//! Windows Setup: an answer file in the root of a medium, beside what the first logon runs.

mod names;

use base64::{Engine, engine::general_purpose::STANDARD};
use minijinja::{Value, context};

use super::{
    InstallAgent, InstallFamily, InstallInputs, InstallMedia, MediaError, file, first_boot_files,
    progress_file,
};
use crate::{
    install::{
        check::{InvalidSetting, invalid},
        recipe::{Recipe, Recipes},
        seed::{AGENT_DIR, default_hostname, environment},
    },
    vm::{Unattended, WindowsRelease},
};

const LABEL: &str = "INFINIBAY";
/// The agent's port in the guest.
const DEVICE: &str = r"\\.\Global\org.infinibay.agent";
/// The drivers of the virtio-win medium that installing and running take.
const DRIVERS: [&str; 6] = ["viostor", "vioscsi", "NetKVM", "vioserial", "Balloon", "viorng"];
/// Where that medium may turn out to be. Nobody can know: letters go by what is found when.
const LETTERS: [char; 6] = ['D', 'E', 'F', 'G', 'H', 'I'];
/// Windows PowerShell takes a file without this mark for one in the old code page.
const UTF8_MARK: &str = "\u{feff}";
/// What Windows' own tables have room for.
const MAX_USER: usize = 20;
const MAX_COMPUTER_NAME: usize = 15;
const MAX_EDITION: usize = 128;
/// Accounts that are there already.
const RESERVED: [&str; 6] =
    ["administrator", "guest", "defaultaccount", "wdagutilityaccount", "system", "defaultuser0"];

/// A release's folder on the virtio-win medium.
fn driver_folder(release: WindowsRelease) -> &'static str {
    match release {
        WindowsRelease::Windows10 => "w10",
        WindowsRelease::Windows11 => "w11",
        WindowsRelease::Server2019 => "2k19",
        WindowsRelease::Server2022 => "2k22",
        WindowsRelease::Server2025 => "2k25",
    }
}

fn is_server(release: WindowsRelease) -> bool {
    match release {
        WindowsRelease::Windows10 | WindowsRelease::Windows11 => false,
        WindowsRelease::Server2019 | WindowsRelease::Server2022 | WindowsRelease::Server2025 => true,
    }
}

pub(super) fn media(
    release: WindowsRelease,
    recipes: &Recipes,
    inputs: &InstallInputs<'_>,
    agent: InstallAgent<'_>,
) -> Result<InstallMedia, MediaError> {
    let settings = &inputs.spec.unattended;
    let answers = recipes.render(Recipe::Autounattend, &context(release, inputs)?)?;
    let mut files = vec![
        file("autounattend.xml", answers),
        file("infinibay/report.ps1", include_str!("../scripts/report.ps1")),
        file("infinibay/finish.ps1", include_str!("../scripts/finish.ps1")),
    ];
    files.extend(progress_file(inputs));
    if !settings.ssh_keys.is_empty() {
        files.push(file("infinibay/authorized_keys", settings.ssh_keys.join("\n") + "\n"));
    }
    files.extend(first_boot_files(inputs, ".ps1", UTF8_MARK));
    match agent {
        InstallAgent::None => {}
        InstallAgent::Linux(_) => return Err(MediaError::Agent(InstallFamily::Windows(release))),
        InstallAgent::Windows(agent) => {
            let mut add = |name: &str, contents: Vec<u8>| {
                files.push(file(&format!("{AGENT_DIR}/{name}"), contents));
            };
            add("infiniservice.exe", agent.binary.clone());
            add("install-windows.ps1", agent.installer.clone());
            add("infiniservice.env", environment(inputs.id, DEVICE, "none", inputs.url, None)?.into_bytes());
        }
    }
    Ok(InstallMedia { label: Some(LABEL), files, kernel_args: Vec::new(), initrd_append: None })
}

fn context(release: WindowsRelease, inputs: &InstallInputs<'_>) -> Result<Value, MediaError> {
    let settings = &inputs.spec.unattended;
    let (user, password) = account(settings)?;
    if !settings.packages.is_empty() {
        let reason = "Windows has no packages; install programs by unattended.firstBootCommands";
        return Err(invalid("unattended.packages", reason).into());
    }
    if inputs.edition.is_some_and(|edition| !is_edition(edition)) {
        return Err(invalid("install.edition", "is no name of an edition, as in Windows 11 Pro").into());
    }
    let medium_language = inputs.medium_language.unwrap_or("en-US");
    if !is_language(medium_language) {
        return Err(invalid("install.mediumLanguage", "is no language tag, as in en-US").into());
    }
    if release == WindowsRelease::Windows11 && !inputs.uefi {
        let (what, value) = ("the firmware", "BIOS".to_owned());
        return Err(MediaError::Input { what, value, reason: "does not start Windows 11, which wants UEFI" });
    }
    let locale = locale(settings.locale.as_deref().unwrap_or("en_US.UTF-8"))?;
    let input_locale = match &settings.keyboard {
        Some(keyboard) => names::keyboard(keyboard)
            .ok_or_else(|| invalid("unattended.keyboard", "Windows has no such layout that we know"))?
            .to_owned(),
        // That of the language.
        None => locale.clone(),
    };
    let timezone = names::timezone(settings.timezone.as_deref().unwrap_or("UTC"))
        .ok_or_else(|| invalid("unattended.timezone", "Windows has no name for that zone that we know"))?;
    let folder = driver_folder(release);
    let driver_paths: Vec<_> = LETTERS
        .iter()
        .flat_map(|letter| DRIVERS.iter().map(move |driver| format!("{letter}:\\{driver}\\{folder}\\amd64")))
        .collect();
    Ok(context! {
        user,
        password => hidden(password, "Password"),
        administrator_password => hidden(password, "AdministratorPassword"),
        server => is_server(release),
        computer_name => computer_name(inputs)?,
        timezone,
        locale,
        input_locale,
        ui_language => medium_language,
        product_key => settings.product_key.as_ref().map(|key| key.expose().to_owned()),
        edition => inputs.edition,
        uefi => inputs.uefi,
        driver_paths,
    })
}

/// Setup stops and asks where it is given no account, and the first logon takes a password.
fn account(settings: &Unattended) -> Result<(&str, &str), InvalidSetting> {
    let Some(user) = settings.user.as_deref() else {
        return Err(invalid("unattended.user", "Windows cannot be installed without an account"));
    };
    if user.len() > MAX_USER {
        return Err(invalid("unattended.user", "Windows takes user names of at most 20 characters"));
    }
    if RESERVED.contains(&user) {
        return Err(invalid("unattended.user", "Windows has that account already"));
    }
    if settings.password_hash.is_some() {
        return Err(invalid("unattended.password", "Windows cannot be given a hash"));
    }
    match &settings.password {
        Some(password) => Ok((user, password.expose())),
        None => Err(invalid("unattended.password", "Windows cannot be installed without a password")),
    }
}

/// As Setup reads a password that is not plain text: it and its element's name, UTF-16, in base64.
fn hidden(password: &str, element: &str) -> String {
    let bytes: Vec<u8> =
        password.encode_utf16().chain(element.encode_utf16()).flat_map(u16::to_le_bytes).collect();
    STANDARD.encode(bytes)
}

/// `es_ES.UTF-8` as Windows has it, `es-ES`.
fn locale(locale: &str) -> Result<String, InvalidSetting> {
    let (name, rest) = locale.split_at(locale.find(['.', '@']).unwrap_or(locale.len()));
    match name.split_once('_') {
        Some((language, country)) if !rest.contains('@') => Ok(format!("{language}-{country}")),
        _ => Err(invalid("unattended.locale", "Windows wants a language and a country, as in es_ES.UTF-8")),
    }
}

/// One line of what XML can carry.
fn is_edition(name: &str) -> bool {
    let fine = |c: char| !c.is_control() && !matches!(c, '\u{fffe}' | '\u{ffff}');
    !name.is_empty() && name.len() <= MAX_EDITION && name.chars().all(fine)
}

fn is_language(tag: &str) -> bool {
    let mut parts = tag.split('-');
    let letters = |part: &str, range: std::ops::RangeInclusive<usize>| {
        range.contains(&part.len()) && part.chars().all(|c| c.is_ascii_alphanumeric())
    };
    tag.split('-').count() <= 3
        && parts.next().is_some_and(|part| letters(part, 2..=3))
        && parts.all(|part| letters(part, 2..=8))
}

/// The host name that was asked for, if a computer can have it, or one made of the VM's.
fn computer_name(inputs: &InstallInputs<'_>) -> Result<String, InvalidSetting> {
    let digits = |name: &str| name.chars().all(|c| c.is_ascii_digit());
    if let Some(name) = &inputs.spec.unattended.hostname {
        if name.len() > MAX_COMPUTER_NAME || name.contains('.') || digits(name) {
            let reason = "Windows takes names of at most 15 letters, digits and '-', not digits alone";
            return Err(invalid("unattended.hostname", reason));
        }
        return Ok(name.clone());
    }
    let name = default_hostname(&inputs.spec.name).replace('.', "-");
    let name = if digits(&name) { format!("vm-{name}") } else { name };
    let short: String = name.chars().take(MAX_COMPUTER_NAME).collect();
    let short = short.trim_end_matches('-').to_owned();
    // What was cut off may have been the only letters.
    Ok(if digits(&short) { format!("vm-{}", short.chars().take(12).collect::<String>()) } else { short })
}

#[cfg(test)]
mod tests {
    use super::{hidden, is_language, locale};

    #[test]
    fn a_password_is_hidden_as_setup_reads_it() {
        // As Windows' own tools write the password "pw".
        assert_eq!(hidden("pw", "Password"), "cAB3AFAAYQBzAHMAdwBvAHIAZAA=");
        assert_eq!(hidden("", "Password"), "UABhAHMAcwB3AG8AcgBkAA==");
    }

    #[test]
    fn languages_are_named_as_windows_names_them() {
        assert_eq!(locale("es_ES.UTF-8").unwrap(), "es-ES");
        assert_eq!(locale("en_US").unwrap(), "en-US");
        for bad in ["es", "C.UTF-8", "sr_RS@latin", "sr_RS.UTF-8@latin"] {
            assert!(locale(bad).is_err(), "{bad}");
        }
        assert!(is_language("en-US") && is_language("zh-Hans-CN"));
        for bad in ["", "e", "en_US", "en-US-x-y", "en-", "en US", "<b>"] {
            assert!(!is_language(bad), "{bad}");
        }
    }
}
