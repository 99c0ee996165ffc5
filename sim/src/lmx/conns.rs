//! Connections: what their two ends write, how it gets across, and how they break.

use super::ClientSetup;
use super::driver::{BROKER, Driver, Event};
use super::net::{Chunk, Conn, End, Way};
use crate::engine::Engine;
use crate::marks::sometimes;
use crate::plan::fault::NodeId;
use crate::plan::{MS, SECOND};
use crate::trace::Kind;

/// A transport gives up connecting after so long.
const CONNECT_NS_MAX: u64 = 3 * SECOND;
/// A kernel's keep-alive gives a dead connection up after so long.
pub(super) const KEEPALIVE_NS: u64 = 75 * SECOND;

/// Writes to a connection; says how much its window took.
pub(super) fn write(
    engine: &mut Engine<'_, Event>,
    conns: &mut [Conn],
    conn: u32,
    way: Way,
    bytes: &[u8],
) -> usize {
    let state = &mut conns[conn as usize];
    let digest = &mut engine.world.digest;
    digest.add(u64::from(conn) << 1 | u64::from(way == Way::ToBroker));
    digest.add(bytes.len() as u64);
    if state.broken {
        // The kernel takes it in, and it goes nowhere.
        digest.add_bytes(bytes);
        return bytes.len();
    }
    let window_bytes = engine.plan.network.window_bytes;
    let taken = state.pipe(way).push(bytes, window_bytes);
    engine.world.digest.add_bytes(&bytes[..taken]);
    sometimes!(engine.marks, WindowFull, taken < bytes.len());
    if taken > 0 {
        send_chunk(engine, state, conn, way);
    }
    taken
}

/// Ends a stream in good order: what was written still arrives.
pub(super) fn write_end(engine: &mut Engine<'_, Event>, conns: &mut [Conn], conn: u32, way: Way) {
    let state = &mut conns[conn as usize];
    if !state.broken {
        state.pipe(way).push_end();
        send_chunk(engine, state, conn, way);
    }
}

/// What was last put into the pipe arrives, after what was put in before.
fn send_chunk(engine: &mut Engine<'_, Event>, state: &mut Conn, conn: u32, way: Way) {
    let (from, to) = state.ends(way);
    let world = &mut engine.world;
    let at_ns = world.links.arrival_ns(world.now_ns, from, to);
    let last_ns = &mut state.pipe(way).last_arrival_ns;
    *last_ns = at_ns.max(*last_ns);
    world.schedule(*last_ns, Event::Deliver { conn, way });
}

impl Driver<'_> {
    // Connecting.

    /// The client's transport connects. Returns the connection's number.
    pub(super) fn connect(&mut self, node: NodeId) -> u32 {
        let conn = self.conns.len() as u32;
        self.conns
            .push(Conn::new(conn, node, self.setup.frame_bytes_max));
        self.send(conn, Way::ToBroker, Event::Syn { conn });
        let world = &mut self.engine.world;
        let late_ns = world.now_ns + CONNECT_NS_MAX;
        world.schedule(late_ns, Event::ConnectTimeout { conn });
        conn
    }

    /// The client's transport has tried for long enough, and says so once it can.
    pub(super) fn give_up_connecting(&mut self, conn: u32) {
        let state = &mut self.conns[conn as usize];
        if state.client_end == End::Opening
            && !self
                .engine
                .put_off(state.node, Event::ConnectTimeout { conn })
        {
            state.client_end = End::Closed;
            self.client_disconnected(conn);
        }
    }

    pub(super) fn syn(&mut self, conn: u32) {
        if self.held_up(conn, Way::ToBroker, Event::Syn { conn }) {
            return;
        }
        let world = &self.engine.world;
        let state = world.node(BROKER);
        let refuses = state.process.is_dead() || state.refuses_until_ns > world.now_ns;
        if !refuses && self.broker_connect(conn) {
            self.send(conn, Way::ToClient, Event::Accepted { conn });
            self.after_broker();
        } else {
            self.conns[conn as usize].broker_end = End::Closed;
            self.tell_broken(conn, Way::ToClient);
        }
    }

    pub(super) fn accepted(&mut self, conn: u32) {
        if self.held_up(conn, Way::ToClient, Event::Accepted { conn }) {
            return;
        }
        match self.conns[conn as usize].client_end {
            End::Opening => {
                self.conns[conn as usize].client_end = End::Open;
                self.client_connected(conn);
            }
            End::Open => {}
            // It has given up meanwhile.
            End::Closed => self.tell_broken(conn, Way::ToBroker),
        }
    }

    // Bytes.

    pub(super) fn deliver(&mut self, conn: u32, way: Way) {
        if self.held_up(conn, way, Event::Deliver { conn, way }) {
            return;
        }
        let state = &mut self.conns[conn as usize];
        let Some(chunk) = state.pipe(way).front() else {
            return;
        };
        match *state.reader(way) {
            End::Open => {}
            End::Opening if way == Way::ToClient => {
                // The connection's own acknowledgement was held up; data waits for it.
                let at_ns = self.engine.world.now_ns + MS / 10;
                self.engine
                    .world
                    .schedule(at_ns, Event::Deliver { conn, way });
                return;
            }
            End::Opening | End::Closed => {
                state.pipe(way).clear();
                let (_, to) = state.ends(way);
                if self.engine.world.node(to).process.is_dead() {
                    sometimes!(self.engine.marks, ArrivedDead);
                } else {
                    // A kernel that knows of no such connection says so.
                    self.tell_broken(conn, way.back());
                }
                return;
            }
        }
        match chunk {
            Chunk::End => {
                state.pipe(way).clear();
                self.disconnected(conn, way);
            }
            Chunk::Bytes(_)
                if way == Way::ToBroker
                    && !self.broker.wants_input(state, self.setup.tight.reads_on) =>
            {
                sometimes!(self.engine.marks, InputRefused);
                state.pipe(way).refused += 1;
            }
            Chunk::Bytes(count) => self.deliver_bytes(conn, way, count),
        }
    }

    fn deliver_bytes(&mut self, conn: u32, way: Way, count: usize) {
        let (count, rest_ns) = self.cut(conn, way, count);
        let world = &mut self.engine.world;
        // Which bytes they are was taken in when they were written.
        let end = u64::from(conn) << 1 | u64::from(way == Way::ToBroker);
        world.digest.add(world.now_ns ^ end << 40);
        world.digest.add(count as u64);
        match way {
            Way::ToBroker => self.broker_input(conn, count),
            Way::ToClient => self.client_input(conn, count),
        }
        if let Some(rest_ns) = rest_ns {
            self.engine
                .world
                .schedule(rest_ns, Event::Deliver { conn, way });
        }
        self.room(conn, way);
    }

    /// There is room again for what the writer kept back.
    pub(super) fn room(&mut self, conn: u32, way: Way) {
        let (writer, _) = self.conns[conn as usize].ends(way);
        if self.engine.put_off(writer, Event::Room { conn, way }) {
            return;
        }
        match way {
            Way::ToBroker => self.client_writes_on(writer),
            Way::ToClient => self.write_on(conn),
        }
    }

    /// How much of a chunk is read at once, and when the rest is.
    fn cut(&mut self, conn: u32, way: Way, count: usize) -> (usize, Option<u64>) {
        let world = &self.engine.world;
        let now_ns = world.now_ns;
        let cut_ppm = self.plan.network.cut_ppm;
        let (_, reader) = self.conns[conn as usize].ends(way);
        let slow = world.node(reader).slow_until_ns > now_ns;
        if count < 2 || (cut_ppm == 0 && !slow) {
            return (count, None);
        }
        let draws = self
            .cut_draws
            .of(u64::from(conn) << 1 | u64::from(way == Way::ToBroker));
        if slow {
            sometimes!(self.engine.marks, ReadSlowly);
            let part = count.min(7);
            let rest = (part < count).then(|| now_ns + draws.between(now_ns, 10 * MS, 200 * MS));
            return (part, rest);
        }
        if !draws.chance(now_ns, cut_ppm) {
            return (count, None);
        }
        sometimes!(self.engine.marks, Cut);
        let part = 1 + draws.below(now_ns ^ 1, count as u64 - 1) as usize;
        (part, Some(now_ns + draws.between(now_ns ^ 2, 1, 2 * MS)))
    }

    // Breaking.

    /// The end towards which `way` leads will learn that the connection is broken.
    fn tell_broken(&mut self, conn: u32, way: Way) {
        self.send(conn, way, Event::Broken { conn, way });
    }

    pub(super) fn broken(&mut self, conn: u32, way: Way) {
        if self.held_up(conn, way, Event::Broken { conn, way }) {
            return;
        }
        self.is_broken(conn, way);
    }

    /// The kernel of the end towards which `way` leads has heard nothing for too long. It
    /// needs no link to know that.
    pub(super) fn silent(&mut self, conn: u32, way: Way) {
        let (_, to) = self.conns[conn as usize].ends(way);
        if !self.engine.put_off(to, Event::Silent { conn, way }) {
            self.is_broken(conn, way);
        }
    }

    fn is_broken(&mut self, conn: u32, way: Way) {
        let state = &mut self.conns[conn as usize];
        state.pipe(way).clear();
        let end = *state.reader(way);
        if end == End::Open || end == End::Opening && way == Way::ToClient {
            self.disconnected(conn, way);
        }
    }

    /// The end towards which `way` leads learns that the connection is over.
    fn disconnected(&mut self, conn: u32, way: Way) {
        match way {
            Way::ToBroker => self.broker_disconnected(conn),
            Way::ToClient => {
                self.conns[conn as usize].client_end = End::Closed;
                self.client_disconnected(conn);
            }
        }
    }

    /// Connections break, and both ends learn of it.
    pub(super) fn break_conns(&mut self, which: impl Fn(&Conn) -> bool) {
        for conn in 0..self.conns.len() as u32 {
            let state = &mut self.conns[conn as usize];
            if !which(state) || (state.client_end == End::Closed && state.broker_end != End::Open) {
                continue;
            }
            let under_way = state.to_broker.len() + state.to_client.len() > 0;
            sometimes!(self.engine.marks, ResetUnderWay, under_way);
            self.break_conn(conn, "connection breaks");
            self.tell_broken(conn, Way::ToBroker);
            self.tell_broken(conn, Way::ToClient);
        }
    }

    /// A client's connections break, and one end learns of it.
    pub(super) fn half_open(&mut self, node: NodeId, broker_told: bool) {
        for conn in 0..self.conns.len() as u32 {
            let state = &self.conns[conn as usize];
            let is_open = state.client_end == End::Open && state.broker_end == End::Open;
            if state.node != node || !is_open {
                continue;
            }
            sometimes!(self.engine.marks, HalfOpened);
            self.break_conn(conn, "connection is half open");
            let told = if broker_told {
                Way::ToBroker
            } else {
                Way::ToClient
            };
            self.tell_broken(conn, told);
            self.tell_by_keepalive(conn, told.back());
        }
    }

    fn break_conn(&mut self, conn: u32, how: &'static str) {
        let state = &mut self.conns[conn as usize];
        state.broken = true;
        state.to_broker.clear();
        state.to_client.clear();
        let node = state.node;
        self.engine.note(node, Kind::Fault, || how.to_owned());
    }

    /// A process died: its connections end, and its kernel may say so.
    pub(super) fn crash_conns(&mut self, node: NodeId, silently: bool) {
        // What the dead had written may still arrive; nothing it was sent does.
        let to_peer = if node == BROKER {
            Way::ToClient
        } else {
            Way::ToBroker
        };
        for conn in 0..self.conns.len() as u32 {
            let state = &mut self.conns[conn as usize];
            if node != BROKER && state.node != node {
                continue;
            }
            let end = std::mem::replace(state.reader(to_peer.back()), End::Closed);
            if end == End::Open || end == End::Opening && node != BROKER {
                if !silently {
                    self.tell_broken(conn, to_peer);
                }
                // What its kernel says may not get through.
                if silently || node == BROKER {
                    self.tell_by_keepalive(conn, to_peer);
                }
            }
        }
    }

    /// Live-mutex clients have no heartbeat: there the kernel's keep-alive finds dead
    /// connections. Native ones must find them without.
    ///
    /// That of a client that holds without a `ttl` must find a dead broker before its
    /// successor takes the lock for free: the broker's document asks for that.
    fn tell_by_keepalive(&mut self, conn: u32, way: Way) {
        let after_ns = match way {
            Way::ToBroker => KEEPALIVE_NS,
            Way::ToClient => KEEPALIVE_NS.min(self.setup.idle_ns_max / 2),
        };
        let client = usize::from(self.conns[conn as usize].node) - 1;
        let setup = self.setup.clients.get(client);
        if setup.is_some_and(|it| it.is_dialect() || *it == ClientSetup::Hostile) {
            let world = &mut self.engine.world;
            world.schedule(world.now_ns + after_ns, Event::Silent { conn, way });
        }
    }

    // The way itself.

    /// `event` happens at the other end, when what is sent now gets there.
    fn send(&mut self, conn: u32, way: Way, event: Event) {
        let (from, to) = self.conns[conn as usize].ends(way);
        let world = &mut self.engine.world;
        let at_ns = world.links.arrival_ns(world.now_ns, from, to);
        world.schedule(at_ns, event);
    }

    /// Whether what has arrived is held up; then `again` is scheduled for the end of that.
    fn held_up(&mut self, conn: u32, way: Way, again: Event) -> bool {
        let (from, to) = self.conns[conn as usize].ends(way);
        // Of a stream nothing is lost: it comes later.
        let link = self.engine.world.links.link(from, to);
        let link_ns = link.stalled_until_ns.max(link.dropping_until_ns);
        let held_up = self.engine.held_up(link_ns, to);
        if let Some(until_ns) = held_up {
            self.engine.world.schedule(until_ns, again);
        }
        held_up.is_some()
    }
}
