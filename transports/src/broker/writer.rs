//! The thread that makes the broker's records durable, so that nobody else waits for the disk.

use std::io;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use async_channel::Receiver;
use lmx_core::broker::Record;

use super::hub::Hub;
use crate::clock::Alarm;
use crate::state::StateFile;

/// Pause before a write that failed is tried again.
const PAUSE: Duration = Duration::from_millis(500);

/// The thread.
#[derive(Debug)]
pub(super) struct Writer {
    /// Closes when it has ended.
    ended: Receiver<()>,
}

/// Writes records to `file` until the broker gives no more.
pub(super) fn start(
    hub: Arc<Hub>,
    file: StateFile,
    records: Receiver<Record>,
) -> io::Result<Writer> {
    let (ending, ended) = async_channel::bounded(1);
    thread::Builder::new()
        .name("lmx-state".to_owned())
        .spawn(move || {
            write_all(&hub, file, &records);
            // Whoever sees this finds the file free.
            drop(ending);
        })?;
    Ok(Writer { ended })
}

impl Writer {
    /// Waits until the state file is free. A thread that the disk keeps for longer than
    /// `at_most` is left to it.
    pub(super) fn join(self, at_most: Duration) {
        let ended = async {
            // Nothing is ever sent.
            let _ = self.ended.recv().await;
        };
        let too_late = async {
            Alarm::after(at_most).await;
            tracing::error!(
                "the disk does not answer; the state file is in use until it does, or until this \
                 process ends"
            );
        };
        smol::block_on(smol::future::or(ended, too_late));
    }
}

fn write_all(hub: &Hub, mut file: StateFile, records: &Receiver<Record>) {
    while let Ok(record) = records.recv_blocking() {
        let mut was_reported = false;
        while let Err(error) = file.save(&record) {
            if !was_reported {
                was_reported = true;
                tracing::error!(
                    %error,
                    "new sessions and kept locks wait until the state can be written"
                );
            }
            if records.is_closed() {
                return;
            }
            smol::block_on(Alarm::after(PAUSE));
        }
        if was_reported {
            tracing::info!("the state is written again");
        }
        hub.handle_durable();
    }
}
