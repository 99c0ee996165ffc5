use super::*;

const AWAKE_MAX: Duration = Duration::from_micros(50);

fn slept(took: Duration) -> Wait {
    Wait {
        took,
        awake: Duration::ZERO,
    }
}

fn short() -> Wait {
    slept(Duration::from_micros(60))
}

fn long() -> Wait {
    slept(Duration::from_millis(10))
}

fn overrun() -> Wait {
    let took = AWAKE_MAX * OVERRUN;
    Wait { took, awake: took }
}

fn busy() -> BusyPoll {
    let mut busy = BusyPoll::of(AWAKE_MAX);
    for _ in 0..POINTS_MAX {
        busy.handle_wait(short());
    }
    busy
}

#[test]
fn it_stays_awake_only_after_several_short_waits() {
    let mut calm = BusyPoll::of(AWAKE_MAX);
    for _ in 0..POINTS_MIN {
        assert!(!calm.stays_awake());
        calm.handle_wait(short());
    }
    assert!(calm.stays_awake());
}

#[test]
fn a_few_long_waits_end_it() {
    let mut busy = busy();
    let mut awake = 0;
    while busy.stays_awake() {
        busy.handle_wait(long());
        awake += 1;
    }
    assert_eq!(awake, 4);
}

#[test]
fn where_every_second_wait_is_long_it_sleeps() {
    let mut calm = BusyPoll::of(AWAKE_MAX);
    for _ in 0..1000 {
        calm.handle_wait(short());
        calm.handle_wait(long());
        assert!(!calm.stays_awake());
    }
}

#[test]
fn who_does_not_get_to_run_rests_longer_each_time() {
    let mut busy = busy();
    let mut rest = |waits: u32| {
        busy.handle_wait(overrun());
        for _ in 0..waits {
            assert!(!busy.stays_awake());
            busy.handle_wait(short());
        }
        assert!(busy.stays_awake());
    };
    rest(1 << 6);
    rest(1 << 9);
    rest(1 << 10);
    rest(1 << 10);
}

#[test]
fn who_now_and_then_does_not_get_to_run_rests_as_shortly_each_time() {
    let mut busy = busy();
    for _ in 0..10 {
        busy.handle_wait(overrun());
        assert_eq!(busy.rest, REST_WAITS.0);
        for _ in 0..REST_WAITS.0 * 2 {
            busy.handle_wait(short());
        }
    }
}

#[test]
fn after_a_long_time_without_trouble_the_rest_is_short_again() {
    let mut busy = busy();
    for _ in 0..20 {
        busy.handle_wait(overrun());
    }
    assert_eq!(busy.rest, REST_WAITS.1);
    for _ in 0..REST_WAITS.1 * 16 {
        busy.handle_wait(short());
    }
    busy.handle_wait(overrun());
    assert_eq!(busy.rest, REST_WAITS.0);
}

#[test]
fn no_time_is_too_long_to_stay_awake_for() {
    let mut busy = BusyPoll::eager(Duration::MAX);
    busy.handle_wait(short());
    busy.handle_gap(Duration::MAX);
    assert!(busy.stays_awake());
}
