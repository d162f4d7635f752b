//! An agent that seals, and somebody between it and the host who does not have the key: before each answer
//! he sends what he made of it, as the command's line says.

use std::{future::Future, io, pin::Pin};

use agent_protocol::{GuestMessage, SealKey, Signed, seal, verify};
use serde_json::{Value, json};
use tokio::{
    io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader},
    net::{UnixStream, unix::OwnedWriteHalf},
};
use uuid::Uuid;

use crate::support::guest::Received;

/// Its clock stands at about 2001.
const OFF_MS: i64 = 25 * 365 * 86_400_000;

type Served = Pin<Box<dyn Future<Output = io::Result<()>> + Send>>;

/// What serves each client.
pub fn sealing(key: SealKey) -> impl Fn(UnixStream, Received) -> Served + Send + 'static {
    move |stream, received| {
        let (reader, writer) = stream.into_split();
        let key = key.clone();
        let agent = Agent { key, writer, off: -OFF_MS, open: false, challenge: String::new(), waits: None };
        Box::pin(agent.serve(BufReader::new(reader), received))
    }
}

struct Agent {
    key: SealKey,
    writer: OwnedWriteHalf,
    off: i64,
    open: bool,
    challenge: String,
    /// An answer that is given once the exchange is open again.
    waits: Option<String>,
}

impl Agent {
    async fn serve(
        mut self,
        reader: BufReader<tokio::net::unix::OwnedReadHalf>,
        received: Received,
    ) -> io::Result<()> {
        self.greet().await?;
        let mut lines = reader.lines();
        while let Some(line) = lines.next_line().await? {
            let (message, sealed) = match GuestMessage::decode(line.as_bytes()) {
                Ok(GuestMessage::Signed(envelope)) => {
                    verify(&self.key, &envelope).expect("the host's own seal");
                    (serde_json::from_str::<Value>(&envelope.payload)?, true)
                }
                _ => (serde_json::from_str::<Value>(&line)?, false),
            };
            let mut noted = message.clone();
            noted["sealed"] = json!(sealed);
            received.lock().expect("received").push(noted);
            match message["type"].as_str() {
                Some("Seal") => {
                    assert!(sealed && message["answers"] == self.challenge.as_str(), "{message}");
                    self.open = true;
                    let answer = self.handshake(&json!({ "answers": message["challenge"] }));
                    self.say(&answer).await?;
                    if let Some(answer) = self.waits.take() {
                        self.say(&answer).await?;
                    }
                }
                Some("Metrics") if !sealed => self.greet().await?,
                Some("UnsafeCommand") => self.answer(&message).await?,
                _ => {}
            }
        }
        Ok(())
    }

    fn now(&self) -> i64 {
        chrono::Utc::now().timestamp_millis() + self.off
    }

    fn handshake(&self, offer: &Value) -> String {
        let timestamp = chrono::DateTime::from_timestamp_millis(self.now()).expect("a time").to_rfc3339();
        json!({
            "type": "handshake", "timestamp": timestamp, "version": "1", "platform": "linux",
            "capabilities": ["sealed"], "max_concurrent_commands": 4, "seal": offer,
            "first_boot": { "finished": true, "errors": [] },
        })
        .to_string()
    }

    async fn greet(&mut self) -> io::Result<()> {
        self.open = false;
        self.challenge = Uuid::new_v4().to_string();
        let line = self.handshake(&json!({ "challenge": self.challenge }));
        self.write(format!("{line}\n").as_bytes()).await
    }

    async fn write(&mut self, line: &[u8]) -> io::Result<()> {
        self.writer.write_all(line).await
    }

    fn sealed(&self, key: &SealKey, message: &str) -> Vec<u8> {
        seal(key, self.now(), Uuid::new_v4(), message).expect("it fits")
    }

    async fn say(&mut self, message: &str) -> io::Result<()> {
        assert!(self.open, "nothing is said before the host has shown the key");
        let line = self.sealed(&self.key, message);
        self.write(&line).await
    }

    async fn answer(&mut self, command: &Value) -> io::Result<()> {
        let of = |stdout: &str| {
            json!({ "id": command["id"], "success": true, "exit_code": 0, "stdout": stdout }).to_string()
        };
        match command["raw_command"].as_str() {
            Some("tampered") => {
                let line = self.sealed(&self.key, &of("right"));
                let line = String::from_utf8(line).expect("text").replace("right", "wrong");
                self.write(line.as_bytes()).await?;
            }
            Some("forged") => {
                let line = self.sealed(&SealKey::new([9; 32]), &of("wrong"));
                self.write(&line).await?;
            }
            Some("bare") => self.write(format!("{}\n", of("wrong")).as_bytes()).await?,
            Some("replayed") => {
                let line = self.sealed(&self.key, &of("good"));
                self.write(&line).await?;
                let again: Signed = serde_json::from_slice(&line)?;
                assert!((self.now() - again.ts) < 60_000, "its time is right");
                return self.write(&line).await;
            }
            Some("skewed") => {
                // Its clock was set. Until it greeted anew, nothing that it says is of the host's time.
                self.off += 3_600_000;
                self.waits = Some(of("good"));
                return self.say(&of("wrong")).await;
            }
            _ => {}
        }
        self.say(&of("good")).await
    }
}
