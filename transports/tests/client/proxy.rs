//! A proxy that cuts connections, and one that lets them go silent.

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex};

/// Stands between clients and a broker.
pub(crate) struct Proxy {
    address: SocketAddr,
    shared: Arc<Shared>,
}

struct Shared {
    broker: SocketAddr,
    state: Mutex<State>,
    changed: Condvar,
    connections: AtomicU64,
}

#[derive(Default)]
struct State {
    open: Vec<TcpStream>,
    /// Nothing passes, and nobody is told.
    silent: bool,
    /// New connections are closed at once.
    refuses: bool,
}

impl Proxy {
    pub(crate) fn new(broker: SocketAddr) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let address = listener.local_addr().expect("an address");
        let shared = Arc::new(Shared {
            broker,
            state: Mutex::default(),
            changed: Condvar::new(),
            connections: AtomicU64::new(0),
        });
        let accepting = Arc::clone(&shared);
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                accepting.accept(&stream);
            }
        });
        Self { address, shared }
    }

    pub(crate) fn address(&self) -> String {
        self.address.to_string()
    }

    /// Connections that were let through so far.
    pub(crate) fn connections(&self) -> u64 {
        self.shared.connections.load(Ordering::SeqCst)
    }

    /// Ends all connections, with whatever is in them.
    pub(crate) fn cut(&self) {
        for stream in self.shared.state.lock().unwrap().open.drain(..) {
            let _ = stream.shutdown(Shutdown::Both);
        }
    }

    /// Ends all connections, and lets no new one through until it is told to.
    pub(crate) fn refuse(&self, refuses: bool) {
        self.shared.state.lock().unwrap().refuses = refuses;
        if refuses {
            self.cut();
        }
    }

    /// Lets nothing through, without a word to either side.
    pub(crate) fn silence(&self, silent: bool) {
        self.shared.state.lock().unwrap().silent = silent;
        self.shared.changed.notify_all();
    }
}

impl Shared {
    fn accept(self: &Arc<Self>, client: &TcpStream) {
        let mut state = self.state.lock().unwrap();
        if state.refuses {
            return;
        }
        let Ok(broker) = TcpStream::connect(self.broker) else {
            return;
        };
        self.connections.fetch_add(1, Ordering::SeqCst);
        for (from, to) in [(client, &broker), (&broker, client)] {
            from.set_nodelay(true).expect("a socket");
            state.open.push(from.try_clone().expect("a socket"));
            let (from, to) = (
                from.try_clone().expect("a socket"),
                to.try_clone().expect("a socket"),
            );
            let shared = Arc::clone(self);
            std::thread::spawn(move || shared.copy(from, to));
        }
    }

    fn copy(&self, mut from: TcpStream, mut to: TcpStream) {
        let mut buffer = [0; 4096];
        loop {
            let bytes = match from.read(&mut buffer) {
                Ok(0) | Err(_) => break,
                Ok(bytes) => bytes,
            };
            let state = self.state.lock().unwrap();
            drop(
                self.changed
                    .wait_while(state, |state| state.silent)
                    .unwrap(),
            );
            if to.write_all(&buffer[..bytes]).is_err() {
                break;
            }
        }
        let _ = to.shutdown(Shutdown::Both);
        let _ = from.shutdown(Shutdown::Both);
    }
}
