//! A client whose user asks for the next conversion before it has heard of the last.

use lmx_core::client::{ClientEvent, LockRequest};
use lmx_core::table::{Conversion, ConvertError};
use lmx_core::wire::{Answer, Resumed};
use lmx_core::{FencingToken, Grant, Mode, RequestId};

use super::clients::Script;

use Conversion::{Downgrade, Upgrade};

const ID: RequestId = RequestId::from_u128(1);
/// What it was granted under.
const FIRST: u64 = 5;

const QUEUED: Answer<'static> = Answer::Queued { id: ID, ahead: 0 };
const REFUSED: Answer<'static> = Answer::ConvertRefused {
    id: ID,
    error: ConvertError::UpgradeConflict,
};

fn holder(mode: Mode) -> Script {
    let mut script = Script::new();
    let mut request = LockRequest::new(ID, b"key");
    request.wants[0].1 = mode;
    script.hold(request, None);
    script
}

fn granted(script: &Script, token: u64) -> Answer<'static> {
    Answer::Granted {
        id: ID,
        grant: Grant {
            token: FencingToken::new(token).expect("not zero"),
            granted_at: script.now,
            deadline: None,
        },
    }
}

impl Script {
    fn converts<const N: usize>(&mut self, conversions: [Conversion; N]) {
        for to in conversions {
            self.client.convert(self.now, ID, to);
        }
        assert_eq!(self.sent(), ["convert"; N]);
    }

    fn is_answered_with(&mut self, token: u64) -> Vec<String> {
        let granted = granted(self, token);
        self.answers(granted);
        self.told()
    }

    fn is_told_of(&mut self, token: u64) -> Vec<String> {
        let granted = granted(self, token);
        self.tells(granted);
        self.told()
    }

    /// What its user is told, in words.
    fn told(&mut self) -> Vec<String> {
        let words = |event| match event {
            ClientEvent::Granted { held, .. } => format!("granted {}", held.token),
            ClientEvent::Converted { result, .. } => match result {
                Ok(held) => format!("converted {}", held.token),
                Err(error) => format!("{error:?}"),
            },
            other => format!("{other:?}"),
        };
        self.events().into_iter().map(words).collect()
    }

    /// How it holds, as the broker after the next restart hears.
    fn reclaims(&mut self) -> Vec<String> {
        self.reconnect(Resumed::Restarted);
        self.sent()
    }
}

const NOTHING: [&str; 0] = [];

#[test]
fn only_the_answer_to_the_last_conversion_is_told() {
    let mut script = holder(Mode::Exclusive);
    script.converts([Downgrade, Upgrade]);
    assert_eq!(script.is_answered_with(FIRST), NOTHING);
    script.answers(QUEUED);
    assert_eq!(script.told(), NOTHING);
    assert_eq!(script.is_told_of(6), ["granted 6"]);
    assert_eq!(script.is_told_of(6), NOTHING);
    assert_eq!(script.reclaims(), ["reclaim exclusive"]);

    let mut script = holder(Mode::Exclusive);
    script.converts([Downgrade, Upgrade, Downgrade]);
    assert_eq!(script.is_answered_with(FIRST), NOTHING);
    assert_eq!(script.is_answered_with(6), NOTHING);
    assert_eq!(script.is_answered_with(6), ["converted 6"]);
    assert_eq!(script.reclaims(), ["reclaim shared"]);
}

#[test]
fn a_refusal_is_told_if_it_is_of_the_last_conversion() {
    let mut script = holder(Mode::Shared);
    script.converts([Upgrade, Downgrade]);
    script.answers(REFUSED);
    assert_eq!(script.told(), NOTHING);
    assert_eq!(script.is_answered_with(FIRST), ["converted 5"]);

    let mut script = holder(Mode::Shared);
    script.converts([Downgrade, Upgrade]);
    assert_eq!(script.is_answered_with(FIRST), NOTHING);
    script.answers(REFUSED);
    assert_eq!(script.told(), ["UpgradeConflict"]);
    // Nothing is converted any more, and nothing more is told.
    assert_eq!(script.reclaims(), ["reclaim shared"]);
}

#[test]
fn an_upgrade_that_is_told_of_while_another_conversion_is_asked_for_is_no_answer() {
    let mut script = holder(Mode::Shared);
    script.converts([Upgrade]);
    script.answers(QUEUED);
    script.converts([Downgrade]);
    assert_eq!(script.is_told_of(6), NOTHING);
    assert_eq!(script.is_answered_with(6), ["converted 6"]);
    assert_eq!(script.reclaims(), ["reclaim shared"]);

    let mut script = holder(Mode::Shared);
    script.converts([Upgrade, Upgrade]);
    script.answers(QUEUED);
    assert_eq!(script.is_told_of(6), NOTHING);
    assert_eq!(script.is_answered_with(6), ["converted 6"]);
    assert_eq!(script.reclaims(), ["reclaim exclusive"]);

    // The first waited; of the second it is not known yet.
    let mut script = holder(Mode::Shared);
    script.converts([Upgrade, Downgrade, Upgrade]);
    script.answers(QUEUED);
    assert_eq!(script.is_answered_with(FIRST), NOTHING);
    script.answers(QUEUED);
    assert_eq!(script.told(), NOTHING);
    assert_eq!(script.is_told_of(7), ["granted 7"]);
    assert_eq!(script.reclaims(), ["reclaim exclusive"]);
}

#[test]
fn a_grant_that_is_repeated_converts_nothing() {
    let mut script = holder(Mode::Shared);
    assert_eq!(script.is_told_of(FIRST), NOTHING);
    assert_eq!(script.reclaims(), ["reclaim shared"]);
    let mut script = holder(Mode::Shared);
    script.converts([Upgrade]);
    script.answers(QUEUED);
    assert_eq!(script.is_told_of(FIRST), NOTHING);
    assert_eq!(script.is_told_of(6), ["granted 6"]);
    // Another token of which nobody has asked is told as it is.
    let mut script = holder(Mode::Shared);
    assert_eq!(script.is_told_of(6), ["granted 6"]);
    assert_eq!(script.reclaims(), ["reclaim shared"]);
}

#[test]
fn what_is_to_be_downgraded_is_reclaimed_as_shared() {
    let mut script = holder(Mode::Exclusive);
    script.converts([Downgrade]);
    // The conversion is asked for once more: nobody has answered it.
    assert_eq!(script.reclaims(), ["reclaim shared", "convert"]);
    let mut script = holder(Mode::Exclusive);
    script.converts([Upgrade]);
    assert_eq!(script.reclaims(), ["reclaim exclusive", "convert"]);
    let mut script = holder(Mode::Shared);
    script.converts([Upgrade]);
    assert_eq!(script.reclaims(), ["reclaim shared", "convert"]);
    let permits = Mode::Semaphore {
        capacity: 2,
        permits: 1,
    };
    let mut script = holder(permits);
    script.converts([Downgrade]);
    let error = ConvertError::NotConvertible;
    script.answers(Answer::ConvertRefused { id: ID, error });
    assert_eq!(script.told(), ["NotConvertible"]);
    assert!(script.reclaims()[0].starts_with("reclaim semaphore"));
}

#[test]
fn what_was_released_without_a_connection_is_not_missed_by_another_broker() {
    for (resumed, ends_well) in [(Resumed::Restarted, true), (Resumed::Resumed, false)] {
        let mut script = holder(Mode::Exclusive);
        script.client.handle_disconnected(script.now);
        script.client.release(script.now, ID);
        assert_eq!(script.sent(), NOTHING);
        script.reconnect(resumed);
        assert_eq!(script.sent(), ["release"]);
        let error = lmx_core::table::ReleaseError::NotHeld;
        script.answers(Answer::ReleaseRefused { id: ID, error });
        let told = script.events();
        let is_so = |result: &Result<(), _>| result.is_ok() == ends_well;
        assert!(
            matches!(&told[..], [.., ClientEvent::Released { result, .. }] if is_so(result)),
            "{resumed:?}: {told:?}"
        );
    }
}
