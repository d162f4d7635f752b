use super::{InvalidSetting, check};
use crate::vm::{FirstBootSecret, Unattended};

const KEY: &str = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIJ ada@example.org it's \"hers\": #1";

fn full() -> Unattended {
    Unattended {
        user: Some("ada_l-1".to_owned()),
        password_hash: Some("$6$rounds=5000$salt$abcDEF./".to_owned()),
        ssh_keys: vec![KEY.to_owned(), "sk-ssh-ed25519@openssh.com AAAA".to_owned()],
        hostname: Some("web-1.example.org".to_owned()),
        timezone: Some("America/Argentina/Buenos_Aires".to_owned()),
        packages: vec!["g++".to_owned(), "libc6:amd64".to_owned(), "nginx=1.22.1-9+deb12u1~x".to_owned()],
        first_boot_commands: vec!["echo 'a: \"b\"' > /tmp/$x\nfalse # {{ no }}".to_owned()],
        locale: Some("es_ES.UTF-8".to_owned()),
        keyboard: Some("de(nodeadkeys)".to_owned()),
        product_key: Some(FirstBootSecret::new("W269N-WFGWX-YVC9B-4J6C9-T83GX".to_owned())),
        ..Unattended::default()
    }
}

#[track_caller]
fn refused(field: &str, edit: impl FnOnce(&mut Unattended)) {
    let mut settings = full();
    edit(&mut settings);
    match check(&settings) {
        Err(InvalidSetting { field: named, .. }) => assert_eq!(named, field),
        Ok(()) => panic!("{settings:?} was accepted"),
    }
}

#[test]
fn good_settings_pass() {
    check(&full()).unwrap();
    check(&Unattended::default()).unwrap();
    for locale in ["C.UTF-8", "en_US.UTF-8", "es", "ca_ES.UTF-8@valencia", "sr_RS@latin"] {
        check(&Unattended { locale: Some(locale.to_owned()), ..Unattended::default() }).unwrap();
    }
    for keyboard in ["us", "es(cat)", "latam", "fr(bepo_latin9)", "ru(phonetic_YAZHERTY)"] {
        check(&Unattended { keyboard: Some(keyboard.to_owned()), ..Unattended::default() }).unwrap();
    }
    for timezone in ["UTC", "Etc/GMT+5", "Europe/Madrid", "America/Port-au-Prince"] {
        check(&Unattended { timezone: Some(timezone.to_owned()), ..Unattended::default() }).unwrap();
    }
}

#[test]
fn every_bad_value_is_refused_under_its_own_name() {
    for bad in ["", "Ada", "1ada", "-ada", "a b", "ada:x", "ada\n", "añа", "root", &"a".repeat(33)] {
        refused("unattended.user", |s| s.user = Some(bad.to_owned()));
    }
    for bad in ["", "secret", "$1$a$b", "$6$a\nb", "$6$a:b", "$6$'"] {
        refused("unattended.password", |s| s.password_hash = Some(bad.to_owned()));
    }
    refused("unattended.password", |s| s.user = None);
    for bad in [
        "",
        "ssh-ed25519",
        "ssh-ed25519 ",
        "ssh-ed25519 key",
        "AAAA",
        "ssh-dss AAAA",
        " ssh-rsa AAAA",
        "ssh-rsa AAAA\nssh-rsa AAAA",
        "ssh-rsa AAAA;x",
        "command=\"x\" ssh-rsa AAAA",
        "ssh-rsa\tAAAA",
        "ssh-rsa AAAA a\u{85}b",
    ] {
        refused("unattended.sshKeys", |s| s.ssh_keys = vec![KEY.to_owned(), bad.to_owned()]);
    }
    for bad in
        ["", ".", "a..b", "-a", "a-", "a_b", "a b", "a.", "ä", "a\n", &"a".repeat(64), &"a.".repeat(127)]
    {
        refused("unattended.hostname", |s| s.hostname = Some(bad.to_owned()));
    }
    for bad in [
        "",
        "/",
        "../etc",
        "Europe/../x",
        "/etc/localtime",
        "a/b/c/d",
        "Europe Madrid",
        "Europe/",
        "5/x",
        "a\n",
    ] {
        refused("unattended.timezone", |s| s.timezone = Some(bad.to_owned()));
    }
    for bad in [
        "",
        "e",
        "ES_es",
        "es_ES.",
        "es-ES",
        "es_ES.UTF-8\n",
        "es_ES.UTF 8",
        "../x",
        "es_ES@",
        "$(x)",
        "C_US",
        "english",
        &format!("es_ES.{}", "8".repeat(40)),
    ] {
        refused("unattended.locale", |s| s.locale = Some(bad.to_owned()));
    }
    for bad in [
        "",
        "e",
        "US",
        "us(",
        "us()",
        "us)x(",
        "us(a)b",
        "us(a b)",
        "us,de",
        "de(-x)",
        "us\n",
        &"a".repeat(49),
    ] {
        refused("unattended.keyboard", |s| s.keyboard = Some(bad.to_owned()));
    }
    for bad in [
        "",
        "W269N-WFGWX-YVC9B-4J6C9",
        "w269n-wfgwx-yvc9b-4j6c9-t83gx",
        "W269N-WFGWX-YVC9B-4J6C9-T83G<",
        "W269N-WFGWX-YVC9B-4J6C9-T83GX\n",
        "W269N-WFGWX-YVC9B-4J6C9-T83GX-AAAAA",
    ] {
        refused("unattended.productKey", |s| s.product_key = Some(FirstBootSecret::new(bad.to_owned())));
    }
    for bad in ["", "a\nb", "a\0b", &"a".repeat(129)] {
        refused("unattended.password", |s| s.password = Some(FirstBootSecret::new(bad.to_owned())));
    }
    for bad in ["", "-y", "--force", "a b", "a;b", "$(x)", "a\n", "./x", &"a".repeat(257)] {
        refused("unattended.packages", |s| s.packages.push(bad.to_owned()));
    }
    for bad in ["", " \n", "a\0b", &"a".repeat(70_000)] {
        refused("unattended.firstBootCommands", |s| s.first_boot_commands.push(bad.to_owned()));
    }
}

#[test]
fn lists_have_an_end() {
    refused("unattended.sshKeys", |s| s.ssh_keys = vec![KEY.to_owned(); 65]);
    refused("unattended.packages", |s| s.packages = vec!["vim".to_owned(); 257]);
    refused("unattended.firstBootCommands", |s| s.first_boot_commands = vec!["true".to_owned(); 65]);
}

#[test]
fn the_entry_at_fault_is_named_and_secrets_are_not_repeated() {
    let mut settings = full();
    settings.packages = vec!["vim".to_owned(), "a b".to_owned()];
    assert!(check(&settings).unwrap_err().to_string().contains("entry 2"));
    settings = full();
    settings.first_boot_commands = vec!["token=hunter2\0".to_owned()];
    assert!(!check(&settings).unwrap_err().to_string().contains("hunter2"));
}
