//! The thread that makes the broker's records durable, so that nobody else waits for the disk.

use std::io;
use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::Duration;

use async_channel::Receiver;
use lmx_core::broker::{Broker as Machine, Record};

use super::hub::Hub;
use crate::clock::Alarm;
use crate::state::StateFile;

/// Pause before a write that failed is tried again.
const PAUSE: Duration = Duration::from_millis(500);

/// Writes records to `file` until the broker gives no more.
pub(super) fn start(
    hub: Arc<Hub>,
    mut file: StateFile,
    records: Receiver<Record>,
) -> io::Result<JoinHandle<()>> {
    thread::Builder::new()
        .name("lmx-state".to_owned())
        .spawn(move || {
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
                hub.with(Machine::handle_durable);
            }
        })
}
