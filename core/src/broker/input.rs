//! What arrives: which protocol it is, and where its messages end.

use super::Broker;
use super::connection::{Input, Phase};
use super::connections::Queue;
use super::lines::{self, FirstLine, LineDecoder};
use crate::Instant;
use crate::wire::frame::{Decoder, FrameError};
use crate::wire::{FaultKind, MAGIC};

impl Broker {
    /// Carries out what is in `bytes` after what was kept waiting, as far as the output
    /// has room; the rest is kept.
    pub(super) fn take_input(&mut self, now: Instant, index: u32, bytes: &[u8]) {
        if self.connections[index].is_closing() {
            return;
        }
        if self.connections[index].backlog.is_empty() {
            let rest = self.feed(now, index, bytes);
            self.connections.keep(index, rest);
        } else {
            // A transport that asks `wants_input` sends nothing now.
            if self.connections[index].backlog.len() > self.config.output_bytes_max as usize
                && !bytes.is_empty()
            {
                let text = format_args!("more and more was sent without reading the replies");
                return self.fault(now, index, FaultKind::SlowReader, text);
            }
            self.connections.keep(index, bytes);
            let backlog = self.connections.take_backlog(index);
            let left = self.feed(now, index, &backlog).len();
            self.connections.return_backlog(index, backlog, left);
        }
        // The appetite may have changed.
        self.connections.enqueue(Queue::Ready, index, now);
    }

    /// Carries out messages until the output is full, and returns what it did not get to.
    fn feed<'b>(&mut self, now: Instant, index: u32, mut bytes: &'b [u8]) -> &'b [u8] {
        while let Input::Magic { matched } = self.connections[index].input {
            if self.connections[index].is_closing() {
                return &[];
            }
            let Some((&byte, rest)) = bytes.split_first() else {
                return &[];
            };
            if matched == 0 && begins_line(byte) {
                self.connections[index].speaks_lines = true;
                let decoder = LineDecoder::new(self.message_bytes_max(index));
                self.connections[index].input = Input::Lines(decoder);
            } else if byte == MAGIC[usize::from(matched)] {
                bytes = rest;
                self.connections[index].input = match matched + 1 {
                    4 => Input::Frames(Decoder::new(self.message_bytes_max(index))),
                    matched => Input::Magic { matched },
                };
            } else {
                self.refuse_magic(now, index, matched, byte);
            }
        }
        // The handlers need the whole broker, so the decoder is taken out meanwhile.
        let input = core::mem::replace(
            &mut self.connections[index].input,
            Input::Magic { matched: 0 },
        );
        let input = match input {
            Input::Frames(mut decoder) => {
                self.feed_frames(now, index, &mut decoder, &mut bytes);
                Input::Frames(decoder)
            }
            Input::Lines(mut decoder) => {
                self.feed_lines(now, index, &mut decoder, &mut bytes);
                Input::Lines(decoder)
            }
            Input::Magic { .. } => unreachable!("the protocol was found above"),
        };
        if self.connections[index].is_closing() {
            return &[];
        }
        self.connections[index].input = input;
        bytes
    }

    fn feed_frames(&mut self, now: Instant, index: u32, decoder: &mut Decoder, bytes: &mut &[u8]) {
        let mut was_heard = false;
        while self.is_listening(index) {
            match decoder.next_frame(bytes) {
                Ok(Some(body)) => {
                    was_heard = true;
                    self.handle_frame(now, index, body);
                    decoder.set_bytes_max(self.message_bytes_max(index));
                }
                Ok(None) => break,
                Err(error) => {
                    let kind = match error {
                        FrameError::TooLong { .. } => FaultKind::FrameTooLong,
                        _ => FaultKind::Malformed,
                    };
                    let limit = self.limit_name(index);
                    self.fault(now, index, kind, format_args!("{error} ({limit})"));
                }
            }
        }
        if was_heard && self.connections[index].session.is_some() {
            self.connections.requeue(Queue::Heard, index, now);
        }
    }

    fn feed_lines(
        &mut self,
        now: Instant,
        index: u32,
        decoder: &mut LineDecoder,
        bytes: &mut &[u8],
    ) {
        while self.is_listening(index) {
            let Ok(line) = decoder.next_line(bytes) else {
                let (bytes_max, limit) = (self.message_bytes_max(index), self.limit_name(index));
                let text = format_args!(
                    "a line is longer than {bytes_max} bytes ({limit}); send shorter ones"
                );
                self.fault(now, index, FaultKind::FrameTooLong, text);
                return;
            };
            let Some(line) = line else {
                break;
            };
            self.connections.unlink(Queue::Heard, index);
            if !line.trim_ascii().is_empty() {
                self.handle_line(now, index, line);
                decoder.set_bytes_max(self.message_bytes_max(index));
            }
        }
        // A line that was begun must be finished; between lines a client may be silent.
        if decoder.is_partial() && self.connections[index].phase == Phase::Open {
            self.connections.enqueue(Queue::Heard, index, now);
        }
    }

    fn handle_line(&mut self, now: Instant, index: u32, line: &[u8]) {
        if self.connections[index].phase == Phase::Handshake {
            let token = self.config.auth_token.as_deref();
            match (lines::first_line(line, token), token) {
                (FirstLine::NotJson, _) => {
                    let text = format_args!(
                        "the first line is not JSON: this port speaks live-mutex's lines of JSON \
                         and LMX's native protocol, and no other, such as HTTP"
                    );
                    return self.fault(now, index, FaultKind::Magic, text);
                }
                (FirstLine::Other, Some(_)) => {
                    let text = format_args!(
                        "this broker requires authentication: first send \
                         {{\"type\":\"auth\",\"token\":\"...\"}}"
                    );
                    return self.fault(now, index, FaultKind::Unauthorized, text);
                }
                (FirstLine::WrongToken, _) => {
                    let text = format_args!("the authentication token is wrong");
                    return self.fault(now, index, FaultKind::Unauthorized, text);
                }
                (FirstLine::Other, None) => self.admit_to_dialect(index),
                (FirstLine::RightToken, _) => {
                    self.admit_to_dialect(index);
                    self.connections.write(now, index, |output| {
                        output.extend_from_slice(lines::AUTHORIZED);
                    });
                    return;
                }
            }
        }
        let id = self.connections.id(index);
        self.dialect.handle_line(now, id, line, &mut self.table);
        while let Some((id, lease)) = self.dialect.poll_kept() {
            self.note_kept(index, id, lease);
        }
        if self.dialect.take_says_not_held() {
            self.note_told_any(index);
        }
        self.note_dialect(index);
        // The next line must find the effects of this one with the dialect, not on
        // their way to it.
        self.pump(now);
    }

    fn admit_to_dialect(&mut self, index: u32) {
        self.connections.unlink(Queue::Handshake, index);
        let connection = &mut self.connections[index];
        connection.phase = Phase::Open;
        connection.in_dialect = true;
        self.dialect.connect(self.connections.id(index));
    }

    fn refuse_magic(&mut self, now: Instant, index: u32, matched: u8, byte: u8) {
        const TLS_HANDSHAKE: u8 = 22;
        let text = match (matched, byte) {
            (3, _) => format_args!(
                "this broker speaks version {} of the native protocol, not version {byte}",
                MAGIC[3]
            ),
            (0, TLS_HANDSHAKE) => format_args!(
                "this looks like TLS, which is not spoken here: configure TLS at the broker, or \
                 connect without it"
            ),
            _ => format_args!(
                "this is neither the native protocol, which begins with the bytes 4c 4d 58 01, \
                 nor live-mutex's lines of JSON"
            ),
        };
        self.fault(now, index, FaultKind::Magic, text);
    }

    /// How long a message may be now: whoever has not said who it is costs little.
    fn message_bytes_max(&self, index: u32) -> u32 {
        let connection = &self.connections[index];
        let is_stranger = connection.phase == Phase::Handshake
            && (!connection.speaks_lines || self.config.auth_token.is_some());
        if is_stranger {
            self.config.handshake_bytes_max()
        } else {
            self.config.frame_bytes_max
        }
    }

    /// Where that comes from.
    fn limit_name(&self, index: u32) -> &'static str {
        if self.message_bytes_max(index) == self.config.frame_bytes_max {
            "frame_bytes_max"
        } else {
            "before the handshake is finished"
        }
    }

    /// Whether the next message may be carried out.
    fn is_listening(&self, index: u32) -> bool {
        !self.connections[index].is_closing() && self.has_room(index)
    }
}

/// Whether a live-mutex client may begin with this byte: the beginning of a line of JSON or
/// of any other text (which then is answered as a bad line), but of the magic.
fn begins_line(byte: u8) -> bool {
    match byte {
        b'\t' | b'\n' | b'\r' => true,
        first if first == MAGIC[0] => false,
        // Printable ASCII, and the first bytes of longer UTF-8 sequences.
        b' '..=b'~' | 0xc2..=0xf4 => true,
        _ => false,
    }
}
