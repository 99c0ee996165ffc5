//! Frames: a little-endian `u32` length, then a postcard body of that length.
//!
//! Nothing here needs a heap but [`append`] and [`Decoder`]: [`encode`] writes into a
//! slice, [`split`] finds the frames in one, and a message borrows from its frame.

#[cfg(feature = "alloc")]
use alloc::vec::Vec;

use serde::{Deserialize, Serialize};

use super::{Reply, Request};

/// Bytes of the length before each body.
pub const LENGTH_BYTES: usize = 4;

/// Capacity that a drained [`Decoder`] keeps, so that a connection whose frames arrive
/// in pieces does not allocate for each, and an idle one costs little.
#[cfg(feature = "alloc")]
const IDLE_BYTES_MAX: usize = 256;

/// What is wrong with a frame.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum FrameError {
    /// Its length is over the limit.
    #[error("a frame of {bytes} bytes was announced; a frame has 1 to {bytes_max} bytes")]
    TooLong {
        /// The length it has, or says it has.
        bytes: u32,
        /// The limit.
        bytes_max: u32,
    },
    /// It has no body.
    #[error("an empty frame was announced; a frame has 1 to {bytes_max} bytes")]
    Empty {
        /// The limit.
        bytes_max: u32,
    },
    /// The body is not a message of this protocol.
    #[error("the frame's body is not a message of this protocol: {0}")]
    Body(postcard::Error),
    /// The body goes on after its message.
    #[error(
        "the frame's body goes on after its message (bytes: {bytes}); send one message per frame"
    )]
    Trailing {
        /// How many bytes too many.
        bytes: usize,
    },
}

/// The buffer is too small for the message.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the message does not fit in a buffer of {bytes} bytes")]
pub struct EncodeError {
    /// How long the buffer is.
    pub bytes: usize,
}

/// Writes `message` as one frame to the beginning of `into`, and returns the frame.
///
/// # Errors
///
/// When `into` is too small. What it contains then means nothing.
pub fn encode<'b>(message: &impl Serialize, into: &'b mut [u8]) -> Result<&'b [u8], EncodeError> {
    let error = EncodeError { bytes: into.len() };
    let (length, body) = into.split_at_mut_checked(LENGTH_BYTES).ok_or(error)?;
    let used = postcard::to_slice(message, body).map_err(|_| error)?.len();
    length.copy_from_slice(&u32::try_from(used).map_err(|_| error)?.to_le_bytes());
    Ok(&into[..LENGTH_BYTES + used])
}

/// Appends `message` as one frame to `into`.
#[cfg(feature = "alloc")]
pub fn append(message: &impl Serialize, into: &mut Vec<u8>) {
    let start = into.len();
    into.extend_from_slice(&[0; LENGTH_BYTES]);
    postcard::serialize_with_flavor(message, Appender(into))
        .expect("messages have no sequence of unknown length, and a vector has room");
    let used = into.len() - start - LENGTH_BYTES;
    let used = u32::try_from(used).expect("a message is shorter than 4 GiB");
    into[start..start + LENGTH_BYTES].copy_from_slice(&used.to_le_bytes());
}

/// The first frame of a stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Frame<'a> {
    /// What is in it: one message.
    pub body: &'a [u8],
    /// What follows it.
    pub rest: &'a [u8],
}

/// The first frame in `bytes`; `None` while it is not complete. A bad length is refused as soon as it is there.
///
/// # Errors
///
/// When the length is zero or more than `bytes_max`. There is no way on from here.
pub fn split(bytes: &[u8], bytes_max: u32) -> Result<Option<Frame<'_>>, FrameError> {
    let Some((length, rest)) = bytes.split_first_chunk::<LENGTH_BYTES>() else {
        return Ok(None);
    };
    let length = body_bytes(*length, bytes_max)?;
    let frame = rest.split_at_checked(length);
    Ok(frame.map(|(body, rest)| Frame { body, rest }))
}

impl<'a> Request<'a> {
    /// The request in the body of a frame. It must fill the body: what a broker does not
    /// know it must not overlook.
    ///
    /// # Errors
    ///
    /// When the body is not exactly a request.
    pub fn decode(body: &'a [u8]) -> Result<Self, FrameError> {
        match postcard::take_from_bytes(body).map_err(FrameError::Body)? {
            (request, []) => Ok(request),
            (_, rest) => Err(FrameError::Trailing { bytes: rest.len() }),
        }
    }
}

impl<'a> Reply<'a> {
    /// The reply in the body of a frame. What follows it is ignored, so that a newer
    /// broker may add fields at the end.
    ///
    /// # Errors
    ///
    /// When the body does not begin with a reply.
    pub fn decode(body: &'a [u8]) -> Result<Self, FrameError> {
        decode(body)
    }
}

/// Frames out of a stream that may be cut anywhere.
///
/// Frames that are complete in the input are lent from there; only a frame that the
/// input cuts is copied, and never more of it than has arrived.
#[cfg(feature = "alloc")]
#[derive(Debug)]
pub struct Decoder {
    bytes_max: u32,
    /// The length and body so far of the frame that the last input cut.
    partial: Vec<u8>,
    /// Whether `partial` is complete and was lent.
    lent: bool,
}

#[cfg(feature = "alloc")]
impl Decoder {
    /// A decoder at the beginning of a frame; bodies have at most `bytes_max` bytes.
    #[must_use]
    pub const fn new(bytes_max: u32) -> Self {
        Self {
            bytes_max,
            partial: Vec::new(),
            lent: false,
        }
    }

    /// From the next frame on, bodies have at most `bytes_max` bytes.
    pub(crate) fn set_bytes_max(&mut self, bytes_max: u32) {
        self.bytes_max = bytes_max;
    }

    /// Whether a frame has begun that is not complete.
    #[must_use]
    pub fn is_partial(&self) -> bool {
        !self.lent && !self.partial.is_empty()
    }

    /// The body of the next frame, taking its bytes from the front of `input`. `None`
    /// once all of `input` is taken and no frame is complete.
    ///
    /// # Errors
    ///
    /// When a length is zero or over the limit. There is no way on from here.
    pub fn next_frame<'d, 'i: 'd>(
        &'d mut self,
        input: &mut &'i [u8],
    ) -> Result<Option<&'d [u8]>, FrameError> {
        if self.lent {
            self.lent = false;
            self.partial.clear();
            if self.partial.capacity() > IDLE_BYTES_MAX {
                self.partial = Vec::new();
            }
        }
        if self.partial.is_empty() {
            if let Some(frame) = split(input, self.bytes_max)? {
                *input = frame.rest;
                return Ok(Some(frame.body));
            }
            self.take(input, input.len());
            return Ok(None);
        }
        if self.partial.len() < LENGTH_BYTES {
            self.take(input, LENGTH_BYTES - self.partial.len());
        }
        let Some((length, body)) = self.partial.split_first_chunk::<LENGTH_BYTES>() else {
            return Ok(None);
        };
        let missing = body_bytes(*length, self.bytes_max)? - body.len();
        self.take(input, missing);
        let Some(frame) = split(&self.partial, self.bytes_max)? else {
            return Ok(None);
        };
        self.lent = true;
        Ok(Some(frame.body))
    }

    fn take(&mut self, input: &mut &[u8], bytes_max: usize) {
        let (taken, rest) = input.split_at(bytes_max.min(input.len()));
        self.partial.extend_from_slice(taken);
        *input = rest;
    }
}

fn decode<'a, T: Deserialize<'a>>(body: &'a [u8]) -> Result<T, FrameError> {
    postcard::from_bytes(body).map_err(FrameError::Body)
}

fn body_bytes(length: [u8; LENGTH_BYTES], bytes_max: u32) -> Result<usize, FrameError> {
    match u32::from_le_bytes(length) {
        0 => Err(FrameError::Empty { bytes_max }),
        bytes if bytes > bytes_max => Err(FrameError::TooLong { bytes, bytes_max }),
        bytes => Ok(bytes as usize),
    }
}

/// Serializes to the end of a vector.
#[cfg(feature = "alloc")]
struct Appender<'b>(&'b mut Vec<u8>);

#[cfg(feature = "alloc")]
impl postcard::ser_flavors::Flavor for Appender<'_> {
    type Output = ();

    fn try_push(&mut self, byte: u8) -> postcard::Result<()> {
        self.0.push(byte);
        Ok(())
    }

    fn try_extend(&mut self, bytes: &[u8]) -> postcard::Result<()> {
        self.0.extend_from_slice(bytes);
        Ok(())
    }

    fn finalize(self) -> postcard::Result<()> {
        Ok(())
    }
}

#[cfg(all(test, feature = "alloc"))]
mod tests;
