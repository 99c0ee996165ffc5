//! What a client was sent, held against what it tells its user.
//!
//! The user is told what the broker's bytes said, in the call in which they arrived: places in
//! the queue, who holds, reasons, answers. What the client finds out by its own clock is not
//! judged here.

use lmx_core::client::{ClientEvent, Holder, KeyInfo, Loss, QueryAnswer, Refusal, ReleaseFailure};
use lmx_core::table::{AcquireError, ConvertError, ReleaseError};

use super::ledger::counters;
use super::wire::{Frames, KeyShown, Kind, RequestShown, Said, reply};
use crate::plan::Mode;

/// One connection's bytes towards a client.
#[derive(Debug)]
pub(crate) struct Ear {
    frames: Frames,
    /// The frames that came to their ends with the latest bytes, one after the other.
    latest: Vec<u8>,
}

/// A reply: the broker's time, its tag, and what it says.
type Reply = (u64, u32, Said);

impl Default for Ear {
    fn default() -> Self {
        Self {
            frames: Frames::new(false, u32::MAX),
            latest: Vec::new(),
        }
    }
}

impl Ear {
    /// Bytes have reached the client.
    pub(crate) fn hear(&mut self, bytes: &[u8]) {
        let latest = &mut self.latest;
        latest.clear();
        self.frames.feed(bytes, |body| {
            latest.extend_from_slice(&(body.len() as u32).to_le_bytes());
            latest.extend_from_slice(body);
            true
        });
    }

    /// Whether the user is told only what was heard; what is wrong, if not.
    pub(crate) fn judge(&self, event: &ClientEvent) -> Option<String> {
        if !is_heard(event) || self.replies().any(|reply| says(&reply, event)) {
            return None;
        }
        let latest: Vec<Reply> = self.replies().collect();
        Some(format!(
            "the user is told {event:?}, and that is not what the client heard: {latest:?}"
        ))
    }

    /// What it was told last. Only some of it is of any interest, so it is read then.
    fn replies(&self) -> impl Iterator<Item = Reply> {
        let mut rest = &self.latest[..];
        std::iter::from_fn(move || {
            let (length, bytes) = rest.split_first_chunk::<4>()?;
            let (body, after) = bytes.split_at_checked(u32::from_le_bytes(*length) as usize)?;
            rest = after;
            Some(reply(body))
        })
        .flatten()
    }
}

/// Whether it is the broker who says so.
fn is_heard(event: &ClientEvent) -> bool {
    match event {
        ClientEvent::Granted { .. }
        | ClientEvent::Queued { .. }
        | ClientEvent::Contended { .. }
        | ClientEvent::Converted { .. }
        | ClientEvent::Lost {
            why: Loss::Revoked, ..
        }
        | ClientEvent::Released {
            result: Err(ReleaseFailure::Refused(_)),
            ..
        }
        | ClientEvent::Refused {
            why: Refusal::Busy { .. } | Refusal::Revoked | Refusal::Refused(_),
            ..
        } => true,
        ClientEvent::Answered { answer, .. } => *answer != QueryAnswer::Lost,
        _ => false,
    }
}

fn says((at_ns, _, said): &Reply, event: &ClientEvent) -> bool {
    match (event, said) {
        (
            ClientEvent::Granted { id, held }
            | ClientEvent::Converted {
                id,
                result: Ok(held),
            },
            Said::Granted {
                id: of,
                token,
                deadline_ns,
                ..
            },
        ) => {
            id.as_u128() == *of
                && held.token.as_u64() == *token
                && held.deadline.map(lmx_core::Instant::as_nanos) == *deadline_ns
        }
        (ClientEvent::Queued { id, ahead }, Said::Queued { id: of, ahead: so }) => {
            id.as_u128() == *of && ahead == so
        }
        (ClientEvent::Contended { id }, Said::Contended(of)) => id.as_u128() == *of,
        (ClientEvent::Lost { id, .. }, Said::Revoked { id: of, token }) => {
            id.as_u128() == *of && token.is_some()
        }
        (
            ClientEvent::Released {
                result: Err(ReleaseFailure::Refused(error)),
                ..
            },
            _,
        ) => said_of_release(*error, said),
        (ClientEvent::Refused { id, why }, _) => said_of_refusal(*at_ns, id.as_u128(), why, said),
        (
            ClientEvent::Converted {
                result: Err(error), ..
            },
            Said::Refused { group: 12, why, .. },
        ) => *why == of_conversion(error),
        (ClientEvent::Answered { answer, .. }, _) => said_of_query(*at_ns, answer, said),
        _ => false,
    }
}

fn said_of_release(error: ReleaseError, said: &Said) -> bool {
    match (error, said) {
        (ReleaseError::NotOwner, Said::Refused { why, .. }) => *why == Kind::NotOwner,
        (ReleaseError::StillWaiting, Said::Refused { why, .. }) => *why == Kind::StillWaiting,
        // It had ended, as was told then.
        (ReleaseError::NotHeld, Said::Refused { why, .. }) => *why == Kind::NotHeld,
        (ReleaseError::NotHeld, Said::Expired { .. } | Said::Revoked { .. }) => true,
        _ => false,
    }
}

fn said_of_refusal(at_ns: u64, id: u128, why: &Refusal, said: &Said) -> bool {
    match (why, said) {
        (
            Refusal::Busy {
                key,
                holders,
                waiting,
            },
            Said::Busy {
                id: of,
                key: of_key,
                waiting: so_many,
                holders: shown,
            },
        ) => id == *of && key == of_key && waiting == so_many && are(at_ns, holders, shown),
        (Refusal::Revoked, Said::Revoked { id: of, token }) => id == *of && token.is_none(),
        (
            Refusal::Refused(error),
            Said::Refused {
                group: 4,
                why,
                limit,
                owners,
                ..
            },
        ) => {
            let (kind, named) = of_acquire(error);
            let circle = match error {
                AcquireError::Deadlock { cycle } => {
                    let named = cycle.named().map(std::num::NonZeroU32::get);
                    named.eq(owners.iter().copied())
                }
                _ => true,
            };
            kind == *why && named == *limit && circle
        }
        _ => false,
    }
}

fn said_of_query(at_ns: u64, answer: &QueryAnswer, said: &Said) -> bool {
    match (answer, said) {
        (
            QueryAnswer::Listed { keys, next },
            Said::Listed {
                keys: shown,
                next: then,
            },
        ) => next == then && keys.len() == shown.len() && keys.iter().zip(shown).all(is_key),
        (
            QueryAnswer::Inspected { key, requests },
            Said::Inspected {
                key: of,
                requests: shown,
            },
        ) => is_key((key, of)) && are(at_ns, requests, shown),
        (QueryAnswer::Status(status), Said::Status(so)) => counters(status) == **so,
        (
            QueryAnswer::ForceReleased { holders, count },
            Said::ForceReleased {
                holders: shown,
                count: so_many,
            },
        ) => count == so_many && are(at_ns, holders, shown),
        (QueryAnswer::Refused(_), Said::Refused { group: 24, .. })
        | (QueryAnswer::Pong, Said::Other) => true,
        _ => false,
    }
}

fn is_key((told, shown): (&KeyInfo, &KeyShown)) -> bool {
    told.key == shown.key
        && told.holders == shown.holders
        && told.waiters == shown.waiters
        && told.capacity == shown.capacity
}

fn are(at_ns: u64, told: &[Holder], shown: &[RequestShown]) -> bool {
    let since = |then_ns: u64| std::time::Duration::from_nanos(at_ns.saturating_sub(then_ns));
    let until = |then_ns: u64| std::time::Duration::from_nanos(then_ns.saturating_sub(at_ns));
    told.len() == shown.len()
        && told.iter().zip(shown).all(|(told, shown)| {
            let token = shown.grant.map(|(token, ..)| token);
            let deadline = shown.grant.and_then(|(_, _, deadline)| deadline);
            told.id.as_u128() == shown.id
                && is_mode(told.mode, shown.mode)
                && told.token.map(lmx_core::FencingToken::as_u64) == token
                && told.age == since(shown.since_ns)
                && told.remaining == deadline.map(until)
                && told.keep == shown.keep
                && told.label == shown.label
                && told.name == shown.name
        })
}

fn is_mode(told: lmx_core::Mode, shown: Mode) -> bool {
    match (told, shown) {
        (lmx_core::Mode::Exclusive, Mode::Exclusive) | (lmx_core::Mode::Shared, Mode::Shared) => {
            true
        }
        (
            lmx_core::Mode::Semaphore { capacity, permits },
            Mode::Semaphore {
                capacity: of,
                permits: so_many,
            },
        ) => capacity == of && permits == so_many,
        _ => false,
    }
}

/// What kind of refusal it is, and the limit that it names.
fn of_acquire(error: &AcquireError) -> (Kind, Option<u64>) {
    let nanos = |time: std::time::Duration| u64::try_from(time.as_nanos()).unwrap_or(u64::MAX);
    match *error {
        AcquireError::UnknownSession => (Kind::UnknownSession, None),
        AcquireError::Busy => (Kind::Busy, None),
        AcquireError::NoKeys => (Kind::NoKeys, None),
        AcquireError::TooManyKeys { max } => (Kind::TooManyKeys, Some(u64::from(max))),
        AcquireError::DuplicateKey => (Kind::DuplicateKey, None),
        AcquireError::KeyEmpty => (Kind::KeyEmpty, None),
        AcquireError::KeyTooLong { max } => (Kind::KeyTooLong, Some(u64::from(max))),
        AcquireError::LabelTooLong { max } => (Kind::LabelTooLong, Some(u64::from(max))),
        AcquireError::LeaseZero => (Kind::LeaseZero, None),
        AcquireError::LeaseTooLong { max } => (Kind::LeaseTooLong, Some(nanos(max))),
        AcquireError::LockDelayTooLong { max } => (Kind::LockDelayTooLong, Some(nanos(max))),
        AcquireError::FrontWithManyKeys => (Kind::FrontWithManyKeys, None),
        AcquireError::IdInUse => (Kind::IdInUse, None),
        AcquireError::Deadlock { .. } => (Kind::Deadlock, None),
        AcquireError::Full { max, .. } => (Kind::Full, Some(u64::from(max))),
        AcquireError::ReclaimConflict => (Kind::ReclaimConflict, None),
        AcquireError::ReclaimTooLate => (Kind::ReclaimTooLate, None),
        AcquireError::Ended => (Kind::Ended, None),
        _ => (Kind::Permits, None),
    }
}

const fn of_conversion(error: &ConvertError) -> Kind {
    match error {
        ConvertError::NotHeld => Kind::NotHeld,
        ConvertError::NotOwner => Kind::NotOwner,
        ConvertError::NotConvertible => Kind::NotConvertible,
        ConvertError::UpgradeConflict => Kind::UpgradeConflict,
        _ => Kind::Deadlock,
    }
}

#[cfg(test)]
mod tests {
    use lmx_core::RequestId;

    use super::*;

    const OURS: RequestId = RequestId::from_u128(7);

    /// The broker's frame that says that request 7 waits behind 3 others.
    fn queued() -> Vec<u8> {
        let body = [&[1, 1, 2, 16][..], &7_u128.to_be_bytes(), &[3]].concat();
        [&(body.len() as u32).to_le_bytes()[..], &body].concat()
    }

    const fn told(id: RequestId, ahead: u32) -> ClientEvent {
        ClientEvent::Queued { id, ahead }
    }

    #[test]
    fn a_user_is_told_what_was_heard_and_nothing_else() {
        let mut ear = Ear::default();
        assert!(ear.judge(&told(OURS, 3)).is_some(), "nothing was heard");
        let frame = queued();
        ear.hear(&frame[..9]);
        assert!(ear.judge(&told(OURS, 3)).is_some(), "half was heard");
        ear.hear(&[&frame[9..], &frame[..5]].concat());
        assert_eq!(ear.judge(&told(OURS, 3)), None);
        assert!(ear.judge(&told(OURS, 2)).is_some(), "another place");
        let other = RequestId::from_u128(8);
        assert!(ear.judge(&told(other, 3)).is_some(), "of another");
        let contended = ClientEvent::Contended { id: OURS };
        assert!(ear.judge(&contended).is_some(), "something else");
        // What the client finds out by itself needs no word of the broker's.
        assert_eq!(ear.judge(&ClientEvent::Disconnected), None);
        ear.hear(&frame[5..]);
        assert_eq!(ear.judge(&told(OURS, 3)), None);
    }
}
