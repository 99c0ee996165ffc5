//! A child process that reads lines and writes lines: whatever it does, it is waited for no
//! longer than patience lasts, and nothing of it is left when it has ended.

use std::io::{self, BufRead as _, BufReader, Read as _, Write as _};
use std::path::Path;
use std::process::{ChildStdin, ChildStdout, Command, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, SyncSender, channel, sync_channel};
use std::time::Duration;

use super::group::Group;

/// The longest line.
const LINE_BYTES_MAX: u64 = 1 << 20;

/// So many lines are read ahead, all of them too many.
const LINES_AHEAD: usize = 16;

/// It ends with its last owner, and whatever it has started ends, too.
#[derive(Debug)]
pub(super) struct Process {
    group: Group,
    /// To the thread that writes, for one that does not read blocks whoever writes to it.
    input: Sender<String>,
    /// The lines that it writes, as they come, or what is wrong with one.
    output: Receiver<Result<Line, String>>,
}

#[derive(Debug)]
struct Line {
    text: String,
    /// What had been written behind it by then.
    beyond: String,
}

impl Process {
    pub(super) fn start(command: &[String], folder: Option<&Path>) -> io::Result<Self> {
        let (program, arguments) = command
            .split_first()
            .ok_or_else(|| io::Error::new(io::ErrorKind::InvalidInput, "there is no program"))?;
        let mut command = Command::new(program);
        command.args(arguments);
        if let Some(folder) = folder {
            command.current_dir(folder);
        }
        command.stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut group = Group::start(&mut command)?;
        let input = group.leader.stdin.take().expect("it is piped");
        let output = group.leader.stdout.take().expect("it is piped");
        let (to_write, events) = channel();
        let (lines, answers) = sync_channel(LINES_AHEAD);
        std::thread::spawn(move || write_lines(input, &events));
        std::thread::spawn(move || read_lines(output, &lines));
        Ok(Self {
            group,
            input: to_write,
            output: answers,
        })
    }

    /// The one line with which it answers this one, or what is wrong with it.
    pub(super) fn answer(&mut self, line: String, patience: Duration) -> Result<String, String> {
        self.expect_silence()?;
        // One that has ended shows that below.
        let _ = self.input.send(line);
        match self.output.recv_timeout(patience) {
            Ok(Ok(Line { text, beyond })) if beyond.is_empty() => Ok(text),
            Ok(Ok(Line { beyond, .. })) => Err(too_many(&beyond, beyond.lines().count())),
            Ok(Err(what)) => Err(what),
            Err(RecvTimeoutError::Timeout) => {
                Err(format!("hangs: it has not answered for {patience:?}"))
            }
            Err(RecvTimeoutError::Disconnected) => {
                // If it has only closed its output, that is an end, too.
                let status = self.group.end().map_err(|error| error.to_string())?;
                Err(format!("ended ({status}) instead of answering"))
            }
        }
    }

    /// It speaks when it is spoken to: a line that nobody has asked for would be taken for
    /// the answer to what comes next.
    fn expect_silence(&self) -> Result<(), String> {
        let mut unasked = self.output.try_iter().take(LINES_AHEAD);
        match unasked.next() {
            None => Ok(()),
            Some(first) => Err(too_many(&first?.text, 1 + unasked.count())),
        }
    }
}

fn too_many(unasked: &str, lines: usize) -> String {
    let first = shown(unasked.lines().next().unwrap_or_default());
    format!(
        "wrote `{first}` without being asked, at least {lines} {} too many: it answers each \
         event with exactly one",
        if lines == 1 { "line" } else { "lines" }
    )
}

/// As much of a line as is good to read.
pub(super) fn shown(line: &str) -> String {
    line.trim_end().chars().take(200).collect()
}

fn write_lines(mut input: ChildStdin, lines: &Receiver<String>) {
    for line in lines {
        if writeln!(input, "{line}").is_err() {
            break;
        }
    }
}

fn read_lines(output: ChildStdout, lines: &SyncSender<Result<Line, String>>) {
    let mut output = BufReader::new(output);
    loop {
        let line = match read_line(&mut output) {
            Ok(None) => break,
            Ok(Some(text)) => Ok(Line {
                text,
                beyond: String::from_utf8_lossy(output.buffer()).into_owned(),
            }),
            Err(what) => Err(what),
        };
        let is_last = line.is_err();
        if lines.send(line).is_err() || is_last {
            break;
        }
    }
}

fn read_line(output: &mut BufReader<ChildStdout>) -> Result<Option<String>, String> {
    let mut line = Vec::new();
    let mut limited = output.by_ref().take(LINE_BYTES_MAX);
    limited
        .read_until(b'\n', &mut line)
        .map_err(|error| format!("cannot be read from: {error}"))?;
    if limited.limit() == 0 && !line.ends_with(b"\n") {
        let mib = LINE_BYTES_MAX >> 20;
        return Err(format!("wrote a line that is longer than {mib} MiB"));
    }
    match String::from_utf8(line) {
        Ok(line) if line.is_empty() => Ok(None),
        Ok(line) => Ok(Some(line)),
        Err(error) => {
            let line = String::from_utf8_lossy(error.as_bytes());
            Err(format!("wrote `{}`, which is not UTF-8", shown(&line)))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_that_comes_between_two_questions_is_too_many() {
        let script = "echo '[]'; exec cat";
        let command = ["sh", "-c", script].map(str::to_owned);
        let mut process = Process::start(&command, None).unwrap();
        let unasked = loop {
            if let Err(what) = process.expect_silence() {
                break what;
            }
            std::thread::yield_now();
        };
        assert!(unasked.contains("1 line too many"), "{unasked}");
        let answer = process.answer("[1]".to_owned(), Duration::from_mins(1));
        assert_eq!(answer.unwrap().trim_end(), "[1]");
    }
}
