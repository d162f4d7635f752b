//! A domain that others made: real, with something to keep, and without a system in it.

use super::{
    daemon::{Client, Daemon, Home, Setup},
    guests::Places,
    host::{self, DomainGuard},
};

/// A domain of somebody else, and a home for daemons beside it.
pub struct Stranger {
    pub home: Home,
    pub token: String,
    pub uuid: String,
    pub name: String,
    _guard: DomainGuard,
    _place: Places,
}

impl Stranger {
    /// Once there is a place for a guest.
    pub fn set(story: &str) -> Self {
        let place = Places::take(1);
        let home = Home::new(Setup {
            uri: "qemu:///system".into(),
            database_url: None,
            images_dir: host::test_images(),
            base_dir: host::test_base_dir(),
            env: vec![],
        });
        let token = home.admin();
        let name = format!("story-adopt-{story}-{}", std::process::id());
        let uuid = uuid::Uuid::new_v4().to_string();
        Self { home, token, _guard: DomainGuard(name.clone()), _place: place, name, uuid }
    }

    /// Hands the domain to virsh with this verb.
    pub fn bring(&self, verb: &str, metadata: &str, devices: &str) {
        let Self { name, uuid, .. } = self;
        let xml = format!(
            "<domain type='qemu'><name>{name}</name><uuid>{uuid}</uuid>{metadata}<memory unit='MiB'>64</memory>
             <vcpu>1</vcpu><os><type arch='x86_64' machine='q35'>hvm</type></os><devices>
             <controller type='usb' model='none'/><graphics type='vnc' passwd='hunter2'><listen type='socket'/></graphics>
             {devices}</devices></domain>"
        );
        let file = self.home.path().join("theirs.xml");
        std::fs::write(&file, xml).unwrap();
        host::virsh(&[verb, file.to_str().unwrap()]);
    }

    /// The configuration, with its secrets.
    pub fn whole(&self) -> String {
        host::virsh(&["dumpxml", "--inactive", "--security-info", &self.name])
    }

    pub fn pid(&self) -> String {
        std::fs::read_to_string(format!("/run/libvirt/qemu/{}.pid", self.name)).unwrap()
    }

    pub fn start(&self) -> (Daemon, Client) {
        let daemon = self.home.start();
        let client = daemon.client(&self.token);
        (daemon, client)
    }
}
