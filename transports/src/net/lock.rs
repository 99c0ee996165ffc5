//! Advisory locks, which end with their process.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

/// An advisory lock on a file of its own, which it removes in the end.
#[derive(Debug)]
pub(crate) struct PathLock {
    path: PathBuf,
    file: File,
}

impl PathLock {
    /// `None` if another process, or another broker of this one, has it.
    pub(crate) fn claim(path: &Path) -> io::Result<Option<Self>> {
        loop {
            let file = OpenOptions::new()
                .create(true)
                .truncate(false)
                .write(true)
                // Who may open it may lock it, and so keep a broker from starting.
                .mode(0o600)
                .open(path)?;
            match file.try_lock() {
                Ok(()) => {}
                Err(fs::TryLockError::WouldBlock) => return Ok(None),
                Err(fs::TryLockError::Error(error)) => return Err(error),
            }
            // The one before may have removed the file between our open and our lock:
            // then this is a lock on nothing.
            let ours = file.metadata()?;
            if identity(path) == Some((ours.dev(), ours.ino())) {
                return Ok(Some(Self {
                    path: path.to_owned(),
                    file,
                }));
            }
        }
    }
}

impl Drop for PathLock {
    fn drop(&mut self) {
        // First remove, then unlock: see the check above.
        let _ = fs::remove_file(&self.path);
        let _ = self.file.unlock();
    }
}

/// Which file this is, whatever its name.
pub(super) fn identity(path: &Path) -> Option<(u64, u64)> {
    let found = fs::symlink_metadata(path).ok()?;
    Some((found.dev(), found.ino()))
}
