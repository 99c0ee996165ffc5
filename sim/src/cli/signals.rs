//! Nodes that are child processes are in process groups of their own, which a terminal's
//! Ctrl-C does not reach: whoever ends this program ends them, too.

use std::io;

use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::iterator::Signals;
use signal_hook::low_level::emulate_default_handler;

use crate::protocol::external::end_all;

/// From now on a signal that ends this program ends its nodes first.
pub(super) fn end_nodes_first() -> Result<(), String> {
    let cannot = |error: io::Error| format!("cannot wait for signals: {error}");
    let mut signals = Signals::new([SIGINT, SIGTERM]).map_err(cannot)?;
    std::thread::spawn(move || {
        for signal in &mut signals {
            end_all();
            let _ = emulate_default_handler(signal);
        }
    });
    Ok(())
}
