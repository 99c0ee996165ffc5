//! Plans that are read from files: those that cannot be run are refused, and say why.

use lmx_sim::corpus;
use lmx_sim::lmx::Lmx;
use lmx_sim::plan::{FaultSet, Plan};
use lmx_sim::protocol::AnyProtocol;
use lmx_sim::rng::Draws;

const PLAN: &str = r#"{"protocol":"redlock","seed":0,"heal_ns":2000000000,"network":{"delay_ns_min":100000,"delay_ns_max":1000000,"slow_ppm":0,"cut_ppm":0,"window_bytes":65536},"drifts_ppm":[0,0,0,0,0,0,0],"clients":2,
"ops":[
  {"id":5,"at_ns":1000000,"client":1,"action":{"Lock":{"wants":[{"key":0,"mode":"Exclusive"}],"lease_ns":1000000,"hold_ns":10000}}},
  {"id":6,"at_ns":1000000,"client":0,"action":{"Lock":{"wants":[{"key":1,"mode":"Exclusive"}],"lease_ns":1000000,"hold_ns":10000}}}],
"faults":[
  {"when":{"Granted":{"op":5,"after_ns":0}},"lasts_ns":1000000,"fault":{"Drop":{"from":0,"to":6}}}]}"#;

#[test]
fn a_plan_that_cannot_be_run_is_refused_and_says_what_would_be_right() {
    assert!(Plan::from_json(PLAN).is_ok());
    for (part, instead, says) in [
        (r#""id":5"#, r#""id":4294967295"#, "`ops: #4294967295: id`"),
        (r#""id":5"#, r#""id":6"#, "two operations have it"),
        (r#""key":0"#, r#""key":4294967295"#, "65536 at most"),
        (r#""clients":2"#, r#""clients":9999"#, "1 to 32"),
        (r#""clients":2"#, r#""clients":65535"#, "1 to 32"),
        (r#""clients":2"#, r#""clients":0"#, "1 to 32"),
        (r#""client":1"#, r#""client":60000"#, "below 2"),
        (r#"[{"key":0,"mode":"Exclusive"}]"#, "[]", "a key or more"),
        ("[0,0,0", "[0,-1000000,0", "`drifts_ppm[1]` is -1000000"),
        (r#""from":0"#, r#""from":9999"#, "about node 9999"),
        (r#""op":5"#, r#""op":7"#, "the `id` of an operation"),
        (
            r#""delay_ns_min":100000"#,
            r#""delay_ns_min":1000001"#,
            "no more than `delay_ns_max`",
        ),
        (
            r#""window_bytes":65536"#,
            r#""window_bytes":0"#,
            "1 or more",
        ),
        (
            r#""heal_ns":2000000000"#,
            r#""heal_ns":18446744073709551615"#,
            "`heal_ns`",
        ),
        (
            r#""hold_ns":10000}}},"#,
            r#""hold_ns":18446744073709551615}}},"#,
            "`ops: #5: hold_ns`",
        ),
        (
            r#""lasts_ns":1000000"#,
            r#""lasts":1000000"#,
            "unknown field `lasts`",
        ),
        (
            r#""seed":0"#,
            r#""seed":0,"sede":1"#,
            "unknown field `sede`",
        ),
        (r#""from":0"#, r#""from":0,"via":1"#, "unknown field `via`"),
        (
            r#""protocol":"redlock""#,
            r#""protocol":"lmx""#,
            "`lmx` is not there",
        ),
    ] {
        assert!(PLAN.contains(part), "{part}");
        let text = PLAN.replacen(part, instead, 1);
        let error = Plan::from_json(&text).expect_err(instead).to_string();
        assert!(error.contains(says), "{instead}: {error}");
    }
}

fn assert_can_be_read(plan: &Plan) {
    let again = Plan::from_json(&plan.to_json());
    assert_eq!(&again.expect("what is drawn can be run"), plan);
}

#[test]
fn every_plan_that_is_drawn_can_be_run() {
    for protocol in corpus::all() {
        for seed in 0..100 {
            assert_can_be_read(&protocol.plan(seed, FaultSet::ALL));
        }
    }
    for seed in 0..1_000 {
        assert_can_be_read(&Lmx.plan(seed, FaultSet::ALL));
        let draws = Draws::new(seed).of(0x6279_7465);
        let bytes: Vec<u8> = (0..600).map(|n| draws.bits(n) as u8).collect();
        assert_can_be_read(&Lmx::plan_of_bytes(&bytes));
    }
}
