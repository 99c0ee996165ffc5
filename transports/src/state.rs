//! The state file: what a broker must remember, kept where a crash cannot tear it.
//!
//! A record is written to a file beside, synced, and renamed over the one before; then
//! the directory is synced. Whatever moment the machine dies at, one of the two records
//! is there, whole. A checksum finds what the disk itself damages.

mod disk;
mod name;

pub(crate) use disk::Disk;
use disk::RealDisk;
pub(crate) use name::StateName;

use std::ffi::OsString;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use lmx_core::broker::{Record, RecordError};

use crate::clock::Alarm;
use crate::net::PathLock;

/// Tries to get a state file that another broker has.
const LOCK_TRIES: u32 = 100;
/// Pause between them.
const LOCK_PAUSE: Duration = Duration::from_millis(20);
/// Bytes that are read of a file to see whether it is a record at all; most are shorter.
const FIRST_BYTES: u64 = 4096;

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
    #[error(
        "the state file {} is in use by another broker; brokers on one port, whatever their \
         addresses, need a directory each (--state-dir)",
        path.display()
    )]
    InUse {
        /// Which.
        path: PathBuf,
    },
    /// Several brokers on this port have left a state, from when their addresses were part of
    /// its name.
    #[error(
        "{} may all be the state of a broker on this port, for older versions named it after \
         its address as well. Rename the one whose broker gave the highest fencing tokens, as a \
         rule the newest, to {}, and remove the others",
        shown(candidates),
        path.display()
    )]
    Ambiguous {
        /// What its file is called.
        path: PathBuf,
        /// What is there.
        candidates: Vec<PathBuf>,
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
    /// In the platform's directory for state: the first of systemd's `STATE_DIRECTORY`, else
    /// `XDG_STATE_HOME/lmx`, else `~/.local/state/lmx`. A broker whose only addresses
    /// the kernel chose (port 0) has no successor there, and keeps none.
    Default,
    /// In this directory. A broker on port 0 finds there what the one before it left.
    Directory(PathBuf),
    /// Nowhere: a restart forgets tokens and holds.
    Ephemeral,
}

impl StatePlace {
    /// The directory, if there is to be one.
    pub(crate) fn directory(&self) -> Result<Option<PathBuf>, StateError> {
        match self {
            Self::Default => default_directory(|name| std::env::var_os(name))
                .ok_or(StateError::NoDirectory)
                .map(Some),
            Self::Directory(path) => Ok(Some(path.clone())),
            Self::Ephemeral => Ok(None),
        }
    }
}

fn default_directory(environment: impl Fn(&str) -> Option<OsString>) -> Option<PathBuf> {
    let first = |paths: OsString| std::env::split_paths(&paths).next();
    // systemd's has several if the unit names several.
    let systemds = environment("STATE_DIRECTORY").and_then(first);
    let path = |name| environment(name).map(PathBuf::from);
    let absolute = |path: &PathBuf| path.is_absolute();
    systemds
        .filter(absolute)
        .or_else(|| Some(path("XDG_STATE_HOME").filter(absolute)?.join("lmx")))
        .or_else(|| Some(path("HOME").filter(absolute)?.join(".local/state/lmx")))
}

/// The state file of one broker, and the right to it.
#[derive(Debug)]
pub(crate) struct StateFile<D = RealDisk> {
    disk: D,
    path: PathBuf,
    _lock: Option<PathLock>,
}

impl StateFile {
    /// Takes the state file of that name, and reads what its predecessor left.
    pub(crate) fn open(
        directory: &Path,
        name: &StateName,
    ) -> Result<(Self, Option<Record>), StateError> {
        let path = directory.join(name.file_name());
        let made = make_directory(directory, |it| RealDisk.sync_directory_of(it));
        made.map_err(|source| StateError::Unwritable {
            path: path.clone(),
            source,
        })?;
        let lock = claim(&path)?;
        let older = name.older_files(directory);
        let older = older.map_err(|source| StateError::Unreadable {
            path: directory.to_owned(),
            source,
        })?;
        match &older[..] {
            [] => {}
            [older] if !path.exists() => take_up(older, &path)?,
            _ => {
                let mut candidates = older;
                candidates.extend(path.exists().then(|| path.clone()));
                return Err(StateError::Ambiguous { path, candidates });
            }
        }
        let file = Self {
            disk: RealDisk,
            path,
            _lock: Some(lock),
        };
        let record = file.load()?;
        if record.is_none() {
            tracing::info!(file = %file.path.display(), "no broker before this one left a state");
        }
        Ok((file, record))
    }
}

/// The right to the state file at `path`.
fn claim(path: &Path) -> Result<PathLock, StateError> {
    let lock_path = path.with_extension("lock");
    for _ in 0..LOCK_TRIES {
        match PathLock::claim(&lock_path) {
            Ok(Some(lock)) => return Ok(lock),
            // A predecessor that was told to stop may still be writing.
            Ok(None) => smol::block_on(Alarm::after(LOCK_PAUSE)),
            Err(source) => {
                let path = path.to_owned();
                return Err(StateError::Unwritable { path, source });
            }
        }
    }
    let path = path.to_owned();
    Err(StateError::InUse { path })
}

/// Goes on with the state that an older version has left under another name.
fn take_up(older: &Path, path: &Path) -> Result<(), StateError> {
    let _lock = claim(older)?;
    let mut disk = RealDisk;
    disk.rename(older, path)
        .and_then(|()| disk.sync_directory_of(path))
        .map_err(|source| StateError::Unwritable {
            path: path.to_owned(),
            source,
        })?;
    tracing::info!(from = %older.display(), to = %path.display(), "renamed the state file");
    Ok(())
}

impl<D: Disk> StateFile<D> {
    /// The record that was saved last, if ever one was.
    pub(crate) fn load(&self) -> Result<Option<Record>, StateError> {
        let path = self.path.clone();
        match self.read() {
            Ok(Ok(record)) => Ok(Some(record)),
            Ok(Err(source)) => Err(StateError::Unusable { path, source }),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(source) => Err(StateError::Unreadable { path, source }),
        }
    }

    /// Reads no more than a record with such a beginning has.
    fn read(&self) -> io::Result<Result<Record, RecordError>> {
        let first = self.disk.read(&self.path, FIRST_BYTES)?;
        let expected = match Record::decode(&first) {
            Err(RecordError::Length { expected, .. }) => expected,
            decoded => return Ok(decoded),
        };
        let found = self.disk.length(&self.path)? as usize;
        if found != expected {
            return Ok(Err(RecordError::Length { found, expected }));
        }
        let bytes = self.disk.read(&self.path, expected as u64)?;
        Ok(Record::decode(&bytes))
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

fn shown(paths: &[PathBuf]) -> String {
    let shown: Vec<_> = paths
        .iter()
        .map(|path| path.display().to_string())
        .collect();
    shown.join(" and ")
}

/// Makes the directory, for its owner only. `sync` is called for it and for each that it is
/// in and that was made as well, so that all their names survive a crash.
fn make_directory(path: &Path, sync: impl FnMut(&Path) -> io::Result<()>) -> io::Result<()> {
    use std::os::unix::fs::DirBuilderExt;

    let is_missing = |it: &&Path| !it.as_os_str().is_empty() && !it.is_dir();
    let missing: Vec<&Path> = path.ancestors().take_while(is_missing).collect();
    fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(path)?;
    missing.into_iter().try_for_each(sync)
}

#[cfg(test)]
mod tests;
