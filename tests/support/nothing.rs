//! A web server that has nothing: every request gets its 404.

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use tokio::{net::TcpListener, task::JoinHandle};

/// Serves while it lives.
pub(crate) struct NothingServer {
    address: SocketAddr,
    asked: Arc<AtomicUsize>,
    task: JoinHandle<()>,
}

impl NothingServer {
    /// On a port of this address that the system chooses.
    pub(crate) async fn at(host: &str) -> Self {
        let listener = TcpListener::bind((host, 0)).await;
        let listener = listener.unwrap_or_else(|error| panic!("{host} cannot be listened on: {error}"));
        let address = listener.local_addr().expect("an address");
        let asked = Arc::new(AtomicUsize::new(0));
        let count = Arc::clone(&asked);
        let routes = axum::Router::new().fallback(move || {
            count.fetch_add(1, Ordering::Relaxed);
            async { axum::http::StatusCode::NOT_FOUND }
        });
        let task = tokio::spawn(async move { axum::serve(listener, routes).await.expect("it serves") });
        Self { address, asked, task }
    }

    /// Without a `/` at the end.
    pub(crate) fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Requests so far.
    pub(crate) fn asked(&self) -> usize {
        self.asked.load(Ordering::Relaxed)
    }
}

impl Drop for NothingServer {
    fn drop(&mut self) {
        self.task.abort();
    }
}
