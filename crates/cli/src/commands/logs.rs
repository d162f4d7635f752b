//! `logs`: what a VM wrote to its serial console.

use serde_json::{Value, json};

use crate::{
    args::Logs,
    context::Context,
    documents,
    failure::Failure,
    socket::{Said, Socket},
    vms,
};

pub(super) async fn logs(context: &Context, args: &Logs) -> Result<(), Failure> {
    let client = context.client()?;
    let vm = vms::find(client, &args.vm).await?;
    let variables = json!({ "id": vm.id, "maxBytes": args.bytes });
    if !args.follow {
        let log = client.ask(&documents::VM_CONSOLE_LOG, variables).await?;
        if context.screen.json {
            return context.screen.value(&log);
        }
        let Some(text) = log["text"].as_str() else {
            context.screen.note("nothing is kept of its console");
            return Ok(());
        };
        if log["truncated"] == true {
            context.screen.note("(what is older was left out)");
        }
        return context.screen.guest_output(text);
    }
    let mut socket = Socket::connect(client).await?;
    socket.begin("logs", &documents::VM_CONSOLE, &variables).await?;
    loop {
        match socket.next().await?.1 {
            Said::Next(data) => piece(context, &data[documents::VM_CONSOLE.field])?,
            Said::Complete => return Ok(()),
            Said::Refused(failure) => return Err(failure),
        }
    }
}

/// A piece ends anywhere: nothing is added to it, and remarks go elsewhere.
fn piece(context: &Context, piece: &Value) -> Result<(), Failure> {
    if context.screen.json {
        return context.screen.value_line(piece);
    }
    if piece["anew"] == true {
        context.screen.note("(the log began anew)");
    }
    if piece["skipped"] == true {
        context.screen.note("(something was left out here)");
    }
    context.screen.guest_piece(piece["text"].as_str().unwrap_or_default())
}
