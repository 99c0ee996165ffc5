//! Text that is safe on a terminal, and on standard output.

use std::fmt::{self, Write as _};
use std::io::{self, Write as _};
use std::time::{Duration, SystemTime};

use lmx_core::Mode;
use lmx_transports::clock;
use serde_json::{Value, json};

use super::exit::{self, Failure};

/// Writes all of `text` to standard output. A reader that has gone away is no failure.
pub(super) fn print(text: impl AsRef<[u8]>) -> Result<(), Failure> {
    match print_strictly(text.as_ref()) {
        Ok(()) => Ok(()),
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        Err(error) => Err(Failure::new(
            exit::SYSTEM,
            format!("cannot write to standard output: {error}"),
        )),
    }
}

/// Writes all of `text` to standard output, or says why it did not arrive.
pub(super) fn print_strictly(text: &[u8]) -> io::Result<()> {
    let mut out = io::stdout().lock();
    out.write_all(text).and_then(|()| out.flush())
}

/// Prints one line of JSON.
pub(super) fn print_json(value: &Value) -> Result<(), Failure> {
    print(format!("{value}\n"))
}

/// Bytes as text that changes nothing on a terminal: as they are if they are printable and
/// without blanks, else quoted and escaped.
pub(super) fn shown(bytes: &[u8]) -> String {
    let is_plain = std::str::from_utf8(bytes).is_ok_and(|text| {
        !text.is_empty()
            && text.chars().all(|char| {
                let escapes = !matches!(char, '\'' | '"' | '\\') && char.escape_debug().len() > 1;
                !char.is_whitespace() && !escapes && !matches!(char, '"' | '\\')
            })
    });
    if is_plain {
        return String::from_utf8_lossy(bytes).into_owned();
    }
    let mut text = String::from("\"");
    for chunk in bytes.utf8_chunks() {
        for char in chunk.valid().chars() {
            match char {
                '\'' => text.push(char),
                char => text.extend(char.escape_debug()),
            }
        }
        for byte in chunk.invalid() {
            // Writing to a string cannot fail.
            let _ = write!(text, "\\x{byte:02x}");
        }
    }
    text.push('"');
    text
}

/// Bytes in single quotes, as a shell reads them.
pub(super) fn quoted_for_shell(bytes: &[u8]) -> Vec<u8> {
    let mut quoted = vec![b'\''];
    for byte in bytes {
        match byte {
            b'\'' => quoted.extend_from_slice(br"'\''"),
            byte => quoted.push(*byte),
        }
    }
    quoted.push(b'\'');
    quoted
}

/// Puts bytes into an object as `name`; those that are no UTF-8 in hexadecimal as well.
pub(super) fn put_bytes(object: &mut Value, name: &str, bytes: &[u8]) {
    object[name] = String::from_utf8_lossy(bytes).into();
    if std::str::from_utf8(bytes).is_err() {
        let hex: String = bytes.iter().fold(String::new(), |mut hex, byte| {
            let _ = write!(hex, "{byte:02x}");
            hex
        });
        object[format!("{name}_hex")] = hex.into();
    }
}

/// A length of time as people write it, to the millisecond.
pub(super) fn time(time: Duration) -> String {
    let millis = u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
    if millis < 60_000 {
        return format!("{}.{:03} s", millis / 1000, millis % 1000);
    }
    humantime::format_duration(Duration::from_secs(millis / 1000)).to_string()
}

/// A length of time in whole milliseconds.
pub(super) fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

/// When something will end, for people and programs to see; nothing is decided by it, for
/// it is told by the wall clock.
#[derive(Clone, Copy, Debug)]
pub(super) struct Ending {
    remaining: Duration,
    at: SystemTime,
}

impl Ending {
    /// So long from now.
    pub(super) fn after(remaining: Duration) -> Self {
        let at = clock::wall() + remaining;
        Self { remaining, at }
    }

    /// The moment, as RFC 3339 has it.
    pub(super) fn at(self) -> String {
        humantime::format_rfc3339_millis(self.at).to_string()
    }

    /// Puts it, or that there is none, into a JSON object.
    pub(super) fn put(object: &mut Value, ending: Option<Self>) {
        object["deadline"] = ending.map(Self::at).into();
        object["remaining_ms"] = ending.map(|ending| millis(ending.remaining)).into();
    }
}

impl fmt::Display for Ending {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} (in {})", self.at(), time(self.remaining))
    }
}

/// The moment so long ago, as RFC 3339 has it.
pub(super) fn ago(age: Duration) -> String {
    let at = clock::wall().checked_sub(age);
    humantime::format_rfc3339_millis(at.unwrap_or(SystemTime::UNIX_EPOCH)).to_string()
}

/// A mode, for people.
pub(super) fn mode(mode: Mode) -> String {
    match mode {
        Mode::Exclusive => "exclusive".to_owned(),
        Mode::Shared => "shared".to_owned(),
        Mode::Semaphore { capacity, permits } => format!("{permits} of {capacity} permits"),
    }
}

/// A mode, for programs.
pub(super) fn mode_json(mode: Mode) -> Value {
    match mode {
        Mode::Exclusive => json!("exclusive"),
        Mode::Shared => json!("shared"),
        Mode::Semaphore { capacity, permits } => {
            json!({ "semaphore": { "capacity": capacity, "permits": permits } })
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_that_is_printed_moves_the_cursor() {
        for (bytes, text) in [
            (&b"plain-key:1"[..], "plain-key:1"),
            (b"it's", "it's"),
            ("schl\u{fc}ssel".as_bytes(), "schl\u{fc}ssel"),
            (b"two words", r#""two words""#),
            (b"", r#""""#),
            (b"a\nb", r#""a\nb""#),
            (b"\x1b[2J", r#""\u{1b}[2J""#),
            (b"\xff\xfe'", r#""\xff\xfe'""#),
            ("\u{202e}txt".as_bytes(), r#""\u{202e}txt""#),
            (b"say \"hi\"", r#""say \"hi\"""#),
        ] {
            assert_eq!(shown(bytes), text);
        }
    }

    #[test]
    fn a_shell_reads_back_what_was_quoted() {
        assert_eq!(quoted_for_shell(b"it's $HOME"), br"'it'\''s $HOME'");
    }

    #[test]
    fn bytes_that_are_no_text_are_not_lost_in_json() {
        let mut object = json!({});
        put_bytes(&mut object, "key", b"\xffa");
        assert_eq!(object, json!({ "key": "\u{fffd}a", "key_hex": "ff61" }));
    }

    #[test]
    fn times_are_short() {
        assert_eq!(time(Duration::from_millis(3_050)), "3.050 s");
        assert_eq!(time(Duration::from_millis(90_500)), "1m 30s");
    }
}
