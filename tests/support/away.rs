//! A database that goes away and comes back. PostgreSQL is reached over a wire that can be cut;
//! SQLite's one write lock is taken by somebody else.
#![allow(dead_code)] // each story uses a part of it

use std::{net::SocketAddr, sync::Arc};

use sqlx::{Connection, SqliteConnection, sqlite::SqliteConnectOptions};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{
        TcpListener, TcpStream,
        tcp::{OwnedReadHalf, OwnedWriteHalf},
    },
    sync::watch,
    task::JoinHandle,
};

use super::database::{Backend, TestDatabase};

/// A way to a database.
pub(crate) struct Away {
    /// For [`infinibay::store::Store::open`].
    pub(crate) url: String,
    /// Whether the wire is cut.
    wire: Arc<watch::Sender<bool>>,
    task: Option<JoinHandle<()>>,
    sqlite: Option<SqliteConnection>,
}

impl Drop for Away {
    fn drop(&mut self) {
        self.wire.send_replace(true);
        if let Some(task) = &self.task {
            task.abort();
        }
    }
}

impl Away {
    pub(crate) async fn new(db: &TestDatabase) -> Self {
        let wire = Arc::new(watch::Sender::new(false));
        if db.backend() == Backend::Sqlite {
            let file = db.directory().expect("a SQLite database").join("test.db");
            let options = SqliteConnectOptions::new().filename(file);
            let sqlite = SqliteConnection::connect_with(&options).await.expect("opening the database");
            return Self { url: db.url.clone(), wire, task: None, sqlite: Some(sqlite) };
        }
        let place = db.url.split('@').nth(1).and_then(|rest| rest.split('/').next()).expect("a host");
        let target: SocketAddr = place.parse().expect("an address");
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let url = db.url.replace(place, &listener.local_addr().expect("an address").to_string());
        let task = tokio::spawn({
            let wire = Arc::clone(&wire);
            async move {
                while let Ok((client, _)) = listener.accept().await {
                    if !*wire.borrow()
                        && let Ok(server) = TcpStream::connect(target).await
                    {
                        let (from_client, to_client) = client.into_split();
                        let (from_server, to_server) = server.into_split();
                        tokio::spawn(carry(from_client, to_server, wire.subscribe()));
                        tokio::spawn(carry(from_server, to_client, wire.subscribe()));
                    }
                }
            }
        });
        Self { url, wire, task: Some(task), sqlite: None }
    }

    /// Nothing can be written from now on.
    pub(crate) async fn cut(&mut self) {
        self.wire.send_replace(true);
        if let Some(sqlite) = &mut self.sqlite {
            sqlx::raw_sql("BEGIN IMMEDIATE").execute(sqlite).await.expect("taking the write lock");
        }
    }

    pub(crate) async fn restore(&mut self) {
        self.wire.send_replace(false);
        if let Some(sqlite) = &mut self.sqlite {
            sqlx::raw_sql("ROLLBACK").execute(sqlite).await.expect("giving the write lock back");
        }
    }
}

async fn carry(mut from: OwnedReadHalf, mut to: OwnedWriteHalf, mut wire: watch::Receiver<bool>) {
    let mut buffer = vec![0; 16 << 10];
    loop {
        let read = tokio::select! {
            read = from.read(&mut buffer) => read,
            _ = wire.wait_for(|cut| *cut) => return,
        };
        let Ok(read @ 1..) = read else { return };
        if to.write_all(&buffer[..read]).await.is_err() {
            return;
        }
    }
}
