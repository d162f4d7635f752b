use proptest::prelude::*;
use serde_json::{Value, json};

use super::{
    AgentFiles, SealDelivery, SeedError, SeedFile, SeedInputs, default_hostname, scrubbed_seed_files,
    seed_files, yaml,
};
use crate::vm::{
    Base, Firmware, Image, ImageFormat, NetworkAttachment, OsFamily, PowerKeeping, Provisioning, Unattended,
    VmId, VmSpec,
};

const KEY: &str = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5 ada";
const HASH: &str = "$6$salt$abc";
const URL: &str = "http://192.168.122.1:4001/infiniservice";
const MAC: &str = "52:54:00:01:02:03";

fn spec() -> VmSpec {
    VmSpec {
        name: "web_1".parse().unwrap(),
        firmware: Firmware::Bios,
        tpm: false,
        base: Base::Image(Image {
            name: "debian".parse().unwrap(),
            description: String::new(),
            os_family: OsFamily::Linux,
            provisioning: Provisioning::CloudInit,
            disk: "/d".into(),
            format: ImageFormat::Qcow2,
            virtual_bytes: 1,
            sha256: String::new(),
            kernel: None,
        }),
        vcpus: 1,
        memory_mib: 64,
        disk_bytes: 1,
        pool: "default".parse().unwrap(),
        network: NetworkAttachment::Network("default".parse().unwrap()),
        unattended: Unattended {
            user: Some("ada".to_owned()),
            password_hash: Some(HASH.to_owned()),
            ssh_keys: vec![KEY.to_owned()],
            hostname: None,
            timezone: Some("Europe/Madrid".to_owned()),
            packages: vec!["nginx".to_owned()],
            first_boot_commands: vec!["echo token-4711 >> /x".to_owned()],
            ..Unattended::default()
        },
        keeping: PowerKeeping::default(),
        devices: Default::default(),
        origin: crate::vm::Origin::Created,
    }
}

fn agent() -> AgentFiles {
    AgentFiles {
        binary: b"\x7fELF agent".to_vec(),
        installer: b"#!/bin/sh\n".to_vec(),
        unit: b"[Unit]\n".to_vec(),
    }
}

fn inputs(spec: &VmSpec) -> SeedInputs<'_> {
    SeedInputs { id: VmId::generate(), spec, mac: MAC, url: Some(URL), seal: None }
}

fn text<'f>(files: &'f [SeedFile], path: &str) -> &'f str {
    let file = files.iter().find(|f| f.path == path).unwrap_or_else(|| panic!("no {path} in {files:?}"));
    std::str::from_utf8(&file.contents).unwrap()
}

fn user_data(files: &[SeedFile]) -> Value {
    let text = text(files, "user-data");
    serde_json::from_str(text.strip_prefix("#cloud-config\n").expect("the first line says what it is"))
        .unwrap()
}

#[test]
fn a_seed_says_who_the_guest_is_and_carries_the_agent() {
    let spec = spec();
    let inputs = inputs(&spec);
    let files = seed_files(&inputs, &agent()).unwrap();
    let id = inputs.id.to_string();
    let meta: Value = serde_json::from_str(text(&files, "meta-data")).unwrap();
    assert_eq!(meta, json!({ "instance-id": id, "local-hostname": "web-1" }));
    let network: Value = serde_json::from_str(text(&files, "network-config")).unwrap();
    assert_eq!(
        network,
        json!({ "version": 2, "ethernets": { "eth0": {
            "match": { "macaddress": MAC }, "set-name": "eth0", "dhcp4": true } } })
    );
    let data = user_data(&files);
    assert_eq!(
        data["users"],
        json!([{ "name": "ada", "sudo": "ALL=(ALL) NOPASSWD:ALL", "shell": "/bin/bash", "lock_passwd": false,
            "passwd": HASH, "ssh_authorized_keys": [KEY] }])
    );
    assert_eq!(data["timezone"], "Europe/Madrid");
    assert_eq!((&data["packages"], &data["package_update"]), (&json!(["nginx"]), &json!(true)));
    assert_eq!(data["runcmd"], json!([["sh", "-c", "echo token-4711 >> /x"]]));
    let install = data["bootcmd"][0].as_array().unwrap();
    assert_eq!(install[..5], ["cloud-init-per", "instance", "infiniservice", "sh", "-c"]);
    assert_eq!(text(&files, "infiniservice/install-linux.sh"), "#!/bin/sh\n");
    assert_eq!(
        text(&files, "infiniservice/infiniservice.env"),
        format!(
            "INFINIBAY_VM_ID={id}\nINFINIBAY_DEVICE=/dev/virtio-ports/org.infinibay.agent\n\
             INFINIBAY_FIRST_BOOT=cloud-init\nINFINISERVICE_URL={URL}\n"
        )
    );
}

#[test]
fn what_was_not_asked_for_is_not_there() {
    let mut spec = spec();
    spec.unattended = Unattended::default();
    spec.network = NetworkAttachment::None;
    let files = seed_files(&SeedInputs { url: None, ..inputs(&spec) }, &agent()).unwrap();
    let data = user_data(&files);
    let keys: Vec<_> = data.as_object().unwrap().keys().map(String::as_str).collect();
    assert_eq!(keys, ["bootcmd", "hostname", "manage_etc_hosts"]);
    assert!(!text(&files, "infiniservice/infiniservice.env").contains("URL"));
    assert!(!text(&files, "network-config").contains("eth0"));
    // Keys without a user are for the account that the image brings.
    spec.unattended.ssh_keys = vec![KEY.to_owned()];
    let data = user_data(&seed_files(&inputs(&spec), &agent()).unwrap());
    assert_eq!(data["ssh_authorized_keys"], json!([KEY]));
    assert!(data.get("users").is_none());
}

#[test]
fn a_scrubbed_seed_keeps_the_instance_and_no_secret() {
    let spec = spec();
    let inputs = inputs(&spec);
    let (before, after) = (seed_files(&inputs, &agent()).unwrap(), scrubbed_seed_files(&inputs).unwrap());
    for file in ["meta-data", "network-config"] {
        assert_eq!(text(&before, file), text(&after, file));
    }
    let all: String = after.iter().map(|file| String::from_utf8(file.contents.clone()).unwrap()).collect();
    for secret in [HASH, "token-4711", "bootcmd", "runcmd", "ELF"] {
        assert!(!all.contains(secret), "{secret} is still there: {all}");
    }
    assert_eq!(after.len(), 3);
    assert_eq!(user_data(&after)["users"][0]["lock_passwd"], false, "a second run would lock the account");
    assert_eq!(user_data(&after)["hostname"], "web-1");
}

#[test]
fn a_copy_is_told_who_it_is_and_keeps_its_accounts() {
    let source = VmId::generate();
    let mut spec = spec();
    spec.origin = crate::vm::Origin::Cloned { from: source };
    spec.unattended = spec.unattended.without_secrets();
    let inputs = inputs(&spec);
    let files = seed_files(&inputs, &agent()).unwrap();
    let meta: Value = serde_json::from_str(text(&files, "meta-data")).unwrap();
    assert_eq!(meta, json!({ "instance-id": inputs.id.to_string(), "local-hostname": "web-1" }));
    let env = text(&files, "infiniservice/infiniservice.env");
    assert!(env.contains(&format!("INFINIBAY_VM_ID={}", inputs.id)), "{env}");
    let data = user_data(&files);
    assert_eq!(data["timezone"], "Europe/Madrid");
    let nobody = json!([{ "name": "nobody", "lock_passwd": true }]);
    assert_eq!(data["users"], nobody);
    for done in ["packages", "runcmd", "ssh_authorized_keys"] {
        assert!(data.get(done).is_none(), "{done} is done again: {data}");
    }
    assert_eq!(data["bootcmd"].as_array().unwrap().len(), 2);
    let network: Value = serde_json::from_str(text(&files, "network-config")).unwrap();
    assert_eq!(network["ethernets"]["eth0"]["dhcp-identifier"], "mac");
    let all: String = files.iter().map(|file| String::from_utf8_lossy(&file.contents).into_owned()).collect();
    for left in [source.to_string().as_str(), "\"passwd\"", "ada", KEY] {
        assert!(!all.contains(left), "{left} of the copied guest: {all}");
    }
    let scrubbed = scrubbed_seed_files(&inputs).unwrap();
    assert_eq!(text(&scrubbed, "meta-data"), text(&files, "meta-data"));
    assert_eq!(user_data(&scrubbed)["users"], nobody);
    assert!(user_data(&scrubbed).get("bootcmd").is_none());
}

#[test]
fn an_image_that_provisions_itself_has_no_seed() {
    let mut spec = spec();
    spec.image_mut().unwrap().provisioning = Provisioning::None;
    assert_eq!(seed_files(&inputs(&spec), &agent()).unwrap(), []);
    assert_eq!(scrubbed_seed_files(&inputs(&spec)).unwrap(), []);
}

#[test]
fn what_a_seed_cannot_carry_is_refused() {
    let mut spec = spec();
    for bad in [
        "",
        "http://",
        "ftp://h/",
        "http://h/$(x)",
        "http://h/ x",
        "http://h\nA=b",
        "http://h'",
        "javascript:x",
    ] {
        let refused = seed_files(&SeedInputs { url: Some(bad), ..inputs(&spec) }, &agent());
        assert!(matches!(refused, Err(SeedError::Url(_))), "{bad:?}");
    }
    assert!(
        seed_files(&SeedInputs { url: Some("https://[fd00::1]:80/a-b_c"), ..inputs(&spec) }, &agent())
            .is_ok()
    );
    spec.unattended.packages.push("--x".to_owned());
    assert!(matches!(seed_files(&inputs(&spec), &agent()), Err(SeedError::Setting(_))));
    spec.unattended.packages.pop();
    spec.image_mut().unwrap().os_family = OsFamily::Windows;
    assert!(matches!(seed_files(&inputs(&spec), &agent()), Err(SeedError::Family(_))));
}

#[test]
fn every_vm_name_gives_a_host_name() {
    for (name, expected) in
        [("web-1", "web-1"), ("db_2.internal", "db-2.internal"), ("a..b", "a.b"), ("a-._", "a")]
    {
        assert_eq!(default_hostname(&name.parse().unwrap()), expected);
    }
}

proptest! {
    #[test]
    fn any_vm_name_gives_a_host_name(name in "[A-Za-z0-9][A-Za-z0-9._-]{0,62}") {
        let hostname = default_hostname(&name.parse().unwrap());
        prop_assert!(super::is_hostname(&hostname), "{name} gave {hostname:?}");
    }

    #[test]
    fn commands_come_back_as_they_were(lines in prop::collection::vec("[^\\x00]{1,40}", 1..4)) {
        prop_assume!(lines.iter().all(|line| !line.trim().is_empty()));
        let mut spec = spec();
        spec.unattended.first_boot_commands = lines.clone();
        let files = seed_files(&inputs(&spec), &agent()).unwrap();
        let expected: Vec<_> = lines.iter().map(|line| json!(["sh", "-c", line])).collect();
        prop_assert_eq!(&user_data(&files)["runcmd"], &json!(expected));
        // YAML readers refuse, or fold, these where they stand bare.
        let bare = |c: char| matches!(c, '\u{7f}'..='\u{9f}' | '\u{2028}' | '\u{2029}' | '\u{feff}' | '\u{fffe}' | '\u{ffff}')
            || (c < ' ' && c != '\n');
        prop_assert!(!text(&files, "user-data").contains(bare));
    }

    #[test]
    fn any_text_survives_as_yaml(value in ".{0,30}") {
        let written = yaml("x", "", &json!([value])).unwrap();
        prop_assert_eq!(serde_json::from_slice::<Value>(&written).unwrap(), json!([value]));
    }
}

#[test]
fn the_key_travels_as_a_file_of_its_own_and_goes_with_the_agent() {
    let spec = spec();
    let key = crate::vm::SealKey::new([7; 32]);
    for (demanded, mode) in [(false, None), (true, Some("INFINIBAY_SEAL=require"))] {
        let inputs = SeedInputs { seal: Some(SealDelivery { key: &key, demanded }), ..inputs(&spec) };
        let files = seed_files(&inputs, &agent()).unwrap();
        let text = |path: &str| {
            let file = files.iter().find(|file| file.path == path).expect("the file");
            String::from_utf8(file.contents.clone()).unwrap()
        };
        assert_eq!(text("infiniservice/seal.key"), key.file(inputs.id.uuid()));
        let told = text("infiniservice/infiniservice.env");
        assert_eq!(told.lines().find(|line| line.starts_with("INFINIBAY_SEAL")), mode);
        let secret = key.file(inputs.id.uuid());
        let secret = secret.trim_end().split_once(' ').unwrap().1;
        let holding = files.iter().filter(|file| String::from_utf8_lossy(&file.contents).contains(secret));
        assert_eq!(holding.count(), 1, "it stands in one file alone");
        assert!(!format!("{inputs:?}{files:?}").contains(secret));
        let scrubbed = scrubbed_seed_files(&inputs).unwrap();
        assert!(scrubbed.iter().all(|file| !String::from_utf8_lossy(&file.contents).contains(secret)));
    }
    assert!(seed_files(&inputs(&spec), &agent()).unwrap().iter().all(|file| !file.path.contains("seal")));
}
