//! `start`, `stop`, `reboot`, `delete`: a change of each VM that was named, one after the other.

use serde_json::{Value, json};

use crate::{
    args::{Delete, Power, Started},
    context::Context,
    documents::{self, Document},
    failure::Failure,
    operations, prompt,
    vms::{self, Found},
};

/// What is asked of each, and the words for it.
struct Change {
    document: &'static Document,
    force: Option<bool>,
    title: &'static str,
    done: &'static str,
}

pub(super) async fn start(context: &Context, args: &Started) -> Result<(), Failure> {
    let change = Change { document: &documents::START_VM, force: None, title: "starting", done: "started" };
    each(context, &args.vms, &change, !args.wait.no_wait).await
}

pub(super) async fn stop(context: &Context, args: &Power) -> Result<(), Failure> {
    let change =
        Change { document: &documents::STOP_VM, force: Some(args.force), title: "stopping", done: "stopped" };
    each(context, &args.vms, &change, !args.wait.no_wait).await
}

pub(super) async fn reboot(context: &Context, args: &Power) -> Result<(), Failure> {
    let change = Change {
        document: &documents::REBOOT_VM,
        force: Some(args.force),
        title: "rebooting",
        done: "rebooted",
    };
    each(context, &args.vms, &change, !args.wait.no_wait).await
}

pub(super) async fn delete(context: &Context, args: &Delete) -> Result<(), Failure> {
    let client = context.client()?;
    let found = vms::find_all(client, &args.vms).await?;
    if !args.yes {
        let mut names = Vec::with_capacity(found.len());
        for vm in &found {
            // A person who gave an id is asked about a name.
            let about = client.ask(&documents::VM, json!({ "id": vm.id })).await?;
            let name = about["name"].as_str().ok_or_else(|| vms::missing(&vm.called))?;
            names.push(format!("{name} ({})", vm.id));
        }
        prompt::confirm(&format!("Delete {} with all disks and snapshots?", names.join(", "))).await?;
    }
    let change = Change { document: &documents::DELETE_VM, force: None, title: "deleting", done: "deleted" };
    each_found(context, &found, &change, !args.wait.no_wait).await
}

async fn each(context: &Context, called: &[String], change: &Change, wait: bool) -> Result<(), Failure> {
    let found = vms::find_all(context.client()?, called).await?;
    each_found(context, &found, change, wait).await
}

/// One that fails does not keep the others from their turn; the first failure is the end's.
async fn each_found(context: &Context, found: &[Found], change: &Change, wait: bool) -> Result<(), Failure> {
    let mut first: Option<Failure> = None;
    for vm in found {
        let mut variables = json!({ "id": vm.id });
        if let Some(force) = change.force {
            variables["force"] = Value::Bool(force);
        }
        let asked =
            operations::change(context, context.client()?, change.document, variables, change.title, wait);
        match asked.await {
            Ok(changed) => changed.say(context, change.done)?,
            Err(failure) => {
                if let Some(earlier) = first.replace(failure) {
                    context.screen.failure(&earlier);
                }
            }
        }
    }
    first.map_or(Ok(()), Err)
}
