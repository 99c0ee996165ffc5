//! What the broker says: each answer to one open question, and true.

use super::open::Open;
use super::sessions::Session;
use super::tally::{TAKEN_OVER, UNAUTHORIZED};
use super::{Ledger, Standing, Tap, Verdict, index, name};
use crate::oracle::Property;
use crate::oracle::wire::{Frames, Kind, Said, Welcome, reply};

impl Ledger {
    /// The broker has written bytes.
    pub(crate) fn said(&mut self, now_ns: u64, tap: &mut Tap, bytes: &[u8]) -> Option<Verdict> {
        if !tap.heard.native_so_far() {
            return None;
        }
        let mut verdict = None;
        let mut frames = std::mem::replace(&mut tap.said, Frames::new(false, 0));
        frames.feed(bytes, |body| {
            let Some((at_ns, tag, said)) = reply(body) else {
                let detail = "the broker wrote a frame that is no reply".to_owned();
                verdict = Some((Property::Answer, detail));
                return false;
            };
            let judged = self.reply(now_ns, tap, (at_ns, tag), &said);
            verdict = verdict.take().or(judged);
            true
        });
        tap.said = frames;
        let too_long = || {
            let detail = "the broker wrote a frame that is longer than frames may be";
            (Property::Answer, detail.to_owned())
        };
        verdict.or_else(|| tap.said.is_broken().then(too_long))
    }

    fn reply(
        &mut self,
        now_ns: u64,
        tap: &mut Tap,
        (at_ns, tag): (u64, u32),
        said: &Said,
    ) -> Option<Verdict> {
        if at_ns > now_ns {
            let detail = format!("a reply says it is {at_ns} when it is {now_ns}");
            return Some((Property::Answer, detail));
        }
        let mut open = Open::Question;
        if tag != 0 {
            let Some(answered) = tap.open.take(tag) else {
                let detail = format!("{said:?} answers tag {tag}, which has no question open");
                return Some((Property::Answer, detail));
            };
            let expected;
            (open, expected) = answered;
            self.carried_out(&open);
            if !matches!(open, Open::Question) {
                let answered = tap.commands_open.min(1);
                tap.commands_open -= answered;
                self.commands_open -= answered;
            }
            if let Some(verdict) = expected.and_then(|expected| expected.judge(at_ns, said)) {
                return Some(verdict);
            }
        }
        self.tally.count(said);
        if let Some(verdict) = self.judge_full(said).or_else(|| judge_standing(tap, said)) {
            return Some(verdict);
        }
        if let Some(verdict) = self.noticed(tap, at_ns, tag, said) {
            return Some(verdict);
        }
        if let Said::Released(id)
        | Said::Refused {
            id: Some(id),
            why: Kind::NotHeld | Kind::NotWaiting,
            ..
        } = *said
        {
            self.note_told_ended(at_ns, id);
        }
        match *said {
            Said::Welcome(welcome) => self.welcome(tap, at_ns, welcome),
            Said::Granted {
                id,
                token,
                granted_ns,
                deadline_ns,
            } => self
                .granted(tap, id, token)
                .or_else(|| self.as_granted(id, token, (granted_ns, deadline_ns))),
            Said::Released(id) | Said::Cancelled(id) => {
                let session = tap.session;
                let request = self.request(id)?;
                // After a goodbye its id may be another's.
                if session.is_none() || request.session != session {
                    return None;
                }
                let still = matches!(said, Said::Released(_)) && request.token.is_some();
                let waits = matches!(said, Said::Cancelled(_)) && request.waiting;
                (still || waits).then(|| {
                    let detail = format!("{} is said to have ended, and has not", name(id));
                    (Property::Answer, detail)
                })
            }
            Said::Renewed { id, deadline_ns } => renewed(&open, at_ns, id, deadline_ns),
            Said::ForceReleased { .. } => self.force_released(&open),
            Said::Bye => {
                tap.is_over = true;
                let left = tap.leaves.take();
                let left = left.and_then(|id| self.sessions.get_mut(id));
                if let Some(session) = left.filter(|_| tap.is_bound) {
                    session.vague = false;
                }
                None
            }
            Said::Fault { kind } => {
                tap.closed = true;
                tap.is_over = true;
                if kind == TAKEN_OVER {
                    Self::taken_over(tap);
                }
                None
            }
            _ => None,
        }
    }

    fn welcome(&mut self, tap: &mut Tap, at_ns: u64, welcome: Welcome) -> Option<Verdict> {
        let id = welcome.session;
        tap.session = Some(id);
        tap.is_bound = false;
        self.answers_lost(id);
        let mut was_in_time = false;
        if let Some((asked, turn)) = tap.resumes.take()
            && let Some(session) = self.sessions.get_mut(asked)
        {
            let is_latest = session.resumes == turn;
            session.resuming &= !is_latest;
            if asked == id && !is_latest {
                // Another connection has asked to go on with it meanwhile.
                return None;
            }
            was_in_time = asked == id;
        }
        match self.sessions.get_mut(id) {
            Some(known) => {
                if !was_in_time && known.ends_ns().is_some_and(|ends| ends < at_ns) {
                    let detail = format!("session {id} was resumed after its end");
                    return Some((Property::Disconnect, detail));
                }
                known.lost_ns = None;
                known.vague = false;
                None
            }
            None if welcome.resumed => {
                let detail = format!("session {id} was resumed and never opened");
                Some((Property::Disconnect, detail))
            }
            None => {
                self.sessions.push(Session {
                    id,
                    incarnation: welcome.incarnation,
                    window_ns: welcome.window_ns,
                    lost_ns: None,
                    ended: false,
                    resuming: false,
                    resumes: 0,
                    vague: false,
                });
                None
            }
        }
    }

    fn granted(&mut self, tap: &Tap, id: u128, token: u64) -> Option<Verdict> {
        let session = tap.session;
        let request = self.request(id)?;
        let own = request.session.is_some() && request.session == session;
        if own && request.token.is_some_and(|held| held != token) && !request.converts {
            let detail = format!(
                "{} is told token {token} and holds under {:?}",
                name(id),
                request.token
            );
            return Some((Property::Answer, detail));
        }
        request.told = Some(token);
        None
    }

    /// A grant that is told is the one that is in the books.
    pub(super) fn as_granted(
        &self,
        id: u128,
        token: u64,
        told: (u64, Option<u64>),
    ) -> Option<Verdict> {
        let request = self.requests.get(index(id)?)?;
        let mut pages = self.keys.iter().map(|key| &key.old);
        let holder = pages.find_map(|page| page.holder(id))?;
        let (granted_ns, deadline_ns) = told;
        let is_so = holder.since_ns == granted_ns
            && (holder.deadline_ns == deadline_ns || !request.renewals.is_empty());
        (holder.token == token && !is_so).then(|| {
            let detail = format!(
                "{} is told that it was granted at {granted_ns} until {deadline_ns:?}; it was at \
                 {} until {:?}",
                name(id),
                holder.since_ns,
                holder.deadline_ns
            );
            (Property::Answer, detail)
        })
    }

    /// What was held when force was asked for, and ever since, was not ended by it.
    fn force_released(&self, open: &Open) -> Option<Verdict> {
        let Open::Force { holders, .. } = open else {
            return None;
        };
        let pages = self.keys.iter().flat_map(|key| &key.old.holders);
        let mut held = holders.iter().filter(|(id, hold)| {
            pages
                .clone()
                .any(|holder| holder.id == *id && self.hold_of(holder) == *hold)
        });
        let (id, (token, _)) = held.next()?;
        let detail = format!(
            "{} was to be ended by force and still holds under token {token}",
            name(*id)
        );
        Some((Property::Orphan, detail))
    }

    /// The connection's broker has died.
    pub(crate) const fn bereft(tap: &mut Tap) {
        tap.session = None;
        tap.commands_open = 0;
    }

    /// Another connection has taken the session over: this one's end means nothing.
    pub(crate) const fn taken_over(tap: &mut Tap) {
        tap.session = None;
    }
}

/// Who has not shown what is asked for gets no session, and who has is not told so.
fn judge_standing(tap: &Tap, said: &Said) -> Option<Verdict> {
    let is_wrong = match (said, tap.standing) {
        (Said::Welcome(_), standing) => standing != Standing::Admitted,
        (Said::Fault { kind }, Standing::Admitted) => *kind == UNAUTHORIZED && !tap.is_resuming,
        _ => false,
    };
    is_wrong.then(|| {
        let detail = format!("{said:?}, and the connection is {:?}", tap.standing);
        (Property::Answer, detail)
    })
}

/// A renewal counts from when it was carried out.
fn renewed(open: &Open, at_ns: u64, id: u128, deadline_ns: Option<u64>) -> Option<Verdict> {
    let Open::Renew(asked, lease_ns) = *open else {
        let detail = format!("{} is said to be renewed, which nobody asked for", name(id));
        return Some((Property::Answer, detail));
    };
    let due_ns = lease_ns.map(|lease| at_ns.saturating_add(lease));
    (id != asked || deadline_ns != due_ns).then(|| {
        let detail = format!(
            "{} was renewed until {deadline_ns:?}; {} was to be renewed until {due_ns:?}",
            name(id),
            name(asked)
        );
        (Property::EarlyExpiry, detail)
    })
}
