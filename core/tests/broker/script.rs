//! Scripts: commands of named peers, and beneath each what everybody was told.
//!
//! A line that begins with two blanks is output; running a script writes these lines anew,
//! and the result must be the script. `UPDATE_SCRIPTS=1` writes it to the file instead.

use std::fmt::Write as _;
use std::num::NonZeroU32;
use std::path::Path;
use std::time::Duration;

use lmx_core::broker::BrokerConfig;
use lmx_core::table::Conversion;
use lmx_core::wire::{
    AcquireFields, Answer, Command, Hello, HolderFields, KeyFields, MAGIC, Reply, Seq, SeqBuf,
    Status, WantFields,
};
use lmx_core::{FencingToken, Grant, Instant, Mode, RequestId, Wait};

use crate::peer::{World, request_id};

/// Runs the script `scripts/<name>.txt`.
pub(crate) fn run(name: &str) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/broker/scripts")
        .join(name)
        .with_extension("txt");
    let script = std::fs::read_to_string(&path).unwrap();
    let result = execute(&script);
    if std::env::var_os("UPDATE_SCRIPTS").is_some() {
        std::fs::write(&path, result).unwrap();
    } else {
        assert_eq!(
            result,
            script,
            "{} says something else; UPDATE_SCRIPTS=1 writes the file anew",
            path.display()
        );
    }
}

fn execute(script: &str) -> String {
    let mut config = BrokerConfig::default();
    let mut world = None;
    let mut result = String::new();
    for line in script.lines().filter(|line| !line.starts_with("  ")) {
        writeln!(result, "{line}").unwrap();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        if let Some(setting) = line.strip_prefix("config ") {
            assert!(world.is_none(), "config comes first");
            configure(&mut config, setting);
            continue;
        }
        let world = world.get_or_insert_with(|| World::new(config.clone()));
        step(world, line, &mut result);
    }
    result
}

fn configure(config: &mut BrokerConfig, setting: &str) {
    let (name, value) = setting.split_once('=').expect("config NAME=VALUE");
    let number = || value.parse().expect("a number");
    match name {
        "auth" => config.auth_token = Some(value.as_bytes().to_vec()),
        "idle_max" => config.idle_max = duration(value),
        "handshake_max" => config.handshake_max = duration(value),
        "grace" => config.grace = duration(value),
        "incarnation" => config.incarnation = value.parse().unwrap(),
        "connections_max" => config.connections_max = number(),
        "frame_bytes_max" => config.frame_bytes_max = number(),
        "output_bytes_max" => config.output_bytes_max = number(),
        "name_bytes_max" => config.name_bytes_max = number(),
        "sessions_max" => config.table.sessions_max = number(),
        "keys_max" => config.table.keys_max = number(),
        "requests_max" => config.table.requests_max = number(),
        "requests_per_session_max" => config.table.requests_per_session_max = number(),
        "keys_per_request_max" => config.table.keys_per_request_max = number(),
        "key_bytes_max" => config.table.key_bytes_max = number(),
        "label_bytes_max" => config.table.label_bytes_max = number(),
        _ => panic!("no such setting: {name}"),
    }
}

fn step(world: &mut World, line: &str, result: &mut String) {
    let mut words = line.split_whitespace();
    let first = words.next().unwrap();
    let rest: Vec<_> = words.collect();
    match first {
        "at" => world.at(u64::try_from(duration(rest[0]).as_millis()).unwrap()),
        "stop" => world.stop(),
        // The successor knows the secrets and goes on with the tokens.
        "restart" => world.restart(duration(option(&rest, "grace").unwrap())),
        "end-grace" => {
            world.broker.end_grace(world.now);
            world.settle();
        }
        "timeout" => writeln!(result, "  {}", time(world.broker.poll_timeout())).unwrap(),
        "status" => {
            let status = world.broker.status(world.now);
            writeln!(result, "  {}", status_text(&status)).unwrap();
        }
        peer => {
            let peer = peer
                .strip_suffix(':')
                .unwrap_or_else(|| panic!("what is this? {line}"));
            act(world, peer, &rest, line, result);
        }
    }
    report(world, result);
}

fn act(world: &mut World, peer: &str, words: &[&str], line: &str, result: &mut String) {
    let number = |at: usize| request_id(words[at].parse().expect("a request's number"));
    match words[0] {
        "connect" => {
            if let Err(error) = world.connect(peer) {
                writeln!(result, "  {peer} refused: {error}").unwrap();
            }
        }
        "cut" => world.cut(peer),
        "deaf" => world.peers.get_mut(peer).unwrap().is_deaf = true,
        "listen" => world.listen(peer),
        "raw" => {
            let bytes: Vec<_> = words[1..]
                .iter()
                .map(|byte| u8::from_str_radix(byte, 16).expect("hexadecimal bytes"))
                .collect();
            world.write(peer, &bytes);
        }
        // All that follows the word, and a newline.
        "line" => {
            let (_, text) = line.split_once("line").unwrap();
            world.write(peer, format!("{}\n", text.trim_start()).as_bytes());
        }
        "text" => {
            let (_, text) = line.split_once("text").unwrap();
            world.write(peer, text.trim_start().as_bytes());
        }
        "confirm" => {
            let peer = world.peers.get_mut(peer).unwrap();
            peer.confirmed = match words.get(1) {
                Some(count) => count.parse().unwrap(),
                None => peer.told,
            };
        }
        "hello" => say_hello(world, peer, &words[1..]),
        "acquire" => acquire(world, peer, words, None),
        "reclaim" => {
            let token = option(words, "token").expect("reclaim ID KEY token=N");
            acquire(
                world,
                peer,
                words,
                FencingToken::new(token.parse().unwrap()),
            );
        }
        "release" => world.send(peer, Command::Release { id: number(1) }),
        "cancel" => world.send(peer, Command::Cancel { id: number(1) }),
        "renew" => {
            let lease = words.get(2).map(|text| duration(text));
            world.send(
                peer,
                Command::Renew {
                    id: number(1),
                    lease,
                },
            );
        }
        "downgrade" | "upgrade" => {
            let to = match words[0] {
                "downgrade" => Conversion::Downgrade,
                _ => Conversion::Upgrade,
            };
            world.send(peer, Command::Convert { id: number(1), to });
        }
        "force" => {
            let key = words.get(1).unwrap_or(&"").as_bytes();
            world.send(peer, Command::ForceReleaseKey { key });
        }
        "force-id" => world.send(peer, Command::ForceReleaseRequest { id: number(1) }),
        "inspect" => {
            let key = words.get(1).unwrap_or(&"").as_bytes();
            let skip = words.get(2).map_or(0, |skip| skip.parse().unwrap());
            world.send(peer, Command::Inspect { key, skip });
        }
        "list" => {
            let start = words.get(1).map_or(0, |start| start.parse().unwrap());
            world.send(peer, Command::List { start });
        }
        "ping" => world.send(peer, Command::Ping),
        "status" => world.send(peer, Command::Status),
        "goodbye" => world.send(peer, Command::Goodbye),
        verb => panic!("no such verb: {verb}"),
    }
}

fn say_hello(world: &mut World, peer: &str, words: &[&str]) {
    let mut resume = option(words, "resume").map(|from| {
        world.peers[from]
            .ticket
            .expect("a peer that was welcomed once")
    });
    if let (Some(ticket), true) = (&mut resume, words.contains(&"forged")) {
        ticket.secret[0] ^= 1;
    }
    if world.peers[peer].last_tag == 0 {
        world.write(peer, &MAGIC);
    }
    let hello = Hello {
        auth: option(words, "auth").unwrap_or("").as_bytes(),
        resume_window: option(words, "window").map_or(Duration::ZERO, duration),
        resume,
        name: option(words, "name").unwrap_or(""),
    };
    world.send(peer, Command::Hello(hello));
}

fn acquire(world: &mut World, peer: &str, words: &[&str], reclaim: Option<FencingToken>) {
    let mode = match option(words, "sem") {
        Some(text) => {
            let (permits, capacity) = text.split_once('/').expect("sem=PERMITS/CAPACITY");
            Mode::Semaphore {
                capacity: capacity.parse().unwrap(),
                permits: permits.parse().unwrap(),
            }
        }
        None if words.contains(&"shared") => Mode::Shared,
        None => Mode::Exclusive,
    };
    let mut buffer = vec![0; 4096];
    let mut wants = SeqBuf::new(&mut buffer);
    // "-" asks for no key at all, and "~" for an empty one.
    for key in words[2].split(',').filter(|&key| key != "-") {
        let key = key.trim_start_matches('~').as_bytes();
        assert!(wants.push(&WantFields { key, mode }));
    }
    let fields = AcquireFields {
        id: request_id(words[1].parse().unwrap()),
        wants: wants.finish(),
        lease: option(words, "lease").map(duration),
        wait: match option(words, "wait") {
            None => Wait::Forever,
            Some("no") => Wait::No,
            Some(text) => Wait::For(duration(text)),
        },
        keep: words.contains(&"keep"),
        notify_contended: words.contains(&"notify"),
        label: option(words, "label").unwrap_or("").as_bytes(),
        owner: option(words, "owner").map(|owner| owner.parse::<NonZeroU32>().unwrap()),
        lock_delay: option(words, "delay").map_or(Duration::ZERO, duration),
    };
    let command = match reclaim {
        None => Command::Acquire(fields),
        Some(token) => Command::Reclaim {
            request: fields,
            token,
        },
    };
    world.send(peer, command);
}

fn option<'a>(words: &[&'a str], name: &str) -> Option<&'a str> {
    words
        .iter()
        .find_map(|word| word.strip_prefix(name)?.strip_prefix('='))
}

fn duration(text: &str) -> Duration {
    if let Some(millis) = text.strip_suffix("ms") {
        Duration::from_millis(millis.parse().unwrap())
    } else {
        let seconds = text.strip_suffix('s').expect("a time: 4s or 100ms");
        Duration::from_secs(seconds.parse().unwrap())
    }
}

/// What everybody has been told since the last report.
fn report(world: &mut World, result: &mut String) {
    let names: Vec<_> = world.peers.keys().cloned().collect();
    for name in names {
        if world.peers[&name].inbox.first() == Some(&b'{') {
            let peer = world.peers.get_mut(&name).unwrap();
            let text = String::from_utf8(std::mem::take(&mut peer.inbox)).unwrap();
            for line in text.lines() {
                writeln!(result, "  {name}> {line}").unwrap();
            }
        }
        world.read(&name, |reply| {
            writeln!(result, "  {name}> {}", render(&reply)).unwrap();
        });
        let peer = world.peers.get_mut(&name).unwrap();
        if std::mem::take(&mut peer.is_closed) {
            writeln!(result, "  {name} closed").unwrap();
        }
    }
}

fn render(reply: &Reply<'_>) -> String {
    let told = if reply.tag == 0 { "told " } else { "" };
    let text = match reply.body {
        Answer::Welcome(welcome) => format!(
            "Welcome {:?} window={:?} idle_max={:?} grace_until={}",
            welcome.resumed,
            welcome.resume_window,
            welcome.idle_max,
            time(welcome.grace_until)
        ),
        Answer::Granted { id, grant } => format!("Granted {} {}", short(id), grant_text(grant)),
        Answer::Queued { id, ahead } => format!("Queued {} ahead={ahead}", short(id)),
        Answer::Busy {
            id,
            key,
            waiting,
            holders,
        } => format!(
            "Busy {} key={} waiting={waiting}{}",
            short(id),
            key.escape_ascii(),
            requests(holders)
        ),
        Answer::AcquireRefused { id, error } => {
            format!("AcquireRefused {} {error:?}: {error}", short(id))
        }
        Answer::Released { id } => format!("Released {}", short(id)),
        Answer::ReleaseRefused { id, error } => format!("ReleaseRefused {} {error:?}", short(id)),
        Answer::Renewed { id, deadline } => {
            format!("Renewed {} deadline={}", short(id), time(deadline))
        }
        Answer::RenewRefused { id, error } => format!("RenewRefused {} {error:?}", short(id)),
        Answer::Cancelled { id } => format!("Cancelled {}", short(id)),
        Answer::CancelRefused { id, error } => format!("CancelRefused {} {error:?}", short(id)),
        Answer::ForceReleased { holders, count } => {
            format!("ForceReleased count={count}{}", requests(holders))
        }
        Answer::ConvertRefused { id, error } => format!("ConvertRefused {} {error:?}", short(id)),
        Answer::Listed(page) => {
            let keys: Vec<_> = page.keys.iter().map(|key| key_text(key.unwrap())).collect();
            format!("Listed next={:?} [{}]", page.next, keys.join("; "))
        }
        Answer::Inspected { key, requests: all } => {
            format!("Inspected {}{}", key_text(key), requests(all))
        }
        Answer::TimedOut { id } => format!("TimedOut {}", short(id)),
        Answer::Expired { id, token } => format!("Expired {} token={token}", short(id)),
        Answer::Revoked { id, token } => match token {
            Some(token) => format!("Revoked {} token={token}", short(id)),
            None => format!("Revoked {}", short(id)),
        },
        Answer::Contended { id } => format!("Contended {}", short(id)),
        Answer::Fault { kind, text } => format!("Fault {kind:?}: {text}"),
        Answer::QueryRefused { error } => format!("QueryRefused: {error}"),
        Answer::Status(status) => status_text(&status),
        Answer::Pong | Answer::Bye | Answer::Stopping => format!("{:?}", reply.body),
    };
    format!("{told}{text}")
}

/// The counters that have counted something.
fn status_text(status: &Status) -> String {
    let text = format!("{status:?}");
    let fields = text.trim_start_matches("Status { ").trim_end_matches(" }");
    let counted: Vec<_> = fields
        .split(", ")
        .filter(|field| {
            ![": 0", ": 0ns", ": None"]
                .iter()
                .any(|none| field.ends_with(none))
        })
        .collect();
    format!("Status {}", counted.join(", "))
}

fn short(id: RequestId) -> String {
    format!("#{}", id.as_u128())
}

fn time(at: Option<Instant>) -> String {
    at.map_or("none".to_owned(), |at| {
        format!("{:?}", at.saturating_duration_since(Instant::EPOCH))
    })
}

fn grant_text(grant: Grant) -> String {
    format!("token={} deadline={}", grant.token, time(grant.deadline))
}

fn key_text(key: KeyFields<'_>) -> String {
    let capacity = key
        .capacity
        .map_or(String::new(), |capacity| format!(" capacity={capacity}"));
    format!(
        "{} holders={} waiters={}{capacity}",
        key.key.escape_ascii(),
        key.holders,
        key.waiters
    )
}

/// One line for each request.
fn requests(all: Seq<'_, HolderFields<'_>>) -> String {
    let mut text = String::new();
    for request in all.iter() {
        let request = request.unwrap();
        let state = request.grant.map_or("waits".to_owned(), grant_text);
        write!(
            text,
            "\n     {} {:?} {state} since={} keep={} label={} name={}",
            short(request.id),
            request.mode,
            time(Some(request.since)),
            request.keep,
            request.label.escape_ascii(),
            request.name
        )
        .unwrap();
    }
    text
}
