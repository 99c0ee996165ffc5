use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::Wake;

use super::super::lead::Place;
use super::*;

const START: Instant = Instant::from_nanos(1_000_000_000);

#[derive(Default)]
struct Count(AtomicUsize);

impl Wake for Count {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, Ordering::SeqCst);
    }
}

fn shared() -> Arc<Shared> {
    let (endpoint, config) = (Endpoint::default(), ClientConfig::default());
    Arc::new(Shared::new(endpoint, config, Duration::ZERO))
}

/// Has so many wakers woken by what just happened.
fn happen(state: &mut State, wakers: usize) -> Arc<Count> {
    let count = Arc::new(Count::default());
    let waker = Waker::from(Arc::clone(&count));
    state.wake.extend((0..wakers).map(|_| waker.clone()));
    count
}

fn woken(count: &Count) -> usize {
    count.0.load(Ordering::SeqCst)
}

#[test]
fn of_several_an_awake_driver_wakes_one_who_wakes_the_others() {
    let shared = shared();
    let mut state = shared.lock();
    let count = happen(&mut state, 3);
    let id = RequestId::from_u128(1);
    state.enter(id);
    let wake = state.take_wake_together(START, true);
    drop(state);
    assert_eq!(wake.len(), 1);
    assert_eq!(woken(&count), 0);
    let cx = &mut Context::from_waker(Waker::noop());
    let mut place = Place::new(&shared);
    assert!(place.poll_slot(cx, id, |_| None::<()>).is_pending());
    assert_eq!(woken(&count), 2);
}

#[test]
fn if_that_one_does_not_come_the_driver_wakes_them_in_time() {
    let shared = shared();
    let mut state = shared.lock();
    let _count = happen(&mut state, 3);
    assert_eq!(state.take_wake_together(START, true).len(), 1);
    let until = state.together_until().expect("a time to look again");
    assert!(until <= START + TOGETHER_MAX);
    assert!(state.take_wake_together(START, true).is_empty());
    assert_eq!(state.take_wake_together(until, true).len(), 2);
}

#[test]
fn if_more_is_to_be_told_before_that_all_are_woken() {
    let shared = shared();
    let mut state = shared.lock();
    let _first = happen(&mut state, 3);
    assert_eq!(state.take_wake_together(START, true).len(), 1);
    let _more = happen(&mut state, 3);
    assert_eq!(state.take_wake_together(START, true).len(), 5);
}

#[test]
fn a_driver_that_may_sleep_wakes_all() {
    let shared = shared();
    let mut state = shared.lock();
    let _count = happen(&mut state, 3);
    assert_eq!(state.take_wake_together(START, false).len(), 3);
    assert_eq!(state.together_until(), None);
    assert!(!state.holds_back(START));
}

#[test]
fn what_is_asked_waits_for_those_woken_together_but_not_for_long() {
    let shared = shared();
    let mut state = shared.lock();
    let _count = happen(&mut state, 2);
    let _one = state.take_wake_together(START, true);
    assert!(state.holds_back(START));
    let until = state.together_until().expect("a time to look again");
    assert!(!state.holds_back(until));
}

#[test]
fn the_last_of_those_woken_together_is_waited_for_and_no_longer() {
    let shared = shared();
    let mut state = shared.lock();
    let _count = happen(&mut state, 2);
    let _one = state.take_wake_together(clock::now() + Duration::from_hours(1), true);
    drop(state);
    shared.with(|_, _| ());
    assert!(shared.lock().holds_back(START));
    shared.with(|_, _| ());
    assert!(!shared.lock().holds_back(START));
}
