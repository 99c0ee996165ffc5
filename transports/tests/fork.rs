//! A process that forks; alone here, so that no other test's threads are forked away.

use std::process::abort;

use lmx_transports::{Broker, ConnectError, blocking};
use nix::sys::wait::{WaitStatus, waitpid};
use nix::unistd::{ForkResult, alarm, fork};

/// Seconds after which a child that hangs is ended.
const HANGS: u32 = 20;

#[test]
fn the_child_of_a_process_with_clients_is_refused_one_and_the_parent_goes_on() {
    let broker = Broker::builder().tcp("127.0.0.1", 0);
    let broker = broker.state(lmx_transports::state::StatePlace::Ephemeral);
    let broker = smol::block_on(broker.bind()).expect("a free port");
    let address = broker.addresses()[0].to_string();
    let client = blocking::Client::connect(&address).expect("a broker");
    let guard = client.lock("key").acquire().expect("nobody has it");
    #[expect(unsafe_code, reason = "only what the child itself makes is used in it")]
    match unsafe { fork() }.expect("a process") {
        ForkResult::Child => {
            alarm::set(HANGS);
            match blocking::Client::connect(&address) {
                Err(ConnectError::Thread(_)) => std::process::exit(0),
                _ => abort(),
            }
        }
        ForkResult::Parent { child } => {
            let status = waitpid(child, None).expect("a child");
            assert_eq!(status, WaitStatus::Exited(child, 0));
        }
    }
    assert!(guard.is_valid());
    guard.release().expect("it is held");
}
