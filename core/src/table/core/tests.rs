use core::time::Duration;

use super::WAITER_ORDER;
use crate::storage::Fixed;
use crate::{Acquire, Event, Instant, Key, LockTable, Mode, RequestId, Want};

/// The numbers that order timers of one instant run out now and then.
#[test]
fn timers_keep_their_order_when_they_are_numbered_afresh() {
    type Small = Fixed<8, 8, 1>;
    let mut table = LockTable::<Small>::new(Small::config()).unwrap();
    let session = table.open_session(Instant::EPOCH, Duration::ZERO).unwrap();
    table.head.timer_order = WAITER_ORDER - 4;
    for number in 0..8 {
        let name = [number];
        let wants = [Want {
            key: Key::new(&name, 1).unwrap(),
            mode: Mode::Exclusive,
        }];
        let mut want = Acquire::new(RequestId::from_u128(number.into()), &wants);
        want.lease = Some(Duration::from_secs(1));
        table.acquire(Instant::EPOCH, session, &want).unwrap();
        table.check();
    }
    assert_eq!(table.head.timer_order, 8, "they were numbered afresh");
    table.handle_timeout(Instant::from_millis(1000));
    for number in 0..8 {
        let Some(Event::Expired { id, .. }) = table.poll_event(session) else {
            panic!("all of them expire");
        };
        assert_eq!(id.as_u128(), number, "in the order of their grants");
    }
    table.check();
}
