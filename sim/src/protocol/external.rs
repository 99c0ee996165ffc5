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
//! Every run starts each node's process anew; a crash kills it.

use std::io::{BufRead as _, BufReader, Write as _};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::{Client, Context, Contract, Grant, NodeId, Protocol, Request, Server};

/// What a protocol of child processes is.
#[derive(Clone, Debug, Deserialize)]
pub struct External {
    /// Its name.
    pub name: String,
    /// The command that runs a server, and its arguments.
    pub server: Vec<String>,
    /// The command that runs a client, and its arguments.
    pub client: Vec<String>,
    /// How many servers.
    #[serde(default = "one")]
    pub servers: u16,
    /// What it promises.
    #[serde(skip, default = "strict")]
    pub contract: Contract,
}

const fn one() -> u16 {
    1
}

const fn strict() -> Contract {
    Contract::new(super::Exclusion::Strict)
}

/// A message, as text, so that it can be hashed.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Message(String);

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

    fn about(&self) -> &'static str {
        "child processes that speak JSON"
    }

    fn contract(&self) -> Contract {
        self.contract
    }

    fn servers(&self) -> u16 {
        self.servers
    }

    fn server(&self, _: NodeId) -> Node {
        Node::new(&self.server)
    }

    fn client(&self, _: NodeId) -> Node {
        Node::new(&self.client)
    }
}

/// A node that is a child process. It ends with its last owner.
#[derive(Debug)]
pub struct Node {
    child: Child,
    input: ChildStdin,
    output: BufReader<ChildStdout>,
    told: u64,
}

impl Node {
    /// A broken node is not a broken protocol: it ends the run with a panic that says what
    /// is wrong with it, which is reported as such.
    fn new(command: &[String]) -> Self {
        let (program, arguments) = command.split_first().expect("a command has a program");
        let mut child = Command::new(program)
            .args(arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap_or_else(|error| panic!("cannot run `{program}`: {error}"));
        let input = child.stdin.take().expect("it is piped");
        let output = BufReader::new(child.stdout.take().expect("it is piped"));
        Self {
            child,
            input,
            output,
            told: 0,
        }
    }

    fn tell(
        &mut self,
        cx: &mut Context<'_, Message>,
        disk: Option<&mut Option<Value>>,
        mut event: Value,
    ) {
        self.told += 1;
        event["me"] = json!(cx.me());
        event["servers"] = json!(cx.servers().count());
        event["now_ns"] = json!(cx.now_ns());
        event["wall_ns"] = json!(cx.wall_ns());
        event["draw"] = json!(cx.draw(cx.now_ns() ^ self.told << 48, 1 << 53));
        let line = event.to_string() + "\n";
        let mut answer = String::new();
        let spoke = self
            .input
            .write_all(line.as_bytes())
            .and_then(|()| self.input.flush())
            .and_then(|()| self.output.read_line(&mut answer));
        match spoke {
            Ok(0) => panic!(
                "a node ended where it should have answered {}",
                line.trim_end()
            ),
            Ok(_) => {}
            Err(error) => panic!("a node cannot be spoken to: {error}"),
        }
        let acts: Vec<Act> = serde_json::from_str(&answer).unwrap_or_else(|error| {
            panic!(
                "a node answered {} with {}: {error}",
                line.trim_end(),
                answer.trim_end()
            )
        });
        let mut disk = disk;
        for act in acts {
            match act {
                Act::Send { to, message } => cx.send(to, Message(message.to_string())),
                Act::Timer { timer, at_ns } => cx.set_timer(timer, at_ns),
                Act::CancelTimer(timer) => cx.cancel_timer(timer),
                Act::Disk(value) => {
                    if let Some(disk) = &mut disk {
                        **disk = Some(value);
                    }
                }
                Act::Queued(ticket) => cx.queued(ticket),
                Act::Refused(ticket) => cx.refused(ticket),
                Act::Lost(ticket) => cx.lost(ticket),
                Act::Granted {
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
                Act::Extended {
                    ticket,
                    good_until_ns,
                } => cx.extended(ticket, good_until_ns),
            }
        }
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
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
