//! Byte strings as one piece: serde takes a slice for a sequence of numbers, and writes
//! each of them alone. The encoding is the same.

use serde::{Deserialize, Deserializer, Serializer};

pub(super) fn serialize<S: Serializer>(bytes: &[u8], to: S) -> Result<S::Ok, S::Error> {
    to.serialize_bytes(bytes)
}

pub(super) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<&'de [u8], D::Error> {
    Deserialize::deserialize(from)
}
