//! Unix sockets: made with their permissions, and taken over from the dead only.

use std::fs::{self, File, Permissions};
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};

use socket2::{Domain, SockAddr, Socket, Type};

use super::lock::{PathLock, identity};
use super::{Address, BACKLOG, ListenError, check_listens};

/// A listening Unix socket, and the right to its path.
#[derive(Debug)]
pub(crate) struct UnixListening {
    pub(crate) listener: UnixListener,
    pub(crate) path: PathBuf,
    /// None if somebody else made the socket.
    pub(crate) claim: Option<UnixClaim>,
}

impl UnixListening {
    /// A socket that somebody else opened, and cares for.
    pub(crate) fn inherited(listener: UnixListener) -> io::Result<Self> {
        check_listens(&listener)?;
        listener.set_nonblocking(true)?;
        let address = listener.local_addr()?;
        let path = address.as_pathname().map(Path::to_owned);
        let path = path.ok_or_else(|| {
            let words = "a Unix socket that was handed over has no path, by which clients find the \
                         broker, and its successor its state";
            io::Error::new(io::ErrorKind::InvalidInput, words)
        })?;
        Ok(Self {
            listener,
            path,
            claim: None,
        })
    }
}

/// The right to a socket's path. Dropping it removes the socket file, if it is
/// still this broker's, and gives the right back.
#[derive(Debug)]
pub(crate) struct UnixClaim {
    path: PathBuf,
    identity: (u64, u64),
    // The advisory lock ends with the file, so with the process at the latest.
    _lock: PathLock,
}

impl Drop for UnixClaim {
    fn drop(&mut self) {
        if identity(&self.path).is_some_and(|now| now == self.identity) {
            let _ = fs::remove_file(&self.path);
        }
    }
}

/// Listens at `path`, with these permissions from the first moment on.
///
/// The file of a broker that died is replaced, that of a live one is not: between
/// brokers the lock file beside it decides, so that of two that start at one time
/// only one can think the other dead; for foreign servers, whether they answer.
pub(crate) fn listen_unix(path: &Path, mode: u32) -> Result<UnixListening, ListenError> {
    let address = || Address::Unix(path.to_owned());
    let refused = |source| ListenError::new(address(), source);
    let lock = PathLock::claim(&lock_path(path))
        .map_err(refused)?
        .ok_or_else(|| ListenError::InUse { address: address() })?;
    match fs::symlink_metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(refused(error)),
        Ok(found) if !found.file_type().is_socket() => {
            return Err(ListenError::NotASocket {
                path: path.to_owned(),
            });
        }
        Ok(_) => {
            if !is_dead(path) {
                return Err(ListenError::InUse { address: address() });
            }
            fs::remove_file(path).map_err(refused)?;
        }
    }
    let listener = bind(path, mode).map_err(refused)?;
    let identity = identity(path)
        .ok_or_else(|| refused(io::Error::other("the socket was removed at once")))?;
    Ok(UnixListening {
        listener,
        path: path.to_owned(),
        claim: Some(UnixClaim {
            path: path.to_owned(),
            identity,
            _lock: lock,
        }),
    })
}

/// Tries whether somebody listens at `path`, without waiting until they accept.
pub(super) fn knock(path: &Path) -> io::Result<()> {
    let socket = Socket::new(Domain::UNIX, Type::STREAM, None)?;
    socket.set_nonblocking(true)?;
    match socket.connect(&SockAddr::unix(path)?) {
        // As many as may wait to be accepted do so: somebody is alive there.
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(()),
        outcome => outcome,
    }
}

fn lock_path(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".lock");
    PathBuf::from(name)
}

fn is_dead(path: &Path) -> bool {
    knock(path).is_err_and(|error| error.kind() == io::ErrorKind::ConnectionRefused)
}

fn bind(path: &Path, mode: u32) -> io::Result<UnixListener> {
    let socket = Socket::new(Domain::UNIX, Type::STREAM, None)?;
    socket.set_nonblocking(true)?;
    // Linux gives the file the permissions its socket has when it is bound, less the
    // umask. Elsewhere this fails or does nothing, and only the second call counts.
    let handle = File::from(OwnedFd::from(socket));
    let _ = handle.set_permissions(Permissions::from_mode(mode));
    let socket = Socket::from(OwnedFd::from(handle));
    socket.bind(&SockAddr::unix(path)?)?;
    fs::set_permissions(path, Permissions::from_mode(mode))?;
    socket.listen(BACKLOG)?;
    Ok(socket.into())
}

#[cfg(test)]
mod tests;
