//! Where the daemon is and who asks: a file of profiles, or the environment.
//!
//! The file holds tokens, so it is its owner's alone: one that others may read or write is refused,
//! as ssh does with keys, before a byte of it is used.

use std::{
    collections::BTreeMap,
    fs::{self, File, OpenOptions},
    io::{self, Read as _, Write as _},
    os::unix::fs::{MetadataExt as _, OpenOptionsExt as _},
    path::{Path, PathBuf},
};

use reqwest::Url;
use serde::{Deserialize, Serialize};

use crate::{failure::Failure, tls::Authority};

/// The profile that is meant where none is named.
pub const DEFAULT: &str = "default";
/// Where a daemon is that nobody said anything of.
pub const DEFAULT_URL: &str = "http://127.0.0.1:4000";
/// The longest file that is read, in bytes.
const LONGEST: u64 = 8 << 20;

/// All profiles, by name.
#[derive(Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Profiles {
    /// `[profiles.NAME]`.
    #[serde(default)]
    pub profiles: BTreeMap<String, Profile>,
}

/// One daemon and the right to ask it.
#[derive(Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Profile {
    /// Where.
    pub url: String,
    /// The bearer token.
    pub token: String,
    /// Who vouches for the daemon; the public authorities, where there is nobody. It stands here, and not
    /// the path of a file, so that whom a token is shown to is guarded by what guards the token.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ca: Option<Authority>,
}

/// What the command line and the environment say, either of which may be silent.
#[derive(Default)]
pub struct Told {
    /// `--profile`.
    pub profile: Option<String>,
    /// `--url`, `INFINIBAY_URL`.
    pub url: Option<String>,
    /// `INFINIBAY_TOKEN`.
    pub token: Option<String>,
    /// `--ca`, `INFINIBAY_CA`.
    pub ca: Option<Authority>,
}

/// `INFINIBAY_PROFILES`, or `infinibay/profiles.toml` in the directory for configuration.
///
/// # Errors
/// Where there is no such directory.
pub fn path() -> Result<PathBuf, Failure> {
    let of = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    of("INFINIBAY_PROFILES")
        .or_else(|| {
            let dir = of("XDG_CONFIG_HOME").filter(|dir| dir.is_absolute());
            Some(dir.or_else(|| Some(of("HOME")?.join(".config")))?.join("infinibay/profiles.toml"))
        })
        .ok_or_else(|| Failure::Profile("neither INFINIBAY_PROFILES nor HOME is set".into()))
}

/// Reads the file; no profiles where there is none.
///
/// # Errors
/// Where it is not its owner's alone, or makes no sense.
pub fn read(path: &Path) -> Result<Profiles, Failure> {
    let shown = path.display();
    // A pipe must not be waited for before it is seen to be one.
    let opened = OpenOptions::new().read(true).custom_flags(nonblocking()).open(path);
    let file = match opened {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Profiles::default()),
        Err(error) => return Err(Failure::Profile(format!("{shown}: {error}"))),
        Ok(file) => file,
    };
    check(&file).map_err(|reason| Failure::Profile(format!("{shown}: {reason}")))?;
    let mut text = String::new();
    let read = file.take(LONGEST).read_to_string(&mut text);
    read.map_err(|error| Failure::Profile(format!("{shown}: {error}")))?;
    // Without the text that is wrong: a token may stand in it.
    toml::from_str(&text).map_err(|error| Failure::Profile(format!("{shown}: {}", error.message())))
}

fn nonblocking() -> i32 {
    rustix::fs::OFlags::NONBLOCK.bits().cast_signed()
}

/// Judged by what was opened, so that nothing can be put in its place in between.
fn check(file: &File) -> Result<(), String> {
    let about = file.metadata().map_err(|error| error.to_string())?;
    if !about.is_file() {
        return Err("it is no regular file".into());
    }
    let me = rustix::process::geteuid().as_raw();
    if about.uid() != me {
        return Err(format!("it belongs to user {}, and not to you", about.uid()));
    }
    let mode = about.mode() & 0o777;
    if mode & 0o077 != 0 {
        return Err(format!(
            "others may read or write it (mode {mode:04o}) and it holds tokens; chmod 600 it, \
             and issue new tokens if others could have read them"
        ));
    }
    Ok(())
}

/// Writes the file anew, for its owner alone, whole or not at all.
///
/// # Errors
/// Where the disk or the permissions do not let it.
pub fn write(path: &Path, profiles: &Profiles) -> Result<(), Failure> {
    let failed = |error: io::Error| Failure::Local(path.display().to_string(), error);
    let text = toml::to_string(profiles).map_err(|error| failed(io::Error::other(error)))?;
    if text.len() as u64 > LONGEST {
        return Err(failed(io::Error::other(format!("it would be longer than {LONGEST} bytes"))));
    }
    if let Some(dir) = path.parent().filter(|dir| !dir.as_os_str().is_empty()) {
        fs::create_dir_all(dir).map_err(failed)?;
    }
    let part = path.with_extension(format!("part-{}", std::process::id()));
    let written = (|| {
        let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&part)?;
        file.write_all(text.as_bytes())?;
        file.sync_all()?;
        fs::rename(&part, path)
    })();
    if written.is_err() {
        // What is left of it holds a token.
        let _ = fs::remove_file(&part);
    }
    written.map_err(failed)
}

/// Puts together where and who. A profile's token goes to the profile's own daemon only: whoever
/// gives another URL gives a token for it. Nor does a profile's authority vouch for another daemon.
///
/// # Errors
/// Where something is missing or is no URL.
pub fn choose(told: Told, read: impl FnOnce() -> Result<Profiles, Failure>) -> Result<Profile, Failure> {
    if let Told { profile: None, url: Some(url), token: Some(token), ca } = told {
        return Ok(Profile { url, token, ca });
    }
    let name = told.profile.as_deref().unwrap_or(DEFAULT);
    let found = read()?.profiles.remove(name);
    if found.is_none() && told.profile.is_some() {
        return Err(Failure::Profile(format!(
            "there is no profile '{name}'; make it with `infinibay login`"
        )));
    }
    let its_own = match (&told.url, &found) {
        (None, Some(_)) => true,
        (Some(url), Some(found)) => base(url)? == base(&found.url)?,
        (_, None) => false,
    };
    let (found_url, found_token, found_ca) = match found {
        Some(Profile { url, token, ca }) if its_own => (Some(url), Some(token), ca),
        _ => (None, None, None),
    };
    let ca = told.ca.or(found_ca);
    match (found_url.or(told.url), told.token.or(found_token)) {
        (url, Some(token)) => Ok(Profile { url: url.unwrap_or_else(|| DEFAULT_URL.into()), token, ca }),
        (Some(url), None) => Err(Failure::Profile(format!(
            "there is no token for {url}: set INFINIBAY_TOKEN, or make a profile with `infinibay login --url {url}`"
        ))),
        (None, None) => Err(Failure::Profile(
            "there is no profile yet; make one with `infinibay login`, or set INFINIBAY_URL and INFINIBAY_TOKEN"
                .into(),
        )),
    }
}

/// A daemon's URL, with a path that ends in `/`.
///
/// # Errors
/// Where it is not one of http or https, or has parts that it must not have.
pub fn base(text: &str) -> Result<Url, Failure> {
    let wrong = |reason: &str| Failure::Profile(format!("'{text}' is no URL of a daemon: {reason}"));
    let mut url = Url::parse(text).map_err(|error| wrong(&error.to_string()))?;
    if !matches!(url.scheme(), "http" | "https") || url.host().is_none() {
        return Err(wrong("it begins with http:// or https:// and names a host"));
    }
    if !url.username().is_empty() || url.password().is_some() {
        // Not repeated: there may be a password in it.
        return Err(Failure::Profile("a daemon's URL names no user and no password".into()));
    }
    if url.query().is_some() || url.fragment().is_some() {
        return Err(wrong("it has no query and no fragment"));
    }
    if !url.path().ends_with('/') {
        let path = format!("{}/", url.path());
        url.set_path(&path);
    }
    Ok(url)
}

/// Whether what is sent there can be read on the way.
#[must_use]
pub fn is_open(url: &Url) -> bool {
    let near = match url.host_str() {
        Some("localhost" | "[::1]") => true,
        Some(host) => host.parse::<std::net::Ipv4Addr>().is_ok_and(|address| address.is_loopback()),
        None => false,
    };
    url.scheme() == "http" && !near
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    fn authority() -> Authority {
        let made = rcgen::generate_simple_self_signed(["a.example".to_owned()]).unwrap();
        made.cert.pem().try_into().unwrap()
    }

    fn profiles() -> Profiles {
        let profile = Profile {
            url: "https://a.example".into(),
            token: "of-the-profile".into(),
            ca: Some(authority()),
        };
        Profiles { profiles: BTreeMap::from([(DEFAULT.to_owned(), profile)]) }
    }

    fn chosen(profile: Option<&str>, url: Option<&str>, token: Option<&str>) -> Option<(String, String)> {
        choose(told(profile, url, token), || Ok(profiles())).ok().map(|it| (it.url, it.token))
    }

    fn told(profile: Option<&str>, url: Option<&str>, token: Option<&str>) -> Told {
        let owned = |word: Option<&str>| word.map(str::to_owned);
        Told { profile: owned(profile), url: owned(url), token: owned(token), ca: None }
    }

    #[test]
    fn a_profiles_authority_vouches_for_its_own_daemon_only() {
        let vouches = |profile, url, token, ca| {
            let told = Told { ca, ..told(profile, url, token) };
            choose(told, || Ok(profiles())).unwrap().ca
        };
        assert!(vouches(None, None, None, None).is_some());
        assert!(vouches(None, None, Some("t"), None).is_some());
        assert!(vouches(Some(DEFAULT), Some("https://a.example/"), Some("t"), None).is_some());
        assert!(vouches(Some(DEFAULT), Some("https://b.example"), Some("t"), None).is_none());
        assert!(vouches(None, Some("https://b.example"), Some("t"), None).is_none());
        // Who names one means that one.
        let other = authority();
        for url in [None, Some("https://b.example")] {
            assert_eq!(vouches(None, url, Some("t"), Some(other.clone())).as_ref(), Some(&other));
        }
    }

    #[test]
    fn a_profiles_token_goes_to_its_own_daemon_only() {
        let pair = |url: &str, token: &str| Some((url.to_owned(), token.to_owned()));
        assert_eq!(chosen(None, None, None), pair("https://a.example", "of-the-profile"));
        assert_eq!(
            chosen(None, Some("https://a.example/"), None),
            pair("https://a.example", "of-the-profile")
        );
        assert_eq!(chosen(None, Some("https://b.example"), None), None);
        assert_eq!(chosen(None, Some("http://a.example"), None), None);
        assert_eq!(chosen(None, Some("https://b.example"), Some("t")), pair("https://b.example", "t"));
        assert_eq!(chosen(None, None, Some("t")), pair("https://a.example", "t"));
        assert_eq!(chosen(Some("other"), None, None), None);
    }

    #[test]
    fn a_file_that_others_may_read_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("deep/profiles.toml");
        assert!(read(&path).unwrap().profiles.is_empty());
        write(&path, &profiles()).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        let kept = &read(&path).unwrap().profiles[DEFAULT];
        assert!(kept.token == "of-the-profile" && kept.ca.is_some());
        for mode in [0o640, 0o604, 0o620, 0o644, 0o666] {
            fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
            assert!(read(&path).err().unwrap().to_string().contains("chmod 600"), "{mode:o}");
        }
        assert!(read(dir.path()).is_err());
    }

    #[test]
    fn a_mistake_is_told_without_the_token() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("profiles.toml");
        write(&path, &profiles()).unwrap();
        fs::write(&path, "[profiles.default]\nurl = 1\ntoken = \"secret\"\n").unwrap();
        let told = read(&path).err().unwrap().to_string();
        assert!(!told.contains("secret") && told.contains("profiles.toml"), "{told}");
    }

    #[test]
    fn a_url_is_of_a_daemon() {
        assert_eq!(base("https://h:1/sub").unwrap().as_str(), "https://h:1/sub/");
        for wrong in ["", "h:1", "ftp://h", "http://u:p@h", "http://h/?q", "http://h/#f", "file:///x"] {
            assert!(base(wrong).is_err(), "{wrong}");
        }
        for (url, open) in [
            ("http://h", true),
            ("https://h", false),
            ("http://127.0.0.1:4000", false),
            ("http://[::1]", false),
        ] {
            assert_eq!(is_open(&base(url).unwrap()), open, "{url}");
        }
    }
}
