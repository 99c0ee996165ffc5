//! live-mutex's protocol as far as it concerns the connection: lines, and who may speak.
//! What the lines mean is the dialect's business.

use alloc::borrow::Cow;
use alloc::vec::Vec;
use core::fmt;

use serde::Deserialize;
use serde::de::IgnoredAny;

use super::session;

/// Capacity that a drained decoder keeps.
const IDLE_BYTES_MAX: usize = 256;

/// Sent to a client that has shown the right token.
pub(super) const AUTHORIZED: &[u8] = b"{\"type\":\"auth\",\"authenticated\":true}\n";

/// Lines out of a stream that may be cut anywhere.
#[derive(Debug)]
pub(super) struct LineDecoder {
    bytes_max: usize,
    /// The part so far of the line that the last input cut.
    partial: Vec<u8>,
    lent: bool,
}

/// The line is longer than allowed.
#[derive(Debug)]
pub(super) struct LineTooLong;

impl LineDecoder {
    pub(super) const fn new(bytes_max: u32) -> Self {
        Self {
            bytes_max: bytes_max as usize,
            partial: Vec::new(),
            lent: false,
        }
    }

    /// From the next line on, lines have at most `bytes_max` bytes.
    pub(super) fn set_bytes_max(&mut self, bytes_max: u32) {
        self.bytes_max = bytes_max as usize;
    }

    /// Room for a partial line that it has now.
    #[cfg(test)]
    pub(super) fn kept_bytes(&self) -> usize {
        self.partial.capacity()
    }

    /// Whether a line has begun that is not complete.
    pub(super) fn is_partial(&self) -> bool {
        !self.lent && !self.partial.is_empty()
    }

    /// The next line, without its end, taking its bytes from the front of `input`. `None`
    /// once all of `input` is taken and no line is complete.
    pub(super) fn next_line<'d, 'i: 'd>(
        &'d mut self,
        input: &mut &'i [u8],
    ) -> Result<Option<&'d [u8]>, LineTooLong> {
        if core::mem::take(&mut self.lent) {
            self.partial.clear();
            if self.partial.capacity() > IDLE_BYTES_MAX {
                self.partial = Vec::new();
            }
        }
        let room = self.bytes_max - self.partial.len();
        let Some(end) = input.iter().position(|&byte| byte == b'\n') else {
            if input.len() > room {
                return Err(LineTooLong);
            }
            self.partial.extend_from_slice(input);
            *input = &[];
            return Ok(None);
        };
        if end > room {
            return Err(LineTooLong);
        }
        let line = &input[..end];
        *input = &input[end + 1..];
        if self.partial.is_empty() {
            return Ok(Some(line));
        }
        self.partial.extend_from_slice(line);
        self.lent = true;
        Ok(Some(&self.partial))
    }
}

/// The line by which a client shows its token.
#[derive(Deserialize)]
struct Auth<'a> {
    #[serde(borrow, rename = "type")]
    kind: Cow<'a, str>,
    #[serde(borrow)]
    token: Cow<'a, str>,
}

/// What a client's first line is, as to who may speak.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum FirstLine {
    /// It shows a token: the right one, or one where none is needed.
    RightToken,
    /// It shows a token: a wrong one.
    WrongToken,
    /// It is something else, but JSON.
    Other,
    /// It is of no protocol that is spoken here.
    NotJson,
}

pub(super) fn first_line(line: &[u8], token: Option<&[u8]>) -> FirstLine {
    match serde_json::from_slice::<Auth<'_>>(line) {
        Ok(auth) if auth.kind == "auth" => {
            let right =
                token.is_none_or(|token| session::is_authorized(token, auth.token.as_bytes()));
            if right {
                FirstLine::RightToken
            } else {
                FirstLine::WrongToken
            }
        }
        _ if serde_json::from_slice::<IgnoredAny>(line).is_ok() => FirstLine::Other,
        _ => FirstLine::NotJson,
    }
}

/// Appends a line that names the fault for which the connection ends.
pub(super) fn append_fault(fault: &str, text: fmt::Arguments<'_>, into: &mut Vec<u8>) {
    let text = alloc::format!("{text}");
    let line = serde_json::json!({ "type": "error", "fault": fault, "error": text });
    // A JSON value displays as one line.
    into.extend_from_slice(alloc::format!("{line}\n").as_bytes());
}
