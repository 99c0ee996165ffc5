//! It survives: killed brokers, overload, and peers that mean harm.

#[path = "../e2e/harness.rs"]
#[allow(dead_code, reason = "shared with the other end-to-end tests")]
mod harness;

mod killed;
mod overload;
mod peer;
mod restart;
mod soak;
mod table;
mod tls;
