//! Using the broker that is there, or starting one, without a race.
//!
//! Who starts is decided by the address itself: the kernel lets one process listen on
//! it, and whoever loses finds the winner there.

use std::io::{self, BufRead, BufReader, Read};
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use crate::broker::{BindError, Broker, BrokerBuilder};
use crate::clock::Alarm;
use crate::net::{self, Address, Endpoint, ListenError};

/// Tries before somebody who has the address but does not answer is given up.
const TRIES_MAX: u32 = 100;
/// Programs started before it is given up, for one may lose to another that just ends.
const PROGRAMS_MAX: u32 = 3;
/// Bytes of a program's first line that are looked at.
const LINE_BYTES_MAX: u64 = 16 * 1024;
/// Pause between two tries.
const PAUSE: Duration = Duration::from_millis(50);

/// Where the broker is now.
#[derive(Debug)]
#[non_exhaustive]
pub enum Launched {
    /// One was there.
    Present(Address),
    /// This one was started, in this process.
    Started(Broker),
}

impl Launched {
    /// Where it listens.
    #[must_use]
    pub fn address(&self) -> &Address {
        match self {
            Self::Present(address) => address,
            Self::Started(broker) => &broker.addresses()[0],
        }
    }
}

/// Why there is no broker.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LaunchError {
    /// It was not started.
    #[error(transparent)]
    Bind(#[from] BindError),
    /// It would have to run on another machine.
    #[error("{endpoint} is no address of this machine: a broker cannot be started there from here")]
    Elsewhere {
        /// Where it should be.
        endpoint: Endpoint,
    },
    /// Somebody has the address and does not answer.
    #[error("{0}, but does not answer")]
    Unresponsive(ListenError),
    /// The program of the broker was not started.
    #[error("cannot run {program}: {source}")]
    Spawn {
        /// Which.
        program: String,
        /// The system's answer.
        source: io::Error,
    },
    /// The program of the broker ended at once, and nobody else has started one.
    #[error(
        "no broker answers at {endpoint}, and the one that was started for it ended with {status}{words}"
    )]
    Ended {
        /// Where it should have been.
        endpoint: Endpoint,
        /// How the program ended.
        status: std::process::ExitStatus,
        /// What it said, after a colon; or nothing.
        words: String,
    },
}

/// Uses the broker at the first endpoint of `builder` if there is one, and otherwise
/// starts this one. When several processes or tasks do so at one time, exactly one starts.
///
/// # Errors
///
/// There is none, and none can be started.
pub async fn launch_if_absent(builder: BrokerBuilder) -> Result<Launched, LaunchError> {
    let builder = Arc::new(builder);
    let mut tries = 0;
    loop {
        let endpoint = builder.endpoints().first().cloned();
        if let Some(endpoint) = endpoint
            && let Some(address) = probe(&Arc::new(endpoint)).await
        {
            return Ok(Launched::Present(address));
        }
        let attempt = Arc::clone(&builder);
        match smol::unblock(move || attempt.bind_blocking()).await {
            Ok(broker) => return Ok(Launched::Started(broker)),
            // Somebody was faster. It listens, or will in a moment, or is just ending.
            Err(BindError::Listen(error @ ListenError::InUse { .. })) => {
                tries += 1;
                if tries == TRIES_MAX {
                    return Err(LaunchError::Unresponsive(error));
                }
                Alarm::after(PAUSE).await;
            }
            Err(error) => return Err(error.into()),
        }
    }
}

/// Uses the broker at `endpoint` if there is one, and otherwise starts `program`, which
/// is to listen there and to print a line on its standard output when it does. The
/// program goes on when this process ends, and gets none of its terminal's signals.
/// When several processes do so at one time, the programs of all but one find the
/// address in use and end.
///
/// # Errors
///
/// There is none, and none can be started; or `endpoint` is another machine's, whether there
/// is one or not.
pub async fn launch_detached(
    endpoint: Endpoint,
    mut program: Command,
) -> Result<Address, LaunchError> {
    let endpoint = Arc::new(endpoint);
    let asked = Arc::clone(&endpoint);
    if !smol::unblock(move || net::is_here(&asked))
        .await
        .map_err(BindError::from)?
    {
        let endpoint = Arc::unwrap_or_clone(endpoint);
        return Err(LaunchError::Elsewhere { endpoint });
    }
    let mut tries = 0;
    loop {
        if let Some(address) = probe(&endpoint).await {
            return Ok(address);
        }
        let (returned, outcome) = smol::unblock(move || {
            let outcome = spawn_detached(&mut program);
            (program, outcome)
        })
        .await;
        program = returned;
        let mut child = outcome?;
        tries += 1;
        // It listens, or it has ended; if it lost the race, the winner listens.
        let found = probe(&endpoint).await;
        if found.is_none() && tries == PROGRAMS_MAX {
            let status = end(&mut child.process).await.map_err(BindError::System)?;
            return Err(LaunchError::Ended {
                endpoint: Arc::unwrap_or_clone(endpoint),
                status,
                words: child.words,
            });
        }
        reap(child.process);
        if let Some(address) = found {
            return Ok(address);
        }
        Alarm::after(PAUSE).await;
    }
}

/// Sees to it that the program is no zombie once it has ended, should this process go on for
/// longer.
fn reap(mut process: Child) {
    // Without a thread it is one until this process ends, and does no other harm.
    let _ = thread::Builder::new()
        .name("lmx-reaper".to_owned())
        .spawn(move || process.wait());
}

/// How the program ended; one that goes on without being of use is killed.
async fn end(process: &mut Child) -> io::Result<ExitStatus> {
    for _ in 0..TRIES_MAX {
        if let Some(status) = process.try_wait()? {
            return Ok(status);
        }
        Alarm::after(PAUSE).await;
    }
    process.kill()?;
    process.wait()
}

async fn probe(endpoint: &Arc<Endpoint>) -> Option<Address> {
    let endpoint = Arc::clone(endpoint);
    smol::unblock(move || net::probe(&endpoint)).await
}

struct Started {
    process: Child,
    /// The first line it printed, after a colon; or nothing.
    words: String,
}

/// Starts `program` and waits for its first line, or its end.
fn spawn_detached(program: &mut Command) -> Result<Started, LaunchError> {
    let mut process = program
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .process_group(0)
        .spawn()
        .map_err(|source| LaunchError::Spawn {
            program: program.get_program().to_string_lossy().into_owned(),
            source,
        })?;
    let mut words = String::new();
    if let Some(output) = process.stdout.take() {
        let mut line = Vec::new();
        // Whatever cannot be read is simply not shown.
        let _ = BufReader::new(output.take(LINE_BYTES_MAX)).read_until(b'\n', &mut line);
        let line = String::from_utf8_lossy(&line);
        if !line.trim().is_empty() {
            words = format!(": {}", line.trim());
        }
    }
    Ok(Started { process, words })
}

#[cfg(test)]
mod tests;
