//! Fencing tokens: which ones a protocol is convicted of, and which it is not.

use std::time::Duration;

use lmx_sim::RunOptions;
use lmx_sim::plan::FaultSet;
use lmx_sim::protocol::{
    AnyProtocol as _, Client, Context, Contract, Exclusion, Grant, NodeId, Protocol, Request,
    Server,
};

const LEASE_NS: u64 = 1_000_000_000;
/// More than clocks drift apart in a lease.
const MARGIN_NS: u64 = 3_000_000;

/// How the server numbers its grants.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Numbers {
    /// As it should: one more for each grant.
    Rising,
    /// The same, but the first is 0.
    FromZero,
    /// One more than the largest that was granted when it was asked for: those who wait at
    /// one time share a token.
    SharedByWaiters,
    /// One more for each request, and who asked last is served first.
    LastFirst,
}

/// A queue with leases, and a server that stays quiet for one after each start.
struct Lock {
    numbers: Numbers,
    exclusion: Exclusion,
}

#[derive(Clone, Copy, Debug, Hash)]
struct Ask {
    ticket: u32,
    key: u32,
    sent_ns: u64,
}

#[derive(Clone, Debug, Hash)]
enum Message {
    Ask(Ask),
    Give { ask: Ask, token: u64 },
    Free { ticket: u32 },
}

struct LockServer {
    numbers: Numbers,
    waiters: Vec<(NodeId, Ask, u64)>,
    /// Key, ticket and end of each hold.
    holds: Vec<(u32, u32, u64)>,
    quiet_until_ns: u64,
}

impl LockServer {
    fn serve(&mut self, cx: &mut Context<'_, Message>, last_token: &mut u64) {
        let now_ns = cx.now_ns();
        if now_ns < self.quiet_until_ns {
            return;
        }
        self.holds.retain(|(_, _, until_ns)| *until_ns > now_ns);
        while let Some(place) = self.next() {
            let (client, ask, asked_token) = self.waiters.remove(place);
            let token = match self.numbers {
                Numbers::Rising | Numbers::FromZero => {
                    *last_token += 1;
                    *last_token - u64::from(self.numbers == Numbers::FromZero)
                }
                Numbers::SharedByWaiters => {
                    *last_token = asked_token.max(*last_token);
                    asked_token
                }
                Numbers::LastFirst => asked_token,
            };
            self.holds.push((ask.key, ask.ticket, now_ns + LEASE_NS));
            cx.set_timer(u64::from(ask.ticket), now_ns + LEASE_NS);
            cx.send(client, Message::Give { ask, token });
        }
    }

    /// Who is granted next.
    fn next(&self) -> Option<usize> {
        let is_free =
            |(_, ask, _): &(NodeId, Ask, u64)| self.holds.iter().all(|(key, _, _)| *key != ask.key);
        if self.numbers == Numbers::LastFirst {
            self.waiters.iter().rposition(is_free)
        } else {
            self.waiters.iter().position(is_free)
        }
    }
}

impl Server<Message> for LockServer {
    type Disk = u64;

    fn start(&mut self, cx: &mut Context<'_, Message>, _: &mut u64) {
        self.quiet_until_ns = cx.now_ns() + LEASE_NS;
        cx.set_timer(u64::MAX - 1, self.quiet_until_ns);
    }

    fn handle_message(
        &mut self,
        cx: &mut Context<'_, Message>,
        last_token: &mut u64,
        from: NodeId,
        message: Message,
    ) {
        match message {
            Message::Ask(ask) => {
                if self.numbers == Numbers::LastFirst {
                    *last_token += 1;
                }
                let token = match self.numbers {
                    Numbers::LastFirst => *last_token,
                    _ => *last_token + 1,
                };
                self.waiters.push((from, ask, token));
            }
            Message::Free { ticket } => self.holds.retain(|(_, of, _)| *of != ticket),
            Message::Give { .. } => {}
        }
        self.serve(cx, last_token);
    }

    fn handle_timer(&mut self, cx: &mut Context<'_, Message>, last_token: &mut u64, _: u64) {
        self.serve(cx, last_token);
    }
}

struct LockClient;

impl Client<Message> for LockClient {
    fn acquire(&mut self, cx: &mut Context<'_, Message>, request: Request) {
        cx.send(
            0,
            Message::Ask(Ask {
                ticket: request.ticket,
                key: request.key,
                sent_ns: cx.now_ns(),
            }),
        );
    }

    fn release(&mut self, cx: &mut Context<'_, Message>, ticket: u32) {
        cx.send(0, Message::Free { ticket });
    }

    fn handle_message(&mut self, cx: &mut Context<'_, Message>, _: NodeId, message: Message) {
        if let Message::Give { ask, token } = message {
            cx.granted(
                ask.ticket,
                Grant {
                    // It cannot have been given before it was asked for.
                    good_until_ns: Some(ask.sent_ns + LEASE_NS - MARGIN_NS),
                    token: Some(token),
                },
            );
        }
    }
}

impl Protocol for Lock {
    type Message = Message;
    type Server = LockServer;
    type Client = LockClient;

    fn name(&self) -> &'static str {
        "numbers"
    }

    fn about(&self) -> &'static str {
        "a queue with leases and tokens"
    }

    fn contract(&self) -> Contract {
        Contract {
            exclusion: self.exclusion,
            bypass_max: None,
            liveness: None,
        }
    }

    fn lease(&self) -> Duration {
        Duration::from_nanos(LEASE_NS)
    }

    fn server(&self, _: NodeId) -> LockServer {
        LockServer {
            numbers: self.numbers,
            waiters: Vec::new(),
            holds: Vec::new(),
            quiet_until_ns: 0,
        }
    }

    fn client(&self, _: NodeId) -> LockClient {
        LockClient
    }
}

const UNDER_DRIFT: Exclusion = Exclusion::UnderDrift { ppm: 1_000 };

/// The first violation among many seeds.
fn violation(numbers: Numbers, exclusion: Exclusion) -> Option<(u64, String)> {
    let lock = Lock { numbers, exclusion };
    (0..1_000).find_map(|seed| {
        let outcome = lock.run(&lock.plan(seed, FaultSet::ALL), &RunOptions::default());
        Some((seed, outcome.violation?.to_string()))
    })
}

/// That violation, which is one of the order of tokens.
fn convicted(numbers: Numbers, exclusion: Exclusion) -> String {
    let (seed, violation) = violation(numbers, exclusion).expect("some seed convicts it");
    println!(
        "{numbers:?}, {}: seed {seed}: {violation}",
        exclusion.name()
    );
    assert!(violation.starts_with("token-order"), "{violation}");
    violation
}

#[test]
fn tokens_that_rise_are_acquitted_from_0_on() {
    for numbers in [Numbers::Rising, Numbers::FromZero] {
        for exclusion in [UNDER_DRIFT, Exclusion::FencedOnly] {
            assert_eq!(violation(numbers, exclusion), None, "{numbers:?}");
        }
    }
}

#[test]
fn a_token_that_two_have_is_convicted_whatever_is_promised() {
    for exclusion in [UNDER_DRIFT, Exclusion::FencedOnly] {
        let violation = convicted(Numbers::SharedByWaiters, exclusion);
        assert!(violation.contains("was told already"), "{violation}");
    }
}

#[test]
fn a_token_that_goes_down_between_holds_that_exclude_each_other_is_convicted() {
    let violation = convicted(Numbers::LastFirst, UNDER_DRIFT);
    assert!(violation.contains("had been told before"), "{violation}");
}

/// Where several may believe to hold, it may be that the smaller one was given earlier.
#[test]
fn a_token_that_goes_down_among_those_that_waited_together_is_not_where_only_fencing_is() {
    assert_eq!(violation(Numbers::LastFirst, Exclusion::FencedOnly), None);
}
