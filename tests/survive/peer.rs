//! A peer that speaks the native protocol byte by byte.

use std::io::{ErrorKind, Read as _, Write as _};
use std::net::TcpStream;
use std::time::Duration;

use lmx::core::wire::{
    AcquireFields, Answer, Command, Hello, MAGIC, Reply, Request, SeqBuf, Ticket, WantFields,
    Welcome, frame,
};
use lmx::core::{Mode, RequestId};

pub(crate) struct Peer {
    pub(crate) stream: TcpStream,
    tag: u32,
}

impl Peer {
    pub(crate) fn connect(port: u16) -> Self {
        let stream = TcpStream::connect(("127.0.0.1", port)).expect("connected");
        Self { stream, tag: 0 }
    }

    /// Connected, with a session that ends with the connection.
    pub(crate) fn open(port: u16) -> Self {
        Self::open_with(port, Duration::ZERO, None).0
    }

    /// Connected, with a session that outlives the connection for `resume_window`: a new
    /// one, or the one of `resume`.
    pub(crate) fn open_with(
        port: u16,
        resume_window: Duration,
        resume: Option<Ticket>,
    ) -> (Self, Welcome) {
        let mut peer = Self::connect(port);
        peer.stream.write_all(&MAGIC).expect("written");
        peer.send(Command::Hello(Hello {
            auth: &[],
            resume_window,
            resume,
            name: "peer",
        }));
        let welcome = peer.told(|answer| match answer {
            Answer::Welcome(welcome) => Some(*welcome),
            _ => None,
        });
        (peer, welcome)
    }

    /// Holds `key` when it returns, or has been told that the hold was over already.
    pub(crate) fn acquire(&mut self, id: RequestId, key: &str, lease: Duration) {
        let mut buffer = [0; 256];
        let mut wants = SeqBuf::new(&mut buffer);
        let want = WantFields {
            key: key.as_bytes(),
            mode: Mode::Exclusive,
        };
        assert!(wants.push(&want), "{key} is short");
        self.send(Command::Acquire(AcquireFields {
            lease: Some(lease),
            ..AcquireFields::new(id, wants.finish())
        }));
        self.told(|answer| match answer {
            Answer::Granted { id: of, .. } | Answer::Expired { id: of, .. } if *of == id => {
                Some(())
            }
            _ => None,
        });
    }

    /// Gives `id` back; says whether it was still held.
    pub(crate) fn release(&mut self, id: RequestId) -> bool {
        self.send(Command::Release { id });
        self.told(|answer| match answer {
            Answer::Released { id: of } if *of == id => Some(true),
            Answer::ReleaseRefused { id: of, .. } if *of == id => Some(false),
            _ => None,
        })
    }

    pub(crate) fn send(&mut self, body: Command<'_>) {
        let bytes = self.request(body);
        self.stream.write_all(&bytes).expect("written");
    }

    pub(crate) fn request(&mut self, body: Command<'_>) -> Vec<u8> {
        self.tag += 1;
        let mut bytes = Vec::new();
        let request = Request {
            tag: self.tag,
            seen: 0,
            body,
        };
        frame::append(&request, &mut bytes);
        bytes
    }

    /// Reads until `choose` finds what it looks for.
    fn told<T>(&mut self, choose: impl Fn(&Answer<'_>) -> Option<T>) -> T {
        loop {
            let mut length = [0; 4];
            self.stream.read_exact(&mut length).expect("a reply");
            let mut body = vec![0; u32::from_le_bytes(length) as usize];
            self.stream.read_exact(&mut body).expect("a reply");
            let reply = Reply::decode(&body).expect("a reply");
            if let Answer::Fault { text, .. } = reply.body {
                panic!("{text}");
            }
            if let Some(found) = choose(&reply.body) {
                return found;
            }
        }
    }

    /// The text of the fault that ends the connection; empty if it was simply cut.
    pub(crate) fn last_words(mut self) -> String {
        let mut bytes = Vec::new();
        let ended = self.stream.read_to_end(&mut bytes);
        if let Err(error) = ended {
            assert_eq!(error.kind(), ErrorKind::ConnectionReset, "{error}");
        }
        let mut rest = &bytes[..];
        let mut words = String::new();
        while let Ok(Some(frame)) = frame::split(rest, 1 << 20) {
            let reply = Reply::decode(frame.body).expect("a reply");
            if let Answer::Fault { text, .. } = reply.body {
                text.clone_into(&mut words);
            }
            rest = frame.rest;
        }
        words
    }
}
