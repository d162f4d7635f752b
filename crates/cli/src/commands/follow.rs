//! `events --follow`: what happens to VMs, as it happens, until Ctrl-C.
//!
//! A daemon that is started anew, or a network that is away for a while, is no end of it. Nobody keeps what
//! happened meanwhile, so that it cannot be told; that something may be missing is told instead, by the
//! same word as the daemon's own where a reader is too slow: `lagged`, and how the VM is now.

use std::{collections::BTreeMap, time::Duration};

use chrono::{SecondsFormat, Utc};
use serde_json::{Value, json};
use uuid::Uuid;

use super::{events::Names, show::word};
use crate::{
    clean,
    context::Context,
    documents,
    failure::Failure,
    socket::{Said, Socket},
};

/// The most VMs that are followed at once; the daemon bounds a connection's subscriptions.
const MANY: usize = 64;
/// The longest wait before it is tried again.
const LONGEST_WAIT: Duration = Duration::from_secs(15);

pub(super) async fn follow(context: &Context, names: &Names) -> Result<(), Failure> {
    if names.is_empty() {
        context.screen.note("there are no VMs");
        return Ok(());
    }
    if names.len() > MANY {
        let words = format!("{} VMs are too many to follow at once; name up to {MANY}", names.len());
        return Err(Failure::Usage(words));
    }
    let mut following = Following { context, names, told: BTreeMap::new(), open: names.clone(), tries: 0 };
    loop {
        let Err(failure) = following.until_it_breaks().await else { return Ok(()) };
        // What never began is a mistake, or a daemon that is not there: that is for a person to know.
        if following.told.is_empty() || !failure.passes() {
            return Err(failure);
        }
        if following.tries == 0 {
            context.screen.failure(&failure);
        }
        let wait = wait(following.tries);
        following.tries += 1;
        context.screen.note(&format!("trying again in {} s", wait.as_secs()));
        tokio::time::sleep(wait).await;
    }
}

/// Before the next try: twice as long each time, to a bound.
fn wait(tries: u32) -> Duration {
    Duration::from_secs(1 << tries.min(4)).min(LONGEST_WAIT)
}

struct Following<'a> {
    context: &'a Context,
    names: &'a Names,
    /// When what was told last of each VM happened; of a VM that nothing was told of there is nothing to
    /// be missed.
    told: BTreeMap<Uuid, String>,
    /// Those that have not ended.
    open: Names,
    /// In vain, since something was heard.
    tries: u32,
}

impl Following<'_> {
    /// To the end of all that is followed, or of the connection.
    async fn until_it_breaks(&mut self) -> Result<(), Failure> {
        let mut socket = Socket::connect(self.context.client()?).await?;
        for id in self.open.keys() {
            socket.begin(&id.to_string(), &documents::VM_EVENTS, &json!({ "id": id })).await?;
        }
        // Of these nothing was told by this connection yet.
        let mut silent = self.open.clone();
        while !self.open.is_empty() {
            let (key, said) = socket.next().await?;
            let Ok(id) = key.parse::<Uuid>() else { continue };
            match said {
                Said::Next(data) => {
                    if std::mem::take(&mut self.tries) > 0 {
                        self.context.screen.note("connected again");
                    }
                    if silent.remove(&id).is_some()
                        && let Some(since) = self.told.get(&id)
                    {
                        self.show(&missed(id, since))?;
                    }
                    let event = &data[documents::VM_EVENTS.field];
                    self.show(event)?;
                    self.told.insert(id, word(&event["at"]));
                }
                Said::Complete => {
                    let name = self.open.remove(&id).unwrap_or(key);
                    self.context.screen.note(&format!("{name}: nothing more is told of it"));
                }
                Said::Refused(failure) => self.refused(id, failure)?,
            }
        }
        Ok(())
    }

    /// One that may not be followed, or not any more. The others go on, unless they are refused as well.
    fn refused(&mut self, id: Uuid, failure: Failure) -> Result<(), Failure> {
        let of_it_alone = matches!(&failure, Failure::Api { code, .. } if code == "VM_NOT_FOUND");
        if !of_it_alone || !self.told.contains_key(&id) {
            return Err(failure);
        }
        self.open.remove(&id);
        if self.open.is_empty() {
            return Err(failure);
        }
        self.context.screen.failure(&failure);
        Ok(())
    }

    fn show(&self, event: &Value) -> Result<(), Failure> {
        if self.context.screen.json {
            return self.context.screen.value_line(event);
        }
        let id = word(&event["vmId"]);
        let name = id.parse().ok().and_then(|id: Uuid| self.names.get(&id)).unwrap_or(&id);
        let payload = match &event["payload"] {
            Value::Object(fields) => {
                let fields = fields.iter().filter(|(_, value)| !value.is_null());
                fields.map(|(key, value)| format!("{key}={}", word(value))).collect::<Vec<_>>().join(" ")
            }
            other => word(other),
        };
        let line = format!("{}  {name}  {}  {payload}", word(&event["at"]), word(&event["type"]));
        self.context.screen.line(clean::line(&line).trim_end())
    }
}

/// In the form of the daemon's events: nobody knows how many were missed, but since when.
fn missed(id: Uuid, since: &str) -> Value {
    let at = Utc::now().to_rfc3339_opts(SecondsFormat::Micros, true);
    json!({ "at": at, "vmId": id, "type": "lagged", "payload": { "missed": null, "since": since } })
}

#[cfg(test)]
mod tests {
    use super::wait;

    #[test]
    fn it_is_tried_less_and_less_often_to_a_bound() {
        let waits: Vec<_> = [0, 1, 2, 3, 4, 5, 1000].into_iter().map(|tries| wait(tries).as_secs()).collect();
        assert_eq!(waits, [1, 2, 4, 8, 15, 15, 15]);
    }
}
