//! Lines of live-mutex's protocol, good and bad, on two connections.

use lmx_core::Instant;
use lmx_core::broker::{Broker, ConnectionId};

use super::session::{config, drain};

/// Each line's first byte says on which connection it comes, and how late; with its top bit
/// set it is a disconnection.
pub fn live_mutex_dialect(data: &[u8]) {
    let mut millis = 0;
    let mut broker = Broker::new(Instant::EPOCH, config()).unwrap();
    let mut connections: [Option<ConnectionId>; 3] = [None; 3];
    for line in data.split(|&byte| byte == b'\n') {
        let Some((&how, line)) = line.split_first() else {
            continue;
        };
        millis += u64::from(how >> 2 & 0x1f) * 100;
        let now = Instant::from_millis(millis);
        let connection = &mut connections[usize::from(how % 3)];
        let id = *connection.get_or_insert_with(|| broker.connect(now).unwrap());
        if how & 0x80 != 0 {
            broker.handle_disconnect(now, id);
            *connection = None;
        } else {
            broker.handle_input(now, id, line);
            broker.handle_input(now, id, b"\n");
        }
        let ended = drain(&mut broker, now, |_, _| {});
        for connection in &mut connections {
            *connection = connection.filter(|id| !ended.contains(id));
        }
        broker.check();
    }
    let now = Instant::from_millis(millis);
    for id in connections.into_iter().flatten() {
        broker.handle_disconnect(now, id);
    }
    drain(&mut broker, now, |_, _| {});
    assert_eq!(broker.status(now).connections, 0);
    assert_eq!(broker.status(now).waiting, 0);
}
