//! The table's behaviour as scripts that read as a specification.
//!
//! A script is a sequence of blocks: commands, a line of dashes, and what they print. A
//! command begins with the time in milliseconds. What sessions are told is polled after
//! each command and printed below it, except for sessions that are opened `deaf`.
//!
//! Both storages must print the same. With `LMX_REWRITE=1` the scripts are rewritten with
//! what is printed; read the difference before you commit it.
#![cfg(feature = "alloc")]

use core::fmt::Write as _;
use core::num::NonZeroU32;
use core::time::Duration;
use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use lmx_core::storage::{Fixed, Growable, Storage};
use lmx_core::table::{Conversion, ForceTarget, Grant, RequestView};
use lmx_core::{
    Acquire, Acquired, Event, FencingToken, Instant, Key, LockTable, Mode, RequestId, SessionId,
    TableConfig, Wait, Want,
};

type Small = Fixed<8, 16, 4, 16>;

/// What can happen in the same instant as something else.
const RACERS: [&str; 9] = [
    "grant",
    "release",
    "renew",
    "cancel",
    "expiry",
    "timeout",
    "disconnect",
    "resume",
    "force",
];

#[test]
fn scripts_print_what_they_say() {
    for path in scripts("tests/scripts") {
        let script = fs::read_to_string(&path).unwrap();
        let growable = play::<Growable>(&script);
        let fixed = play::<Small>(&script);
        assert_eq!(growable, fixed, "the storages differ in {}", path.display());
        if std::env::var_os("LMX_REWRITE").is_some() {
            fs::write(&path, growable).unwrap();
        } else {
            assert!(
                script == growable,
                "{} now prints:\n{growable}",
                path.display()
            );
        }
    }
}

#[test]
fn every_race_has_a_script_and_stands_in_the_documentation() {
    let mut rows = String::new();
    for (at, one) in RACERS.iter().enumerate() {
        for other in &RACERS[at + 1..] {
            let path = format!("tests/scripts/races/{one}-{other}.script");
            let script = fs::read_to_string(&path).unwrap_or_else(|_| panic!("no {path}"));
            let outcome: Vec<_> = script
                .lines()
                .map_while(|line| line.strip_prefix('#'))
                .map(str::trim)
                .collect();
            let outcome = outcome.join(" ");
            assert!(
                !outcome.is_empty(),
                "{path} does not begin with its outcome"
            );
            writeln!(
                rows,
                "| {one} | {other} | {outcome} | [script](../core/{path}) |"
            )
            .unwrap();
        }
    }
    let architecture = fs::read_to_string("../docs/ARCHITECTURE.md").unwrap();
    assert!(
        architecture.contains(&rows),
        "the table of races in docs/ARCHITECTURE.md should have these rows:\n{rows}"
    );
}

fn scripts(folder: impl AsRef<Path>) -> Vec<PathBuf> {
    let mut found = vec![];
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(scripts(path));
        } else if path
            .extension()
            .is_some_and(|extension| extension == "script")
        {
            found.push(path);
        }
    }
    found.sort();
    found
}

/// Plays the commands of a script, and writes them down again with what they print.
fn play<S: Storage>(script: &str) -> String {
    let mut player = Player::<S>::new();
    let mut out = String::new();
    let mut printed = String::new();
    let mut in_output = false;
    for line in script.lines() {
        if line.starts_with("--") {
            in_output = true;
            writeln!(out, "----\n{}", printed.trim_end()).unwrap();
            printed.clear();
        } else if line.trim().is_empty() {
            in_output = false;
            out.push('\n');
        } else if line.starts_with('#') {
            writeln!(out, "{line}").unwrap();
        } else if !in_output {
            writeln!(out, "{line}").unwrap();
            player.command(line, &mut printed);
        }
    }
    out
}

struct Player<S: Storage> {
    table: LockTable<S>,
    sessions: BTreeMap<String, SessionId>,
    deaf: Vec<String>,
}

/// One command, taken apart.
struct Words<'a> {
    line: &'a str,
    plain: Vec<&'a str>,
    options: BTreeMap<&'a str, &'a str>,
}

impl<S: Storage> Player<S> {
    fn new() -> Self {
        let config = TableConfig {
            timers_per_call_max: 1024,
            ..Small::config()
        };
        Self {
            table: LockTable::new(config).unwrap(),
            sessions: BTreeMap::new(),
            deaf: vec![],
        }
    }

    fn command(&mut self, line: &str, out: &mut String) {
        let words = Words::new(line);
        let now = Instant::from_millis(words.number(0));
        let answer = match words.plain[1..] {
            ["open", name, ..] => self.open(now, name, &words),
            ["tick"] => {
                self.table.handle_timeout(now);
                String::new()
            }
            ["force", id] => {
                let target = ForceTarget::Request(request_id(id));
                format!("ended {}", self.table.force_release(now, target))
            }
            ["force", "key", name] => {
                let target = ForceTarget::Key(key(name));
                format!("ended {}", self.table.force_release(now, target))
            }
            ["grace", until] => {
                let until = Instant::from_millis(until.parse().unwrap());
                self.table.begin_grace(now, until);
                String::new()
            }
            ["end-grace"] => {
                self.table.end_grace(now);
                String::new()
            }
            ["ceiling", token] => {
                let token = FencingToken::new(token.parse().unwrap()).unwrap();
                self.table.set_token_ceiling(now, token);
                String::new()
            }
            ["show", name] => self.show(name),
            [name, verb, ..] => {
                let session = *self
                    .sessions
                    .get(name)
                    .unwrap_or_else(|| panic!("no session {name}: {line}"));
                self.session_command(now, name, session, verb, &words, out)
            }
            _ => panic!("not a command: {line}"),
        };
        if !answer.is_empty() {
            writeln!(out, "{answer}").unwrap();
        }
        self.table.check();
        for (name, session) in self.sessions.clone() {
            if !self.deaf.contains(&name) {
                self.print_events(&name, session, out);
            }
        }
    }

    fn open(&mut self, now: Instant, name: &str, words: &Words<'_>) -> String {
        let window = words.millis("window").unwrap_or_default();
        match self.table.open_session(now, window) {
            Ok(session) => {
                self.sessions.insert(name.into(), session);
                if words.has("deaf") {
                    self.deaf.push(name.into());
                }
                String::new()
            }
            Err(error) => format!("error: {error}"),
        }
    }

    fn session_command(
        &mut self,
        now: Instant,
        name: &str,
        session: SessionId,
        verb: &str,
        words: &Words<'_>,
        out: &mut String,
    ) -> String {
        let id = || request_id(words.plain[3]);
        let table = &mut self.table;
        match verb {
            "acquire" => words.acquire(|want| match table.acquire(now, session, want) {
                Ok(Acquired::Granted(grant)) => grant_text(grant),
                Ok(Acquired::Queued { ahead }) => format!("queued behind {ahead}"),
                Err(error) => format!("error: {error}"),
            }),
            "reclaim" => {
                let token = FencingToken::new(words.options["token"].parse().unwrap()).unwrap();
                words.acquire(|want| {
                    answer(table.reclaim(now, session, want, token).map(grant_text))
                })
            }
            "release" => answer(
                table
                    .release(now, session, id())
                    .map(|()| "released".into()),
            ),
            "renew" => {
                let renewed = table.renew(now, session, id(), words.millis("lease"));
                answer(renewed.map(|deadline| format!("renewed{}", until(deadline))))
            }
            "cancel" => answer(
                table
                    .cancel(now, session, id())
                    .map(|()| "cancelled".into()),
            ),
            "upgrade" | "downgrade" => {
                let to = if verb == "upgrade" {
                    Conversion::Upgrade
                } else {
                    Conversion::Downgrade
                };
                let converted = table.convert(now, session, id(), to);
                answer(converted.map(|grant| grant.map_or_else(|| "queued".into(), grant_text)))
            }
            "disconnect" => answer(table.disconnect(now, session).map(|()| String::new())),
            "resume" => answer(table.resume(now, session).map(|()| "resumed".into())),
            "close" => answer(table.close_session(now, session).map(|()| String::new())),
            "confirm" => {
                table.confirm(session, words.number(3) as u32);
                String::new()
            }
            "events" => {
                self.print_events(name, session, out);
                String::new()
            }
            _ => panic!("not a command: {}", words.line),
        }
    }

    fn print_events(&mut self, name: &str, session: SessionId, out: &mut String) {
        while let Some(event) = self.table.poll_event(session) {
            let text = match event {
                Event::Granted { id, grant } => format!("{} {}", number(id), grant_text(grant)),
                Event::TimedOut { id } => format!("{} timed out", number(id)),
                Event::Expired { id, token } => format!("{} expired token={token}", number(id)),
                Event::Revoked { id, token } => {
                    let token = token.map_or(String::new(), |token| format!(" token={token}"));
                    format!("{} revoked{token}", number(id))
                }
                Event::Contended { id } => format!("{} contended", number(id)),
                other => panic!("{other:?}"),
            };
            writeln!(out, "  {name} is told: {text}").unwrap();
        }
    }

    fn show(&self, name: &str) -> String {
        let Some(view) = self.table.inspect(key(name)) else {
            return format!("{name} is free");
        };
        let mut text = String::new();
        if let Some(until) = view.delayed_until() {
            write!(text, "delayed until {} ", millis(until)).unwrap();
        }
        let list = |views: Vec<RequestView<'_>>| {
            let all: Vec<_> = views
                .iter()
                .map(|view| {
                    let upgrading = if view.is_upgrading() {
                        "(upgrading)"
                    } else {
                        ""
                    };
                    format!(
                        "{}:{}{upgrading}",
                        number(view.id()),
                        mode_text(view.mode())
                    )
                })
                .collect();
            all.join(" ")
        };
        let holders = list(view.holders().collect());
        let waiters = list(view.waiters().collect());
        format!("{text}holders [{holders}] waiters [{waiters}]")
    }
}

impl<'a> Words<'a> {
    fn new(line: &'a str) -> Self {
        let mut plain = vec![];
        let mut options = BTreeMap::new();
        for word in line.split_whitespace() {
            match word.split_once('=') {
                Some((name, value)) => {
                    options.insert(name, value);
                }
                None => plain.push(word),
            }
        }
        Self {
            line,
            plain,
            options,
        }
    }

    fn number(&self, at: usize) -> u64 {
        self.plain[at]
            .parse()
            .unwrap_or_else(|_| panic!("no number: {}", self.line))
    }

    fn has(&self, word: &str) -> bool {
        self.plain.contains(&word)
    }

    fn millis(&self, option: &str) -> Option<Duration> {
        let value = self.options.get(option)?;
        Some(Duration::from_millis(value.parse().unwrap()))
    }

    /// `TIME SESSION acquire ID KEY:MODE... [keep] [notify] [front] [lease=] [wait=]
    /// [owner=] [delay=]`
    fn acquire(&self, then: impl FnOnce(&Acquire<'_>) -> String) -> String {
        let wants: Vec<_> = self.plain[4..]
            .iter()
            .filter_map(|word| word.split_once(':'))
            .map(|(name, mode)| Want {
                key: key(name),
                mode: mode_of(mode),
            })
            .collect();
        let mut want = Acquire::new(request_id(self.plain[3]), &wants);
        want.keep = self.has("keep");
        want.notify_contended = self.has("notify");
        want.front = self.has("front");
        want.lease = self.millis("lease");
        want.lock_delay = self.millis("delay").unwrap_or_default();
        want.wait = match self.millis("wait") {
            None => Wait::Forever,
            Some(Duration::ZERO) => Wait::No,
            Some(bound) => Wait::For(bound),
        };
        want.owner = self
            .options
            .get("owner")
            .and_then(|owner| NonZeroU32::new(owner.parse().unwrap()));
        then(&want)
    }
}

/// `x`, `s`, or permits of a capacity as in `2/5`.
fn mode_of(text: &str) -> Mode {
    match text.split_once('/') {
        Some((permits, capacity)) => Mode::Semaphore {
            permits: permits.parse().unwrap(),
            capacity: capacity.parse().unwrap(),
        },
        None if text == "x" => Mode::Exclusive,
        None if text == "s" => Mode::Shared,
        None => panic!("no mode: {text}"),
    }
}

fn mode_text(mode: Mode) -> String {
    match mode {
        Mode::Exclusive => "x".into(),
        Mode::Shared => "s".into(),
        Mode::Semaphore { permits, capacity } => format!("{permits}/{capacity}"),
    }
}

fn answer<E: core::fmt::Display>(result: Result<String, E>) -> String {
    result.unwrap_or_else(|error| format!("error: {error}"))
}

fn grant_text(grant: Grant) -> String {
    format!(
        "granted token={} at={}{}",
        grant.token,
        millis(grant.granted_at),
        until(grant.deadline)
    )
}

fn until(deadline: Option<Instant>) -> String {
    deadline.map_or(String::new(), |deadline| {
        format!(" until={}", millis(deadline))
    })
}

fn millis(at: Instant) -> u64 {
    at.as_nanos() / 1_000_000
}

fn key(name: &str) -> Key<'_> {
    Key::new(name.as_bytes(), 1024).unwrap()
}

fn request_id(text: &str) -> RequestId {
    RequestId::from_u128(text.parse().unwrap_or_else(|_| panic!("no id: {text}")))
}

fn number(id: RequestId) -> u128 {
    id.as_u128()
}
