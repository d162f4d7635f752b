//! An installer's files, out of discs that are made here.

use super::*;
use crate::{
    install::SeedFile,
    reconcile::ports::Files,
    vm::{
        Base, Disc, Firmware, FirstBootSecret, InstallerKernel, NetworkAttachment, Origin, PowerKeeping,
        Unattended,
    },
};

const INITRD: [u8; 4097] = [7; 4097];

struct Host {
    dir: tempfile::TempDir,
    files: HostFiles,
}

impl Host {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let file =
            |path: &str, contents: &[u8]| SeedFile { path: path.to_owned(), contents: contents.to_vec() };
        let disc =
            build_medium("DISC", &[file("install/vmlinuz", b"kernel"), file("install/initrd.gz", &INITRD)]);
        fs::write(dir.path().join("disc.iso"), disc.unwrap()).unwrap();
        fs::create_dir(dir.path().join("seeds")).unwrap();
        let guests = "192.0.2.1:4001".parse().unwrap();
        let files = HostFiles::new(dir.path().to_owned(), Some(guests), "", Recipes::load(None).unwrap());
        Self { dir, files }
    }

    fn seeds(&self) -> PathBuf {
        self.dir.path().join("seeds")
    }

    fn names(&self) -> Vec<String> {
        let entries = fs::read_dir(self.seeds()).unwrap();
        let mut names: Vec<_> =
            entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }

    fn spec(&self, family: InstallFamily) -> VmSpec {
        let disc = Disc { medium: "disc".parse().unwrap(), path: self.dir.path().join("disc.iso") };
        VmSpec {
            name: "web-1".parse().unwrap(),
            firmware: Firmware::Bios,
            tpm: false,
            base: Base::Installation(Box::new(Installation {
                disc,
                family,
                label: Some("DISC".to_owned()),
                kernel: Some(InstallerKernel {
                    kernel: "install/vmlinuz".to_owned(),
                    initrd: "install/initrd.gz".to_owned(),
                }),
                drivers: None,
                mirror: None,
                edition: None,
                medium_language: None,
                agent: false,
                token: Some(FirstBootSecret::new("hunter2".to_owned())),
            })),
            vcpus: 1,
            memory_mib: 512,
            disk_bytes: 1 << 30,
            pool: "default".parse().unwrap(),
            network: NetworkAttachment::User,
            unattended: Unattended::default(),
            origin: Origin::Created,
            devices: crate::vm::Plugged::default(),
            keeping: PowerKeeping::default(),
        }
    }
}

fn holds(bytes: &[u8], text: &str) -> bool {
    bytes.windows(text.len()).any(|window| window == text.as_bytes())
}

#[tokio::test]
async fn a_preseed_stands_behind_the_initial_ram_disk() {
    let (host, vm) = (Host::new(), VmId::generate());
    let (spec, dir) = (host.spec(InstallFamily::Debian), host.seeds());
    let boot = host.files.write_installer(vm, &spec, None, &dir).await.unwrap();
    assert_eq!(host.names(), [name(vm, "initrd"), name(vm, "kernel")]);
    let kernel = boot.kernel.clone().unwrap();
    assert_eq!(fs::read(&kernel.kernel).unwrap(), b"kernel");
    let path = kernel.initrd.unwrap();
    let initrd = fs::read(&path).unwrap();
    assert_eq!(initrd[..INITRD.len()], INITRD);
    // Three bytes of nothing, then a gzip member at a fourth one.
    assert_eq!(initrd[INITRD.len()..INITRD.len() + 5], [0, 0, 0, 0x1f, 0x8b]);
    assert!(holds(&initrd, "http://192.0.2.1:4001/install/hunter2"), "no address to report to");
    for file in [&path, &kernel.kernel] {
        assert_eq!(fs::metadata(file).unwrap().permissions().mode() & 0o777, 0o600, "{}", file.display());
    }
    assert!(kernel.cmdline.starts_with("auto=true") && kernel.cmdline.contains("console=ttyS0"));
    assert_eq!(boot.discs, [host.dir.path().join("disc.iso")]);
    // Done again, and only named: the same.
    assert_eq!(host.files.write_installer(vm, &spec, None, &dir).await.unwrap(), boot);
    assert_eq!(fs::read(&path).unwrap(), initrd);
    assert_eq!(host.files.installer_boot(vm, &spec, &dir).await.unwrap(), boot);
    for ending in ["kernel", "initrd", "iso"] {
        host.files.shred(&dir, &name(vm, ending)).await.unwrap();
    }
    assert_eq!(host.names(), Vec::<String>::new());
}

#[tokio::test]
async fn other_answers_stand_on_a_medium() {
    let host = Host::new();
    for (family, label, argument) in [
        (InstallFamily::Ubuntu, "cidata", "autoinstall"),
        (InstallFamily::RedHat, "OEMDRV", "inst.stage2=hd:LABEL=DISC"),
    ] {
        let vm = VmId::generate();
        let boot = host.files.write_installer(vm, &host.spec(family), None, &host.seeds()).await.unwrap();
        let medium = host.seeds().join(name(vm, "iso"));
        assert_eq!(boot.discs, [host.dir.path().join("disc.iso"), medium.clone()]);
        let answers = fs::read(&medium).unwrap();
        assert!(holds(&answers, label) && holds(&answers, "hunter2"), "{label}");
        assert_eq!(fs::metadata(&medium).unwrap().permissions().mode() & 0o777, 0o600);
        let kernel = boot.kernel.unwrap();
        assert!(kernel.cmdline.split(' ').any(|word| word == argument), "{}", kernel.cmdline);
        assert_eq!(fs::read(kernel.initrd.unwrap()).unwrap(), INITRD, "nothing is behind it");
    }
}

#[tokio::test]
async fn a_disc_that_is_not_what_it_was_is_told() {
    let (host, vm) = (Host::new(), VmId::generate());
    let mut spec = host.spec(InstallFamily::Debian);
    let Base::Installation(installation) = &mut spec.base else { unreachable!("it is one") };
    installation.kernel.as_mut().unwrap().initrd = "install/missing".to_owned();
    let error = host.files.write_installer(vm, &spec, None, &host.seeds()).await.unwrap_err();
    assert!(crate::vm::chain(&error).contains("install/missing"), "{}", crate::vm::chain(&error));
    fs::write(host.dir.path().join("disc.iso"), "<html>").unwrap();
    let spec = host.spec(InstallFamily::Debian);
    host.files.write_installer(vm, &spec, None, &host.seeds()).await.unwrap_err();
    fs::write(host.seeds().join(format!(".{}.draft.part", name(vm, "initrd"))), "left over").unwrap();
    for ending in ["kernel", "initrd"] {
        host.files.remove(&host.seeds(), &name(vm, ending)).await.unwrap();
    }
    assert_eq!(host.names(), Vec::<String>::new(), "an attempt left something");
}

#[tokio::test]
async fn what_cannot_be_looked_at_shows_nothing() {
    let host = Host::new();
    let at = |name: &str| host.dir.path().join(name);
    let nothing = host.files.install_signs(&at("no.log"), Some(&at("no.qcow2"))).await;
    assert_eq!(nothing, InstallSigns::default());
    fs::write(at("vm.log"), "x".repeat(20_000) + "\nlast\n").unwrap();
    std::os::unix::fs::symlink(at("vm.log"), at("link.log")).unwrap();
    let signs = host.files.install_signs(&at("vm.log"), Some(&at("vm.log"))).await;
    assert_eq!((signs.last_lines, signs.lines.len()), (vec!["last".to_owned()], 1));
    assert!(signs.disk_bytes.is_some_and(|bytes| bytes >= 20_000));
    let linked = host.files.install_signs(&at("link.log"), Some(&at("link.log"))).await;
    assert_eq!(linked, InstallSigns::default(), "a link was followed");
}
