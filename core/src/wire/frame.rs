//! Frames: a little-endian `u32` length, then a postcard body of that length.

/// Bytes of the length before each body.
pub const LENGTH_BYTES: usize = 4;
