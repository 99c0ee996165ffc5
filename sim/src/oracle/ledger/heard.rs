//! What reaches the broker: noted, never judged.

use super::answers::{Expected, label_hash};
use super::books::{Ask, KeyBook, Renewal, Request};
use super::open::Open;
use super::{Ledger, Standing, Tap, index};
use crate::oracle::wire::{Asked, Frames, Heard, Line, asked_in_line, command, shows_token};
use crate::plan::Mode;

impl Ledger {
    /// Bytes have reached the broker, which carries them out `at_once`, and before anything else
    /// that is due, or at some time.
    pub(crate) fn heard(&mut self, now_ns: u64, tap: &mut Tap, bytes: &[u8], at_once: bool) {
        if tap.closed || (tap.heard.native_so_far() && !tap.heard.is_native()) {
            self.heard = true;
            return;
        }
        let mut is_first = at_once;
        let mut frames = std::mem::replace(&mut tap.heard, Frames::new(false, 0));
        frames.feed(bytes, |body| {
            let Some((tag, heard)) = command(body) else {
                return false;
            };
            let at_once = std::mem::take(&mut is_first);
            let expected = self.expect(now_ns, tap, &heard, at_once);
            if heard == Heard::Goodbye && !at_once {
                tap.leaves = tap.session;
            }
            self.command(now_ns, tap, tag, heard, expected);
            true
        });
        tap.heard = frames;
        self.heard |= !tap.heard.is_native() && tap.heard.native_so_far();
        if !tap.heard.native_so_far() {
            self.has_lines = true;
            // Whatever comes, lines that were kept back may go on with it.
            self.heard |= !at_once;
            let mut lines = std::mem::take(&mut tap.lines);
            lines.feed(bytes, |line| {
                self.heard = true;
                if tap.standing == Standing::Unknown
                    && let Some(token) = self.limits.token
                {
                    tap.standing = match shows_token(line, token) {
                        true => Standing::Admitted,
                        false if line.trim_ascii().is_empty() => Standing::Unknown,
                        false => Standing::Refused,
                    };
                } else if tap.standing != Standing::Refused {
                    self.line(asked_in_line(line));
                }
            });
            tap.lines = lines;
        }
    }

    /// What was heard before, and had to wait, may be carried out now.
    pub(crate) const fn goes_on(&mut self) {
        self.heard = true;
    }

    fn line(&mut self, line: Line) {
        let often = match line {
            Line::Asks { is_shared, .. } if !is_shared => 1,
            // It may ask for anything, and for any number.
            Line::Asks { .. } | Line::Unread => u32::MAX,
            _ => 0,
        };
        self.asks = self.asks.saturating_add(often);
        match line {
            Line::Asks { id, key, front, .. } => self.asked_in_line(id, &key, front),
            Line::Ends { id } => {
                if let Some(request) = self.request(id) {
                    request.may_end = true;
                }
            }
            Line::Forces { key } => {
                let mut keys = self.keys.iter_mut();
                if let Some(key) = keys.find(|it| it.name == key.as_bytes()) {
                    key.forced = true;
                }
            }
            Line::AsksNothing => {}
            Line::Unread => self.complete = false,
        }
    }

    fn command(
        &mut self,
        now_ns: u64,
        tap: &mut Tap,
        tag: u32,
        heard: Heard,
        expected: Option<Expected>,
    ) {
        if tap.standing == Standing::Refused {
            // Nothing is carried out any more.
            return;
        }
        self.heard |= !heard.is_question();
        let nothing_is_open = self.commands_open == 0;
        let mut open = if heard.is_question() {
            Open::Question
        } else {
            tap.commands_open += 1;
            self.commands_open += 1;
            Open::Other
        };
        match heard {
            Heard::Hello {
                token,
                name_bytes,
                resumes,
            } => {
                let is_right = self
                    .limits
                    .token
                    .is_none_or(|right| right.as_bytes() == token);
                tap.is_resuming = resumes.is_some();
                if is_right && name_bytes <= self.limits.name_bytes_max as usize {
                    tap.standing = Standing::Admitted;
                    self.resuming(now_ns, tap, resumes);
                } else {
                    tap.standing = Standing::Refused;
                }
            }
            Heard::Acquire(asked) => open = self.asked(now_ns, tap, &asked, None),
            Heard::Reclaim(asked, token) => open = self.asked(now_ns, tap, &asked, Some(token)),
            Heard::Release(id) | Heard::Cancel(id) => {
                if let Some(request) = self.request(id)
                    && request.may_be_touched(tap)
                {
                    request.may_end = true;
                    request.given_back = true;
                    request.may_give_up = true;
                }
            }
            Heard::ForceRequest(id) => {
                if let Some(request) = self.request(id) {
                    request.may_end = true;
                    request.notes.may_be_revoked = true;
                }
            }
            Heard::ForceKey(name) => {
                if let Some(at) = self.keys.iter().position(|key| key.name == name) {
                    self.keys[at].forces_open += 1;
                    self.keys[at].forced = true;
                    if self.keys[at].asks_open > 0 {
                        // Both may be carried out later, in one call.
                        let unseen =
                            |request: &&mut Request| request.asked && request.token.is_none();
                        for request in self.requests.iter_mut().filter(unseen) {
                            request.notes.may_be_revoked = true;
                        }
                    }
                    let holders = self.keys[at].old.holders.iter();
                    open = Open::Force {
                        key: at,
                        holders: holders
                            .map(|holder| (holder.id, self.hold_of(holder)))
                            .collect(),
                    };
                }
            }
            Heard::Convert { id, downgrade } => {
                if let Some(request) = self.request(id)
                    && request.may_be_touched(tap)
                {
                    request.converts = true;
                    request.may_give_up = downgrade;
                }
                // One that is to be alone waits on whichever key it holds.
                open = self.may_wait(id, u64::MAX);
            }
            Heard::Goodbye => self.session_lost(now_ns, tap, true),
            Heard::Renew { id, lease_ns } => {
                open = Open::Renew(id, lease_ns);
                if let Some(request) = self.request(id)
                    && request.may_be_touched(tap)
                {
                    if nothing_is_open {
                        request.renewals.clear();
                    }
                    request.renewals.push(Renewal::heard(now_ns, lease_ns));
                }
            }
            Heard::Inspect { .. } | Heard::List { .. } | Heard::Status | Heard::Ping => {}
        }
        tap.open.push(tag, open, expected);
    }

    pub(super) fn asked(
        &mut self,
        now_ns: u64,
        tap: &Tap,
        asked: &Asked,
        reclaimed: Option<u64>,
    ) -> Open {
        let session = tap.session;
        self.note_room(asked);
        if reclaimed.is_some() {
            self.note_reclaim();
        }
        let is_new = self
            .request(asked.id)
            .is_some_and(|request| !request.waiting && request.token.is_none());
        let mut wanted = 0;
        for (name, mode) in &asked.wants {
            let Some(place) = self.keys.iter().position(|key| key.name == *name) else {
                self.complete = false;
                continue;
            };
            wanted |= key_bit(place);
            let key = &mut self.keys[place];
            key.lock_delay_ns_max = key.lock_delay_ns_max.max(asked.lock_delay_ns);
            if let Mode::Semaphore { capacity, .. } = mode {
                key.capacities_open.push((asked.id, *capacity));
            } else if let Some(named) = key.capacities_open.iter().find(|it| it.0 == asked.id) {
                // Which of the two requests under this id enters is not known.
                key.capacities_open.push(*named);
            }
        }
        self.has_owners |= asked.owner != 0;
        let open = self.may_wait(asked.id, wanted);
        let place = index(asked.id).filter(|at| *at < self.requests.len());
        let Some(place) = place else {
            self.complete = false;
            return open;
        };
        self.heard_of.push(place);
        let request = &mut self.requests[place];
        request.heard = true;
        if reclaimed.is_some() {
            request.reclaimed = reclaimed;
        }
        let ask = Ask {
            at_ns: now_ns,
            session,
            keep: asked.keep,
            label: label_hash(&asked.label),
            owner: asked.owner,
            lock_delay_ns: asked.lock_delay_ns,
            notifies: asked.notifies,
            lease_ns: asked.lease_ns,
            wait_ns: asked.wait_ns,
        };
        // A repeat of a request that waits or holds changes nothing, unless that is over
        // when the repeat is carried out.
        if is_new {
            request.begin(ask);
        } else if reclaimed.is_none() {
            request.again = Some(ask);
            request.notes.asked_again();
        }
        open
    }

    /// Notes how much room there may be taken.
    fn note_room(&mut self, asked: &Asked) {
        let of_keys = asked.wants.iter().map(|(key, _)| key.len().div_ceil(28));
        let pieces = of_keys.sum::<usize>() + asked.label.len().div_ceil(28);
        self.asks = self.asks.saturating_add(1);
        self.claims_asked = self.claims_asked.saturating_add(asked.wants.len() as u32);
        self.pieces_asked = self.pieces_asked.saturating_add(pieces as u32);
    }

    /// Of what a live-mutex client asks for, nothing more is read; what was known of an
    /// earlier request under the same id is not true of this one.
    fn asked_in_line(&mut self, id: u128, key: &str, front: bool) {
        let is_known = self.keys.iter().any(|it| it.name == key.as_bytes());
        self.complete &= is_known && self.request(id).is_some();
        let Some(place) = index(id).filter(|at| *at < self.requests.len()) else {
            return;
        };
        self.heard_of.push(place);
        let request = &mut self.requests[place];
        if request.waiting || request.token.is_some() {
            request.again = Some(Ask::default());
        } else {
            *request = Request {
                asked: true,
                heard: request.heard,
                ..Request::default()
            };
        }
        request.front |= front;
    }

    /// What the session's connection was shown may lag behind what became of it.
    fn resuming(&mut self, now_ns: u64, tap: &mut Tap, resumes: Option<(u64, u64)>) {
        let known = resumes.and_then(|(incarnation, id)| {
            let session = self.sessions.get_mut(id)?;
            (session.incarnation == incarnation).then_some(session)
        });
        if let Some(session) = known
            && session.ends_ns().is_none_or(|ends| ends > now_ns)
        {
            session.resuming = true;
            session.resumes += 1;
            tap.resumes = Some((session.id, session.resumes));
        }
    }

    /// The broker learned that a connection is gone, or decided that it is.
    pub(crate) fn connection_lost(&mut self, now_ns: u64, tap: &mut Tap) {
        self.heard = true;
        // Other answers may still be on their way; nothing more is carried out.
        for open in tap.open.iter_mut() {
            if matches!(open, Open::Force { .. } | Open::Ask { .. }) {
                self.carried_out(&std::mem::replace(open, Open::Other));
            }
        }
        self.commands_open -= std::mem::take(&mut tap.commands_open);
        self.session_lost(now_ns, tap, false);
    }

    /// The broker has given a connection up that was not told yet that it goes on with its
    /// session: that is shown late, or never.
    pub(crate) fn given_up_untold(&mut self, now_ns: u64, tap: &Tap) {
        if let Some((id, turn)) = tap.resumes
            && let Some(session) = self.sessions.get_mut(id)
            && session.resumes == turn
        {
            session.lost_ns = Some(now_ns);
            session.vague = true;
        }
    }

    /// What was asked for was answered, or never will be.
    pub(super) fn carried_out(&mut self, open: &Open) {
        match open {
            Open::Force { key, .. } => {
                let key = &mut self.keys[*key];
                key.forces_open = key.forces_open.saturating_sub(1);
                key.forced = key.forces_open > 0;
            }
            Open::Ask { id, keys } => {
                for (_, key) in self.among(*keys) {
                    key.asks_open = key.asks_open.saturating_sub(1);
                    let named = key.capacities_open.iter().position(|(by, _)| by == id);
                    if let Some(place) = named {
                        key.capacities_open.swap_remove(place);
                    }
                }
            }
            Open::Renew(..) | Open::Other | Open::Question => {}
        }
    }

    /// A request may begin to wait for these keys.
    fn may_wait(&mut self, id: u128, keys: u64) -> Open {
        for (_, key) in self.among(keys) {
            key.asked = true;
            key.asks_open += 1;
        }
        Open::Ask { id, keys }
    }

    fn among(&mut self, keys: u64) -> impl Iterator<Item = (usize, &mut KeyBook)> {
        let all = self.keys.iter_mut().enumerate();
        all.filter(move |(place, _)| keys & key_bit(*place) != 0)
    }

    fn session_lost(&mut self, now_ns: u64, tap: &mut Tap, for_good: bool) {
        tap.closed = true;
        let resumed = tap.resumes.take();
        let Some(id) = tap.session.take().or(resumed.map(|(id, _)| id)) else {
            return;
        };
        if let Some(session) = self.sessions.get_mut(id)
            && match resumed {
                Some((_, turn)) => session.resumes == turn,
                None => session.lost_ns.is_none(),
            }
        {
            session.resuming = false;
            session.lost_ns = Some(now_ns);
            session.ended = for_good;
            // What had to wait is carried out at some time.
            session.vague = !tap.is_bound || tap.leaves == Some(id);
        }
    }
}

/// Keys beyond the first 64 share bits with others.
const fn key_bit(place: usize) -> u64 {
    1 << (place % 64)
}

impl Request {
    /// Whether the session of this connection may end, extend and convert it.
    fn may_be_touched(&self, tap: &Tap) -> bool {
        self.session.is_none() || self.session == tap.session || self.keep
    }
}
