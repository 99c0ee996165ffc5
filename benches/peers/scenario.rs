//! What is run: closed loops that lock and unlock.

/// The longest a lock of the benchmark may live; nothing comes near it.
pub(crate) const LEASE_MS: u64 = 30_000;

/// Which keys the loops use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Keys {
    /// Each loop its own: nobody waits for anybody.
    Own,
    /// All loops the same one.
    One,
}

/// How the loops hold their keys.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Hold {
    /// Alone.
    Exclusive,
    /// Together with all others.
    Shared,
    /// One permit each, of so many.
    Permits(u32),
}

/// Some number of closed loops: lock a key, unlock it, over and over.
#[derive(Debug)]
pub(crate) struct Load {
    /// Its name on the command line.
    pub(crate) name: &'static str,
    /// What it is, in the report.
    pub(crate) what: &'static str,
    /// How many connections there are.
    pub(crate) connections: usize,
    /// Loops that share one connection.
    pub(crate) lanes: usize,
    /// Which keys they use.
    pub(crate) keys: Keys,
    /// How they hold them.
    pub(crate) hold: Hold,
    /// Whether it makes sense only through a client of the peer's own.
    pub(crate) is_for_clients: bool,
}

impl Load {
    /// The key of one loop: 24 bytes.
    pub(crate) fn key(&self, connection: usize, lane: usize) -> String {
        match self.keys {
            Keys::Own => format!("bench:{connection:08}-{lane:09}"),
            Keys::One => "bench:the-one-contended!".to_owned(),
        }
    }

    /// Every key, once.
    pub(crate) fn all_keys(&self) -> Vec<String> {
        match self.keys {
            Keys::One => vec![self.key(0, 0)],
            Keys::Own => (0..self.connections)
                .flat_map(|connection| (0..self.lanes).map(move |lane| self.key(connection, lane)))
                .collect(),
        }
    }

    /// How many may hold a key at one time.
    pub(crate) fn capacity(&self) -> usize {
        match self.hold {
            Hold::Exclusive => 1,
            Hold::Shared => usize::MAX,
            Hold::Permits(capacity) => capacity as usize,
        }
    }
}

const fn own(name: &'static str, what: &'static str, connections: usize) -> Load {
    Load {
        name,
        what,
        connections,
        lanes: 1,
        keys: Keys::Own,
        hold: Hold::Exclusive,
        is_for_clients: false,
    }
}

const fn contended(name: &'static str, what: &'static str, connections: usize) -> Load {
    Load {
        keys: Keys::One,
        ..own(name, what, connections)
    }
}

/// Two connections, used to prove that a peer excludes.
pub(crate) const PROOF: Load = contended("proof", "two connections, one key", 2);

/// Every load, in the order of the report.
pub(crate) const LOADS: &[Load] = &[
    own("own-1", "1 connection, its own key", 1),
    own("own-20", "20 connections, a key each", 20),
    own("own-100", "100 connections, a key each", 100),
    own("own-1000", "1,000 connections, a key each", 1000),
    Load {
        lanes: 64,
        ..own(
            "pipelined-64",
            "1 connection, 64 requests outstanding, a key each",
            1,
        )
    },
    contended("one-20", "20 connections, one key (handoff)", 20),
    contended("one-100", "100 connections, one key (handoff)", 100),
    Load {
        hold: Hold::Shared,
        ..contended("shared-20", "20 connections, one key, shared", 20)
    },
    Load {
        hold: Hold::Permits(5),
        ..contended("permits-20", "20 connections, one key of 5 permits", 20)
    },
    Load {
        lanes: 20,
        is_for_clients: true,
        ..contended(
            "headline",
            "one client, one key, 20 at a time (the seed's headline)",
            1,
        )
    },
];
