//! `lmx bench`.

use super::harness::{Broker, stdout};

#[test]
fn all_cycles_are_done_over_tcp_and_unix() {
    let broker = Broker::start_with(&["--unix", "lmx.sock"]);
    let shape = ["bench", "--cycles", "2000", "--concurrency", "20"];
    for place in [&[][..], &["--unix", "lmx.sock"]] {
        let mut command = broker.lmx(shape);
        command
            .args(place)
            .args(["--keys", "3", "--connections", "2", "--json"]);
        let measured: serde_json::Value = serde_json::from_str(&stdout(&mut command)).unwrap();
        assert_eq!(measured["cycles"], 2000);
        assert!(measured["cycles_per_ms"].as_f64().unwrap() > 0.0);
        for what in ["lock_us", "unlock_us"] {
            let times = &measured[what];
            let at = |name: &str| times[name].as_u64().unwrap();
            assert!(at("p50") <= at("p99") && at("p99") <= at("max"), "{times}");
        }
    }
    let status = broker.json(&["status"]);
    assert_eq!(status["grants"], 4000);
    assert_eq!(status["keys"], 0);
    let plain = stdout(&mut broker.lmx(["bench", "--cycles", "10"]));
    assert!(
        plain.contains("cycles/ms") && plain.contains("p99"),
        "{plain}"
    );
}
