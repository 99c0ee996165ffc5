//! The core's broker in a plain loop over `std::net`: one thread, no async, no poller.
//!
//! Sockets are read with a short timeout in turn, which is slow and simple. What it shows
//! is how little a transport has to do: pass bytes and the time in, and bytes out.
//!
//! ```sh
//! cargo run --example blocking_server -- serve   # until it is interrupted, on port 6970
//! cargo run --example blocking_server            # serves a client of its own, and ends
//! ```

use std::collections::HashMap;
use std::error::Error;
use std::io::{self, ErrorKind, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::time::Duration;

use lmx::clock;
use lmx::core::broker::{Broker, BrokerConfig, ConnectionId};

/// How long the loop sleeps in one read.
const PATIENCE: Duration = Duration::from_millis(1);

fn serve(listener: &TcpListener, mut goes_on: impl FnMut() -> bool) -> Result<(), Box<dyn Error>> {
    listener.set_nonblocking(true)?;
    // Seeds must be unpredictable where clients are not trusted: see `BrokerConfig`.
    let mut broker = Broker::new(clock::now(), BrokerConfig::default())?;
    let mut streams: HashMap<ConnectionId, TcpStream> = HashMap::new();
    let mut buffer = [0; 4096];
    while goes_on() {
        match listener.accept() {
            Ok((stream, _)) => {
                stream.set_nodelay(true)?;
                stream.set_read_timeout(Some(PATIENCE))?;
                stream.set_write_timeout(Some(PATIENCE))?;
                match broker.connect(clock::now()) {
                    Ok(id) => drop(streams.insert(id, stream)),
                    Err(refusal) => (&stream).write_all(&refusal.reply(clock::now()))?,
                }
            }
            Err(error) if error.kind() == ErrorKind::WouldBlock => {
                if streams.is_empty() {
                    std::thread::yield_now();
                }
            }
            Err(error) => return Err(error.into()),
        }

        // What arrived. `now` is read after the bytes were: clients count on it.
        for (&id, stream) in &mut streams {
            if !broker.wants_input(id) {
                continue;
            }
            match stream.read(&mut buffer) {
                Ok(0) => broker.handle_disconnect(clock::now(), id),
                Ok(bytes) => broker.handle_input(clock::now(), id, &buffer[..bytes]),
                Err(error) if is_patience(&error) => {}
                Err(_) => broker.handle_disconnect(clock::now(), id),
            }
        }

        // What is due.
        if broker.poll_timeout().is_some_and(|due| due <= clock::now()) {
            broker.handle_timeout(clock::now());
        }

        // What is to be said: all that changed is told by `poll_connection`, but a socket
        // that took only a part is only remembered by asking each.
        while broker.poll_connection().is_some() {}
        streams.retain(|&id, stream| {
            let output = broker.output(id);
            match if output.is_empty() {
                Ok(0)
            } else {
                stream.write(output)
            } {
                Ok(bytes) => broker.consume_output(clock::now(), id, bytes),
                Err(error) if is_patience(&error) => {}
                Err(_) => {
                    broker.handle_disconnect(clock::now(), id);
                    return false;
                }
            }
            let ends = broker.is_closing(id) && broker.output(id).is_empty();
            if ends {
                broker.handle_disconnect(clock::now(), id);
            }
            !ends
        });
    }
    Ok(())
}

fn is_patience(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        ErrorKind::WouldBlock | ErrorKind::TimedOut | ErrorKind::Interrupted
    )
}

fn main() -> Result<(), Box<dyn Error>> {
    if std::env::args().nth(1).as_deref() == Some("serve") {
        let listener = TcpListener::bind(("127.0.0.1", lmx::DEFAULT_PORT))?;
        println!("serving on {}", listener.local_addr()?);
        return serve(&listener, || true);
    }
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let address = listener.local_addr()?.to_string();
    let client = std::thread::spawn(move || -> Result<(), String> {
        let words = |error: &dyn Error| error.to_string();
        let client = lmx::blocking::Client::connect(&address).map_err(|e| words(&e))?;
        for _ in 0..3 {
            let guard = client.lock("key").acquire().map_err(|e| words(&e))?;
            println!("locked, with token {}", guard.token());
            guard.release().map_err(|e| words(&e))?;
        }
        client.close();
        Ok(())
    });
    serve(&listener, || !client.is_finished())?;
    client.join().expect("the client does not panic")?;
    Ok(())
}

#[test]
fn runs() {
    main().expect("it runs");
}
