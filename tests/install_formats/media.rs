//! How the answers get to an installer, and what our scripts do there.

use std::{
    collections::BTreeMap,
    io::{Read, Write},
    net::TcpListener,
    os::unix::fs::PermissionsExt,
    path::Path,
    process::Command,
    time::{Duration, Instant},
};

use infinibay::{
    install::{
        InstallAgent, InstallMedia, IsoError, MediaError, Recipes, SeedFile, WindowsAgentFiles, build_medium,
        initrd_archive, plan_media,
    },
    vm::{InstallFamily, NetworkAttachment, Unattended, WindowsRelease},
};

use super::bench::{
    DEBIAN, KEY, Kind, REDHAT, UBUNTU, WINDOWS, agent, approve, inputs, plan, spec, validators,
};

const FAMILIES: [InstallFamily; 4] = [
    InstallFamily::Ubuntu,
    InstallFamily::Debian,
    InstallFamily::RedHat,
    InstallFamily::Windows(WindowsRelease::Windows11),
];

fn media(family: InstallFamily) -> InstallMedia {
    let spec = spec(Kind::Install(family).maximal());
    plan(&Recipes::load(None).unwrap(), family, &inputs(&spec)).unwrap()
}

fn text(media: &InstallMedia, path: &str) -> String {
    let file = media.files.iter().find(|file| file.path == path).unwrap_or_else(|| panic!("no {path}"));
    String::from_utf8(file.contents.clone()).unwrap()
}

fn unpack(archive: &[u8], into: &Path) {
    std::fs::write(into.join("archive.gz"), archive).unwrap();
    let script =
        "cd \"$1\" && gzip -dc archive.gz | cpio -i --quiet --no-absolute-filenames && rm archive.gz";
    approve(Path::new("sh"), &["-c", script, "sh", into.to_str().unwrap()]);
}

#[test]
fn each_installer_is_told_where_its_answers_are() {
    let told = FAMILIES.map(|family| {
        let media = media(family);
        (media.label, media.kernel_args.join(" "), media.initrd_append.is_some())
    });
    assert_eq!(told[0], (Some("cidata"), "autoinstall console=ttyS0".to_owned(), false));
    assert_eq!(
        told[1],
        (None, "auto=true priority=critical console=ttyS0 DEBIAN_FRONTEND=text".to_owned(), true)
    );
    assert_eq!(
        told[2],
        (
            Some("OEMDRV"),
            "inst.stage2=hd:LABEL=Fedora-S-dvd\\x20x86_64-42 inst.ks=hd:LABEL=OEMDRV:/ks.cfg inst.cmdline \
             console=ttyS0"
                .to_owned(),
            false
        )
    );
    assert_eq!(told[3], (Some("INFINIBAY"), String::new(), false));
}

#[test]
fn a_medium_carries_its_label_and_files() {
    for family in FAMILIES {
        let media = media(family);
        let Some(label) = media.label else { continue };
        let dir = tempfile::tempdir().unwrap();
        let image = dir.path().join("medium.iso");
        std::fs::write(&image, build_medium(label, &media.files).unwrap()).unwrap();
        let output =
            approve(Path::new("blkid"), &["-p", "-o", "value", "-s", "LABEL", image.to_str().unwrap()]);
        assert_eq!(String::from_utf8_lossy(&output.stdout).trim(), label);
        let (image, target) = (image.to_str().unwrap(), dir.path().join("files"));
        let tree = if label == "INFINIBAY" { "norock" } else { "nojoliet" };
        let target_text = target.to_str().unwrap();
        approve(
            Path::new("xorriso"),
            &["-read_fs", tree, "-osirrox", "on", "-indev", image, "-extract", "/", target_text],
        );
        for file in &media.files {
            assert_eq!(std::fs::read(target.join(&file.path)).unwrap(), file.contents, "{}", file.path);
        }
    }
    for bad in ["", "a b", "ä", "a\n", "../x", &"a".repeat(33)] {
        assert!(matches!(build_medium(bad, &[]), Err(IsoError::Label(_))), "{bad:?}");
    }
}

#[test]
fn an_initrd_takes_what_is_appended() {
    let file = |path: &str, contents: Vec<u8>| SeedFile { path: path.to_owned(), contents };
    let big: Vec<u8> = (0..200_003_u32).map(|n| (n.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
    let files = [
        file("preseed.cfg", b"d-i a/b string c\n".to_vec()),
        file("infinibay/empty", Vec::new()),
        file("infinibay/one", vec![0]),
        file("infiniservice/infiniservice", big),
    ];
    let archive = initrd_archive(&files).unwrap();
    let dir = tempfile::tempdir().unwrap();
    unpack(&archive, dir.path());
    for file in &files {
        let path = dir.path().join(&file.path);
        assert_eq!(std::fs::read(&path).unwrap(), file.contents, "{}", file.path);
        assert_eq!(path.metadata().unwrap().permissions().mode() & 0o7777, 0o444);
    }
    // Behind another, as it is appended: both are whole.
    let mut two = initrd_archive(&[file("first", b"x".to_vec())]).unwrap();
    two.extend_from_slice(&archive);
    std::fs::write(dir.path().join("two.gz"), &two).unwrap();
    let test = approve(Path::new("gzip"), &["-tv", dir.path().join("two.gz").to_str().unwrap()]);
    assert!(test.stderr.ends_with(b"OK\n"), "{test:?}");
}

#[test]
fn the_agent_travels_and_is_told_who_it_is() {
    for family in FAMILIES {
        let spec = spec(Kind::Install(family).ordinary());
        let inputs = inputs(&spec);
        let media = plan(&Recipes::load(None).unwrap(), family, &inputs).unwrap();
        let dir = tempfile::tempdir().unwrap();
        let (environment, program) = match &media.initrd_append {
            Some(archive) => {
                unpack(archive, dir.path());
                let read = |path: &str| std::fs::read(dir.path().join("infiniservice").join(path)).unwrap();
                (String::from_utf8(read("infiniservice.env")).unwrap(), read("infiniservice"))
            }
            None => {
                let windows = matches!(family, InstallFamily::Windows(_));
                let program = if windows { "infiniservice.exe" } else { "infiniservice" };
                let program = text(&media, &format!("infiniservice/{program}")).into_bytes();
                (text(&media, "infiniservice/infiniservice.env"), program)
            }
        };
        assert!(environment.contains(&format!("INFINIBAY_VM_ID={}\n", inputs.id)), "{environment}");
        assert!(environment.contains("INFINISERVICE_URL=http://192.168.122.1:4001/infiniservice\n"));
        let first_boot = if family == InstallFamily::Ubuntu { "cloud-init" } else { "none" };
        assert!(environment.contains(&format!("INFINIBAY_FIRST_BOOT={first_boot}\n")), "{environment}");
        assert!(program.ends_with(b"agent"));
    }
}

#[test]
fn what_nobody_could_install_with_is_refused() {
    let recipes = Recipes::load(None).unwrap();
    let (linux, windows) =
        (agent(), WindowsAgentFiles { binary: b"MZ".to_vec(), installer: b"param()".to_vec() });
    for family in FAMILIES {
        let spec = spec(Kind::Install(family).ordinary());
        let wrong = match family {
            InstallFamily::Windows(_) => InstallAgent::Linux(&linux),
            _ => InstallAgent::Windows(&windows),
        };
        let refused = plan_media(family, &recipes, &inputs(&spec), wrong);
        assert!(matches!(refused, Err(MediaError::Agent(_))), "{refused:?}");
        plan_media(family, &recipes, &inputs(&spec), InstallAgent::None).unwrap();
        for bad in [
            "",
            "ftp://x",
            "http://",
            "http://x/$(y)",
            "http://x y",
            "http://x\ny",
            "http://x'\"",
            "http://ä",
        ] {
            for edit in [0, 1] {
                let mut inputs = inputs(&spec);
                if edit == 0 {
                    inputs.progress_url = Some(bad)
                } else {
                    inputs.mirror = Some(bad)
                }
                let refused = plan_media(family, &recipes, &inputs, InstallAgent::None);
                let told = match &refused {
                    Err(MediaError::Input { what, .. }) => what,
                    Err(MediaError::Setting(wrong)) => wrong.field,
                    _ => "nothing",
                };
                let what = ["the address for reports", "install.mirror"][edit];
                assert_eq!(told, what, "{bad:?}: {refused:?}");
            }
        }
        for bad in ["", " a", "a\nb", "a/b", "ä", &"a".repeat(33)] {
            let mut inputs = inputs(&spec);
            inputs.volume_label = Some(bad);
            let refused = plan_media(family, &recipes, &inputs, InstallAgent::None);
            assert!(matches!(refused, Err(MediaError::Input { .. })), "{bad:?}: {refused:?}");
        }
    }
    let spec = spec(WINDOWS.ordinary());
    let windows = InstallFamily::Windows(WindowsRelease::Windows11);
    let mut bios = inputs(&spec);
    bios.uefi = false;
    assert!(matches!(plan(&recipes, windows, &bios), Err(MediaError::Input { what: "the firmware", .. })));
    plan(&recipes, InstallFamily::Windows(WindowsRelease::Windows10), &bios).unwrap();
    for (edition, language) in
        [(Some("a\nb"), None), (Some(""), None), (None, Some("<b>")), (None, Some("en_US"))]
    {
        let mut inputs = inputs(&spec);
        (inputs.edition, inputs.medium_language) = (edition, language);
        assert!(matches!(plan(&recipes, windows, &inputs), Err(MediaError::Setting(_))));
    }
    let spec = super::bench::spec(REDHAT.ordinary());
    let mut label = inputs(&spec);
    label.volume_label = None;
    let refused = plan(&recipes, InstallFamily::RedHat, &label);
    assert!(matches!(refused, Err(MediaError::Input { what: "the medium's label", .. })), "{refused:?}");
}

#[test]
fn editions_mirrors_and_machines_without_a_network_are_written_down() {
    let recipes = Recipes::load(None).unwrap();
    let spec_windows = spec(WINDOWS.ordinary());
    let mut windows = inputs(&spec_windows);
    windows.edition = Some("Windows 11 Pro & <more>");
    let plan_of = |family, inputs: &_| plan(&recipes, family, inputs).unwrap();
    let answers =
        text(&plan_of(InstallFamily::Windows(WindowsRelease::Windows11), &windows), "autounattend.xml");
    assert!(answers.contains("<Value>Windows 11 Pro &amp; &lt;more&gt;</Value>"), "{answers}");
    let mut lonely = spec(UBUNTU.ordinary());
    lonely.network = NetworkAttachment::None;
    let mut inputs = inputs(&lonely);
    inputs.mirror = Some("https://mirror.example:8443/some/debian/");
    let ubuntu = text(&plan_of(InstallFamily::Ubuntu, &inputs), "user-data");
    assert!(ubuntu.contains("uri: \"https://mirror.example:8443/some/debian/\"") && !ubuntu.contains("eth0"));
    let redhat = text(&plan_of(InstallFamily::RedHat, &inputs), "ks.cfg");
    assert!(redhat.contains("\nnetwork --hostname=web-1\n"), "{redhat}");
    let dir = tempfile::tempdir().unwrap();
    unpack(&plan_of(InstallFamily::Debian, &inputs).initrd_append.unwrap(), dir.path());
    let debian = std::fs::read_to_string(dir.path().join("preseed.cfg")).unwrap();
    for line in [
        "d-i netcfg/enable boolean false",
        "d-i mirror/protocol string https",
        "d-i mirror/https/hostname string mirror.example:8443",
        "d-i mirror/https/directory string /some/debian",
    ] {
        assert!(debian.lines().any(|there| there == line), "no {line:?} in {debian}");
    }
}

/// The scripts of a family, laid out as on its medium.
fn scripts(kind: Kind, settings: Unattended, progress: &str, dir: &Path) {
    let Kind::Install(family) = kind else { panic!("{kind:?} has no installer") };
    let spec = spec(settings);
    let mut inputs = inputs(&spec);
    inputs.progress_url = Some(progress);
    let media = plan(&Recipes::load(None).unwrap(), family, &inputs).unwrap();
    for file in media.files {
        let path = dir.join(&file.path);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, file.contents).unwrap();
    }
    if let Some(archive) = media.initrd_append {
        unpack(&archive, dir);
    }
}

/// Takes one request and answers it: what came in its body.
fn hear(listener: &TcpListener) -> String {
    let (mut stream, _) = listener.accept().unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
    let mut request = Vec::new();
    let mut part = [0; 4096];
    loop {
        let read = stream.read(&mut part).unwrap();
        request.extend_from_slice(&part[..read]);
        let text = String::from_utf8_lossy(&request).into_owned();
        let length = text
            .to_ascii_lowercase()
            .split("content-length: ")
            .nth(1)
            .map_or(0, |rest| rest.split("\r\n").next().unwrap().parse::<usize>().unwrap());
        if let Some((head, body)) = text.split_once("\r\n\r\n").filter(|(_, body)| body.len() >= length) {
            stream.write_all(b"HTTP/1.1 204 No Content\r\nConnection: close\r\n\r\n").unwrap();
            return format!("{} {body}", head.split(' ').next().unwrap());
        }
        assert!(read > 0, "half a request: {text}");
    }
}

#[test]
fn a_stage_is_reported_and_nobody_waits_where_none_listens() {
    let dir = tempfile::tempdir().unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = format!("http://{}/install/0a1b", listener.local_addr().unwrap());
    scripts(UBUNTU, UBUNTU.ordinary(), &address, dir.path());
    let report = dir.path().join("infinibay/report.sh");
    let heard = std::thread::spawn(move || hear(&listener));
    approve(Path::new("sh"), &[report.to_str().unwrap(), "started"]);
    assert_eq!(heard.join().unwrap(), "POST stage=started");
    // The listener is gone now.
    let began = Instant::now();
    approve(Path::new("sh"), &[report.to_str().unwrap(), "installed"]);
    assert!(began.elapsed() < Duration::from_secs(8), "an installer waits for us");
}

/// Runs `script` with the validators' guest as the installed system at `$target`, changed for this
/// run only; what it left there is read from `$target` too.
fn in_installed_system(medium: &Path, script: &str) -> String {
    let guest = validators().join("guest");
    let dir = tempfile::tempdir().unwrap();
    for part in ["upper", "work", "target"] {
        std::fs::create_dir(dir.path().join(part)).unwrap();
    }
    let all = format!(
        "set -eu; target=$2/target; medium=$3
         mount -t tmpfs none \"$2/work\"; mkdir \"$2/work/u\" \"$2/work/w\"
         mount -t overlay overlay -o \"lowerdir=$1,upperdir=$2/work/u,workdir=$2/work/w\" \"$target\"
         mkdir -p \"$target/home/ada\" \"$target/root\" \"$target/etc\" \"$target/dev\" \"$target/var/log\"
         printf 'root:x:0:0::/root:/bin/sh\\nada:x:0:0::/home/ada:/bin/sh\\n' >\"$target/etc/passwd\"
         printf 'root:x:0:\\n' >\"$target/etc/group\"
         {script}"
    );
    let output = Command::new("unshare")
        .args(["--mount", "sh", "-c", &all, "sh"])
        .args([guest.as_path(), dir.path(), medium])
        .output()
        .unwrap();
    assert!(
        output.status.success(),
        "{}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
    String::from_utf8(output.stdout).unwrap()
}

const LOOK: &str = "cd \"$target\"; find etc home root var/lib/infinibay-install -type f -o -type l | sort | \
                    while read -r path; do [ -e \"$path\" ] || [ -h \"$path\" ] && printf '%s %s\\n' \
                    \"$(stat -c %a \"$path\")\" \"$path\"; done";

#[test]
fn the_installed_system_gets_account_keys_and_first_boot() {
    let dir = tempfile::tempdir().unwrap();
    let key = format!("{KEY} $(touch /broken) `touch /broken` 'x' \"y\" \\");
    let settings = Unattended {
        ssh_keys: vec![key.clone()],
        first_boot_commands: vec![
            "echo \"one: $0\" >/var/log/first\nexit 3".to_owned(),
            "echo two >>/var/log/first".to_owned(),
        ],
        ..DEBIAN.ordinary()
    };
    scripts(DEBIAN, settings, "http://127.0.0.1:9/none", dir.path());
    let left = in_installed_system(
        dir.path(),
        &format!(
            "sh \"$medium/infinibay/finish.sh\" \"$target\" >/dev/null
             [ ! -e \"$target/broken\" ] || exit 9
             cat \"$target/home/ada/.ssh/authorized_keys\" \"$target/etc/sudoers.d/90-infinibay\"
             {LOOK}
             chroot \"$target\" /bin/sh /var/lib/infinibay-install/infinibay/first-boot.sh
             cat \"$target/var/log/first\" \"$target/var/log/infinibay-first-boot.log\"
             [ ! -e \"$target/var/lib/infinibay-install\" ] || exit 8"
        ),
    );
    assert!(left.starts_with(&format!("{key}\nada ALL=(ALL) NOPASSWD:ALL\n")), "{left}");
    let modes: BTreeMap<&str, &str> =
        left.lines().filter_map(|line| line.split_once(' ')).map(|(mode, path)| (path, mode)).collect();
    assert_eq!(modes.get("home/ada/.ssh/authorized_keys"), Some(&"600"), "{left}");
    assert_eq!(modes.get("etc/sudoers.d/90-infinibay"), Some(&"440"));
    assert_eq!(modes.get("etc/systemd/system/infinibay-first-boot.service"), Some(&"644"));
    assert!(modes.contains_key("etc/systemd/system/multi-user.target.wants/infinibay-first-boot.service"));
    assert_eq!(modes.get("var/lib/infinibay-install/first-boot/001.sh"), Some(&"400"), "secrets: {left}");
    // The second ran although the first failed, and the log says how each ended.
    assert!(left.contains("one: /var/lib/infinibay-install/first-boot/001.sh\ntwo\n"), "{left}");
    assert!(left.contains("ended with code 3") && left.contains("ended with code 0"), "{left}");
}

#[test]
fn an_installation_ends_well_whatever_fails_in_it() {
    let dir = tempfile::tempdir().unwrap();
    let settings = Unattended { first_boot_commands: Vec::new(), ..REDHAT.ordinary() };
    scripts(REDHAT, settings, "http://127.0.0.1:9/none", dir.path());
    // The agent's installer fails; nothing is left behind.
    std::fs::write(dir.path().join("infiniservice/install-linux.sh"), "exit 1\n").unwrap();
    let run = "sh \"$medium/infinibay/finish.sh\" \"$target\" >/dev/null; echo \"code $?\";";
    let left = in_installed_system(dir.path(), &format!("{run} ls \"$target/var/lib\""));
    assert!(left.starts_with("code 0\n") && !left.contains("infinibay-install"), "{left}");
    // No shell in the installed system, or no system at all.
    let finish = dir.path().join("infinibay/finish.sh");
    let empty = tempfile::tempdir().unwrap();
    approve(Path::new("sh"), &[finish.to_str().unwrap(), empty.path().to_str().unwrap()]);
}
