//! What first-boot settings may be: only what every destination can carry.

use super::password::check_password;
use crate::vm::Unattended;

/// Most entries of a list.
const MAX_PACKAGES: usize = 256;
const MAX_SSH_KEYS: usize = 64;
const MAX_COMMANDS: usize = 64;
/// Longest values, bytes.
const MAX_PACKAGE: usize = 256;
const MAX_SSH_KEY: usize = 16 * 1024;
const MAX_COMMAND: usize = 64 * 1024;
const MAX_USER: usize = 32;
const MAX_HOSTNAME: usize = 253;
const MAX_LABEL: usize = 63;
const MAX_TIMEZONE: usize = 64;
const MAX_HASH: usize = 256;
const MAX_LOCALE: usize = 32;
const MAX_KEYBOARD: usize = 48;

const KEY_TYPES: [&str; 7] = [
    "ssh-ed25519",
    "ssh-rsa",
    "ecdsa-sha2-nistp256",
    "ecdsa-sha2-nistp384",
    "ecdsa-sha2-nistp521",
    "sk-ssh-ed25519@openssh.com",
    "sk-ecdsa-sha2-nistp256@openssh.com",
];

/// A first-boot setting that is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{field}: {reason}")]
pub struct InvalidSetting {
    /// The setting, as the API names it, such as `unattended.sshKeys`.
    pub field: &'static str,
    /// What is wrong. Does not repeat secrets.
    pub reason: String,
}

pub(super) fn invalid(field: &'static str, reason: impl Into<String>) -> InvalidSetting {
    InvalidSetting { field, reason: reason.into() }
}

/// Checks first-boot settings.
///
/// # Errors
/// The first setting that is refused.
pub fn check(unattended: &Unattended) -> Result<(), InvalidSetting> {
    if let Some(user) = &unattended.user {
        check_user(user)?;
    }
    if let Some(hash) = &unattended.password_hash {
        if unattended.user.is_none() {
            return Err(invalid("unattended.password", "a password needs a user"));
        }
        check_hash(hash)?;
    }
    if let Some(password) = &unattended.password {
        if unattended.user.is_none() {
            return Err(invalid("unattended.password", "a password needs a user"));
        }
        check_password(password.expose())?;
    }
    check_list("unattended.sshKeys", &unattended.ssh_keys, MAX_SSH_KEYS, check_ssh_key)?;
    if let Some(hostname) = &unattended.hostname {
        check_hostname(hostname)?;
    }
    if let Some(timezone) = &unattended.timezone {
        check_timezone(timezone)?;
    }
    if let Some(locale) = &unattended.locale {
        check_locale(locale)?;
    }
    if let Some(keyboard) = &unattended.keyboard {
        check_keyboard(keyboard)?;
    }
    if let Some(key) = &unattended.product_key {
        check_product_key(key.expose())?;
    }
    check_list("unattended.packages", &unattended.packages, MAX_PACKAGES, check_package)?;
    let commands = &unattended.first_boot_commands;
    check_list("unattended.firstBootCommands", commands, MAX_COMMANDS, check_command)
}

fn check_list(
    field: &'static str,
    entries: &[String],
    max: usize,
    check: fn(&str) -> Result<(), String>,
) -> Result<(), InvalidSetting> {
    if entries.len() > max {
        return Err(invalid(field, format!("at most {max} entries, not {}", entries.len())));
    }
    for (index, entry) in entries.iter().enumerate() {
        check(entry).map_err(|reason| invalid(field, format!("entry {} {reason}", index + 1)))?;
    }
    Ok(())
}

fn check_user(user: &str) -> Result<(), InvalidSetting> {
    let refuse = |reason: &str| Err(invalid("unattended.user", reason));
    let mut characters = user.chars();
    let first = characters.next().is_some_and(|c| c.is_ascii_lowercase() || c == '_');
    let rest = characters.all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || matches!(c, '_' | '-'));
    if !first || !rest || user.len() > MAX_USER {
        return refuse(
            "a user name has at most 32 characters, lower-case letters, digits, '-' and '_', and begins with \
             a letter or '_'",
        );
    }
    if user == "root" { refuse("root is there already; name another account") } else { Ok(()) }
}

fn check_hash(hash: &str) -> Result<(), InvalidSetting> {
    let fine = |c: char| c.is_ascii_alphanumeric() || matches!(c, '$' | '.' | '/' | '=');
    if hash.len() <= MAX_HASH && hash.starts_with("$6$") && hash.chars().all(fine) {
        Ok(())
    } else {
        Err(invalid("unattended.password", "the stored form is not a SHA-512 hash for crypt(3)"))
    }
}

fn check_ssh_key(key: &str) -> Result<(), String> {
    if key.len() > MAX_SSH_KEY {
        return Err(format!("has more than {MAX_SSH_KEY} bytes"));
    }
    if key.chars().any(char::is_control) {
        return Err("is not one line without control characters".to_owned());
    }
    let mut words = key.split(' ');
    if !words.next().is_some_and(|kind| KEY_TYPES.contains(&kind)) {
        return Err(format!("does not begin with a key type ({})", KEY_TYPES.join(", ")));
    }
    // Every public key begins with the length of its type's name, which is four bytes, the first
    // two of them zero.
    let base64 = |c: char| c.is_ascii_alphanumeric() || matches!(c, '+' | '/' | '=');
    if words.next().is_some_and(|key| key.starts_with("AAAA") && key.chars().all(base64)) {
        Ok(())
    } else {
        Err("has no public key in base64 after its type".to_owned())
    }
}

/// Whether `name` is a host name: one label, or a whole domain name.
pub(super) fn is_hostname(name: &str) -> bool {
    let label = |label: &str| {
        !label.is_empty()
            && label.len() <= MAX_LABEL
            && !label.starts_with('-')
            && !label.ends_with('-')
            && label.chars().all(|c| c.is_ascii_alphanumeric() || c == '-')
    };
    name.len() <= MAX_HOSTNAME && name.split('.').all(label)
}

fn check_hostname(hostname: &str) -> Result<(), InvalidSetting> {
    if is_hostname(hostname) {
        return Ok(());
    }
    Err(invalid(
        "unattended.hostname",
        "a host name has labels of 1 to 63 letters, digits and inner '-', separated by '.', and at most 253 \
         characters",
    ))
}

fn check_timezone(timezone: &str) -> Result<(), InvalidSetting> {
    let part = |part: &str| {
        part.starts_with(|c: char| c.is_ascii_alphabetic())
            && part.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '+'))
    };
    let parts = timezone.split('/');
    if timezone.len() <= MAX_TIMEZONE && parts.clone().count() <= 3 && parts.clone().all(part) {
        return Ok(());
    }
    Err(invalid("unattended.timezone", "a time zone is an IANA name such as Europe/Madrid or UTC"))
}

/// `language`, `language_COUNTRY`, then `.CODESET` and `@modifier`, as glibc has them, or `C.UTF-8`.
fn check_locale(locale: &str) -> Result<(), InvalidSetting> {
    let refuse = || {
        let reason = "a locale is a language, a country and a character set, as in es_ES.UTF-8 or C.UTF-8";
        Err(invalid("unattended.locale", reason))
    };
    if locale.len() > MAX_LOCALE {
        return refuse();
    }
    let (rest, modifier) = match locale.split_once('@') {
        Some((rest, modifier)) => (rest, Some(modifier)),
        None => (locale, None),
    };
    let (name, codeset) = match rest.split_once('.') {
        Some((name, codeset)) => (name, Some(codeset)),
        None => (rest, None),
    };
    let (language, country) = match name.split_once('_') {
        Some((language, country)) => (language, Some(country)),
        None => (name, None),
    };
    let all = |text: &str, fine: fn(char) -> bool| !text.is_empty() && text.chars().all(fine);
    let fine = (language == "C" && country.is_none() && modifier.is_none())
        || ((2..=3).contains(&language.len()) && all(language, |c| c.is_ascii_lowercase()));
    let fine = fine
        && country.is_none_or(|country| country.len() == 2 && all(country, |c| c.is_ascii_uppercase()))
        && codeset.is_none_or(|set| all(set, |c| c.is_ascii_alphanumeric() || c == '-'))
        && modifier.is_none_or(|modifier| all(modifier, |c| c.is_ascii_lowercase()));
    if fine { Ok(()) } else { refuse() }
}

/// A keyboard setting's layout and variant.
pub(super) fn keyboard_parts(keyboard: &str) -> (&str, Option<&str>) {
    match keyboard.split_once('(') {
        Some((layout, variant)) => (layout, variant.strip_suffix(')')),
        None => (keyboard, None),
    }
}

fn check_keyboard(keyboard: &str) -> Result<(), InvalidSetting> {
    let (layout, variant) = keyboard_parts(keyboard);
    let fine = keyboard.len() <= MAX_KEYBOARD
        && layout.len() >= 2
        && layout.chars().all(|c| c.is_ascii_lowercase())
        && keyboard.contains('(') == variant.is_some()
        && variant.is_none_or(|variant| {
            variant.starts_with(|c: char| c.is_ascii_alphanumeric())
                && variant.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '_' | '-'))
        });
    if fine {
        return Ok(());
    }
    Err(invalid(
        "unattended.keyboard",
        "a keyboard is an XKB layout with an optional variant, as in es or de(nodeadkeys)",
    ))
}

fn check_product_key(key: &str) -> Result<(), InvalidSetting> {
    let group =
        |group: &str| group.len() == 5 && group.chars().all(|c| c.is_ascii_uppercase() || c.is_ascii_digit());
    if key.split('-').count() == 5 && key.split('-').all(group) {
        return Ok(());
    }
    Err(invalid(
        "unattended.productKey",
        "a product key has five groups of five digits and upper-case letters, separated by '-'",
    ))
}

fn check_package(name: &str) -> Result<(), String> {
    let allowed = |c: char| c.is_ascii_alphanumeric() || "+._:=~-".contains(c);
    let begins = name.starts_with(|c: char| c.is_ascii_alphanumeric());
    if begins && name.len() <= MAX_PACKAGE && name.chars().all(allowed) {
        return Ok(());
    }
    Err(format!(
        "is no package name: letters, digits and any of '+._:=~-', beginning with a letter or digit, at most \
         {MAX_PACKAGE} characters"
    ))
}

fn check_command(line: &str) -> Result<(), String> {
    if line.trim().is_empty() {
        return Err("is empty".to_owned());
    }
    if line.len() > MAX_COMMAND {
        return Err(format!("has more than {MAX_COMMAND} bytes"));
    }
    if line.contains('\0') {
        return Err("has a zero byte, which no command can be given".to_owned());
    }
    Ok(())
}

#[cfg(test)]
mod tests;
