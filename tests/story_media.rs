//! Disks and discs brought in: from servers that behave and from such that do not, through crashes,
//! by people who may and by people who may not.
#![allow(clippy::unwrap_used, reason = "a broken expectation ends the story")]

#[macro_use]
mod support;

use std::{
    path::Path,
    process::Command,
    sync::Arc,
    time::{Duration, Instant},
};

use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use support::{
    away::Away,
    daemon::Client,
    database::TestDatabase,
    origin::{ALLOWED, Manner, Origin},
    trial::Trial,
};

const SOON: Duration = Duration::from_secs(60);
const IMPORT: &str = "mutation($input: ImportMediumInput!) { importMedium(input: $input) { id state } }";
const DELETE: &str = "mutation($name: String!) { deleteMedium(name: $name) { state } }";
const CANCEL: &str = "mutation($name: String!) { cancelMediumImport(name: $name) { state error { code } } }";
const INSERT: &str = "mutation($id: UUID!, $medium: String, $pool: String, $volume: String, $target: String) {
    insertVmMedium(id: $id, medium: $medium, pool: $pool, volume: $volume, target: $target) { operation { id } } }";
const MEDIUM: &str = "query($name: String!) { medium(name: $name) {
    state source sha256 bytesDone bytesTotal progress useCount error { code message }
    facts { label osFamily distribution version variant arch bootable bootFiles } } }";

fn run(program: &str, args: &[&str]) {
    let output = Command::new(program)
        .args(args)
        .output()
        .unwrap_or_else(|error| panic!("{program} cannot be run ({error}); scripts/test installs it"));
    assert!(output.status.success(), "{program} {args:?}: {}", String::from_utf8_lossy(&output.stderr));
}

fn sha256(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Bytes that compress to nothing less, the same each time.
fn noise(length: usize) -> Vec<u8> {
    let mut state = 0x2545_f491_4f6c_dd1d_u64;
    let next = std::iter::repeat_with(move || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state
    });
    next.flat_map(u64::to_le_bytes).take(length).collect()
}

/// A Debian netinst disc, as far as it says what it is, of at least so many bytes.
fn debian(dir: &Path, length: usize) -> Vec<u8> {
    let tree = dir.join("debian");
    for folder in [".disk", "install.amd", "pool"] {
        std::fs::create_dir_all(tree.join(folder)).unwrap();
    }
    let info = "Debian GNU/Linux 12.5.0 \"Bookworm\" - Official amd64 NETINST with firmware 20240210-11:27";
    std::fs::write(tree.join(".disk/info"), info).unwrap();
    std::fs::write(tree.join("install.amd/vmlinuz"), "kernel").unwrap();
    std::fs::write(tree.join("install.amd/initrd.gz"), "initrd").unwrap();
    std::fs::write(tree.join("pool/noise"), noise(length)).unwrap();
    let iso = dir.join("debian.iso");
    let (from, to) = (tree.to_str().unwrap(), iso.to_str().unwrap());
    run("xorriso", &["-as", "mkisofs", "-quiet", "-V", "Debian 12.5.0 amd64 n", "-R", "-J", "-o", to, from]);
    std::fs::read(iso).unwrap()
}

async fn medium(client: &Client, name: &str) -> Value {
    client.ask(MEDIUM, json!({ "name": name })).await["medium"].take()
}

/// Waits until the medium is in this state; gives it.
async fn becomes(client: &Client, name: &str, state: &str) -> Value {
    let deadline = Instant::now() + SOON;
    loop {
        let now = medium(client, name).await;
        if now["state"] == state {
            return now;
        }
        let over = matches!(now["state"].as_str(), Some("READY" | "FAILED"));
        assert!(!over && Instant::now() < deadline, "{name} is not {state}: {now}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

async fn gone(client: &Client, name: &str) {
    let deadline = Instant::now() + SOON;
    while !medium(client, name).await.is_null() {
        assert!(Instant::now() < deadline, "{name} is still there");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// What stands in a directory, hidden things too.
fn listed(dir: &Path) -> Vec<String> {
    let Ok(entries) = std::fs::read_dir(dir) else { return Vec::new() };
    let mut names: Vec<_> = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

async fn holds(dir: &Path, names: &[&str]) {
    let deadline = Instant::now() + SOON;
    while listed(dir) != names {
        assert!(Instant::now() < deadline, "{}: {:?}, not {names:?}", dir.display(), listed(dir));
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

async fn start(db: &TestDatabase, more: &[(&str, &str)]) -> Trial {
    let usual = [("INFINIBAY__MEDIA__ALLOW_ADDRESSES", ALLOWED), ("INFINIBAY__MEDIA__RESERVE_BYTES", "0")];
    Trial::start_with(db, &[&usual, more].concat()).await
}

/// Asks for a change of a VM and waits for its end; the error's code, where it failed.
async fn carried_out(client: &Client, query: &str, variables: Value) -> Result<(), String> {
    let asked = client.ask(query, variables).await;
    let id = asked.as_object().unwrap().values().next().unwrap()["operation"]["id"].clone();
    let deadline = Instant::now() + SOON;
    loop {
        let look = "query($id: UUID!) { operation(id: $id) { status error { code } } }";
        let now = client.ask(look, json!({ "id": id })).await["operation"].take();
        match now["status"].as_str() {
            Some("SUCCEEDED") => return Ok(()),
            Some("FAILED") => return Err(now["error"]["code"].as_str().unwrap().to_owned()),
            _ => assert!(Instant::now() < deadline, "{query}: still at {now}"),
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

async fn import(client: &Client, name: &str, url: &str, sha256: Option<&str>) {
    let input = json!({ "name": name, "kind": "INSTALLATION", "url": url, "sha256": sha256 });
    client.ask(IMPORT, json!({ "input": input })).await;
}

on_both! {
    async fn a_disc_is_brought_in_known_used_by_nobody_and_deleted(db: TestDatabase) {
        let work = tempfile::tempdir().unwrap();
        let iso = Arc::new(debian(work.path(), 3 << 20));
        let sum = sha256(&iso);
        let origin = Origin::new().await;
        let fine = origin.on("/debian.iso?token=hunter2", Manner::Fine(Arc::clone(&iso)));
        let mut trial = start(&db, &[]).await;
        let token = {
            let Trial { home, daemon, .. } = &mut trial;
            home.between(daemon, |home| home.user("eve", &[]))
        };
        let client = trial.daemon.client(&trial.token);
        import(&client, "debian", &fine, Some(&sum.to_uppercase())).await;
        let ready = becomes(&client, "debian", "READY").await;
        assert_eq!(ready, json!({
            "state": "READY", "source": fine.split('?').next().unwrap(), "sha256": sum,
            "bytesDone": iso.len().to_string(), "bytesTotal": iso.len().to_string(), "progress": 100,
            "useCount": 0, "error": null,
            "facts": {
                "label": "Debian 12.5.0 amd64 n", "osFamily": "LINUX", "distribution": "debian",
                "version": "12.5.0", "variant": "netinst", "arch": "amd64", "bootable": false,
                "bootFiles": ["install.amd/vmlinuz", "install.amd/initrd.gz"],
            },
        }));
        let discs = trial.home.state_dir().join("media");
        assert_eq!(std::fs::read(discs.join("debian.iso")).unwrap(), *iso);
        assert_eq!(listed(&discs), ["debian.iso"]);
        // The same request is the same medium; another one of that name is refused.
        import(&client, "debian", &fine, Some(&sum)).await;
        assert_eq!(origin.asked("/debian.iso?token=hunter2").len(), 1);
        let other = json!({ "name": "debian", "kind": "INSTALLATION", "url": "https://example.org/" });
        assert_eq!(client.refused(IMPORT, json!({ "input": other })).await, "NAME_TAKEN");

        let eve = trial.daemon.client(&token);
        let mine = json!({ "name": "mine", "kind": "INSTALLATION", "url": fine });
        assert_eq!(eve.refused(IMPORT, json!({ "input": mine })).await, "FORBIDDEN");
        let path = json!({ "name": "mine", "kind": "INSTALLATION", "path": "/etc/shadow" });
        assert_eq!(eve.refused(IMPORT, json!({ "input": path })).await, "FORBIDDEN");
        assert_eq!(eve.refused(DELETE, json!({ "name": "debian" })).await, "FORBIDDEN");
        assert_eq!(eve.refused(CANCEL, json!({ "name": "debian" })).await, "FORBIDDEN");
        let seen = medium(&eve, "debian").await;
        assert_eq!((&seen["state"], &seen["source"], &seen["useCount"]), (&json!("READY"), &json!(null), &json!(null)));

        assert_eq!(client.refused(CANCEL, json!({ "name": "debian" })).await, "WRONG_STATE");
        client.ask(DELETE, json!({ "name": "debian" })).await;
        gone(&client, "debian").await;
        assert!(listed(&discs).is_empty());
        assert_eq!(client.refused(DELETE, json!({ "name": "debian" })).await, "MEDIUM_NOT_FOUND");
        assert_eq!(client.refused(DELETE, json!({ "name": "../debian" })).await, "MEDIUM_NOT_FOUND");
        assert_eq!(db.number("SELECT count(*) FROM audit_log WHERE action LIKE 'medium.%'").await, 2);
        trial.daemon.stop();
    }

    async fn servers_that_lie_lead_astray_or_never_end_get_nowhere(db: TestDatabase) {
        let work = tempfile::tempdir().unwrap();
        let iso = Arc::new(debian(work.path(), 1 << 20));
        let origin = Origin::new().await;
        let inside = Origin::at("127.0.0.1").await;
        let secret = inside.on("/secret", Manner::Fine(Arc::clone(&iso)));
        let trial = start(&db, &[
            ("INFINIBAY__MEDIA__MAX_BYTES", "8388608"),
            ("INFINIBAY__MEDIA__MAX_ATTEMPTS", "2"),
            ("INFINIBAY__MEDIA__MAX_PARALLEL", "8"),
            ("INFINIBAY__MEDIA__STALL_TIMEOUT", "1s"),
        ]).await;
        let client = &trial.client;
        let html = b"<!DOCTYPE html>\n<html><title>Sign in</title></html>".to_vec();
        let leads = |path: &str, to: &str| origin.on(path, Manner::Leads(to.to_owned()));
        let cases = [
            ("wrong-sum", origin.on("/a", Manner::Fine(Arc::clone(&iso))), Some("0".repeat(64)), "CHECKSUM_MISMATCH", "SHA-256"),
            ("to-loopback", leads("/b", &secret), None, "ADDRESS_REFUSED", "loopback"),
            ("straight", secret.clone(), None, "ADDRESS_REFUSED", "loopback"),
            ("by-name", leads("/c", &secret.replace("127.0.0.1", "localhost")), None, "ADDRESS_REFUSED", "loopback"),
            ("in-disguise", leads("/d", &secret.replace("127.0.0.1", "0x7f000001")), None, "ADDRESS_REFUSED", "loopback"),
            ("six", leads("/e", "http://[::1]/"), None, "ADDRESS_REFUSED", "loopback"),
            ("to-metadata", leads("/f", "http://169.254.169.254/latest"), None, "ADDRESS_REFUSED", "link-local"),
            ("to-private", leads("/g", "http://10.0.0.1/"), None, "ADDRESS_REFUSED", "private"),
            ("to-file", leads("/h", "file:///etc/passwd"), None, "REDIRECT_REFUSED", "neither http nor https"),
            ("in-circles", leads("/i", "/i"), None, "REDIRECT_REFUSED", "more than 5"),
            ("boasts", origin.on("/j", Manner::Boasts(Arc::clone(&iso), 1000)), None, "TRUNCATED", "ended after"),
            ("understates", origin.on("/k", Manner::Understates(Arc::clone(&iso), 700_000)), None, "TRUNCATED", "700000"),
            ("endless", origin.on("/l", Manner::Endless), None, "TOO_LARGE", "max_bytes"),
            ("huge", origin.on("/m", Manner::Says("200 Fine\r\nx-y: z", Arc::new(vec![7; 9 << 20]))), None, "TOO_LARGE", "max_bytes"),
            ("drips", origin.on("/n", Manner::Drips), None, "TOO_SLOW", "the least"),
            ("page", origin.on("/o", Manner::Says("200 Fine", Arc::new(html))), None, "NOT_AN_IMAGE", "an HTML page"),
            ("missing", format!("http://{ALLOWED}:1/"), None, "UNREACHABLE", ""),
            ("refused", origin.on("/p", Manner::Says("403 No", Arc::default())), None, "HTTP_FAILED", "403"),
            ("packed", origin.on("/q", Manner::Says("200 Fine\r\ncontent-encoding: gzip", Arc::default())), None, "HTTP_FAILED", "compressed"),
        ];
        for (name, url, sum, ..) in &cases {
            import(client, name, url, sum.as_deref()).await;
        }
        for (name, _, _, code, words) in &cases {
            let failed = becomes(client, name, "FAILED").await;
            assert_eq!(failed["error"]["code"], *code, "{name}: {failed}");
            assert!(failed["error"]["message"].as_str().unwrap().contains(words), "{name}: {failed}");
        }
        assert!(inside.asked("/secret").is_empty(), "a service of this host was reached");
        assert!(origin.sent("/l") < 64 << 20, "it went on reading");
        assert_eq!(origin.asked("/j").len(), 2, "tried again as often as it was told");
        // What cannot become anything is removed at once, the rest with its medium.
        for (name, ..) in &cases {
            client.ask(DELETE, json!({ "name": name })).await;
        }
        for (name, ..) in &cases {
            gone(client, name).await;
        }
        assert!(listed(&trial.home.state_dir().join("media")).is_empty());
        trial.daemon.stop();
    }

    async fn what_was_cut_or_killed_goes_on_where_it_was(db: TestDatabase) {
        let work = tempfile::tempdir().unwrap();
        let iso = Arc::new(debian(work.path(), 12 << 20));
        let length = iso.len() as u64;
        let origin = Origin::new().await;
        let mut trial = start(&db, &[]).await;
        let client = &trial.client;
        let cut = origin.on("/cut", Manner::CutsOnce(Arc::clone(&iso), 5_000_000));
        import(client, "cut", &cut, None).await;
        becomes(client, "cut", "READY").await;
        let asked = origin.asked("/cut");
        assert_eq!(asked.len(), 2, "{asked:?}");
        assert!(asked[1].from.is_some_and(|from| from > 4_000_000), "{asked:?}");
        assert_eq!(asked[1].if_range.as_deref(), Some("\"state-1\""));
        assert!(origin.sent("/cut") < length + 1_000_000, "{} bytes for {length}", origin.sent("/cut"));

        // One that became another file meanwhile is read from its beginning.
        let old: Vec<u8> = iso.iter().map(|byte| byte ^ 1).collect();
        let replaced = Manner::Replaces(Arc::new(old), 5_000_000, Arc::clone(&iso));
        let replaced = origin.on("/replaced", replaced);
        let moved = origin.on("/moved", Manner::Leads(replaced));
        import(client, "moved", &moved, None).await;
        assert_eq!(becomes(client, "moved", "READY").await["sha256"], sha256(&iso));
        assert_eq!(origin.asked("/moved").len(), 2);

        // One that heeds no condition says itself that it is another file.
        let mut mixed = iso.to_vec();
        mixed[1_000_000..].fill(3);
        let mixed = Manner::Mixes(Arc::new(mixed), 5_000_000, Arc::clone(&iso));
        import(client, "mixed", &origin.on("/mixed", mixed), None).await;
        assert_eq!(becomes(client, "mixed", "READY").await["sha256"], sha256(&iso));
        let asked = origin.asked("/mixed");
        assert_eq!((asked.len(), asked[1].from.is_some(), asked[2].from), (3, true, None), "{asked:?}");

        // About four seconds; killed in the middle.
        let slow = origin.on("/slow", Manner::Slow(Arc::clone(&iso), 160_000));
        import(client, "slow", &slow, None).await;
        let deadline = Instant::now() + SOON;
        let before = loop {
            let now = medium(client, "slow").await;
            let done: u64 = now["bytesDone"].as_str().unwrap().parse().unwrap();
            if done > 3_000_000 {
                assert_eq!(now["state"], "DOWNLOADING", "it was over before it could be killed: {now}");
                assert!(now["progress"].as_i64().is_some_and(|percent| (1..100).contains(&percent)), "{now}");
                break done;
            }
            assert!(Instant::now() < deadline, "{now}");
            tokio::time::sleep(Duration::from_millis(50)).await;
        };
        let discs = trial.home.state_dir().join("media");
        {
            let Trial { home, daemon, .. } = &mut trial;
            home.between(daemon, |_| {
                // A crash may leave more than is certain to be right: it is written again.
                let part = listed(&discs).into_iter().find(|name| name.ends_with(".part")).unwrap();
                let part = std::fs::File::options().write(true).open(discs.join(part)).unwrap();
                part.set_len(length + 5_000_000).unwrap();
            });
        }
        let client = trial.daemon.client(&trial.token);
        becomes(&client, "slow", "READY").await;
        let asked = origin.asked("/slow");
        assert_eq!(asked.len(), 2, "{asked:?}");
        assert!(asked[1].from.is_some_and(|from| from >= before), "{asked:?}, {before}");
        assert_eq!(std::fs::read(discs.join("slow.iso")).unwrap(), *iso);
        assert_eq!(listed(&discs), ["cut.iso", "mixed.iso", "moved.iso", "slow.iso"]);
        trial.daemon.stop();
    }

    async fn a_database_that_goes_away_costs_no_byte_that_is_stored(db: TestDatabase) {
        let work = tempfile::tempdir().unwrap();
        let iso = Arc::new(debian(work.path(), 12 << 20));
        let origin = Origin::new().await;
        let mut away = Away::new(&db).await;
        let env = [("INFINIBAY__MEDIA__ALLOW_ADDRESSES", ALLOWED), ("INFINIBAY__MEDIA__RESERVE_BYTES", "0")];
        let trial = Trial::start_over(&away.url, &env).await;
        let slow = origin.on("/slow", Manner::Slow(Arc::clone(&iso), 160_000));
        import(&trial.client, "slow", &slow, None).await;
        let deadline = Instant::now() + SOON;
        while origin.sent("/slow") < 4_000_000 {
            assert!(Instant::now() < deadline, "only {} bytes were sent", origin.sent("/slow"));
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        away.cut().await;
        tokio::time::sleep(Duration::from_secs(3)).await;
        away.restore().await;
        assert_eq!(becomes(&trial.client, "slow", "READY").await["sha256"], sha256(&iso));
        let asked = origin.asked("/slow");
        assert!(asked.iter().skip(1).all(|asked| asked.from.is_some_and(|from| from > 1_000_000)), "{asked:?}");
        trial.daemon.stop();
    }

    async fn a_crash_between_any_two_steps_is_taken_up(db: TestDatabase) {
        let work = tempfile::tempdir().unwrap();
        let iso = Arc::new(debian(work.path(), 1 << 20));
        let origin = Origin::new().await;
        let trial = start(&db, &[]).await;
        let discs = trial.home.state_dir().join("media");
        for name in ["placed", "unplaced", "strange", "going"] {
            let url = origin.on(&format!("/{name}"), Manner::Fine(Arc::clone(&iso)));
            import(&trial.client, name, &url, None).await;
        }
        let mut unplaced = String::new();
        for name in ["placed", "unplaced", "strange", "going"] {
            becomes(&trial.client, name, "READY").await;
            let id = trial.client.ask("query($name: String!) { medium(name: $name) { id } }", json!({ "name": name })).await;
            if name == "unplaced" {
                unplaced = id["medium"]["id"].as_str().unwrap().to_owned();
            }
        }
        // As a crash before and after the file went to its place would leave it; where somebody put
        // another file there in between; and in the middle of a deletion.
        let Trial { daemon, home, token, library, .. } = trial;
        daemon.kill();
        let checking = "UPDATE media SET state = 'checking', finished_at = NULL, partial = TRUE
                        WHERE name <> 'going'";
        db.tamper(checking, checking).await;
        let going = "UPDATE media SET state = 'deleting' WHERE name = 'going'";
        db.tamper(going, going).await;
        std::fs::rename(discs.join("unplaced.iso"), discs.join(format!(".{unplaced}.part"))).unwrap();
        std::fs::write(discs.join("strange.iso"), "somebody else's").unwrap();
        let daemon = home.start();
        let client = daemon.client(&token);
        becomes(&client, "placed", "READY").await;
        becomes(&client, "unplaced", "READY").await;
        let strange = becomes(&client, "strange", "FAILED").await;
        assert_eq!(strange["error"]["code"], "NAME_TAKEN");
        gone(&client, "going").await;
        client.ask(DELETE, json!({ "name": "strange" })).await;
        gone(&client, "strange").await;
        assert_eq!(listed(&discs), ["placed.iso", "strange.iso", "unplaced.iso"]);
        assert_eq!(std::fs::read(discs.join("strange.iso")).unwrap(), b"somebody else's");
        assert_eq!(std::fs::read(discs.join("unplaced.iso")).unwrap(), *iso);
        daemon.stop();
        drop(library);
    }

    async fn what_is_kept_free_on_the_disk_is_not_filled(db: TestDatabase) {
        let work = tempfile::tempdir().unwrap();
        let iso = Arc::new(debian(work.path(), 1 << 20));
        let origin = Origin::new().await;
        let fine = origin.on("/fine", Manner::Fine(Arc::clone(&iso)));
        // More than any disk has.
        let reserve = (1_u64 << 46).to_string();
        let env = [
            ("INFINIBAY__MEDIA__ALLOW_ADDRESSES", ALLOWED),
            ("INFINIBAY__MEDIA__RESERVE_BYTES", reserve.as_str()),
        ];
        let trial = Trial::start_with(&db, &env).await;
        import(&trial.client, "tight", &fine, None).await;
        let failed = becomes(&trial.client, "tight", "FAILED").await;
        assert_eq!(failed["error"]["code"], "NO_SPACE", "{failed}");
        let words = failed["error"]["message"].as_str().unwrap();
        assert!(words.contains("media.reserve_bytes") && words.contains(&reserve), "{words}");
        assert_eq!(failed["bytesDone"], "0", "{failed}");
        let asked = origin.asked("/fine").len();
        assert_eq!(asked, 1, "asked {asked} times for what there is no room for");
        trial.client.ask(DELETE, json!({ "name": "tight" })).await;
        gone(&trial.client, "tight").await;
        assert_eq!(listed(&trial.home.state_dir().join("media")), [""; 0]);
        trial.daemon.stop();
    }

    async fn an_import_can_be_cancelled_and_asked_for_again(db: TestDatabase) {
        let work = tempfile::tempdir().unwrap();
        let iso = Arc::new(debian(work.path(), 8 << 20));
        let origin = Origin::new().await;
        let trial = start(&db, &[("INFINIBAY__MEDIA__MAX_PARALLEL", "1"), ("INFINIBAY__MEDIA__MAX_OPEN", "2")]).await;
        let client = &trial.client;
        let discs = trial.home.state_dir().join("media");
        let slow = origin.on("/slow", Manner::Slow(Arc::clone(&iso), 10_000));
        let fine = origin.on("/fine", Manner::Fine(Arc::clone(&iso)));
        import(client, "slow", &slow, None).await;
        becomes(client, "slow", "DOWNLOADING").await;
        import(client, "fine", &fine, None).await;
        let third = json!({ "name": "third", "kind": "INSTALLATION", "url": fine });
        assert_eq!(client.refused(IMPORT, json!({ "input": third })).await, "QUEUE_FULL");
        assert_eq!(medium(client, "fine").await["state"], "QUEUED");
        assert_eq!(client.refused(DELETE, json!({ "name": "slow" })).await, "WRONG_STATE");
        let cancelled = client.ask(CANCEL, json!({ "name": "slow" })).await;
        assert_eq!(cancelled["cancelMediumImport"], json!({ "state": "FAILED", "error": { "code": "CANCELLED" } }));
        // Its turn is the next one's.
        becomes(client, "fine", "READY").await;
        holds(&discs, &["fine.iso"]).await;
        origin.on("/slow", Manner::Fine(Arc::clone(&iso)));
        import(client, "slow", &slow, None).await;
        becomes(client, "slow", "READY").await;
        trial.daemon.stop();
    }

    async fn a_disc_in_a_drive_is_named_alone_and_stays(db: TestDatabase) {
        let work = tempfile::tempdir().unwrap();
        let iso = Arc::new(debian(work.path(), 1 << 20));
        let origin = Origin::new().await;
        let mut trial = start(&db, &[("INFINIBAY__MEDIA__IMPORT_DIRS", work.path().to_str().unwrap())]).await;
        let eve = trial.home.between(&mut trial.daemon, |home| home.user("eve", &[]));
        let (client, eve) = (trial.daemon.client(&trial.token), trial.daemon.client(&eve));
        import(&client, "debian", &origin.on("/debian", Manner::Fine(Arc::clone(&iso))), None).await;
        import(&client, "rescue", &origin.on("/rescue", Manner::Fine(Arc::clone(&iso))), None).await;
        import(&client, "nothing", &origin.on("/nothing", Manner::Fine(Arc::new(b"none".to_vec()))), None).await;
        for name in ["debian", "rescue"] {
            becomes(&client, name, "READY").await;
        }
        becomes(&client, "nothing", "FAILED").await;
        let disk = work.path().join("disk.qcow2");
        run("qemu-img", &["create", "-q", "-f", "qcow2", disk.to_str().unwrap(), "16M"]);
        let input = json!({
            "name": "disk", "kind": "DISK_IMAGE", "path": disk, "osFamily": "LINUX", "provisioning": "NONE",
        });
        client.ask(IMPORT, json!({ "input": input })).await;
        becomes(&client, "disk", "READY").await;
        let id = client.ask("{ medium(name: \"rescue\") { id } }", json!({})).await["medium"]["id"].take();
        let (vm, _) = eve.create(trial.request("drives")).await;
        eve.phase_is(&vm, "INSTALLING", SOON).await;
        let stop = eve.change("stopVm", &vm).await;
        eve.succeeded(&stop, SOON).await;

        // Nobody names a path, or what is no disc; who may not see an import does not learn of it.
        for (asked, code) in [
            (json!({}), "INVALID_INPUT"),
            (json!({ "medium": "debian", "pool": "default-pool" }), "INVALID_INPUT"),
            (json!({ "medium": "debian", "pool": "default-pool", "volume": "a.iso" }), "INVALID_INPUT"),
            (json!({ "pool": "default-pool" }), "INVALID_INPUT"),
            (json!({ "medium": "debian", "target": "vda" }), "INVALID_INPUT"),
            (json!({ "medium": "" }), "MEDIUM_NOT_FOUND"),
            (json!({ "medium": "/etc/shadow" }), "MEDIUM_NOT_FOUND"),
            (json!({ "medium": "../media/debian" }), "MEDIUM_NOT_FOUND"),
            (json!({ "medium": "debian.iso" }), "MEDIUM_NOT_FOUND"),
            (json!({ "medium": "00000000-0000-0000-0000-000000000000" }), "MEDIUM_NOT_FOUND"),
            (json!({ "medium": "nothing" }), "MEDIUM_NOT_FOUND"),
            (json!({ "medium": "disk" }), "MEDIUM_UNUSABLE"),
        ] {
            let mut all = asked;
            all["id"] = json!(vm);
            assert_eq!(eve.refused(INSERT, all.clone()).await, code, "{all}");
        }
        let not_ready = json!({ "id": vm, "medium": "nothing" });
        assert_eq!(client.refused(INSERT, not_ready).await, "MEDIUM_NOT_READY");

        // By name, and by id; each stays as long as it is in a drive.
        let insert = |medium: Value| json!({ "id": vm, "medium": medium });
        assert_eq!(carried_out(&eve, INSERT, insert(json!("debian"))).await, Ok(()));
        assert_eq!(carried_out(&eve, INSERT, insert(id)).await, Ok(()));
        let media = "query($id: UUID!) { vm(id: $id) { media { target medium pool volume } } }";
        let in_drive = |target: &str, medium: &str| json!({
            "target": target, "medium": medium, "pool": null, "volume": null,
        });
        let held = eve.ask(media, json!({ "id": vm })).await["vm"]["media"].take();
        let targets: Vec<_> = held.as_array().unwrap().iter().map(|m| m["target"].as_str().unwrap()).collect();
        assert_eq!(held, json!([in_drive(targets[0], "debian"), in_drive(targets[1], "rescue")]));
        for name in ["debian", "rescue"] {
            assert_eq!(medium(&client, name).await["useCount"], 1);
            assert_eq!(client.refused(DELETE, json!({ "name": name })).await, "MEDIUM_IN_USE");
        }
        // Out of the drive, or out with the VM.
        let eject = "mutation($id: UUID!, $target: String!) {
            ejectVmMedium(id: $id, target: $target) { operation { id } } }";
        let first = json!({ "id": vm, "target": targets[0] });
        assert_eq!(carried_out(&eve, eject, first).await, Ok(()));
        assert_eq!(medium(&client, "debian").await["useCount"], 0);
        client.ask(DELETE, json!({ "name": "debian" })).await;
        gone(&client, "debian").await;
        assert_eq!(eve.refused(INSERT, insert(json!("debian"))).await, "MEDIUM_NOT_FOUND");
        assert_eq!(client.refused(DELETE, json!({ "name": "rescue" })).await, "MEDIUM_IN_USE");
        let discs = trial.home.state_dir().join("media");
        // Taken away behind our back: told, and nothing is changed.
        std::fs::rename(discs.join("rescue.iso"), discs.join("away")).unwrap();
        let refused = carried_out(&eve, INSERT, insert(json!("rescue"))).await;
        assert_eq!(refused, Err("MEDIUM_UNUSABLE".to_owned()));
        std::fs::rename(discs.join("away"), discs.join("rescue.iso")).unwrap();
        let delete = eve.change("deleteVm", &vm).await;
        eve.succeeded(&delete, SOON).await;
        assert_eq!(medium(&client, "rescue").await["useCount"], 0);
        client.ask(DELETE, json!({ "name": "rescue" })).await;
        gone(&client, "rescue").await;
        trial.daemon.stop();
    }

    async fn a_disk_becomes_an_image_and_stays_while_it_is_used(db: TestDatabase) {
        let inbox = tempfile::tempdir().unwrap();
        let dir = inbox.path().to_str().unwrap();
        let trial = start(&db, &[("INFINIBAY__MEDIA__IMPORT_DIRS", dir)]).await;
        let client = &trial.client;
        let file = |name: &str| inbox.path().join(name).to_str().unwrap().to_owned();
        let make = |name: &str, more: &[&str]| {
            run("qemu-img", &[&["create", "-q", "-f", "qcow2"], more, &[&file(name), "64M"]].concat());
        };
        make("good", &[]);
        make("leaky", &["-u", "-b", "/etc/passwd", "-F", "raw"]);
        make("outside", &["-o", "data_file=/var/tmp/infinibay-nowhere,data_file_raw=on"]);
        let _ = std::fs::remove_file("/var/tmp/infinibay-nowhere");
        std::fs::write(file("noise"), noise(4 << 20)).unwrap();
        run("qemu-img", &["convert", "-f", "raw", "-O", "qcow2", &file("noise"), &file("cut")]);
        std::fs::File::options().write(true).open(file("cut")).unwrap().set_len(2 << 20).unwrap();
        std::fs::write(file("page"), "<html>").unwrap();
        std::os::unix::fs::symlink("/etc/passwd", file("link")).unwrap();
        let disk = |name: &str, path: &str, format: &str| json!({ "input": {
            "name": name, "kind": "DISK_IMAGE", "path": path, "osFamily": "LINUX", "provisioning": "NONE",
            "format": format, "description": "An \"empty\" disk",
        } });
        for path in ["/etc/passwd", &file("link"), &file("../passwd"), "good", "/dev/zero", &file("none")] {
            assert_eq!(client.refused(IMPORT, disk("x", path, "RAW")).await, "PATH_NOT_ALLOWED", "{path}");
        }
        // What an operator put there is not written over.
        assert_eq!(client.refused(IMPORT, disk("blank", &file("good"), "QCOW2")).await, "NAME_TAKEN");
        for (name, format, code) in [
            ("leaky", "QCOW2", "IMAGE_REFUSED"),
            ("outside", "QCOW2", "IMAGE_REFUSED"),
            ("cut", "QCOW2", "TRUNCATED"),
            ("page", "QCOW2", "NOT_AN_IMAGE"),
            ("page-raw", "RAW", "NOT_AN_IMAGE"),
            ("good-raw", "RAW", "NOT_AN_IMAGE"),
            ("noise", "QCOW2", "NOT_AN_IMAGE"),
        ] {
            client.ask(IMPORT, disk(name, &file(name.trim_end_matches("-raw")), format)).await;
            let failed = becomes(client, name, "FAILED").await;
            assert_eq!(failed["error"]["code"], code, "{name}: {failed}");
        }
        holds(trial.library.path(), &["blank"]).await;

        client.ask(IMPORT, disk("fresh", &file("good"), "QCOW2")).await;
        becomes(client, "fresh", "READY").await;
        let images = client.ask("{ images { nodes { name usable problem description sha256 } } }", json!({})).await;
        let bytes = std::fs::read(file("good")).unwrap();
        assert_eq!(images["images"]["nodes"][1], json!({
            "name": "fresh", "usable": true, "problem": null, "description": "An \"empty\" disk",
            "sha256": sha256(&bytes),
        }));
        let mut request = trial.request("made");
        request["image"] = json!("fresh");
        let (vm, _) = client.create(request.clone()).await;
        client.phase_is(&vm, "INSTALLING", SOON).await;
        assert_eq!(medium(client, "fresh").await["useCount"], 1);
        assert_eq!(client.refused(DELETE, json!({ "name": "fresh" })).await, "MEDIUM_IN_USE");
        let delete = client.change("deleteVm", &vm).await;
        client.succeeded(&delete, SOON).await;
        client.ask(DELETE, json!({ "name": "fresh" })).await;
        gone(client, "fresh").await;
        holds(trial.library.path(), &["blank"]).await;
        let create = "mutation($input: CreateVmInput!) { createVm(input: $input) { vm { id } } }";
        assert_eq!(client.refused(create, json!({ "input": request })).await, "IMAGE_NOT_FOUND");
        trial.daemon.stop();
    }
}

/// Windows' own discs hold their files in UDF, and a note in ISO 9660.
#[tokio::test]
async fn a_windows_disc_is_known_by_what_is_in_its_image() {
    let db = TestDatabase::new(support::database::Backend::Sqlite).await;
    let inbox = tempfile::tempdir().unwrap();
    let tree = inbox.path().join("tree");
    std::fs::create_dir_all(tree.join("sources")).unwrap();
    let xml = "\u{feff}<WIM><IMAGE INDEX=\"1\"><WINDOWS><ARCH>9</ARCH><INSTALLATIONTYPE>Client</INSTALLATIONTYPE>\
               <VERSION><MAJOR>10</MAJOR><BUILD>22631</BUILD></VERSION></WINDOWS><NAME>Windows 11 Pro</NAME></IMAGE></WIM>";
    let xml: Vec<u8> = xml.encode_utf16().flat_map(u16::to_le_bytes).collect();
    let payload = noise(3 << 20);
    let mut wim = vec![0; 208];
    wim[..8].copy_from_slice(b"MSWIM\0\0\0");
    wim[72..80].copy_from_slice(&(xml.len() as u64 | 2 << 56).to_le_bytes());
    wim[80..88].copy_from_slice(&(208 + payload.len() as u64).to_le_bytes());
    wim.extend(payload);
    wim.extend(xml);
    std::fs::write(tree.join("sources/install.wim"), wim).unwrap();
    std::fs::write(tree.join("sources/boot.wim"), "MSWIM").unwrap();
    std::fs::write(tree.join("README.TXT"), "This disc contains a UDF file system").unwrap();
    let iso = inbox.path().join("win.iso");
    let (from, to) = (tree.to_str().unwrap(), iso.to_str().unwrap());
    run(
        "genisoimage",
        &["-quiet", "-udf", "-hide", "sources", "-V", "CCCOMA_X64FRE_EN-US_DV9", "-o", to, from],
    );
    let trial = start(&db, &[("INFINIBAY__MEDIA__IMPORT_DIRS", inbox.path().to_str().unwrap())]).await;
    let input = json!({ "name": "win11", "kind": "INSTALLATION", "path": to });
    trial.client.ask(IMPORT, json!({ "input": input })).await;
    let facts = becomes(&trial.client, "win11", "READY").await["facts"].take();
    assert_eq!(
        facts,
        json!({
            "label": "CCCOMA_X64FRE_EN-US_DV9", "osFamily": "WINDOWS", "distribution": "windows",
            "version": "11", "variant": "Pro", "arch": "amd64", "bootable": false,
            "bootFiles": ["sources/boot.wim", "sources/install.wim"],
        })
    );
    trial.daemon.stop();
}
