//! Replies, written as compact JSON into one buffer for all connections.

use alloc::collections::VecDeque;
use alloc::vec::Vec;

use crate::broker::ConnectionId;

use super::Output;
use super::parse::Raw;

/// Everything that is to be done to connections, in order.
#[derive(Debug, Default)]
pub(super) struct Outbox {
    bytes: Vec<u8>,
    queue: VecDeque<(ConnectionId, Step)>,
}

#[derive(Clone, Copy, Debug)]
enum Step {
    Bytes {
        from: usize,
        to: usize,
        is_courtesy: bool,
    },
    Close,
}

impl Outbox {
    /// Begins a reply to `connection`; it is complete when the writer is dropped.
    pub(super) fn frame(&mut self, connection: ConnectionId) -> FrameWriter<'_> {
        if self.queue.is_empty() {
            self.bytes.clear();
        }
        let from = self.bytes.len();
        self.bytes.push(b'{');
        FrameWriter {
            outbox: self,
            connection,
            from,
            is_courtesy: false,
        }
    }

    pub(super) fn close(&mut self, connection: ConnectionId) {
        self.queue.push_back((connection, Step::Close));
    }

    pub(super) fn poll(&mut self) -> Option<(ConnectionId, Output<'_>)> {
        let (connection, step) = self.queue.pop_front()?;
        let output = match step {
            Step::Bytes {
                from,
                to,
                is_courtesy,
            } => Output::Bytes {
                bytes: &self.bytes[from..to],
                is_courtesy,
            },
            Step::Close => Output::Close,
        };
        Some((connection, output))
    }
}

/// Writes the fields of one reply.
pub(super) struct FrameWriter<'a> {
    outbox: &'a mut Outbox,
    connection: ConnectionId,
    from: usize,
    is_courtesy: bool,
}

impl FrameWriter<'_> {
    /// It only says that a request waits.
    pub(super) fn courtesy(&mut self) -> &mut Self {
        self.is_courtesy = true;
        self
    }

    /// A field whose value is JSON text already. Left out if there is none, as
    /// JavaScript leaves out what is undefined.
    pub(super) fn echo(&mut self, name: &str, text: Option<&str>) -> &mut Self {
        if let Some(text) = text {
            self.name(name);
            self.outbox.bytes.extend_from_slice(text.as_bytes());
        }
        self
    }

    pub(super) fn raw(&mut self, name: &str, raw: Option<Raw<'_>>) -> &mut Self {
        self.echo(name, raw.map(Raw::text))
    }

    pub(super) fn text(&mut self, name: &str, value: &str) -> &mut Self {
        self.name(name);
        push_string(&mut self.outbox.bytes, value);
        self
    }

    pub(super) fn number(&mut self, name: &str, value: u64) -> &mut Self {
        self.name(name);
        push_number(&mut self.outbox.bytes, value);
        self
    }

    pub(super) fn truth(&mut self, name: &str, value: bool) -> &mut Self {
        self.echo(name, Some(if value { "true" } else { "false" }))
    }

    /// A field whose value `write` appends as JSON.
    pub(super) fn value(&mut self, name: &str, write: impl FnOnce(&mut Vec<u8>)) -> &mut Self {
        self.name(name);
        write(&mut self.outbox.bytes);
        self
    }

    fn name(&mut self, name: &str) {
        let bytes = &mut self.outbox.bytes;
        if bytes.len() > self.from + 1 {
            bytes.push(b',');
        }
        bytes.push(b'"');
        bytes.extend_from_slice(name.as_bytes());
        bytes.extend_from_slice(b"\":");
    }
}

impl Drop for FrameWriter<'_> {
    fn drop(&mut self) {
        self.outbox.bytes.extend_from_slice(b"}\n");
        let (from, to) = (self.from, self.outbox.bytes.len());
        let is_courtesy = self.is_courtesy;
        // Lines to one connection that follow each other are one write.
        if let Some((
            last,
            Step::Bytes {
                to: end,
                is_courtesy: are_courtesies,
                ..
            },
        )) = self.outbox.queue.back_mut()
            && *last == self.connection
            && *end == from
        {
            *end = to;
            *are_courtesies &= is_courtesy;
            return;
        }
        let step = Step::Bytes {
            from,
            to,
            is_courtesy,
        };
        self.outbox.queue.push_back((self.connection, step));
    }
}

pub(super) fn push_number(bytes: &mut Vec<u8>, mut value: u64) {
    let mut digits = [0; 20];
    let mut at = digits.len();
    loop {
        at -= 1;
        digits[at] = b'0' + (value % 10) as u8;
        value /= 10;
        if value == 0 {
            break;
        }
    }
    bytes.extend_from_slice(&digits[at..]);
}

pub(super) fn push_string(bytes: &mut Vec<u8>, value: &str) {
    const HEX: &[u8; 16] = b"0123456789abcdef";
    bytes.push(b'"');
    for byte in value.bytes() {
        match byte {
            b'"' | b'\\' => bytes.extend_from_slice(&[b'\\', byte]),
            b'\n' => bytes.extend_from_slice(b"\\n"),
            0..0x20 => {
                bytes.extend_from_slice(b"\\u00");
                bytes.push(HEX[usize::from(byte >> 4)]);
                bytes.push(HEX[usize::from(byte & 15)]);
            }
            _ => bytes.push(byte),
        }
    }
    bytes.push(b'"');
}

/// A list in brackets of what `items` each append.
pub(super) fn push_list<T>(
    bytes: &mut Vec<u8>,
    items: impl IntoIterator<Item = T>,
    mut push: impl FnMut(&mut Vec<u8>, T),
) {
    bytes.push(b'[');
    for (index, item) in items.into_iter().enumerate() {
        if index > 0 {
            bytes.push(b',');
        }
        push(bytes, item);
    }
    bytes.push(b']');
}

#[cfg(test)]
mod tests {
    use alloc::string::String;

    use super::*;

    #[test]
    fn strings_survive_the_way_back() {
        for text in [
            "",
            "plain",
            "\"\\/\u{8}\u{c}\n\r\t\u{0}\u{1f}\u{7f}",
            "é€😀",
        ] {
            let mut bytes = Vec::new();
            push_string(&mut bytes, text);
            let read: String = serde_json::from_slice(&bytes).unwrap();
            assert_eq!(read, text);
        }
    }

    #[test]
    fn numbers_are_written_in_full() {
        for value in [0, 9, 10, 1234, (1 << 53) - 1, u64::MAX] {
            let mut bytes = Vec::new();
            push_number(&mut bytes, value);
            assert_eq!(bytes, alloc::format!("{value}").into_bytes());
        }
    }
}
