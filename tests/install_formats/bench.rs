//! What the stories of this file need: VMs to install, their files laid out, and the programs that
//! judge them.

use std::{
    io::Write,
    path::{Path, PathBuf},
    process::{Command, Output, Stdio},
};

use infinibay::{
    install::{
        AgentFiles, InstallAgent, InstallInputs, InstallMedia, MediaError, Recipes, SeedInputs,
        WindowsAgentFiles, plan_media, seed_files,
    },
    vm::{
        Base, Firmware, FirstBootSecret, Image, ImageFormat, InstallFamily, NetworkAttachment, OsFamily,
        Provisioning, Unattended, VmId, VmSpec, WindowsRelease,
    },
};
use serde_json::Value;

pub const MAC: &str = "52:54:00:0a:0b:0c";
pub const HASH: &str = "$6$rounds=50000$abcdefgh$abc./DEF0123456789";
pub const KEY: &str = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIJ";
pub const PROGRESS: &str = "http://192.168.122.1:4001/install/0a1b2c";

/// Everything that the generators are asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    Cloud,
    Install(InstallFamily),
}

pub const UBUNTU: Kind = Kind::Install(InstallFamily::Ubuntu);
pub const DEBIAN: Kind = Kind::Install(InstallFamily::Debian);
pub const REDHAT: Kind = Kind::Install(InstallFamily::RedHat);
pub const WINDOWS: Kind = Kind::Install(InstallFamily::Windows(WindowsRelease::Windows11));
pub const SERVER: Kind = Kind::Install(InstallFamily::Windows(WindowsRelease::Server2022));
pub const ALL: [Kind; 6] = [Kind::Cloud, UBUNTU, DEBIAN, REDHAT, WINDOWS, SERVER];

impl Kind {
    pub fn is_windows(self) -> bool {
        matches!(self, Self::Install(InstallFamily::Windows(_)))
    }

    fn reader(self) -> &'static str {
        match self {
            Self::Cloud => "cloud",
            Self::Install(InstallFamily::Ubuntu) => "ubuntu",
            Self::Install(InstallFamily::Debian) => "debian",
            Self::Install(InstallFamily::RedHat) => "redhat",
            Self::Install(InstallFamily::Windows(_)) => "windows",
        }
    }

    /// As little as can be asked for.
    pub fn ordinary(self) -> Unattended {
        let mut settings = Unattended { user: Some("ada".to_owned()), ..Unattended::default() };
        self.give_password(&mut settings, HASH);
        settings
    }

    /// All that can be asked for.
    pub fn maximal(self) -> Unattended {
        let windows = self.is_windows();
        let mut settings = Unattended {
            user: Some("ada_l-1".to_owned()),
            ssh_keys: vec![
                format!("{KEY} ada@example.org it's \"hers\" \\ $(id) `id` # 1 %end &<>"),
                "ssh-rsa AAAAB3NzaC1yc2E=".to_owned(),
            ],
            hostname: Some(if windows { "WEB-1" } else { "web-1.example.org" }.to_owned()),
            timezone: Some("America/Argentina/Buenos_Aires".to_owned()),
            locale: Some("de_CH.UTF-8".to_owned()),
            keyboard: Some("ch(fr)".to_owned()),
            packages: if windows { Vec::new() } else { vec!["g++".to_owned(), "nginx".to_owned()] },
            first_boot_commands: vec![
                "echo 'a: \"b\"' > /tmp/$x\nfalse # {{ no }} %end ]]>".to_owned(),
                "- true".to_owned(),
            ],
            ..Unattended::default()
        };
        self.give_password(&mut settings, if windows { "pä\"ss <w> & $(x)" } else { HASH });
        if windows {
            settings.product_key = Some(FirstBootSecret::new("W269N-WFGWX-YVC9B-4J6C9-T83GX".to_owned()));
        }
        settings
    }

    /// A password, or for those who know them its hash.
    pub fn give_password(self, settings: &mut Unattended, text: &str) {
        if self.is_windows() {
            settings.password = Some(FirstBootSecret::new(text.to_owned()));
        } else {
            settings.password_hash = Some(text.to_owned());
        }
    }
}

pub fn spec(unattended: Unattended) -> VmSpec {
    VmSpec {
        origin: infinibay::vm::Origin::Created,
        devices: infinibay::vm::Plugged::default(),
        keeping: infinibay::vm::PowerKeeping::default(),
        name: "web_1".parse().unwrap(),
        firmware: Firmware::Bios,
        tpm: false,
        base: Base::Image(Image {
            name: "any".parse().unwrap(),
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
        memory_mib: 1024,
        disk_bytes: 1,
        pool: "default".parse().unwrap(),
        network: NetworkAttachment::Network("default".parse().unwrap()),
        unattended,
    }
}

pub fn inputs(spec: &VmSpec) -> InstallInputs<'_> {
    InstallInputs {
        id: VmId::generate(),
        spec,
        mac: MAC,
        url: Some("http://192.168.122.1:4001/infiniservice"),
        seal: None,
        progress_url: Some(PROGRESS),
        volume_label: Some("Fedora-S-dvd x86_64-42"),
        mirror: None,
        uefi: true,
        edition: None,
        medium_language: None,
    }
}

pub fn agent() -> AgentFiles {
    AgentFiles {
        binary: b"\x7fELF agent".to_vec(),
        installer: b"#!/bin/sh\n".to_vec(),
        unit: b"[Unit]\n".to_vec(),
    }
}

/// The plan, the agent of the right system included.
pub fn plan(
    recipes: &Recipes,
    family: InstallFamily,
    inputs: &InstallInputs<'_>,
) -> Result<InstallMedia, MediaError> {
    let (linux, windows) =
        (agent(), WindowsAgentFiles { binary: b"MZ agent".to_vec(), installer: b"param()\n".to_vec() });
    let agent = match family {
        InstallFamily::Windows(_) => InstallAgent::Windows(&windows),
        _ => InstallAgent::Linux(&linux),
    };
    plan_media(family, recipes, inputs, agent)
}

/// The files of a VM of that kind, in `dir`; the initial RAM disk's part is `initrd.gz`.
pub fn lay_out(recipes: &Recipes, kind: Kind, settings: &Unattended, dir: &Path) -> Result<(), MediaError> {
    let spec = spec(settings.clone());
    let inputs = inputs(&spec);
    let (files, initrd) = match kind {
        Kind::Cloud => {
            let inputs = SeedInputs { id: inputs.id, spec: &spec, mac: MAC, url: inputs.url, seal: None };
            (seed_files(&inputs, &agent())?, None)
        }
        Kind::Install(family) => {
            let media = plan(recipes, family, &inputs)?;
            (media.files, media.initrd_append)
        }
    };
    std::fs::create_dir_all(dir).unwrap();
    for file in files {
        let path = dir.join(&file.path);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, file.contents).unwrap();
    }
    if let Some(initrd) = initrd {
        std::fs::write(dir.join("initrd.gz"), initrd).unwrap();
    }
    Ok(())
}

/// Where `scripts/test setup` puts what judges installers' files.
pub fn validators() -> PathBuf {
    let dir = std::env::var_os("INFINIBAY_TEST_VALIDATORS")
        .map_or_else(|| PathBuf::from("/var/lib/infinibay/validators"), PathBuf::from);
    for part in ["venv/made-from", "guest/made-from", "later/made-from"] {
        assert!(
            dir.join(part).exists(),
            "{} is not there: `scripts/test setup` fetches what judges installers' files \
             (INFINIBAY_TEST_VALIDATORS names another place)",
            dir.join(part).display()
        );
    }
    dir
}

pub fn venv(program: &str) -> PathBuf {
    validators().join("venv/bin").join(program)
}

/// Runs a program; one that cannot be run is a failed test.
pub fn run(program: &Path, args: &[&str], input: &[u8]) -> Output {
    let mut child = Command::new(program)
        .args(args)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap_or_else(|e| {
            panic!("{} cannot be run ({e}); `scripts/test setup` installs it", program.display())
        });
    let mut stdin = child.stdin.take().unwrap();
    let input = input.to_owned();
    let writer = std::thread::spawn(move || {
        // A program that has seen enough closes its end.
        let _written = stdin.write_all(&input);
    });
    let output = child.wait_with_output().unwrap();
    writer.join().unwrap();
    output
}

#[track_caller]
pub fn approve(program: &Path, args: &[&str]) -> Output {
    let output = run(program, args, b"");
    assert!(
        output.status.success(),
        "{} {args:?}: {}{}",
        program.display(),
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
    output
}

/// What the files in each directory say, as their own readers read them.
pub fn read_back(laid_out: &[(Kind, PathBuf)]) -> Vec<Value> {
    let asked: Vec<_> = laid_out
        .iter()
        .map(|(kind, dir)| serde_json::json!({ "family": kind.reader(), "dir": dir }))
        .collect();
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/install_formats/read_back.py");
    let input = serde_json::to_vec(&asked).unwrap();
    let output = run(&venv("python"), &[script.to_str().unwrap()], &input);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let facts: Vec<Value> = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(facts.len(), laid_out.len());
    facts
}
