//! Unattended installs in the formats of every family: what was asked for comes back when the
//! format's own reader reads the file, whatever was in it, or it was refused with a reason; and the
//! programs that judge such files elsewhere find nothing.

#![allow(clippy::unwrap_used, reason = "helpers of tests fail as tests do")]

#[path = "install_formats/bench.rs"]
mod bench;
#[path = "install_formats/judges.rs"]
mod judges;
#[path = "install_formats/media.rs"]
mod media;

use std::path::{Path, PathBuf};

use bench::{ALL, DEBIAN, HASH, KEY, Kind, REDHAT, SERVER, UBUNTU, WINDOWS, lay_out, read_back};
use infinibay::{
    install::{InvalidSetting, MediaError, Recipes, SeedError},
    vm::{FirstBootSecret, Unattended},
};
use proptest::prelude::*;
use serde_json::{Value, json};

/// What somebody may try to break out with, and what is merely unusual.
fn hostile() -> Vec<String> {
    let mut values: Vec<String> = [
        "a'b",
        "a\"b",
        "a\\b",
        "a\\",
        "$(touch /x)",
        "`touch /x`",
        "${IFS}x",
        "a; touch /x",
        "a && b | c > d",
        "a\nrootpw x",
        "a\r\nd-i x/y string z",
        "a\n%end\n%post\ntouch /x",
        "]]>",
        "</Value><x>",
        "<!-- x",
        "&amp;",
        "a & b",
        "# no comment",
        "a #b",
        "%packages",
        "%PATH%",
        "100%",
        "a: b",
        "- a",
        "{{ x }}",
        "{% if %}",
        "{a: [b]}",
        "!!python/object:x",
        "*anchor",
        "yes",
        "null",
        "0x10",
        "1e3",
        "~",
        "=1+1",
        "--password",
        " a",
        "a ",
        "\ta",
        "a\tb",
        "a\0b",
        "a\u{1b}[2Jb",
        "ñandú",
        "日本語",
        "a\u{202e}b",
        "a\u{2028}b",
        "a\u{85}b",
        "a\u{feff}b",
        "\u{ffff}",
        "🦀",
        "",
        " ",
    ]
    .map(str::to_owned)
    .to_vec();
    values.push("a".repeat(10 * 1024));
    values.push("x y ".repeat(2560));
    values
}

type Set = fn(&mut Unattended, Kind, &str);

/// Each field: its name at the API, among the facts that are read back, and how it is set.
const FIELDS: [(&str, &str, Set); 9] = [
    ("unattended.user", "user", |s, _, value| s.user = Some(value.to_owned())),
    ("unattended.password", "password", |s, kind, value| kind.give_password(s, value)),
    ("unattended.sshKeys", "ssh_keys", |s, _, value| s.ssh_keys = vec![value.to_owned()]),
    ("unattended.sshKeys", "ssh_keys", |s, _, value| s.ssh_keys = vec![format!("{KEY} {value}")]),
    ("unattended.hostname", "hostname", |s, _, value| s.hostname = Some(value.to_owned())),
    ("unattended.timezone", "timezone", |s, _, value| s.timezone = Some(value.to_owned())),
    ("unattended.locale", "locale", |s, _, value| s.locale = Some(value.to_owned())),
    ("unattended.keyboard", "keyboard", |s, _, value| s.keyboard = Some(value.to_owned())),
    ("unattended.packages", "packages", |s, _, value| s.packages = vec![value.to_owned()]),
];

const SECRET_FIELDS: [(&str, &str, Set); 2] = [
    ("unattended.productKey", "product_key", |s, _, value| {
        s.product_key = Some(FirstBootSecret::new(value.to_owned()));
    }),
    ("unattended.firstBootCommands", "commands", |s, _, value| {
        s.first_boot_commands = vec![value.to_owned(), "true".to_owned()];
    }),
];

fn refusal(error: MediaError) -> InvalidSetting {
    match error {
        MediaError::Setting(wrong) | MediaError::Seed(SeedError::Setting(wrong)) => wrong,
        other => panic!("a setting was refused by something else: {other}"),
    }
}

/// The setting as it should be read back.
fn expected(settings: &Unattended, fact: &str) -> Value {
    let plain = settings.password.as_ref().map(FirstBootSecret::expose);
    match fact {
        "user" => json!(settings.user),
        "password" => json!(plain.or(settings.password_hash.as_deref())),
        "ssh_keys" => json!(settings.ssh_keys),
        "hostname" => json!(settings.hostname),
        "timezone" => json!(settings.timezone),
        "locale" => json!(settings.locale),
        "keyboard" => json!(settings.keyboard),
        "packages" => json!(settings.packages),
        "product_key" => json!(settings.product_key.as_ref().map(FirstBootSecret::expose)),
        "commands" => json!(settings.first_boot_commands),
        other => panic!("no such fact: {other}"),
    }
}

#[test]
fn every_hostile_value_is_refused_with_a_reason_or_carried_as_it_is() {
    let recipes = Recipes::load(None).unwrap();
    let dir = tempfile::tempdir().unwrap();
    let (mut laid_out, mut asked, mut refused) = (Vec::new(), Vec::new(), 0);
    // A server is read as any other Windows.
    for kind in ALL.into_iter().filter(|kind| *kind != SERVER) {
        for (field, fact, set) in FIELDS.into_iter().chain(SECRET_FIELDS) {
            for value in hostile() {
                let mut settings = kind.ordinary();
                set(&mut settings, kind, &value);
                let place = dir.path().join(laid_out.len().to_string());
                match lay_out(&recipes, kind, &settings, &place) {
                    Ok(()) => {
                        laid_out.push((kind, place));
                        asked.push((settings, fact));
                    }
                    Err(error) => {
                        let wrong = refusal(error);
                        assert_eq!(wrong.field, field, "{kind:?} {value:?}: {wrong}");
                        assert!(wrong.reason.len() > 10, "{wrong}");
                        refused += 1;
                    }
                }
            }
        }
    }
    for ((facts, (kind, _)), (settings, fact)) in read_back(&laid_out).iter().zip(&laid_out).zip(&asked) {
        assert_eq!(facts[fact], expected(settings, fact), "{kind:?}: {fact}");
        // It did not become anything else either.
        for other in ["user", "ssh_keys", "packages"] {
            assert_eq!(facts[other], expected(settings, other), "{kind:?}: {fact} became {other}");
        }
    }
    assert!(refused > 1_000, "only {refused} were refused");
    // Commands and the comments of keys are free text: most of it must get through.
    assert!(laid_out.len() > 400, "only {} were carried", laid_out.len());
}

#[test]
fn all_that_was_asked_for_is_in_the_file() {
    let recipes = Recipes::load(None).unwrap();
    let dir = tempfile::tempdir().unwrap();
    let laid_out: Vec<(Kind, PathBuf)> =
        ALL.iter().enumerate().map(|(n, kind)| (*kind, dir.path().join(n.to_string()))).collect();
    for (kind, place) in &laid_out {
        lay_out(&recipes, *kind, &kind.maximal(), place).unwrap();
    }
    for (facts, (kind, _)) in read_back(&laid_out).iter().zip(&laid_out) {
        let settings = kind.maximal();
        for fact in ["user", "password", "ssh_keys", "hostname", "packages", "commands"] {
            assert_eq!(facts[fact], expected(&settings, fact), "{kind:?}: {fact}");
        }
        let local = ["timezone", "locale", "keyboard"].map(|fact| facts[fact].as_str().unwrap().to_owned());
        if kind.is_windows() {
            assert_eq!(local, ["Argentina Standard Time", "de-CH", "100c:0000100c"]);
            assert_eq!(facts["product_key"], expected(&settings, "product_key"));
        } else {
            assert_eq!(local, ["America/Argentina/Buenos_Aires", "de_CH.UTF-8", "ch(fr)"], "{kind:?}");
        }
    }
}

#[test]
fn what_was_not_asked_for_has_a_sound_default() {
    let recipes = Recipes::load(None).unwrap();
    let dir = tempfile::tempdir().unwrap();
    let mut laid_out = Vec::new();
    for (n, kind) in [UBUNTU, DEBIAN, REDHAT, WINDOWS].into_iter().enumerate() {
        let place = dir.path().join(n.to_string());
        let settings = if kind.is_windows() { kind.ordinary() } else { Unattended::default() };
        lay_out(&recipes, kind, &settings, &place).unwrap();
        laid_out.push((kind, place));
    }
    let facts = read_back(&laid_out);
    for linux in &facts[..3] {
        assert_eq!((&linux["user"], &linux["password"]), (&Value::Null, &facts[0]["user"]));
        assert_eq!((&linux["hostname"], &linux["locale"]), (&json!("web-1"), &json!("en_US.UTF-8")));
        assert_eq!(linux["keyboard"], "us");
        assert_eq!((&linux["packages"], &linux["commands"]), (&json!([]), &json!([])));
    }
    // Nobody has root's password, and the installer does not ask for one.
    assert_eq!(facts[1]["answers"]["passwd/root-password-crypted"], json!(["password", "*"]));
    assert_eq!(facts[1]["answers"]["passwd/make-user"], json!(["boolean", "false"]));
    assert_eq!(facts[2]["root_locked"], true);
    assert_eq!((&facts[3]["hostname"], &facts[3]["timezone"]), (&json!("web-1"), &json!("UTC")));
    assert_eq!(facts[3]["keyboard"], "en-US");
    assert_eq!(facts[3]["product_key"], Value::Null);
}

#[track_caller]
fn refuses(kind: Kind, field: &str, edit: impl FnOnce(&mut Unattended)) {
    let mut settings = kind.ordinary();
    edit(&mut settings);
    let dir = tempfile::tempdir().unwrap();
    let error = lay_out(&Recipes::load(None).unwrap(), kind, &settings, dir.path()).unwrap_err();
    assert_eq!(refusal(error).field, field, "{kind:?}");
}

#[test]
fn what_a_family_does_not_know_is_refused_and_not_passed_over() {
    for kind in [Kind::Cloud, UBUNTU, DEBIAN, REDHAT] {
        refuses(kind, "unattended.productKey", |s| {
            s.product_key = Some(FirstBootSecret::new("W269N-WFGWX-YVC9B-4J6C9-T83GX".to_owned()));
        });
        refuses(kind, "unattended.password", |s| s.password = Some(FirstBootSecret::new("plain".to_owned())));
    }
    for user in ["sudo", "backup", "_ada", "sshd"] {
        refuses(DEBIAN, "unattended.user", |s| s.user = Some(user.to_owned()));
    }
    refuses(REDHAT, "unattended.packages", |s| s.packages = vec!["nginx=1.2".to_owned()]);
    for kind in [WINDOWS, SERVER] {
        for user in ["administrator", "guest", "a23456789012345678901"] {
            refuses(kind, "unattended.user", |s| s.user = Some(user.to_owned()));
        }
        refuses(kind, "unattended.user", |s| (s.user, s.password) = (None, None));
        refuses(kind, "unattended.password", |s| s.password = None);
        refuses(kind, "unattended.password", |s| s.password_hash = Some(HASH.to_owned()));
        refuses(kind, "unattended.packages", |s| s.packages = vec!["nginx".to_owned()]);
        for name in ["a234567890123456", "a.b", "4711"] {
            refuses(kind, "unattended.hostname", |s| s.hostname = Some(name.to_owned()));
        }
        refuses(kind, "unattended.keyboard", |s| s.keyboard = Some("de(nodeadkeys)".to_owned()));
        refuses(kind, "unattended.timezone", |s| s.timezone = Some("Mars/Olympus".to_owned()));
        refuses(kind, "unattended.locale", |s| s.locale = Some("C.UTF-8".to_owned()));
    }
}

#[test]
fn no_secret_shows_in_what_is_logged() {
    for kind in ALL {
        let settings = kind.maximal();
        let shown = format!("{settings:?} {:?}", bench::spec(settings.clone()));
        for secret in [HASH, "W269N", "pä", "echo 'a"] {
            assert!(!shown.contains(secret), "{shown}");
        }
        let kept = serde_json::to_string(&settings.without_secrets()).unwrap();
        for secret in ["$6$", "W269N", "pä", "echo"] {
            assert!(!kept.contains(secret), "{kept}");
        }
    }
    let dir = tempfile::tempdir().unwrap();
    let error = lay_out(
        &Recipes::load(None).unwrap(),
        WINDOWS,
        &Unattended { product_key: Some(FirstBootSecret::new("hunter2".to_owned())), ..WINDOWS.ordinary() },
        dir.path(),
    )
    .unwrap_err();
    assert!(!format!("{error} {error:?}").contains("hunter2"), "{error:?}");
}

/// The answers of one Ubuntu VM, read without Python: its values are JSON in YAML.
fn user_data(text: &str) -> Value {
    let line = text.lines().find_map(|line| line.strip_prefix("  user-data: ")).expect("user-data");
    serde_json::from_str(line).unwrap()
}

fn planned(
    recipes: &Recipes,
    kind: Kind,
    settings: &Unattended,
    dir: &Path,
) -> Result<String, InvalidSetting> {
    lay_out(recipes, kind, settings, dir).map_err(refusal)?;
    let name = if kind == UBUNTU { "user-data" } else { "ks.cfg" };
    Ok(std::fs::read_to_string(dir.join(name)).unwrap())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn any_text_is_refused_or_stays_one_value(
        comment in "\\PC{0,40}",
        command in "[^\\x00]{1,80}",
        host in "[A-Za-z0-9.\\PC-]{1,20}",
    ) {
        let recipes = Recipes::load(None).unwrap();
        let dir = tempfile::tempdir().unwrap();
        let settings = Unattended {
            ssh_keys: vec![format!("{KEY} {comment}")],
            hostname: Some(host),
            first_boot_commands: vec![command],
            ..UBUNTU.ordinary()
        };
        if let Ok(text) = planned(&recipes, UBUNTU, &settings, &dir.path().join("ubuntu")) {
            let data = user_data(&text);
            prop_assert_eq!(&data["users"][0]["ssh_authorized_keys"], &json!(settings.ssh_keys));
            prop_assert_eq!(&data["hostname"], &json!(settings.hostname));
            prop_assert_eq!(&data["runcmd"][0][2], &json!(settings.first_boot_commands[0]));
        }
        // As many lines as with nothing unusual: no value began one of its own.
        let plain = Unattended { ssh_keys: vec![KEY.to_owned()], hostname: Some("h".to_owned()), ..settings.clone() };
        if let Ok(text) = planned(&recipes, REDHAT, &settings, &dir.path().join("redhat")) {
            let usual = planned(&recipes, REDHAT, &plain, &dir.path().join("plain")).unwrap();
            prop_assert_eq!(text.matches('\n').count(), usual.matches('\n').count());
            let carried = std::fs::read_to_string(dir.path().join("redhat/first-boot/001.sh")).unwrap();
            prop_assert_eq!(carried, format!("{}\n", settings.first_boot_commands[0]));
        }
    }
}
