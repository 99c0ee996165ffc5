//! Nodes in any language: child processes that speak JSON, a line at a time, over their
//! standard input and output, while the simulator owns time.
//!
//! The simulator writes one line for each thing that happens to the node; the node
//! answers each with exactly one line, the list of what it does:
//!
//! ```text
//! > {"event":"start","me":0,"servers":1,"now_ns":17,"wall_ns":99,"draw":123456,"disk":null}
//! < []
//! > {"event":"message","from":1,"message":{"ask":7},"now_ns":18,...}
//! < [{"send":{"to":1,"message":{"granted":7}}},{"timer":{"timer":3,"at_ns":1000018}}]
//! > {"event":"timer","timer":3,...}       > {"event":"reset","peer":1,...}
//! > {"event":"acquire","ticket":7,"key":0,"shared":false,"lease_ns":1000000000,...}
//! > {"event":"release","ticket":7,...}
//! ```
//!
//! | what a node does | |
//! |---|---|
//! | `{"send":{"to":N,"message":any}}` | sends a message |
//! | `{"timer":{"timer":N,"at_ns":T}}`, `{"cancel_timer":N}` | sets or forgets a timer, by its monotonic clock |
//! | `{"disk":any}` | makes a server's state durable; it is shown at its next `start` |
//! | `{"queued":ticket}`, `{"refused":ticket}`, `{"lost":ticket}` | a client tells its user |
//! | `{"granted":{"ticket":N,"good_until_ns":T,"token":N}}` | it holds; the last two are optional |
//! | `{"extended":{"ticket":N,"good_until_ns":T}}` | its hold is good for longer |
//!
//! A line has 1 MiB at most. A node writes nothing unless it has been told something, and then
//! one line and no more: it would be taken for the answer to what comes next.
//!
//! Every run starts each node's process anew, in a process group of its own; a crash kills it,
//! and all that it has started. What a node wants to say to its developer it writes to
//! standard error.
//!
//! A file of JSON says how the nodes are run and what they promise ([`External::from_file`]);
//! the command takes it where it takes a protocol's name:
//!
//! ```text
//! lmx-sim run --protocol lease_lock.json --seeds 0..50
//! ```
//!
//! ```json
//! {
//!   "name": "lease-lock",
//!   "server": ["python3", "lease_lock.py", "server"],
//!   "client": ["python3", "lease_lock.py", "client"],
//!   "exclusion": {"under_drift_ppm": 1000}
//! }
//! ```
//!
//! | in the file | what it says | if it is left out |
//! |---|---|---|
//! | `name` | the protocol's name: letters, digits, `-`, `_` and `.`; none that another has | |
//! | `server`, `client` | the programs and their arguments; they run in the file's folder | |
//! | `exclusion` | `"strict"`, `"fenced_only"` or `{"under_drift_ppm": N}`: see [`Exclusion`] | |
//! | `about` | what it is, in a line | |
//! | `servers` | how many servers | 1 |
//! | `shared` | whether it knows shared holds | `false` |
//! | `lease_ms` | the lease that its clients are asked to take | 1000 |
//! | `renews` | whether its clients renew leases | `false` |
//! | `bypass_max` | how often a queued request may be overtaken | no order |
//! | `liveness_s` | once all is well, every request is answered within this time; `null`: never mind | 60 |
//! | `patience_s` | a node that has not read its line and answered for so long, in real time, hangs | 10 |

mod group;
mod process;

use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::{
    Client, Context, Contract, Exclusion, Grant, NodeId, Protocol, Request, Server, check_name,
};
pub(crate) use group::end_all;
use process::Process;

/// What a protocol of child processes is.
#[derive(Clone, Debug)]
pub struct External {
    /// Its name.
    pub name: String,
    /// What it is, in a line.
    pub about: String,
    /// The command that runs a server, and its arguments.
    pub server: Vec<String>,
    /// The command that runs a client, and its arguments.
    pub client: Vec<String>,
    /// Where they run; `None` for where this process runs.
    pub folder: Option<PathBuf>,
    /// How many servers.
    pub servers: u16,
    /// What it promises.
    pub contract: Contract,
    /// Whether it knows shared holds.
    pub shared: bool,
    /// The lease that its clients are asked to take.
    pub lease: Duration,
    /// Whether its clients renew leases.
    pub renews: bool,
    /// A node that has not answered for so long, in real time, hangs.
    pub patience: Duration,
}

/// Why a file does not say what a protocol of child processes is.
#[derive(Debug, thiserror::Error)]
pub enum DescriptionError {
    /// It cannot be read.
    #[error("cannot read {}: {error}", path.display())]
    Unreadable {
        /// Which.
        path: PathBuf,
        /// Why.
        error: std::io::Error,
    },
    /// It says something else.
    #[error("{} does not describe a protocol: {detail}", path.display())]
    Wrong {
        /// Which.
        path: PathBuf,
        /// What is wrong.
        detail: String,
    },
}

/// Why the nodes of a protocol of child processes cannot be run.
#[derive(Debug, thiserror::Error)]
#[error("the `{role}`: {}", printable(what))]
pub struct StartError {
    role: &'static str,
    what: String,
}

/// The file, as it is written.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Description {
    name: String,
    #[serde(default)]
    about: Option<String>,
    server: Vec<String>,
    client: Vec<String>,
    #[serde(default = "one")]
    servers: u16,
    exclusion: Promise,
    #[serde(default)]
    shared: bool,
    #[serde(default = "second")]
    lease_ms: u64,
    #[serde(default)]
    renews: bool,
    #[serde(default)]
    bypass_max: Option<u32>,
    #[serde(default = "minute")]
    liveness_s: Option<u64>,
    #[serde(default = "ten")]
    patience_s: u64,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Promise {
    Strict,
    UnderDriftPpm(u32),
    FencedOnly,
}

const fn one() -> u16 {
    1
}

const fn second() -> u64 {
    1_000
}

#[expect(clippy::unnecessary_wraps, reason = "serde wants the field's type")]
const fn minute() -> Option<u64> {
    Some(60)
}

const fn ten() -> u64 {
    10
}

/// Servers are few; plans name nodes in sets of 64.
const SERVERS_MAX: u16 = 32;

impl External {
    /// Reads a description, as the module's documentation shows it.
    ///
    /// # Errors
    ///
    /// When the file cannot be read, or says something else.
    pub fn from_file(path: &Path) -> Result<Self, DescriptionError> {
        let text = std::fs::read_to_string(path).map_err(|error| DescriptionError::Unreadable {
            path: path.to_owned(),
            error,
        })?;
        let wrong = |detail: String| DescriptionError::Wrong {
            path: path.to_owned(),
            detail,
        };
        let description: Description =
            serde_json::from_str(&text).map_err(|error| wrong(error.to_string()))?;
        check_name(&description.name).map_err(|error| wrong(error.to_string()))?;
        if description.server.is_empty() || description.client.is_empty() {
            let detail = "`server` and `client` are a program and its arguments, such as \
                          [\"python3\", \"node.py\", \"server\"]";
            return Err(wrong(detail.to_owned()));
        }
        if !(1..=SERVERS_MAX).contains(&description.servers) {
            return Err(wrong(format!("there are 1 to {SERVERS_MAX} `servers`")));
        }
        if description.lease_ms == 0 || description.patience_s == 0 {
            return Err(wrong("`lease_ms` and `patience_s` are not 0".to_owned()));
        }
        let folder = path.parent().filter(|folder| *folder != Path::new(""));
        Ok(Self {
            about: description
                .about
                .unwrap_or_else(|| "child processes that speak JSON".to_owned()),
            name: description.name,
            server: description.server,
            client: description.client,
            folder: folder.map(Path::to_owned),
            servers: description.servers,
            contract: Contract {
                exclusion: match description.exclusion {
                    Promise::Strict => Exclusion::Strict,
                    Promise::UnderDriftPpm(ppm) => Exclusion::UnderDrift { ppm },
                    Promise::FencedOnly => Exclusion::FencedOnly,
                },
                bypass_max: description.bypass_max,
                liveness: description.liveness_s.map(Duration::from_secs),
            },
            shared: description.shared,
            lease: Duration::from_millis(description.lease_ms),
            renews: description.renews,
            patience: Duration::from_secs(description.patience_s),
        })
    }

    /// Whether its programs can be started at all. Runs do not need this: to them, one that
    /// cannot is a node that is broken.
    ///
    /// # Errors
    ///
    /// When one cannot: which, and why.
    pub fn try_start(&self) -> Result<(), StartError> {
        for (role, command) in [("server", &self.server), ("client", &self.client)] {
            if let Err(error) = Process::start(command, self.folder.as_deref()) {
                let what = cannot_run(command, &error);
                return Err(StartError { role, what });
            }
        }
        Ok(())
    }

    fn node(&self, command: &[String]) -> Node {
        Node {
            process: Process::start(command, self.folder.as_deref())
                .map_err(|error| cannot_run(command, &error)),
            patience: self.patience,
            told: 0,
        }
    }
}

/// A message, as text, so that it can be hashed.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct Message(String);

impl std::fmt::Debug for Message {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&printable(&self.0))
    }
}

/// One thing a node does.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(rename_all = "snake_case")]
enum Act {
    Send {
        to: NodeId,
        message: Value,
    },
    Timer {
        timer: u64,
        at_ns: u64,
    },
    CancelTimer(u64),
    Disk(Value),
    Queued(u32),
    Refused(u32),
    Lost(u32),
    Granted {
        ticket: u32,
        good_until_ns: Option<u64>,
        token: Option<u64>,
    },
    Extended {
        ticket: u32,
        good_until_ns: u64,
    },
}

impl Protocol for External {
    type Message = Message;
    type Server = Node;
    type Client = Node;

    fn name(&self) -> &str {
        &self.name
    }

    fn about(&self) -> &str {
        &self.about
    }

    fn contract(&self) -> Contract {
        self.contract
    }

    fn servers(&self) -> u16 {
        self.servers
    }

    fn shared(&self) -> bool {
        self.shared
    }

    fn lease(&self) -> Duration {
        self.lease
    }

    fn renews(&self) -> bool {
        self.renews
    }

    fn server(&self, _: NodeId) -> Node {
        self.node(&self.server)
    }

    fn client(&self, _: NodeId) -> Node {
        self.node(&self.client)
    }
}

fn cannot_run(command: &[String], error: &std::io::Error) -> String {
    let program = command.first().map_or("", String::as_str);
    format!("`{program}` cannot be run: {error}")
}

/// What nodes write is shown on terminals, which do what control characters tell them.
fn printable(text: &str) -> String {
    let mut shown = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '"' | '\'' | '\\' => shown.push(c),
            c => shown.extend(c.escape_debug()),
        }
    }
    shown
}

/// A node that is a child process. It ends with its last owner.
#[derive(Debug)]
pub struct Node {
    /// Or why it is none, or none any more.
    process: Result<Process, String>,
    patience: Duration,
    told: u64,
}

impl Node {
    fn tell(
        &mut self,
        cx: &mut Context<'_, Message>,
        mut disk: Option<&mut Option<Value>>,
        mut event: Value,
    ) {
        self.told += 1;
        event["me"] = json!(cx.me());
        event["servers"] = json!(cx.servers().count());
        event["now_ns"] = json!(cx.now_ns());
        event["wall_ns"] = json!(cx.wall_ns());
        event["draw"] = json!(cx.draw(cx.now_ns() ^ self.told << 48, 1 << 53));
        let event = event.to_string();
        let acts = match &mut self.process {
            Ok(process) => process
                .answer(event.clone(), self.patience)
                .and_then(|line| read_acts(&line))
                .and_then(|acts| {
                    acts.into_iter()
                        .try_for_each(|act| act.carry_out(cx, &mut disk))
                })
                .map_err(|what| format!("{what}; it had been told {}", process::shown(&event))),
            Err(what) => Err(what.clone()),
        };
        if let Err(what) = acts {
            let what = printable(&what);
            cx.broken(what.clone());
            self.process = Err(what);
        }
    }
}

/// What a node says that it does.
fn read_acts(line: &str) -> Result<Vec<Act>, String> {
    serde_json::from_str(line).map_err(|error| {
        let shown = process::shown(line);
        format!("wrote `{shown}`, which is no list of what it does: {error}")
    })
}

impl Act {
    fn carry_out(
        self,
        cx: &mut Context<'_, Message>,
        disk: &mut Option<&mut Option<Value>>,
    ) -> Result<(), String> {
        match self {
            Self::Send { to, message } => cx.send(to, Message(message.to_string())),
            Self::Timer { timer, at_ns } => cx.set_timer(timer, at_ns),
            Self::CancelTimer(timer) => cx.cancel_timer(timer),
            Self::Disk(value) => match disk {
                Some(disk) => **disk = Some(value),
                None => return Err("is a client and has no disk to write to".to_owned()),
            },
            Self::Queued(ticket) => cx.queued(ticket),
            Self::Refused(ticket) => cx.refused(ticket),
            Self::Lost(ticket) => cx.lost(ticket),
            Self::Granted {
                ticket,
                good_until_ns,
                token,
            } => cx.granted(
                ticket,
                Grant {
                    good_until_ns,
                    token,
                },
            ),
            Self::Extended {
                ticket,
                good_until_ns,
            } => cx.extended(ticket, good_until_ns),
        }
        Ok(())
    }
}

fn message_event(from: NodeId, message: &Message) -> Value {
    let message: Value = serde_json::from_str(&message.0).expect("it was JSON when it was sent");
    json!({"event": "message", "from": from, "message": message})
}

impl Server<Message> for Node {
    type Disk = Option<Value>;

    fn start(&mut self, cx: &mut Context<'_, Message>, disk: &mut Option<Value>) {
        let event = json!({"event": "start", "disk": disk});
        self.tell(cx, Some(disk), event);
    }

    fn handle_message(
        &mut self,
        cx: &mut Context<'_, Message>,
        disk: &mut Option<Value>,
        from: NodeId,
        message: Message,
    ) {
        self.tell(cx, Some(disk), message_event(from, &message));
    }

    fn handle_timer(
        &mut self,
        cx: &mut Context<'_, Message>,
        disk: &mut Option<Value>,
        timer: u64,
    ) {
        self.tell(cx, Some(disk), json!({"event": "timer", "timer": timer}));
    }

    fn handle_reset(
        &mut self,
        cx: &mut Context<'_, Message>,
        disk: &mut Option<Value>,
        peer: NodeId,
    ) {
        self.tell(cx, Some(disk), json!({"event": "reset", "peer": peer}));
    }
}

impl Client<Message> for Node {
    fn start(&mut self, cx: &mut Context<'_, Message>) {
        self.tell(cx, None, json!({"event": "start"}));
    }

    fn acquire(&mut self, cx: &mut Context<'_, Message>, request: Request) {
        let event = json!({
            "event": "acquire",
            "ticket": request.ticket,
            "key": request.key,
            "shared": request.shared,
            "lease_ns": request.lease_ns,
        });
        self.tell(cx, None, event);
    }

    fn release(&mut self, cx: &mut Context<'_, Message>, ticket: u32) {
        self.tell(cx, None, json!({"event": "release", "ticket": ticket}));
    }

    fn handle_message(&mut self, cx: &mut Context<'_, Message>, from: NodeId, message: Message) {
        self.tell(cx, None, message_event(from, &message));
    }

    fn handle_timer(&mut self, cx: &mut Context<'_, Message>, timer: u64) {
        self.tell(cx, None, json!({"event": "timer", "timer": timer}));
    }

    fn handle_reset(&mut self, cx: &mut Context<'_, Message>, peer: NodeId) {
        self.tell(cx, None, json!({"event": "reset", "peer": peer}));
    }
}
