//! `infinibayd channel` from the arguments to what stands in libvirt and on the screen.

#[path = "hypervisor/support.rs"]
mod support;

use std::{io::Write, path::Path, process::ExitCode};

use clap::Parser;
use infinibay::{
    cli::channel::{ChannelArgs, run_to},
    config::Config,
    hypervisor::{Hypervisor, libvirt::LibvirtHypervisor},
    vm::VmId,
};
use support::{Domain, connect, domain_xml, present};

const URI: &str = "test:///default";

#[derive(Parser)]
struct Line {
    #[command(flatten)]
    channel: ChannelArgs,
}

async fn channel(arguments: &[&str], input: &str) -> anyhow::Result<(bool, String)> {
    let line = Line::try_parse_from(std::iter::once("channel").chain(arguments.iter().copied()))?;
    let mut out = Vec::new();
    let code = run_to(line.channel, &Config::default(), input.as_bytes(), &mut out).await?;
    Ok((code == ExitCode::SUCCESS, String::from_utf8(out)?))
}

async fn defined(hypervisor: &LibvirtHypervisor) -> Domain {
    let domain = Domain::new(URI);
    hypervisor.define(domain.id, domain_xml("test", domain.id, &domain.name, None)).await.expect("define");
    domain
}

#[tokio::test]
async fn domains_get_the_channel_and_lose_it() {
    let hypervisor = connect(URI).await;
    let (a, b) = (defined(&hypervisor).await, defined(&hypervisor).await);
    let uuid = b.id.to_string();
    let add = ["add", "--connect", URI, "--socket-dir", "/run/hyper", &a.name, &uuid];
    for expected in ["added in the configuration; the domain is off", "the configuration was already so"] {
        let (success, out) = channel(&add, "").await.unwrap();
        assert!(success, "{out}");
        for domain in [&a, &b] {
            let line =
                out.lines().find(|line| line.starts_with(&domain.name)).unwrap_or_else(|| panic!("{out}"));
            assert!(line.contains(expected), "{line}");
            let path = present(&hypervisor, domain.id).await.channel.unwrap().path;
            assert_eq!(path, Path::new("/run/hyper").join(domain.id.socket_name()));
        }
    }

    let (success, out) = channel(&["list", "--connect", URI, "--json", &a.name], "").await.unwrap();
    assert!(success);
    let listed: serde_json::Value = serde_json::from_str(&out).unwrap();
    assert_eq!(listed.as_array().unwrap().len(), 1);
    assert_eq!(listed[0]["uuid"], a.id.to_string());
    assert_eq!(listed[0]["state"], "off");
    assert_eq!(listed[0]["channel"], format!("/run/hyper/{}", a.id.socket_name()));
    let (_, out) = channel(&["list", "--connect", URI], "").await.unwrap();
    assert!(out.contains(&a.name) && out.contains(&b.name) && out.starts_with("DOMAIN"), "{out}");

    for expected in ["removed in the configuration", "already so"] {
        let (success, out) = channel(&["remove", "--connect", URI, &a.name], "").await.unwrap();
        assert!(success && out.contains(expected), "{out}");
        assert_eq!(present(&hypervisor, a.id).await.channel, None);
    }
    assert!(present(&hypervisor, b.id).await.channel.is_some(), "nobody asked for that");
}

#[tokio::test]
async fn one_failure_is_told_and_does_not_stop_the_others() {
    let hypervisor = connect(URI).await;
    let domain = defined(&hypervisor).await;
    let stranger = VmId::generate().to_string();
    let (success, out) =
        channel(&["add", "--connect", URI, "no-such-domain", &stranger, &domain.name], "").await.unwrap();
    assert!(!success);
    assert!(out.contains("added in the configuration"), "{out}");
    let path = present(&hypervisor, domain.id).await.channel.unwrap().path;
    assert_eq!(path, Path::new("/tmp").join(domain.id.socket_name()), "the configured directory");

    let (success, out) =
        channel(&["add", "--connect", URI, "--socket-dir", "relative", &domain.name], "").await.unwrap();
    assert!(!success, "{out}");
}

#[tokio::test]
async fn all_means_all() {
    let mut file = tempfile::NamedTempFile::new().unwrap();
    let ids: Vec<VmId> = (0..3).map(|_| VmId::generate()).collect();
    let domains: String = ids.iter().map(|id| domain_xml("test", *id, &format!("d-{id}"), None)).collect();
    write!(file, "<node>{domains}</node>").unwrap();
    let uri = format!("test://{}", file.path().display());
    let (success, out) = channel(&["add", "--connect", &uri, "--all"], "").await.unwrap();
    assert!(success, "{out}");
    for id in &ids {
        assert!(out.contains(&format!("d-{id}: added")), "{out}");
    }
    let (success, listed) = channel(&["list", "--connect", &uri, "--all"], "").await.unwrap();
    assert!(success, "{listed}");
    for id in &ids {
        assert!(listed.contains(&format!("d-{id}")), "{listed}");
    }
}

#[tokio::test]
async fn xml_is_edited_without_libvirt() {
    let id = VmId::generate();
    let xml = domain_xml("kvm", id, "a", None);
    let text = id.to_string();
    let (success, out) = channel(&["inject", "--id", &text, "--socket-dir", "/run/x"], &xml).await.unwrap();
    assert!(success && out.contains(&format!("/run/x/{}", id.socket_name())), "{out}");
    let (_, again) = channel(&["inject", "--id", &text, "--socket-dir", "/run/x"], &out).await.unwrap();
    assert_eq!(out, again, "twice is once");
    for broken in ["", "<domain>", &xml.replace(&text, &VmId::generate().to_string())] {
        channel(&["inject", "--id", &text], broken).await.expect_err(broken);
    }
}

#[tokio::test]
async fn whom_it_is_about_must_be_said() {
    for arguments in [&["add"][..], &["remove"], &["add", "--all", "a"], &["list", "--all", "a"], &["inject"]]
    {
        channel(arguments, "").await.expect_err(&arguments.join(" "));
    }
}

#[tokio::test]
async fn an_unreachable_libvirt_is_an_error_with_its_reason() {
    let uri = "qemu+unix:///system?socket=/nonexistent/libvirt-sock";
    let mut config = Config::default();
    config.hypervisor.call_timeout = std::time::Duration::from_secs(2);
    let line = Line::try_parse_from(["channel", "list", "--connect", uri]).unwrap();
    let error = run_to(line.channel, &config, std::io::empty(), Vec::new()).await.unwrap_err();
    assert!(format!("{error:#}").contains("/nonexistent/libvirt-sock"), "{error:#}");
}
