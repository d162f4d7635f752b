//! Installations from a disc, as far as the doors have a say in them: what may be asked for, what an
//! installer may tell and who else tries to, and how long its disc stays.
#![allow(clippy::unwrap_used, reason = "a broken expectation ends the story")]

#[macro_use]
mod support;

use std::{
    fs,
    net::IpAddr,
    path::Path,
    time::{Duration, Instant},
};

use infinibay::vm::{InstallFamily, InstallerKernel, VmId};
use serde_json::{Value, json};
use support::{
    daemon::Client,
    database::TestDatabase,
    discs::{disc, windows},
    trial::Trial,
};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

const SOON: Duration = Duration::from_secs(60);
const CREATE: &str =
    "mutation($input: CreateVmInput!) { createVm(input: $input) { vm { id } operation { id } } }";
const IMPORT: &str = "mutation($input: ImportMediumInput!) { importMedium(input: $input) { state } }";
const DELETE: &str = "mutation($name: String!) { deleteMedium(name: $name) { state } }";
const MEDIUM: &str = "query($name: String!) { medium(name: $name) { state useCount error { message } } }";
const SEEN: &str = "query($id: UUID!) { vm(id: $id) { image medium installStage installReportedAt } }";

/// A daemon with discs, and the address at which it listens to installers.
struct Bench {
    trial: Trial,
    guests: String,
    inbox: tempfile::TempDir,
}

impl Bench {
    async fn start(db: &TestDatabase) -> Self {
        let inbox = tempfile::tempdir().unwrap();
        // Free now; whoever takes it meanwhile makes the daemon wait for it.
        let guests = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string();
        let trial = Trial::start_with(
            db,
            &[
                ("INFINIBAY__MEDIA__IMPORT_DIRS", inbox.path().to_str().unwrap()),
                ("INFINIBAY__MEDIA__RESERVE_BYTES", "0"),
                ("INFINIBAY__GUESTS__LISTEN", &guests),
            ],
        )
        .await;
        let bench = Self { trial, guests: format!("http://{guests}"), inbox };
        let linux: [(&str, &[u8]); 2] =
            [("install.amd/vmlinuz", b"kernel"), ("install.amd/initrd.gz", b"initrd")];
        bench.has("debian", "Debian_13_amd64", &linux).await;
        bench
    }

    fn client(&self) -> &Client {
        &self.trial.client
    }

    /// Puts a disc into the library.
    async fn has(&self, name: &str, label: &str, files: &[(&str, &[u8])]) {
        self.imports(name, &disc(label, files)).await;
        self.becomes(name, "READY").await;
    }

    async fn imports(&self, name: &str, bytes: &[u8]) {
        let path = self.inbox.path().join(format!("{name}.iso"));
        fs::write(&path, bytes).unwrap();
        let input = json!({ "name": name, "kind": "INSTALLATION", "path": path.to_str().unwrap() });
        self.client().ask(IMPORT, json!({ "input": input })).await;
    }

    async fn becomes(&self, name: &str, state: &str) {
        let deadline = Instant::now() + SOON;
        loop {
            let now = self.client().ask(MEDIUM, json!({ "name": name })).await;
            if now["medium"]["state"] == state {
                return;
            }
            assert!(Instant::now() < deadline, "{name} is not {state}: {now}");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    /// Puts an agent for Linux where the daemon looks for it.
    fn has_agent(&self) {
        let root = self.trial.library.path().join("base/infiniservice");
        fs::create_dir_all(root.join("binaries/linux")).unwrap();
        fs::create_dir_all(root.join("install")).unwrap();
        fs::write(root.join("binaries/linux/infiniservice"), b"\x7fELF made up").unwrap();
        fs::write(root.join("install/install-linux.sh"), "#!/bin/sh\n").unwrap();
        fs::write(root.join("install/infiniservice.service"), "[Service]\n").unwrap();
    }

    /// The same for Windows.
    fn has_windows_agent(&self) {
        let root = self.trial.library.path().join("base/infiniservice");
        fs::create_dir_all(root.join("binaries/windows")).unwrap();
        fs::write(root.join("binaries/windows/infiniservice.exe"), b"MZ made up").unwrap();
        fs::write(root.join("install/install-windows.ps1"), "exit 0\r\n").unwrap();
    }

    fn request(&self, name: &str, medium: &str) -> Value {
        json!({
            "name": name, "vcpus": 1, "memoryMib": 512, "diskGib": 8, "pool": "default-pool", "network": "none",
            "install": { "medium": medium },
        })
    }

    /// What its installer was given to prove itself with.
    async fn token(&self, db: &TestDatabase, vm: &str) -> String {
        let id = VmId(vm.parse().unwrap());
        let record = db.store().await.vm(id).await.unwrap().unwrap().record;
        record.spec.installation().unwrap().token.as_ref().unwrap().expose().to_owned()
    }
}

/// An installer, or somebody who would like to be taken for one.
struct Installer {
    http: reqwest::Client,
    url: String,
}

impl Installer {
    fn at(address: &str, bench: &Bench, token: &str) -> Self {
        let address: IpAddr = address.parse().unwrap();
        let http = reqwest::Client::builder().local_address(address).no_proxy().build().unwrap();
        Self { http, url: format!("{}/install/{token}", bench.guests) }
    }

    /// Posts this; the status.
    async fn posts(&self, body: &str) -> u16 {
        let deadline = Instant::now() + SOON;
        loop {
            match self.http.post(&self.url).body(body.to_owned()).send().await {
                Ok(answer) => {
                    let status = answer.status().as_u16();
                    let words = answer.text().await.unwrap();
                    assert!(!words.contains(self.url.rsplit('/').next().unwrap()), "{words}");
                    return status;
                }
                // The listener may have to wait for its address.
                Err(error) => assert!(error.is_connect() && Instant::now() < deadline, "{error:?}"),
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    async fn says(&self, stage: &str) -> u16 {
        self.posts(&format!("stage={stage}")).await
    }

    /// Asks for it, as one does that cannot post.
    async fn asks(&self, query: &str) -> u16 {
        self.http.get(format!("{}{query}", self.url)).send().await.unwrap().status().as_u16()
    }
}

/// The request with the value at that place: a field, or one of `install`.
fn with(request: &Value, place: &str, value: Value) -> Value {
    let mut request = request.clone();
    match place.split_once('.') {
        Some((group, field)) => request[group][field] = value,
        None => request[place] = value,
    }
    request
}

async fn refused(client: &Client, request: Value, code: &str, field: Option<&str>) {
    let answer = client.send(CREATE, json!({ "input": request })).await;
    let told = &answer["errors"][0]["extensions"];
    assert_eq!(
        (told["code"].as_str(), told["field"].as_str()),
        (Some(code), field),
        "{request:.300}: {answer}"
    );
}

on_both! {
    async fn bad_requests_are_refused_and_leave_nothing(db: TestDatabase) {
        let mut bench = Bench::start(&db).await;
        let eve = {
            let Trial { home, daemon, token, client, .. } = &mut bench.trial;
            let eve = home.between(daemon, |home| home.user("eve", &[]));
            *client = daemon.client(token);
            daemon.client(&eve)
        };
        let client = bench.client();
        bench.has("strange", "STRANGE", &[("readme.txt", b"nothing")]).await;
        bench.has("empty", "Fedora_42_x86_64", &[("readme.txt", b"nothing")]).await;
        let kernel: [(&str, &[u8]); 2] = [("install.amd/vmlinuz", b"kernel"), ("install.amd/initrd.gz", b"initrd")];
        bench.has("arm", "Debian_13_arm64", &kernel).await;
        for (name, build) in [("win10", "19045"), ("win11", "22631")] {
            let files: [(&str, &[u8]); 2] = [("sources/boot.wim", b"MSWIM"), ("sources/install.wim", &windows(build))];
            bench.has(name, "CCCOMA_X64FRE", &files).await;
        }
        bench.imports("broken", b"<!DOCTYPE html><html></html>").await;
        bench.becomes("broken", "FAILED").await;

        let debian = bench.request("fine", "debian");
        // Nobody put an agent there yet.
        refused(client, debian.clone(), "AGENT_BINARY_MISSING", None).await;
        refused(client, bench.request("fine", "win10"), "AGENT_BINARY_MISSING", None).await;
        refused(client, bench.request("fine", "win11"), "AGENT_BINARY_MISSING", None).await;
        bench.has_agent();
        refused(client, bench.request("fine", "win10"), "AGENT_BINARY_MISSING", None).await;

        let long = format!("http://{}", "a".repeat(600));
        for (place, value, code, field) in [
            ("install", json!({}), "INVALID_QUERY", None),
            ("install", json!(null), "INVALID_INPUT", Some("image")),
            ("image", json!("blank"), "INVALID_INPUT", Some("install")),
            ("diskGib", json!(null), "INVALID_INPUT", Some("diskGib")),
            ("diskGib", json!(-1), "INVALID_INPUT", Some("diskGib")),
            ("diskGib", json!(3), "INVALID_INPUT", Some("diskGib")),
            ("diskGib", json!(1_000_000_000), "INVALID_INPUT", Some("diskGib")),
            ("memoryMib", json!(-5), "INVALID_INPUT", Some("memoryMib")),
            ("install.medium", json!(""), "INVALID_INPUT", Some("install.medium")),
            ("install.medium", json!("../debian"), "INVALID_INPUT", Some("install.medium")),
            ("install.medium", json!("/etc/passwd"), "INVALID_INPUT", Some("install.medium")),
            ("install.medium", json!("x".repeat(300)), "INVALID_INPUT", Some("install.medium")),
            ("install.medium", json!("no-such"), "MEDIUM_NOT_FOUND", None),
            ("install.medium", json!("blank"), "MEDIUM_NOT_FOUND", None),
            ("install.medium", json!("broken"), "MEDIUM_NOT_READY", None),
            ("install.medium", json!("strange"), "MEDIUM_NOT_INSTALLABLE", None),
            ("install.medium", json!("empty"), "MEDIUM_NOT_INSTALLABLE", None),
            ("install.medium", json!("arm"), "MEDIUM_NOT_INSTALLABLE", None),
            ("install.mirror", json!("file:///etc/passwd"), "INVALID_INPUT", Some("install.mirror")),
            ("install.mirror", json!("http://a b"), "INVALID_INPUT", Some("install.mirror")),
            ("install.mirror", json!("http://a\nd-i x/y string z"), "INVALID_INPUT", Some("install.mirror")),
            ("install.mirror", json!("http://x'\"$(id)"), "INVALID_INPUT", Some("install.mirror")),
            ("install.mirror", json!("http:///debian"), "INVALID_INPUT", Some("install.mirror")),
            ("install.mirror", json!(long), "INVALID_INPUT", Some("install.mirror")),
            ("install.edition", json!("Pro"), "INVALID_INPUT", Some("install.edition")),
            ("install.mediumLanguage", json!("en-US"), "INVALID_INPUT", Some("install.mediumLanguage")),
            ("install.drivers", json!("../x"), "INVALID_INPUT", Some("install.drivers")),
            ("install.drivers", json!("debian"), "INVALID_INPUT", Some("install.drivers")),
            // What the family's own format, or the family, cannot carry.
            ("unattended", json!({ "user": "_ada" }), "INVALID_INPUT", Some("unattended.user")),
            ("unattended", json!({ "user": "backup" }), "INVALID_INPUT", Some("unattended.user")),
            ("unattended", json!({ "password": "x" }), "INVALID_INPUT", Some("unattended.password")),
            ("unattended", json!({ "productKey": "W269N-WFGWX-YVC9B-4J6C9-T83GX" }), "INVALID_INPUT",
             Some("unattended.productKey")),
            ("pool", json!("no-such"), "POOL_NOT_FOUND", None),
            ("name", json!("test"), "NAME_TAKEN", None),
        ] {
            refused(client, with(&debian, place, value), code, field).await;
        }

        let mut win10 = bench.request("fine", "win10");
        win10["diskGib"] = json!(64);
        win10["install"]["agent"] = json!(false);
        win10["unattended"] = json!({ "user": "ada", "password": "correct horse" });
        for (place, value, code, field) in [
            ("diskGib", json!(8), "INVALID_INPUT", Some("diskGib")),
            ("install.mirror", json!("http://mirror.example"), "INVALID_INPUT", Some("install.mirror")),
            ("install.edition", json!("a\nb"), "INVALID_INPUT", Some("install.edition")),
            ("install.edition", json!("\u{ffff}"), "INVALID_INPUT", Some("install.edition")),
            ("install.edition", json!("x".repeat(1000)), "INVALID_INPUT", Some("install.edition")),
            ("install.mediumLanguage", json!("<b>"), "INVALID_INPUT", Some("install.mediumLanguage")),
            ("install.drivers", json!("no-such"), "MEDIUM_NOT_FOUND", None),
            ("install.drivers", json!("broken"), "MEDIUM_NOT_READY", None),
            ("install.medium", json!("win11"), "INVALID_INPUT", Some("firmware")),
            ("firmware", json!("UEFI"), "NOT_SUPPORTED", None),
            ("tpm", json!(true), "NOT_SUPPORTED", None),
            ("unattended", json!(null), "INVALID_INPUT", Some("unattended.user")),
            ("unattended", json!({ "user": "ada" }), "INVALID_INPUT", Some("unattended.password")),
            ("unattended.hostname", json!("sixteen-letters-x"), "INVALID_INPUT", Some("unattended.hostname")),
            ("unattended.packages", json!(["nginx"]), "INVALID_INPUT", Some("unattended.packages")),
        ] {
            refused(client, with(&win10, place, value), code, field).await;
        }
        // The agent is there, and no driver for the port that it would be heard through.
        bench.has_windows_agent();
        let heard = with(&win10, "install.agent", json!(true));
        refused(client, heard, "INVALID_INPUT", Some("install.drivers")).await;
        let mut win11 = with(&win10, "install.medium", json!("win11"));
        win11["firmware"] = json!("UEFI_SECURE_BOOT");
        refused(client, win11.clone(), "INVALID_INPUT", Some("tpm")).await;
        win11["tpm"] = json!(true);
        refused(client, win11, "NOT_SUPPORTED", None).await;
        // What is not ready is not there for who may not manage media.
        refused(&eve, with(&debian, "install.medium", json!("broken")), "MEDIUM_NOT_FOUND", None).await;
        let vms = client.ask("{ vms { nodes { id } } }", json!({})).await;
        assert_eq!(vms["vms"]["nodes"], json!([]), "a refused request left a VM");
        assert_eq!(db.number("SELECT count(*) FROM operations").await, 0);

        // What boots from the network is on no disc where others have it.
        bench.has("netboot", "Debian_13_amd64_b", &[("linux", b"kernel"), ("initrd.gz", b"initrd")]).await;
        let (vm, _) = eve.create(bench.request("netboot", "netboot")).await;
        let record = db.store().await.vm(VmId(vm.parse().unwrap())).await.unwrap().unwrap().record;
        let installation = record.spec.installation().unwrap();
        let kernel = InstallerKernel { kernel: "linux".to_owned(), initrd: "initrd.gz".to_owned() };
        assert_eq!((installation.family, &installation.kernel), (InstallFamily::Debian, &Some(kernel)));
        assert_eq!(installation.disc.path, bench.trial.home.state_dir().join("media/netboot.iso"));
        assert!(installation.agent);

        // The same request again is the same VM; with its id, nobody asks for another one.
        let id = VmId::generate().to_string();
        let mine = with(&debian, "id", json!(id));
        let first = client.create(mine.clone()).await;
        assert_eq!(client.create(mine.clone()).await, first);
        let image = with(&with(&mine, "install", json!(null)), "image", json!("blank"));
        refused(client, with(&image, "diskGib", json!(8)), "ID_TAKEN", None).await;
        refused(&eve, mine.clone(), "ID_TAKEN", None).await;
        bench.trial.daemon.stop();
    }

    async fn an_installer_is_heard_and_nobody_else(db: TestDatabase) {
        let bench = Bench::start(&db).await;
        bench.has_agent();
        let client = bench.client();
        let (vm, _) = client.create(bench.request("one", "debian")).await;
        let (other, _) = client.create(bench.request("two", "debian")).await;
        let (token, others) = (bench.token(&db, &vm).await, bench.token(&db, &other).await);
        assert_ne!(token, others);
        let seen = async |vm: &str| client.ask(SEEN, json!({ "id": vm })).await["vm"].take();
        let nothing = json!({ "image": "(none)", "medium": "debian", "installStage": null, "installReportedAt": null });
        assert_eq!(seen(&vm).await, nothing);

        let installer = Installer::at("127.0.0.1", &bench, &token);
        assert_eq!(installer.says("started").await, 204);
        let now = seen(&vm).await;
        assert_eq!(now["installStage"], "started");
        assert!(now["installReportedAt"].is_string(), "{now}");
        assert_eq!(seen(&other).await, nothing, "another's installer was not heard");
        assert_eq!(installer.asks("?stage=installer-partman").await, 204);
        assert_eq!(seen(&vm).await["installStage"], "installer-partman");

        for bad in ["", "Started", "a b", "<script>", "../x", "a%00b", "a\nb", "é", "a&stage=b", &"a".repeat(65)] {
            assert_eq!(installer.says(bad).await, 400, "{bad:?}");
        }
        for (body, status) in [("", 400), ("word=x", 400), ("xstage=y", 400), (&*"a".repeat(300), 413)] {
            assert_eq!(installer.posts(body).await, status, "{body:.20}");
        }
        assert_eq!(installer.asks("").await, 400);
        assert_eq!(installer.asks("?stage=").await, 400);
        assert_eq!(seen(&vm).await["installStage"], "installer-partman");
        let strangers = [
            "0".repeat(64), token[..63].to_owned(), format!("{token}0"), token.to_uppercase(), "x".to_owned(),
            format!("..%2f{token}"), format!("{token}%00"),
        ];
        for stranger in &strangers {
            let stranger = Installer::at("127.0.0.2", &bench, stranger);
            assert_eq!(stranger.says("started").await, 404, "{}", stranger.url);
            assert_eq!(stranger.asks("?stage=started").await, 404, "{}", stranger.url);
        }
        let put = installer.http.put(&installer.url).body("stage=x").send().await.unwrap();
        assert_eq!(put.status().as_u16(), 405);

        // A flood, by who has a token: what is written of it is bounded, and it costs others nothing.
        let flood = Installer::at("127.0.0.3", &bench, &others);
        let mut refused = 0;
        for word in 0..150 {
            match flood.says(&format!("word-{word}")).await {
                204 => {}
                429 => refused += 1,
                other => panic!("a flood was answered with {other}"),
            }
        }
        assert!(refused >= 30, "only {refused} of 150 were refused");
        let written = db.number("SELECT CAST(max(install_reports) AS BIGINT) FROM vms").await;
        assert!((60..=120).contains(&written), "{written} words were written");

        // One that is announced and does not come is not waited for.
        let address = bench.guests.strip_prefix("http://").unwrap();
        let mut slow = tokio::net::TcpStream::connect(address).await.unwrap();
        let head = format!("POST /install/{token} HTTP/1.1\r\nHost: x\r\nContent-Length: 13\r\n\r\nstage=");
        slow.write_all(head.as_bytes()).await.unwrap();
        let mut answer = [0; 12];
        tokio::time::timeout(SOON, slow.read_exact(&mut answer)).await.expect("it is waited for").unwrap();
        assert_eq!(&answer, b"HTTP/1.1 408");

        // The end.
        assert_eq!(installer.says("finished").await, 204);
        let sql = "UPDATE vms SET system_installed_at = created_at WHERE name = 'one'";
        db.tamper(sql, sql).await;
        assert_eq!(installer.says("started").await, 404);
        assert_eq!(seen(&vm).await["installStage"], "finished");
        client.change("deleteVm", &other).await;
        let late = Installer::at("127.0.0.2", &bench, &others);
        assert_eq!(late.says("started").await, 404);

        let log = fs::read_to_string(bench.trial.home.path().join("log-1")).unwrap();
        assert!(log.contains("guests are served"), "the log is not the daemon's");
        assert!(!log.contains(&token) && !log.contains(&others), "a token was logged");
        bench.trial.daemon.stop();
    }

    async fn a_disc_stays_while_it_is_installed_from(db: TestDatabase) {
        let bench = Bench::start(&db).await;
        bench.has_agent();
        let client = bench.client();
        let id = VmId::generate().to_string();
        let request = with(&bench.request("holds", "debian"), "id", json!(id));
        let made = client.create(request.clone()).await;
        let medium = client.ask(MEDIUM, json!({ "name": "debian" })).await;
        assert_eq!(medium["medium"]["useCount"], 1);
        assert_eq!(client.refused(DELETE, json!({ "name": "debian" })).await, "MEDIUM_IN_USE");
        let sql = "UPDATE vms SET system_installed_at = created_at, boot_replaced_at = created_at";
        db.tamper(sql, sql).await;
        let medium = client.ask(MEDIUM, json!({ "name": "debian" })).await;
        assert_eq!(medium["medium"]["useCount"], 0);
        client.ask(DELETE, json!({ "name": "debian" })).await;
        let deadline = Instant::now() + SOON;
        while !client.ask(MEDIUM, json!({ "name": "debian" })).await["medium"].is_null() {
            assert!(Instant::now() < deadline, "the medium is still there");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        assert!(!Path::new(&bench.trial.home.state_dir().join("media/debian.iso")).exists());
        assert_eq!(client.create(request).await, made, "sent again, it is the same");
        refused(client, bench.request("late", "debian"), "MEDIUM_NOT_FOUND", None).await;
        let seen = client.ask(SEEN, json!({ "id": id })).await;
        assert_eq!(seen["vm"]["medium"], "debian");
        bench.trial.daemon.stop();
    }
}
