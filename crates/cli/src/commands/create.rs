//! `create`: a VM, asked for and followed until it is up.

use std::{
    fs,
    time::{Duration, Instant},
};

use serde_json::{Value, json};
use uuid::Uuid;

use crate::{
    args::{Create, Firmware},
    context::Context,
    documents,
    failure::Failure,
    operations, prompt,
};

/// How long an image that is read for the first time is waited for.
const CHECKED: Duration = Duration::from_secs(600);
/// Between two requests meanwhile.
const AGAIN: Duration = Duration::from_secs(1);

pub(super) async fn create(context: &Context, args: Create) -> Result<(), Failure> {
    let client = context.client()?;
    let password = if args.password_stdin { Some(prompt::secret("Password").await?) } else { None };
    let wait = !args.wait.no_wait;
    let variables = json!({ "input": input(&args, password)? });
    let deadline = Instant::now() + CHECKED;
    let mut told = false;
    loop {
        let asked =
            operations::change(context, client, &documents::CREATE_VM, variables.clone(), "creating", wait);
        match asked.await {
            Err(Failure::Api { code, .. }) if code == "IMAGE_BEING_CHECKED" && Instant::now() < deadline => {
                if !told {
                    context.screen.note("the image is read for the first time; waiting");
                    told = true;
                }
                tokio::time::sleep(AGAIN).await;
            }
            done => return done?.say(context, "created"),
        }
    }
}

/// With an id of ours, so that a request that is sent again makes no second VM.
fn input(args: &Create, password: Option<String>) -> Result<Value, Failure> {
    let firmware = match args.firmware {
        Firmware::Bios => "BIOS",
        Firmware::Uefi => "UEFI",
        Firmware::UefiSecureBoot => "UEFI_SECURE_BOOT",
    };
    let mut input = json!({
        "id": Uuid::new_v4(), "name": args.name, "vcpus": args.vcpus, "memoryMib": args.memory,
        "firmware": firmware, "tpm": args.tpm,
    });
    let optional = [
        ("image", args.image.as_ref().map(|it| json!(it))),
        ("install", args.install.as_ref().map(|medium| json!({ "medium": medium, "mirror": args.mirror }))),
        ("diskGib", args.disk.map(|it| json!(it))),
        ("pool", args.pool.as_ref().map(|it| json!(it))),
        ("network", args.network.as_ref().map(|it| json!(it))),
        ("unattended", unattended(args, password)?),
    ];
    for (field, value) in optional {
        if let Some(value) = value {
            input[field] = value;
        }
    }
    Ok(input)
}

/// What the first boot is told, if anything.
fn unattended(args: &Create, password: Option<String>) -> Result<Option<Value>, Failure> {
    let mut keys = Vec::new();
    for file in &args.ssh_key {
        let text =
            fs::read_to_string(file).map_err(|error| Failure::Local(file.display().to_string(), error))?;
        if text.contains("PRIVATE KEY") {
            return Err(Failure::Usage(format!(
                "{} is a private key; the public one is meant",
                file.display()
            )));
        }
        keys.extend(
            text.lines()
                .map(str::trim)
                .filter(|it| !it.is_empty() && !it.starts_with('#'))
                .map(str::to_owned),
        );
    }
    let mut told = json!({});
    let words = [
        ("user", args.user.clone()),
        ("password", password),
        ("hostname", args.hostname.clone()),
        ("timezone", args.timezone.clone()),
    ];
    for (field, value) in words {
        if let Some(value) = value {
            told[field] = json!(value);
        }
    }
    for (field, list) in [("sshKeys", keys), ("packages", args.package.clone())] {
        if !list.is_empty() {
            told[field] = json!(list);
        }
    }
    Ok((told != json!({})).then_some(told))
}
