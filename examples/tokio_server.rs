//! The core's broker in a tokio server: the same machine, another runtime.
//!
//! One broker behind one lock; a task per connection, which reads, hands over, and writes;
//! one more task for what is due. Each task that changes the broker wakes those whose
//! output it changed.
//!
//! ```sh
//! cargo run --example tokio_server -- serve   # until it is interrupted, on port 6970
//! cargo run --example tokio_server            # serves a client of its own, and ends
//! ```

use std::collections::HashMap;
use std::error::Error;
use std::io;
use std::sync::{Arc, Mutex};

use lmx::clock;
use lmx::core::Instant;
use lmx::core::broker::{Broker, BrokerConfig, ConnectionId};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Notify;

struct Server {
    state: Mutex<State>,
    /// The broker's next deadline may have changed.
    deadline: Notify,
}

struct State {
    broker: Broker,
    /// Wakes the task of a connection.
    tasks: HashMap<ConnectionId, Arc<Notify>>,
}

impl Server {
    fn new() -> Result<Arc<Self>, Box<dyn Error>> {
        // Seeds must be unpredictable where clients are not trusted: see `BrokerConfig`.
        let broker = Broker::new(clock::now(), BrokerConfig::default())?;
        let tasks = HashMap::new();
        Ok(Arc::new(Self {
            state: Mutex::new(State { broker, tasks }),
            deadline: Notify::new(),
        }))
    }

    /// Does `act` to the broker, and wakes whom it concerns.
    fn with<R>(&self, act: impl FnOnce(&mut State, Instant) -> R) -> R {
        let mut state = self.state.lock().expect("no task panics");
        let before = state.broker.poll_timeout();
        let result = act(&mut state, clock::now());
        while let Some(changed) = state.broker.poll_connection() {
            if let Some(task) = state.tasks.get(&changed) {
                task.notify_one();
            }
        }
        if state.broker.poll_timeout() != before {
            self.deadline.notify_one();
        }
        result
    }

    async fn accept(self: Arc<Self>, listener: TcpListener) -> io::Result<()> {
        tokio::spawn(Arc::clone(&self).keep_time());
        loop {
            let (stream, _) = listener.accept().await?;
            stream.set_nodelay(true)?;
            let server = Arc::clone(&self);
            tokio::spawn(async move {
                let task = Arc::new(Notify::new());
                let connected = server.with(|state, now| {
                    let id = state.broker.connect(now)?;
                    state.tasks.insert(id, Arc::clone(&task));
                    Ok::<_, lmx::core::broker::ConnectError>(id)
                });
                let Ok(id) = connected else { return };
                // Whatever ended it, the broker hears of it.
                let _ = server.serve(stream, id, &task).await;
                server.with(|state, now| {
                    state.broker.handle_disconnect(now, id);
                    state.tasks.remove(&id);
                });
            });
        }
    }

    async fn serve(
        &self,
        mut stream: TcpStream,
        id: ConnectionId,
        task: &Notify,
    ) -> io::Result<()> {
        let (mut reader, mut writer) = stream.split();
        let mut buffer = [0; 4096];
        loop {
            let (output, wants_input, is_closing) = self.with(|state, _| {
                let broker = &state.broker;
                let output = broker.output(id).to_vec();
                (output, broker.wants_input(id), broker.is_closing(id))
            });
            if output.is_empty() && is_closing {
                return Ok(());
            }
            tokio::select! {
                written = writer.write(&output), if !output.is_empty() => {
                    let written = written?;
                    self.with(|state, now| state.broker.consume_output(now, id, written));
                }
                read = reader.read(&mut buffer), if wants_input => {
                    match read? {
                        0 => return Ok(()),
                        // The time is taken after the bytes were read: clients count on it.
                        bytes => self.with(|state, now| {
                            state.broker.handle_input(now, id, &buffer[..bytes]);
                        }),
                    }
                }
                () = task.notified() => {}
            }
        }
    }

    async fn keep_time(self: Arc<Self>) {
        loop {
            let due = self.with(|state, _| state.broker.poll_timeout());
            let sleep = async {
                match due {
                    Some(due) => {
                        let left = due.saturating_duration_since(clock::now());
                        tokio::time::sleep(left).await;
                    }
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                () = sleep => self.with(|state, now| state.broker.handle_timeout(now)),
                () = self.deadline.notified() => {}
            }
        }
    }
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let runs_on = std::env::args().nth(1).as_deref() == Some("serve");
    let port = if runs_on { lmx::DEFAULT_PORT } else { 0 };
    let listener = TcpListener::bind(("127.0.0.1", port)).await?;
    let address = listener.local_addr()?.to_string();
    println!("serving on {address}");
    let server = Server::new()?;
    if runs_on {
        server.accept(listener).await?;
        return Ok(());
    }
    tokio::spawn(server.accept(listener));
    let client = lmx::Client::connect(&address).await?;
    let guard = client.lock("key").await?;
    println!("locked, with token {}", guard.token());
    let waiting = tokio::spawn(client.lock("key").into_future());
    guard.release().await?;
    println!("the next has token {}", waiting.await??.token());
    client.close().await;
    Ok(())
}

#[test]
fn runs() {
    main().expect("it runs");
}
