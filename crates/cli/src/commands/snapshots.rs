//! `snapshots`: a tree of them, and what is done with one.

use serde::Deserialize;
use serde_json::json;

use super::show::word;
use crate::{
    args::{Quiesce, Snapshots},
    clean,
    context::Context,
    documents::{self, Document},
    failure::Failure,
    operations, prompt, screen, vms,
};

pub(super) async fn snapshots(context: &Context, command: Snapshots) -> Result<(), Failure> {
    match command {
        Snapshots::List(which) => list(context, &which.vm).await,
        Snapshots::Create { vm, name, description, no_memory, quiesce, wait } => {
            let quiesce = match quiesce {
                Quiesce::IfPossible => "IF_POSSIBLE",
                Quiesce::Required => "REQUIRED",
                Quiesce::Never => "NEVER",
            };
            let found = vms::find(context.client()?, &vm).await?;
            let memory = no_memory.then_some(false);
            let variables = json!({
                "id": found.id, "name": name, "description": description, "memory": memory, "quiesce": quiesce,
            });
            let words = ("taking a snapshot of", format!("snapshot {} taken", clean::line(&name)));
            change(context, &documents::CREATE_VM_SNAPSHOT, variables, words, !wait.no_wait).await
        }
        Snapshots::Revert { vm, name, yes, wait } => {
            let found = vms::find(context.client()?, &vm).await?;
            if !yes {
                let question =
                    format!("Put {vm} back to {name}? What its disks hold that is in no snapshot is lost.");
                prompt::confirm(&question).await?;
            }
            let words = ("putting back", format!("put back to {}", clean::line(&name)));
            let variables = json!({ "id": found.id, "name": name });
            change(context, &documents::REVERT_VM_SNAPSHOT, variables, words, !wait.no_wait).await
        }
        Snapshots::Delete { vm, name, children, yes, wait } => {
            let found = vms::find(context.client()?, &vm).await?;
            if !yes {
                let more = if children { " and all that were taken after it" } else { "" };
                prompt::confirm(&format!("Delete the snapshot {name} of {vm}{more}?")).await?;
            }
            let words = ("deleting a snapshot of", format!("snapshot {} deleted", clean::line(&name)));
            let variables = json!({ "id": found.id, "name": name, "children": children });
            change(context, &documents::DELETE_VM_SNAPSHOT, variables, words, !wait.no_wait).await
        }
    }
}

async fn change(
    context: &Context,
    document: &Document,
    variables: serde_json::Value,
    (title, done): (&str, String),
    wait: bool,
) -> Result<(), Failure> {
    let changed = operations::change(context, context.client()?, document, variables, title, wait).await?;
    changed.say(context, &done)
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Snapshot {
    name: String,
    parent: Option<String>,
    state: String,
    current: bool,
    created_at: String,
    description: String,
}

async fn list(context: &Context, called: &str) -> Result<(), Failure> {
    let client = context.client()?;
    let vm = vms::find(client, called).await?;
    let answer = client.ask(&documents::VM_SNAPSHOTS, json!({ "id": vm.id })).await?;
    if context.screen.json {
        return context.screen.value(&answer);
    }
    let all: Vec<Snapshot> = vms::shaped(&answer)?;
    if all.is_empty() {
        context.screen.note("it has no snapshots");
        return Ok(());
    }
    let rows = tree(&all).into_iter().map(|(branch, at)| {
        let Snapshot { name, state, current, created_at, description, .. } = &all[at];
        let here = if *current { " *" } else { "" };
        vec![
            format!("{branch}{}{here}", clean::line(name)),
            state.to_lowercase(),
            word(&json!(created_at)),
            description.clone(),
        ]
    });
    context.screen.line(&screen::table(&["SNAPSHOT", "STATE", "TAKEN AT", "DESCRIPTION"], rows))
}

/// Each snapshot's place in the list, parents before their children, with the branch that leads to
/// it. One whose parent is not there, or whose ancestors are a circle, stands at the root.
fn tree(all: &[Snapshot]) -> Vec<(String, usize)> {
    let mut seen = vec![false; all.len()];
    let mut rows = Vec::with_capacity(all.len());
    let known =
        |name: &Option<String>| name.as_ref().is_some_and(|name| all.iter().any(|it| it.name == *name));
    for at in 0..all.len() {
        if !known(&all[at].parent) {
            grow(all, at, "", "", &mut seen, &mut rows);
        }
    }
    for at in 0..all.len() {
        if !seen[at] {
            grow(all, at, "", "", &mut seen, &mut rows);
        }
    }
    rows
}

fn grow(
    all: &[Snapshot],
    at: usize,
    branch: &str,
    below: &str,
    seen: &mut [bool],
    rows: &mut Vec<(String, usize)>,
) {
    if std::mem::replace(&mut seen[at], true) {
        return;
    }
    rows.push((branch.to_owned(), at));
    let children: Vec<usize> =
        (0..all.len()).filter(|child| all[*child].parent.as_ref() == Some(&all[at].name)).collect();
    for (n, child) in children.iter().enumerate() {
        let (turn, down) = if n + 1 == children.len() { ("└─ ", "   ") } else { ("├─ ", "│  ") };
        grow(all, *child, &format!("{below}{turn}"), &format!("{below}{down}"), seen, rows);
    }
}

#[cfg(test)]
mod tests {
    use super::{Snapshot, tree};

    fn of(pairs: &[(&str, Option<&str>)]) -> Vec<String> {
        let all: Vec<Snapshot> = pairs
            .iter()
            .map(|(name, parent)| Snapshot {
                name: (*name).into(),
                parent: parent.map(Into::into),
                state: String::new(),
                current: false,
                created_at: String::new(),
                description: String::new(),
            })
            .collect();
        tree(&all).into_iter().map(|(branch, at)| format!("{branch}{}", all[at].name)).collect()
    }

    #[test]
    fn children_hang_on_their_parents() {
        let pairs = [("a", None), ("b", Some("a")), ("c", Some("b")), ("d", Some("a")), ("e", None)];
        assert_eq!(of(&pairs), ["a", "├─ b", "│  └─ c", "└─ d", "e"]);
    }

    #[test]
    fn a_broken_tree_is_shown_all_the_same() {
        assert_eq!(of(&[("a", Some("gone"))]), ["a"]);
        assert_eq!(of(&[("a", Some("b")), ("b", Some("a")), ("c", Some("c"))]), ["a", "└─ b", "c"]);
    }
}
