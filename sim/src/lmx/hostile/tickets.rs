//! What goes wrong before a session has begun: other protocols, and tickets.

use std::time::Duration;

use lmx_core::wire::{Command, MAGIC, Ticket};
use lmx_core::{FencingToken, RequestId, SessionId};

use super::super::driver::Driver;
use super::{Hostile, Session, with_fields};
use crate::rng::Draws;

/// What it calls itself when it goes on with its session.
const NAMES: [&str; 3] = ["hostile", "friendly", ""];

/// The first bytes of TLS, or of a later version of the native protocol.
pub(super) fn other_protocol(bytes: &mut Vec<u8>, draws: Draws) {
    let later = [MAGIC[0], MAGIC[1], MAGIC[2], MAGIC[3] + 1];
    let tls = [22, 3, 1, 2, 0];
    let first: &[u8] = if draws.chance(0, 500_000) {
        &later
    } else {
        &tls
    };
    bytes.extend_from_slice(first);
}

impl Driver<'_> {
    /// Goes on with a session, or tries to.
    pub(super) fn show_ticket(
        &self,
        bytes: &mut Vec<u8>,
        draws: Draws,
        what: Hostile,
        own: Option<Ticket>,
    ) {
        let mut session = Session::new(self.setup.tight.token());
        let id = RequestId::from_u128(u128::from(draws.bits(0)) << 64 | u128::from(u32::MAX));
        match what {
            Hostile::Forge => session.resume(bytes, Some(forged(draws, own)), NAMES[0]),
            Hostile::Rename { key } => {
                session.resume(bytes, own, NAMES[draws.below(1, 3) as usize]);
                session.acquire(bytes, id, key);
            }
            Hostile::Claim { op } => {
                session.resume(bytes, own, NAMES[0]);
                let key = self.lock_of(op).map_or(0, |lock| lock.wants[0].key);
                session.claim(bytes, id, key);
            }
            _ => {}
        }
    }
}

impl Session {
    fn resume(&mut self, bytes: &mut Vec<u8>, ticket: Option<Ticket>, name: &str) {
        self.open(bytes, Duration::from_secs(4), ticket, name);
    }

    /// Under the first token of all: with a later one than its own, a kept hold would have
    /// to give way, for who resumes a session is believed.
    fn claim(&mut self, bytes: &mut Vec<u8>, id: RequestId, key: u32) {
        with_fields(id, key, |request| {
            let token = FencingToken::FIRST;
            self.send(bytes, Command::Reclaim { request, token });
        });
    }
}

/// A ticket with a secret of its own making: of this run of the broker or of another one.
fn forged(draws: Draws, own: Option<Ticket>) -> Ticket {
    let mut ticket = own.unwrap_or(Ticket {
        incarnation: 1,
        session: SessionId::from_u64(1),
        secret: [0; 16],
    });
    ticket.secret[0] ^= 1 << draws.below(0, 8);
    match draws.below(1, 4) {
        0 => ticket.incarnation += 1,
        1 => ticket.incarnation -= 1,
        _ => {}
    }
    ticket
}
