//! Nodes that do what a first attempt does: they panic, and they wait for ever.

use lmx_sim::minimise::{minimise, same_failure};
use lmx_sim::plan::{FaultSet, Plan};
use lmx_sim::protocol::{
    AnyProtocol as _, Client, Context, Contract, Exclusion, Grant, NodeId, Protocol, Request,
    Server,
};
use lmx_sim::{Outcome, RunOptions, sweep};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Does {
    PanicWhenMade,
    PanicAtStart,
    PanicAtThirdRequest,
    SetTimerForEver,
    GrantForEver,
}

/// Grants at once, whoever asks.
struct Odd {
    does: Does,
}

struct OddServer {
    does: Does,
    requests: u32,
}

struct OddClient {
    does: Does,
}

impl Server<u32> for OddServer {
    type Disk = ();

    fn start(&mut self, _: &mut Context<'_, u32>, (): &mut ()) {
        assert_ne!(self.does, Does::PanicAtStart, "not today");
    }

    fn handle_message(
        &mut self,
        cx: &mut Context<'_, u32>,
        (): &mut (),
        from: NodeId,
        ticket: u32,
    ) {
        self.requests += 1;
        assert!(
            self.does != Does::PanicAtThirdRequest || self.requests < 3,
            "{} requests are too many",
            self.requests
        );
        if self.does == Does::SetTimerForEver {
            for at_ns in [u64::MAX, u64::MAX - 1, u64::MAX / 2 + 1] {
                cx.set_timer(at_ns, at_ns);
            }
        }
        cx.send(from, ticket);
    }

    fn handle_timer(&mut self, _: &mut Context<'_, u32>, (): &mut (), timer: u64) {
        panic!("{timer} is never");
    }
}

impl Client<u32> for OddClient {
    fn acquire(&mut self, cx: &mut Context<'_, u32>, request: Request) {
        cx.send(0, request.ticket);
    }

    fn release(&mut self, _: &mut Context<'_, u32>, _: u32) {}

    fn handle_message(&mut self, cx: &mut Context<'_, u32>, _: NodeId, ticket: u32) {
        let for_ever = self.does == Does::GrantForEver;
        let grant = Grant {
            good_until_ns: for_ever.then_some(u64::MAX),
            token: None,
        };
        cx.granted(ticket, grant);
    }
}

impl Protocol for Odd {
    type Message = u32;
    type Server = OddServer;
    type Client = OddClient;

    fn name(&self) -> &'static str {
        "odd"
    }

    fn about(&self) -> &'static str {
        "does something odd"
    }

    fn contract(&self) -> Contract {
        let exclusion = match self.does {
            Does::GrantForEver => Exclusion::UnderDrift { ppm: 1_000 },
            _ => Exclusion::FencedOnly,
        };
        Contract {
            liveness: None,
            ..Contract::new(exclusion)
        }
    }

    fn server(&self, _: NodeId) -> OddServer {
        assert_ne!(self.does, Does::PanicWhenMade, "there is none");
        OddServer {
            does: self.does,
            requests: 0,
        }
    }

    fn client(&self, _: NodeId) -> OddClient {
        OddClient { does: self.does }
    }
}

fn run(does: Does, plan: &Plan) -> Outcome {
    let options = RunOptions {
        trace: true,
        ..RunOptions::default()
    };
    sweep::run_plan(&Odd { does }, plan, &options)
}

fn plan() -> Plan {
    Odd {
        does: Does::GrantForEver,
    }
    .plan(3, FaultSet::NONE)
}

#[test]
fn a_panic_says_when_and_in_which_node_and_leaves_a_trace() {
    for (does, says, at_once) in [
        (Does::PanicWhenMade, "there is none", true),
        (Does::PanicAtStart, "not today", true),
        (Does::PanicAtThirdRequest, "3 requests are too many", false),
    ] {
        let outcome = run(does, &plan());
        let violation = outcome.violation.expect("it panics");
        assert_eq!(violation.property.name(), "panic", "{violation}");
        assert_eq!(violation.at_ns == 0, at_once, "{violation}");
        for part in ["node 0 (server 0) panicked", says] {
            assert!(violation.detail.contains(part), "{violation}");
        }
        let trace = outcome.trace.expect("it was asked for");
        let last = trace.entries.last().expect("something happened");
        assert!(last.text.contains(says), "{}", last.text);
        assert_eq!(last.at_ns, violation.at_ns);
    }
}

#[test]
fn a_panic_is_minimised_as_any_failure() {
    let fails = |plan: &Plan| {
        let outcome = run(Does::PanicAtThirdRequest, plan);
        same_failure(&outcome, lmx_sim::Property::Panic)
    };
    let (small, _) = minimise(&plan(), fails);
    assert_eq!(small.len(), 3, "{}", small.to_json());
}

#[test]
fn a_timer_set_for_ever_never_goes_off() {
    let outcome = run(Does::SetTimerForEver, &plan());
    assert_eq!(outcome.violation, None);
    assert!(outcome.granted > 0);
}

#[test]
fn a_grant_for_ever_is_believed_until_it_is_given_back() {
    let outcome = run(Does::GrantForEver, &plan());
    let violation = outcome.violation.expect("everybody holds");
    assert_eq!(violation.property.name(), "holders-view", "{violation}");
}
