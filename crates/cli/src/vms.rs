//! VMs as the API tells of them, and by what people call them.

use serde::Deserialize;
use serde_json::{Value, json};
use uuid::Uuid;

use crate::{
    client::Client,
    documents::{self, Document},
    failure::Failure,
};

/// VMs asked for at once with all that the list shows: the daemon bounds what one query may cost.
const PAGE: i32 = 50;
/// Names asked for at once: the most that the API gives.
const NAMES: i32 = 200;

/// A row of the list.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Row {
    /// Its id.
    pub id: Uuid,
    /// Its name.
    pub name: String,
    /// Where it is in its life.
    pub phase: String,
    /// Virtual processors.
    pub vcpus: u32,
    /// A decimal number.
    pub memory_mib: String,
    /// What its guest or the network says.
    pub ip_addresses: Vec<String>,
    /// Its agent.
    pub agent: AgentRow,
}

/// A VM by its id and its name.
#[derive(Debug, Deserialize)]
pub struct Named {
    /// Its id.
    pub id: Uuid,
    /// Its name.
    pub name: String,
}

/// What the list says of an agent.
#[derive(Debug, Deserialize)]
pub struct AgentRow {
    /// Whether it can be talked to.
    pub connectivity: String,
}

/// A VM that was found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Found {
    /// Its id.
    pub id: Uuid,
    /// What the person called it.
    pub called: String,
}

/// Reads an answer.
///
/// # Errors
/// Where it has not the shape that the schema promises.
pub fn shaped<T: for<'de> Deserialize<'de>>(value: &Value) -> Result<T, Failure> {
    T::deserialize(value)
        .map_err(|error| Failure::Answer(format!("the daemon answers in another shape: {error}")))
}

/// Every VM that may be seen.
///
/// # Errors
/// As of the client.
pub async fn all(client: &Client) -> Result<Vec<Value>, Failure> {
    pages(client, &documents::VMS, PAGE, |_| false).await
}

/// The id and the name of every VM that may be seen.
///
/// # Errors
/// As of the client.
pub async fn names(client: &Client) -> Result<Vec<Named>, Failure> {
    pages(client, &documents::VM_NAMES, NAMES, |_| false).await?.iter().map(shaped).collect()
}

/// Page by page, until there are no more or `enough` says so.
async fn pages(
    client: &Client,
    document: &Document,
    first: i32,
    enough: impl Fn(&Value) -> bool,
) -> Result<Vec<Value>, Failure> {
    let mut vms = Vec::new();
    let mut after = Value::Null;
    loop {
        let mut page = client.ask(document, json!({ "first": first, "after": after })).await?;
        let Value::Array(nodes) = page["nodes"].take() else {
            return Err(Failure::Answer("the daemon answers without a list of VMs".into()));
        };
        let more = page["pageInfo"]["hasNextPage"] == true && !nodes.is_empty();
        let done = nodes.iter().any(&enough);
        vms.extend(nodes);
        if done || !more {
            return Ok(vms);
        }
        after = page["pageInfo"]["endCursor"].take();
    }
}

/// The VM that a person means. What has the form of an id is one, and not looked up: the request
/// that follows says whether there is such a VM.
///
/// # Errors
/// Where no VM has the name.
pub async fn find(client: &Client, called: &str) -> Result<Found, Failure> {
    if let Ok(id) = Uuid::parse_str(called) {
        return Ok(Found { id, called: called.to_owned() });
    }
    let is_it = |vm: &Value| vm["name"] == called;
    let listed = pages(client, &documents::VM_NAMES, NAMES, is_it).await?;
    let vm = listed.iter().find(|vm| is_it(vm)).ok_or_else(|| missing(called))?;
    Ok(Found { id: shaped::<Named>(vm)?.id, called: called.to_owned() })
}

/// All that a person means, each once; nothing is done before all are found.
///
/// # Errors
/// Where no VM has one of the names.
pub async fn find_all(client: &Client, called: &[String]) -> Result<Vec<Found>, Failure> {
    let mut found: Vec<Found> = Vec::new();
    for called in called {
        let vm = find(client, called).await?;
        if !found.iter().any(|other| other.id == vm.id) {
            found.push(vm);
        }
    }
    Ok(found)
}

/// In the API's words: what may not be seen is not there.
#[must_use]
pub fn missing(called: &str) -> Failure {
    Failure::Api {
        code: "VM_NOT_FOUND".into(),
        message: format!("there is no VM '{called}', or it is not for you to know"),
        field: None,
        correlation: None,
    }
}
