//! Protocols of a size that cannot be run are refused, and say what would be right.

use std::time::Duration;

use lmx_sim::protocol::{
    AnyProtocol, Client, Context, Contract, Exclusion, NodeId, Protocol, Request, Server,
};

/// Does nothing.
#[derive(Clone, Copy)]
struct Sized {
    servers: u16,
    lease: Duration,
    ppm: u32,
}

struct Idle;

impl Server<()> for Idle {
    type Disk = ();
    fn start(&mut self, _: &mut Context<'_, ()>, (): &mut ()) {}
    fn handle_message(&mut self, _: &mut Context<'_, ()>, (): &mut (), _: NodeId, (): ()) {}
}

impl Client<()> for Idle {
    fn acquire(&mut self, _: &mut Context<'_, ()>, _: Request) {}
    fn release(&mut self, _: &mut Context<'_, ()>, _: u32) {}
    fn handle_message(&mut self, _: &mut Context<'_, ()>, _: NodeId, (): ()) {}
}

impl Protocol for Sized {
    type Message = ();
    type Server = Idle;
    type Client = Idle;
    fn name(&self) -> &'static str {
        "sized"
    }
    fn about(&self) -> &'static str {
        "does nothing"
    }
    fn contract(&self) -> Contract {
        Contract {
            liveness: None,
            ..Contract::new(Exclusion::UnderDrift { ppm: self.ppm })
        }
    }
    fn servers(&self) -> u16 {
        self.servers
    }
    fn lease(&self) -> Duration {
        self.lease
    }
    fn server(&self, _: NodeId) -> Idle {
        Idle
    }
    fn client(&self, _: NodeId) -> Idle {
        Idle
    }
}

const USUAL: Sized = Sized {
    servers: 1,
    lease: Duration::from_secs(1),
    ppm: 1_000,
};

#[test]
fn what_cannot_be_run_says_what_would_be_right() {
    for (sized, says) in [
        (
            Sized {
                servers: 0,
                ..USUAL
            },
            "1 to 32",
        ),
        (
            Sized {
                servers: 33,
                ..USUAL
            },
            "1 to 32",
        ),
        (
            Sized {
                servers: u16::MAX,
                ..USUAL
            },
            "1 to 32",
        ),
        (
            Sized {
                ppm: 500_001,
                ..USUAL
            },
            "500000 at most",
        ),
        (
            Sized {
                ppm: 1_000_000,
                ..USUAL
            },
            "500000 at most",
        ),
        (
            Sized {
                lease: Duration::ZERO,
                ..USUAL
            },
            "1ms to 86400s",
        ),
        (
            Sized {
                lease: Duration::MAX,
                ..USUAL
            },
            "1ms to 86400s",
        ),
    ] {
        let unfit = AnyProtocol::check(&sized).expect_err(says).to_string();
        assert!(unfit.contains(says), "{unfit}");
    }
}

#[test]
fn what_is_just_within_the_limits_runs() {
    for sized in [
        Sized {
            servers: 32,
            ..USUAL
        },
        Sized {
            ppm: 500_000,
            ..USUAL
        },
        Sized {
            lease: Duration::from_hours(24),
            ..USUAL
        },
        Sized {
            lease: Duration::from_millis(1),
            ..USUAL
        },
    ] {
        assert_eq!(AnyProtocol::check(&sized), Ok(()));
        for seed in 0..20 {
            let plan = sized.plan(seed, lmx_sim::plan::FaultSet::ALL);
            plan.check().expect("what is drawn can be run");
            let outcome = sized.run(&plan, &lmx_sim::RunOptions::default());
            assert_eq!(outcome.violation, None);
        }
    }
}
