//! Everything that is measured, one file each.

mod blocking;
mod echo;
mod etcd;
mod live_mutex;
mod lmx;
mod lmx_client;
mod node_packages;
mod postgres;
mod redis;
mod redis_fair;

use std::process::ExitCode;

use crate::args::Floor;
use crate::peer::Candidate;

pub(crate) use live_mutex::{connection as live_mutex_connection, start as start_live_mutex};
pub(crate) use lmx::{NativeConnection, PROGRAM as LMX_PROGRAM, start_server as start_lmx};
pub(crate) use redis::{
    connection as redis_connection, load_script as load_redis_script, start_server as start_redis,
};

/// Every peer, in the order of the report.
pub(crate) const CANDIDATES: &[Candidate] = &[
    lmx::TCP,
    lmx::UNIX,
    lmx::DIALECT,
    lmx_client::CLIENT,
    live_mutex::BROKER,
    redis::TCP,
    redis::UNIX,
    redis::SPIN,
    redis_fair::FAIR,
    postgres::POSTGRES,
    etcd::ETCD,
    node_packages::LIVE_MUTEX_CLIENT,
    node_packages::LIVE_MUTEX_CLIENT_ON_LMX,
    node_packages::LOCKFILE,
    node_packages::REDLOCK,
    echo::ECHO,
    blocking::PING_PONG,
];

/// Serves a floor in this process until it is ended.
pub(crate) fn serve(floor: Floor) -> ExitCode {
    let ended = match floor {
        Floor::Echo => echo::serve(),
        Floor::Blocking => blocking::serve(),
    };
    match ended {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("peers: {error}");
            ExitCode::FAILURE
        }
    }
}
