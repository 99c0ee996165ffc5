//! What a state file is called: after what a broker is asked to listen on, and only after that
//! part of it which clients find it again by.

use std::fs;
use std::io;
use std::net::IpAddr;
use std::path::{Path, PathBuf};

/// Longest name of a state file that is readable; longer ones are hashed.
const NAME_BYTES_MAX: usize = 120;

/// What stays of a broker when it is started again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum StateName {
    /// A TCP port, as it was asked for. Not with its address: a host's name may resolve to
    /// others tomorrow, and a broker that is opened to other machines is still the same.
    Port(u16),
    /// The path of a socket.
    Unix(PathBuf),
}

impl StateName {
    /// A file name that no other has.
    pub(super) fn file_name(&self) -> String {
        let mut name = match self {
            Self::Port(port) => format!("tcp-{port}"),
            Self::Unix(path) => unix_name(path),
        };
        if name.len() > NAME_BYTES_MAX {
            // Two hashes under different keys: 128 bits.
            let hashes = [0, 1].map(|key| fnv(key, name.as_bytes()));
            name = format!("unix-{:016x}{:016x}", hashes[0], hashes[1]);
        }
        name + ".state"
    }

    /// The files in `directory` that have the name of before addresses were left out of it.
    pub(super) fn older_files(&self, directory: &Path) -> io::Result<Vec<PathBuf>> {
        let Self::Port(port) = self else {
            return Ok(Vec::new());
        };
        let end = format!("-{port}.state");
        let mut found = Vec::new();
        for entry in fs::read_dir(directory)? {
            let name = entry?.file_name();
            let address = name
                .to_str()
                .and_then(|name| name.strip_prefix("tcp-")?.strip_suffix(&end));
            if address.is_some_and(|it| it.replace('_', ":").parse::<IpAddr>().is_ok()) {
                found.push(directory.join(name));
            }
        }
        found.sort();
        Ok(found)
    }
}

fn unix_name(path: &Path) -> String {
    use std::fmt::Write as _;
    use std::os::unix::ffi::OsStrExt;

    let path = std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
    let mut name = "unix-".to_owned();
    for &byte in path.as_os_str().as_bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' => {
                name.push(char::from(byte));
            }
            other => {
                let _ = write!(name, "%{other:02x}");
            }
        }
    }
    name
}

/// FNV-1a: the same name on every machine and for every version.
fn fnv(key: u8, bytes: &[u8]) -> u64 {
    let mut hash = 0xcbf2_9ce4_8422_2325_u64;
    for byte in std::iter::once(&key).chain(bytes) {
        hash = (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3);
    }
    hash
}
