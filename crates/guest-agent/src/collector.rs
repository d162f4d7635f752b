//! The thread that takes readings. A file system that does not answer can hold it up for ever;
//! commands and signs of life must not wait for that.

use std::{
    io,
    sync::mpsc::{Receiver, Sender, SyncSender, sync_channel},
    thread,
};

use crate::{agent::Event, log::note, message, metrics::Sampler, wake::Bell};

/// Asks for readings.
#[derive(Debug)]
pub(crate) struct Collector {
    requests: SyncSender<()>,
}

impl Collector {
    /// Starts the thread; readings arrive as [`Event::Metrics`].
    ///
    /// # Errors
    /// No thread to be had.
    pub(crate) fn start(events: Sender<Event>, bell: Bell) -> io::Result<Self> {
        let (requests, inbox) = sync_channel(1);
        thread::Builder::new()
            .name("metrics".to_owned())
            .stack_size(256 << 10)
            .spawn(move || collect(&inbox, &events, &bell))?;
        Ok(Self { requests })
    }

    /// Asks for one reading. While one is being taken, another request is enough for all.
    pub(crate) fn request(&self) {
        let _already_asked = self.requests.try_send(());
    }
}

fn collect(requests: &Receiver<()>, events: &Sender<Event>, bell: &Bell) {
    let mut sampler = Sampler::new();
    while requests.recv().is_ok() {
        let line = match message::metrics(&sampler.sample()) {
            Ok(line) => line,
            Err(e) => {
                note(format_args!("{e}"));
                continue;
            }
        };
        if events.send(Event::Metrics(line)).is_err() {
            return;
        }
        bell.ring();
    }
}
