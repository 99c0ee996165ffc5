//! Standard output, and what goes wrong with it.

use std::io::{self, Write};

/// Standard output. A reader that has gone away (`| head`) is no failure: what is left is
/// not written, and the exit status says what it would have said.
pub(super) struct Out {
    closed: bool,
}

impl Out {
    pub(super) const fn new() -> Self {
        Self { closed: false }
    }

    /// Whether nobody reads any more.
    pub(super) const fn is_closed(&self) -> bool {
        self.closed
    }

    fn attempt<T>(&mut self, instead: T, write: impl FnOnce() -> io::Result<T>) -> io::Result<T> {
        if self.closed {
            return Ok(instead);
        }
        match write() {
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => {
                self.closed = true;
                Ok(instead)
            }
            result => result,
        }
    }
}

impl Write for Out {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.attempt(bytes.len(), || io::stdout().write(bytes))
    }

    fn flush(&mut self) -> io::Result<()> {
        self.attempt((), || io::stdout().flush())
    }
}

/// Why a command cannot be carried out: in words, for standard error.
pub(super) struct Problem(pub(super) String);

impl From<String> for Problem {
    fn from(text: String) -> Self {
        Self(text)
    }
}

impl From<&str> for Problem {
    fn from(text: &str) -> Self {
        Self(text.to_owned())
    }
}

impl From<io::Error> for Problem {
    fn from(error: io::Error) -> Self {
        Self(format!("cannot write to standard output: {error}"))
    }
}
