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
//! Every run starts each node's process anew; a crash kills it. What a node wants to say to
//! its developer it writes to standard error.
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
//! | `name` | the protocol's name | |
//! | `server`, `client` | the programs and their arguments; they run in the file's folder | |
//! | `exclusion` | `"strict"`, `"fenced_only"` or `{"under_drift_ppm": N}`: see [`Exclusion`] | |
//! | `about` | what it is, in a line | |
//! | `servers` | how many servers | 1 |
//! | `shared` | whether it knows shared holds | `false` |
//! | `lease_ms` | the lease that its clients are asked to take | 1000 |
//! | `renews` | whether its clients renew leases | `false` |
//! | `bypass_max` | how often a queued request may be overtaken | no order |
//! | `liveness_s` | once all is well, every request is answered within this time; `null`: never mind | 60 |
//! | `patience_s` | a node that has not answered for so long, in real time, hangs | 10 |

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::{Client, Context, Contract, Exclusion, Grant, NodeId, Protocol, Request, Server};

/// A node's longest answer.
const ANSWER_BYTES_MAX: u64 = 1 << 20;

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

    fn node(&self, command: &[String]) -> Node {
        Node {
            process: Process::start(command, self.folder.as_deref()),
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
        f.write_str(&self.0)
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

/// A node that is a child process. It ends with its last owner.
#[derive(Debug)]
pub struct Node {
    /// Or why it is none, or none any more.
    process: Result<Process, String>,
    patience: Duration,
    told: u64,
}

#[derive(Debug)]
struct Process {
    child: Child,
    input: ChildStdin,
    /// The lines that it writes, as they come.
    answers: Receiver<std::io::Result<String>>,
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
                .answer(&event, self.patience)
                .and_then(|acts| {
                    acts.into_iter()
                        .try_for_each(|act| act.carry_out(cx, &mut disk))
                })
                .map_err(|what| format!("{what}; it had been told {event}")),
            Err(what) => Err(what.clone()),
        };
        if let Err(what) = acts {
            cx.broken(what.clone());
            self.process = Err(what);
        }
    }
}

impl Process {
    fn start(command: &[String], folder: Option<&Path>) -> Result<Self, String> {
        let (program, arguments) = command
            .split_first()
            .ok_or_else(|| "its command is empty".to_owned())?;
        let mut command = Command::new(program);
        command.args(arguments);
        if let Some(folder) = folder {
            command.current_dir(folder);
        }
        let mut child = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .map_err(|error| format!("`{program}` cannot be run: {error}"))?;
        let input = child.stdin.take().expect("it is piped");
        let output = child.stdout.take().expect("it is piped");
        Ok(Self {
            child,
            input,
            answers: read_lines(output),
        })
    }

    /// What the node does about an event, or what is wrong with it.
    fn answer(&mut self, event: &str, patience: Duration) -> Result<Vec<Act>, String> {
        // One that has ended shows that below.
        let _ = writeln!(self.input, "{event}").and_then(|()| self.input.flush());
        let line = match self.answers.recv_timeout(patience) {
            Ok(Ok(line)) => line,
            Ok(Err(error)) => return Err(format!("cannot be read from: {error}")),
            Err(RecvTimeoutError::Timeout) => {
                return Err(format!("hangs: it has not answered for {patience:?}"));
            }
            Err(RecvTimeoutError::Disconnected) => {
                // If it has only closed its output, that is an end, too.
                let _ = self.child.kill();
                let status = self.child.wait().map_err(|error| error.to_string())?;
                return Err(format!("ended ({status}) instead of answering"));
            }
        };
        serde_json::from_str(&line).map_err(|error| {
            let shown: String = line.trim_end().chars().take(200).collect();
            format!("wrote `{shown}`, which is no list of what it does: {error}")
        })
    }
}

/// Reads on a thread of its own, so that one that hangs can be given up.
fn read_lines(output: ChildStdout) -> Receiver<std::io::Result<String>> {
    let (sender, lines) = channel();
    std::thread::spawn(move || {
        let mut output = BufReader::new(output);
        loop {
            let mut line = String::new();
            let read = output.by_ref().take(ANSWER_BYTES_MAX).read_line(&mut line);
            let is_last = !matches!(read, Ok(1..));
            let lost = match read {
                Ok(0) => break,
                Ok(_) => sender.send(Ok(line)).is_err(),
                Err(error) => sender.send(Err(error)).is_err(),
            };
            if is_last || lost {
                break;
            }
        }
    });
    lines
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
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
