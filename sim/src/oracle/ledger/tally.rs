//! What the broker counts, counted anew: from what it was seen to say and to hold.

use super::{Ledger, Verdict};
use crate::oracle::Property;
use crate::oracle::wire::{Counters, Kind, Said};

/// The kind of fault of a connection whose session another one has resumed.
pub(super) const TAKEN_OVER: u64 = 8;

/// That of a connection that has not shown what is asked for.
pub(super) const UNAUTHORIZED: u64 = 4;

/// That of a connection for whose session there is no room.
const FULL: u64 = 5;

/// There are many counters: they are looked at each time that the books were so often.
const COUNT_EVERY: u64 = 16;

/// The counts of one run of the broker.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Tally {
    counted: Counters,
    started_ns: u64,
    /// Grants and expiries that were surely seen on the pages.
    grants_min: u64,
    expiries_min: u64,
    /// Holds that may have come from an earlier run of the broker, and may end in this one.
    reclaims_max: u64,
    is_restored: bool,
    /// The token before the first grant, once it is known.
    token_base: Option<u64>,
    /// The broker may have counted what nobody was shown.
    is_vague: bool,
    /// All it had to say was said when it was last looked at.
    is_quiet: bool,
    /// How often the books had been looked at when the counters last were.
    counted_at: u64,
}

impl Ledger {
    /// A broker has started.
    pub(crate) fn broker_started(&mut self, now_ns: u64) {
        self.tally = Tally {
            started_ns: now_ns,
            is_restored: self.has_been_down,
            ..Tally::default()
        };
    }

    /// The broker has taken a connection in.
    pub(crate) const fn connected(&mut self) {
        self.tally.counted.connections_total += 1;
    }

    /// The broker has no room for a connection.
    pub(crate) const fn connection_refused(&mut self, is_full: bool) {
        self.tally.counted.refused += is_full as u64;
        self.tally.counted.refused_connections += is_full as u64;
    }

    /// Something was refused or ended, and not all that the broker had to say of it was said.
    pub(crate) const fn unsaid(&mut self) {
        self.tally.is_vague = true;
    }

    /// Whether the counters are to be looked at.
    pub(crate) const fn is_time_to_count(&self) -> bool {
        self.settled >= self.tally.counted_at + COUNT_EVERY
    }

    /// Not known to be quiet, until that is looked at again.
    pub(crate) const fn note_unquiet(&mut self) {
        self.tally.is_quiet = false;
    }

    /// The broker has nothing to say, and so many connections.
    pub(crate) const fn note_quiet(&mut self, connections: usize) {
        self.tally.is_quiet = true;
        self.tally.counted.connections = connections as u64;
    }

    /// What a status must say now.
    pub(super) fn expected_status(&self, now_ns: u64) -> Box<Tally> {
        let (held, waiting, last_token, keys) = self.counts;
        let mut tally = self.tally;
        tally.is_vague |= self.has_lines;
        let counted = &mut tally.counted;
        counted.uptime_ns = now_ns - tally.started_ns;
        counted.keys = keys;
        counted.held = held;
        counted.waiting = waiting;
        counted.last_token = last_token;
        counted.grace_ns = self
            .grace_until_ns
            .map(|until| until.saturating_sub(now_ns));
        let live = self.sessions.iter().filter(|session| {
            !session.may_be_over(now_ns) && !session.resuming && session.lost_ns.is_none()
        });
        counted.sessions = live.count() as u64;
        Box::new(tally)
    }

    /// Holds the broker's counters against what was counted here.
    pub(crate) fn judge_status(
        &mut self,
        now_ns: u64,
        status: &lmx_core::wire::Status,
    ) -> Option<Verdict> {
        if !self.tally.is_quiet || self.may_change() {
            return None;
        }
        self.tally.counted_at = self.settled;
        let shown = counters(status);
        self.tally.token_base = self.tally.token_base.or(base_of(&shown));
        let wrong = self.expected_status(now_ns).differs(&shown)?;
        let detail = format!("the broker's counters are wrong: {wrong}");
        Some((Property::Answer, detail))
    }

    /// A hold has surely ended because its lease had.
    pub(super) const fn note_expiry(&mut self) {
        self.tally.expiries_min += 1;
    }

    /// A hold under a token of its own is on the page.
    pub(super) const fn note_grant(&mut self) {
        self.tally.grants_min += 1;
    }

    /// A hold of an earlier run may be taken in.
    pub(super) const fn note_reclaim(&mut self) {
        self.tally.reclaims_max += 1;
    }
}

impl Tally {
    /// Counts what the broker says.
    pub(super) fn count(&mut self, said: &Said) {
        let counted = &mut self.counted;
        match said {
            Said::Welcome(welcome) => {
                counted.incarnation = welcome.incarnation;
                counted.resumes += u64::from(welcome.resumed);
                counted.sessions_total += u64::from(!welcome.resumed);
            }
            Said::Busy { .. } => counted.refused_busy += 1,
            Said::Fault { kind } => {
                counted.faults += 1;
                if let Some(count) = counted.faults_of.get_mut(*kind as usize) {
                    *count += 1;
                }
                // It is the only thing that is refused by a fault.
                let is_full = u64::from(*kind == FULL);
                counted.refused += is_full;
                counted.refused_sessions += is_full;
            }
            Said::Refused {
                group, why, full, ..
            } => match why {
                Kind::Full => {
                    counted.refused += 1;
                    match full {
                        Some(0) => counted.refused_keys += 1,
                        Some(1 | 4) => counted.refused_requests += 1,
                        Some(2) => counted.refused_requests_per_session += 1,
                        _ => counted.refused_bytes += 1,
                    }
                }
                Kind::IdInUse
                | Kind::Deadlock
                | Kind::ReclaimConflict
                | Kind::ReclaimTooLate
                | Kind::UpgradeConflict => counted.refused_conflicts += 1,
                Kind::UnknownSession | Kind::NotHeld | Kind::NotOwner | Kind::StillWaiting => {
                    counted.refused_absent += 1;
                }
                _ if matches!(group, 6 | 10) => counted.refused_absent += 1,
                _ => counted.refused_invalid += 1,
            },
            _ => {}
        }
    }

    /// What is shown that is not so.
    pub(super) fn differs(&self, shown: &Counters) -> Option<String> {
        let counts = |of: &Counters| (of.held, of.waiting, of.last_token, of.keys);
        let (expected, so) = (counts(&self.counted), counts(shown));
        if expected != so {
            return Some(format!(
                "held, waiting, last token and keys are {so:?}, where right is {expected:?}"
            ));
        }
        if !self.is_quiet {
            return None;
        }
        // A connection may have ended before it was told why: that is counted, and not seen.
        let mut each = std::iter::zip(shown.faults_of, self.counted.faults_of);
        let is_sum = shown.faults == shown.faults_of.iter().sum::<u64>();
        if !is_sum || each.any(|(so, told)| so < told) {
            return Some(format!(
                "{} faults, {:?} by kind, where {:?} were told",
                shown.faults, shown.faults_of, self.counted.faults_of
            ));
        }
        // A hold may have begun and expired while nobody looked.
        let expiries_max = if self.is_restored {
            u64::MAX
        } else {
            shown.grants + self.reclaims_max
        };
        if !(self.expiries_min..=expiries_max).contains(&shown.expiries) {
            return Some(format!(
                "{} expiries, where {} were seen and {expiries_max} can be",
                shown.expiries, self.expiries_min
            ));
        }
        let base = self.token_base.or_else(|| base_of(shown));
        let is_base = base == base_of(shown) || shown.grants == 0 || self.reclaims_max > 0;
        if shown.grants < self.grants_min || !is_base {
            return Some(format!(
                "{} grants up to token {}, where {} were seen after token {base:?}",
                shown.grants, shown.last_token, self.grants_min
            ));
        }
        if shown.sessions < self.counted.sessions {
            return Some(format!(
                "{} sessions, where {} are known",
                shown.sessions, self.counted.sessions
            ));
        }
        if self.is_vague {
            return None;
        }
        let expected = Counters {
            expiries: shown.expiries,
            grants: shown.grants,
            sessions: shown.sessions,
            faults: shown.faults,
            faults_of: shown.faults_of,
            // It is said to whoever opens a session.
            incarnation: match self.counted.incarnation {
                0 => shown.incarnation,
                said => said,
            },
            ..self.counted
        };
        (expected != *shown).then(|| format!("{shown:?}, where right is {expected:?}"))
    }
}

/// The last token before the first grant.
const fn base_of(shown: &Counters) -> Option<u64> {
    if shown.grants == 0 {
        return None;
    }
    Some(shown.last_token.wrapping_sub(shown.grants))
}

/// The same, out of the broker itself.
pub(crate) fn counters(status: &lmx_core::wire::Status) -> Counters {
    Counters {
        uptime_ns: nanos(status.uptime),
        incarnation: status.incarnation,
        connections: u64::from(status.connections),
        sessions: u64::from(status.sessions),
        keys: status.keys,
        held: status.held,
        waiting: status.waiting,
        last_token: status.last_token,
        grants: status.grants,
        expiries: status.expiries,
        refused: status.refused,
        faults: status.faults,
        grace_ns: status.grace.map(nanos),
        connections_total: status.connections_total,
        sessions_total: status.sessions_total,
        resumes: status.resumes,
        refused_busy: status.refused_busy,
        refused_connections: status.refused_connections,
        refused_sessions: status.refused_sessions,
        refused_keys: status.refused_keys,
        refused_requests: status.refused_requests,
        refused_requests_per_session: status.refused_requests_per_session,
        refused_bytes: status.refused_bytes,
        refused_invalid: status.refused_invalid,
        refused_conflicts: status.refused_conflicts,
        refused_absent: status.refused_absent,
        faults_of: [
            status.faults_magic,
            status.faults_malformed,
            status.faults_frame_too_long,
            status.faults_out_of_order,
            status.faults_unauthorized,
            status.faults_full,
            status.faults_idle,
            status.faults_slow_reader,
            status.faults_taken_over,
        ],
    }
}

fn nanos(duration: std::time::Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}
