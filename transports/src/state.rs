//! The state file: what a broker must remember, kept where a crash cannot tear it.
//!
//! A record is written to a file beside, synced, and renamed over the one before; then
//! the directory is synced. Whatever moment the machine dies at, one of the two records
//! is there, whole. A checksum finds what the disk itself damages.

mod disk;

pub(crate) use disk::Disk;
use disk::RealDisk;

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use lmx_core::broker::{Record, RecordError};

use crate::clock::Alarm;
use crate::net::{Address, PathLock};

/// Tries to get a state file that another broker has.
const LOCK_TRIES: u32 = 100;
/// Pause between them.
const LOCK_PAUSE: Duration = Duration::from_millis(20);
/// Longest name of a state file that is readable; longer ones are hashed.
const NAME_BYTES_MAX: usize = 120;

/// Why a broker has no state.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StateError {
    /// The system names no place for it.
    #[error(
        "there is no place for the state file: neither HOME, XDG_STATE_HOME nor STATE_DIRECTORY \
         is set; name one (--state-dir), or do without (--ephemeral)"
    )]
    NoDirectory,
    /// Another broker has it.
    #[error("the state file {} is in use by another broker", path.display())]
    InUse {
        /// Which.
        path: PathBuf,
    },
    /// It is there, but is no record that this broker can read.
    #[error(
        "the state file {} is not usable: {source}. Fencing tokens and holds of before cannot be \
         known without it. If no client can still hold a lock, and nothing remembers old tokens, \
         remove it",
        path.display()
    )]
    Unusable {
        /// Which.
        path: PathBuf,
        /// What is wrong with it.
        source: RecordError,
    },
    /// It cannot be read.
    #[error("cannot read the state file {}: {source}", path.display())]
    Unreadable {
        /// Which.
        path: PathBuf,
        /// The system's answer.
        source: io::Error,
    },
    /// It cannot be written.
    #[error("cannot write the state file {}: {source}", path.display())]
    Unwritable {
        /// Which.
        path: PathBuf,
        /// The system's answer.
        source: io::Error,
    },
}

/// Where a broker keeps its state.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum StatePlace {
    /// In the platform's directory for state: systemd's `STATE_DIRECTORY`, else
    /// `XDG_STATE_HOME/lmx`, else `~/.local/state/lmx`. A broker whose only addresses
    /// the kernel chose (port 0) has no successor there, and keeps none.
    Default,
    /// In this directory.
    Directory(PathBuf),
    /// Nowhere: a restart forgets tokens and holds.
    Ephemeral,
}

impl StatePlace {
    /// The directory, if there is to be one.
    pub(crate) fn directory(&self) -> Result<Option<PathBuf>, StateError> {
        match self {
            Self::Default => default_directory().ok_or(StateError::NoDirectory).map(Some),
            Self::Directory(path) => Ok(Some(path.clone())),
            Self::Ephemeral => Ok(None),
        }
    }
}

fn default_directory() -> Option<PathBuf> {
    let variable = |name| {
        std::env::var_os(name)
            .map(PathBuf::from)
            .filter(|path| path.is_absolute())
    };
    variable("STATE_DIRECTORY")
        .or_else(|| variable("XDG_STATE_HOME").map(|home| home.join("lmx")))
        .or_else(|| variable("HOME").map(|home| home.join(".local/state/lmx")))
}

/// The state file of one broker, and the right to it.
#[derive(Debug)]
pub(crate) struct StateFile<D = RealDisk> {
    disk: D,
    path: PathBuf,
    _lock: Option<PathLock>,
}

impl StateFile {
    /// Takes the state file of the broker at `address`, and reads what its predecessor left.
    pub(crate) fn open(
        directory: &Path,
        address: &Address,
    ) -> Result<(Self, Option<Record>), StateError> {
        let path = directory.join(file_name(address));
        let unwritable = |source| StateError::Unwritable {
            path: path.clone(),
            source,
        };
        make_directory(directory).map_err(unwritable)?;
        let mut lock_path = path.clone();
        lock_path.set_extension("lock");
        let mut tries = 0;
        let lock = loop {
            if let Some(lock) = PathLock::claim(&lock_path).map_err(unwritable)? {
                break lock;
            }
            // A predecessor that was told to stop may still be writing.
            tries += 1;
            if tries == LOCK_TRIES {
                return Err(StateError::InUse { path });
            }
            smol::block_on(Alarm::after(LOCK_PAUSE));
        };
        let file = Self {
            disk: RealDisk,
            path,
            _lock: Some(lock),
        };
        let record = file.load()?;
        Ok((file, record))
    }
}

impl<D: Disk> StateFile<D> {
    /// The record that was saved last, if ever one was.
    pub(crate) fn load(&self) -> Result<Option<Record>, StateError> {
        let path = self.path.clone();
        match self.disk.read(&path) {
            Ok(bytes) => Record::decode(&bytes)
                .map(Some)
                .map_err(|source| StateError::Unusable { path, source }),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(source) => Err(StateError::Unreadable { path, source }),
        }
    }

    /// Replaces the record. When this returns without an error, it is durable.
    pub(crate) fn save(&mut self, record: &Record) -> Result<(), StateError> {
        let mut beside = self.path.clone();
        beside.set_extension("new");
        self.replace(&beside, &record.encode())
            .map_err(|source| StateError::Unwritable {
                path: self.path.clone(),
                source,
            })
    }

    fn replace(&mut self, beside: &Path, bytes: &[u8]) -> io::Result<()> {
        let mut file = self.disk.create(beside)?;
        self.disk.write(&mut file, bytes)?;
        self.disk.sync(&mut file)?;
        self.disk.rename(beside, &self.path)?;
        self.disk.sync_directory_of(&self.path)
    }
}

/// Makes the directory, so that it survives a crash, for its owner only.
fn make_directory(path: &Path) -> io::Result<()> {
    use std::os::unix::fs::DirBuilderExt;

    if path.is_dir() {
        return Ok(());
    }
    fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(path)?;
    RealDisk.sync_directory_of(path)
}

/// A name that no other address has.
fn file_name(address: &Address) -> String {
    use std::fmt::Write as _;
    use std::os::unix::ffi::OsStrExt;

    let name = match address {
        Address::Tcp(address) => format!("tcp-{}-{}", address.ip(), address.port()),
        Address::Unix(path) => {
            let path = std::path::absolute(path).unwrap_or_else(|_| path.clone());
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
    };
    let mut name = name.replace(':', "_");
    if name.len() > NAME_BYTES_MAX {
        // Two hashes under different keys: 128 bits.
        let hashes = [0, 1].map(|key| fnv(key, name.as_bytes()));
        name = format!("unix-{:016x}{:016x}", hashes[0], hashes[1]);
    }
    name + ".state"
}

/// FNV-1a: the same name on every machine and for every version.
fn fnv(key: u8, bytes: &[u8]) -> u64 {
    let mut hash = 0xcbf2_9ce4_8422_2325_u64;
    for byte in std::iter::once(&key).chain(bytes) {
        hash = (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3);
    }
    hash
}

#[cfg(test)]
mod tests;
