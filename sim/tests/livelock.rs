//! A world that does not go on is a failure with a name, and not a run that hangs.

use lmx_sim::RunOptions;
use lmx_sim::plan::Plan;
use lmx_sim::protocol::{
    Client, Context, Contract, Exclusion, NodeId, Protocol, Request, Server, run, shape,
};

/// A client that asks to be woken again, so much later, for ever.
struct Restless {
    again_ns: u64,
}

struct RestlessClient {
    again_ns: u64,
}

struct Nobody;

impl Server<()> for Nobody {
    type Disk = ();
    fn start(&mut self, _: &mut Context<'_, ()>, (): &mut ()) {}
    fn handle_message(&mut self, _: &mut Context<'_, ()>, (): &mut (), _: NodeId, (): ()) {}
}

impl Client<()> for RestlessClient {
    fn acquire(&mut self, cx: &mut Context<'_, ()>, _: Request) {
        cx.set_timer(0, cx.now_ns());
    }
    fn release(&mut self, _: &mut Context<'_, ()>, _: u32) {}
    fn handle_message(&mut self, _: &mut Context<'_, ()>, _: NodeId, (): ()) {}
    fn handle_timer(&mut self, cx: &mut Context<'_, ()>, timer: u64) {
        cx.set_timer(timer, cx.now_ns() + self.again_ns);
    }
}

impl Protocol for Restless {
    type Message = ();
    type Server = Nobody;
    type Client = RestlessClient;
    fn name(&self) -> &'static str {
        "restless"
    }
    fn about(&self) -> &'static str {
        "never sleeps"
    }
    fn contract(&self) -> Contract {
        Contract::new(Exclusion::Strict)
    }
    fn server(&self, _: NodeId) -> Nobody {
        Nobody
    }
    fn client(&self, _: NodeId) -> RestlessClient {
        RestlessClient {
            again_ns: self.again_ns,
        }
    }
}

fn convicted(protocol: &Restless) -> String {
    let plan = Plan::swarm("restless", 1, &shape(protocol));
    let outcome = run(protocol, &plan, &RunOptions::default());
    let violation = outcome.violation.expect("it never comes to an end");
    assert_eq!(violation.property.name(), "livelock");
    violation.detail
}

#[test]
fn an_instant_without_end_is_a_failure() {
    let detail = convicted(&Restless { again_ns: 0 });
    assert!(detail.contains("it is still"), "{detail}");
}

#[test]
fn a_run_without_end_is_a_failure() {
    let detail = convicted(&Restless { again_ns: 1 });
    assert!(detail.contains("events for a plan of"), "{detail}");
}
