//! Keys: bounded bytes, parsed once at the edge.

/// The name of a resource: at least one byte, at most the configured maximum.
///
/// Having a `Key` is the proof that its length was checked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Key<'a>(&'a [u8]);

impl<'a> Key<'a> {
    /// Checks `bytes` against the limit of `bytes_max` bytes.
    ///
    /// # Errors
    ///
    /// [`KeyError`] names the fault and the limit.
    pub const fn new(bytes: &'a [u8], bytes_max: u32) -> Result<Self, KeyError> {
        if bytes.is_empty() {
            return Err(KeyError::Empty { bytes_max });
        }
        if bytes.len() > bytes_max as usize {
            return Err(KeyError::TooLong {
                bytes: bytes.len(),
                bytes_max,
            });
        }
        Ok(Self(bytes))
    }

    /// The key's bytes.
    #[must_use]
    pub const fn as_bytes(self) -> &'a [u8] {
        self.0
    }
}

/// Why some bytes are no key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum KeyError {
    /// No byte at all.
    #[error("the key is empty; a key has 1 to {bytes_max} bytes")]
    Empty {
        /// The configured maximum.
        bytes_max: u32,
    },
    /// More bytes than the limit.
    #[error("the key has {bytes} bytes; a key has 1 to {bytes_max} bytes")]
    TooLong {
        /// How long it was.
        bytes: usize,
        /// The configured maximum.
        bytes_max: u32,
    },
}
