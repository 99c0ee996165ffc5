//! Worlds whose limits are so low that everybody comes up against them, and somebody goes
//! exactly as far as is allowed, or one further.

use crate::lmx::{ClientSetup, Edge, Hostile, Tight};
use crate::plan::{Action, Fault, FaultEvent, MS, Op, Plan, SECOND, When};
use crate::rng::{Draws, Sequence};

/// Lowers the limits of the plan's world; or leaves it as it is.
pub(super) fn widen(plan: &mut Plan, may_pause: bool) {
    let draw = &mut Sequence::new(Draws::new(plan.seed).of(0x7469_6768));
    if !draw.percent(30) {
        return;
    }
    let clients = u64::from(plan.clients) + 1;
    let Some(setup) = &mut plan.lmx else { return };
    let mut tight = Tight::default();
    let (behind, room, bytes) = (draw.percent(40), draw.percent(40), draw.percent(40));
    if behind {
        tight.timers_per_call_max = draw.pick(&[1, 1, 2, 3, 8]);
    }
    // Who speaks in lines may stay for ever, and some of live-mutex's cannot be refused.
    let native = |client: &ClientSetup| matches!(client, ClientSetup::Native { .. });
    if room && setup.clients.iter().all(native) {
        let low = |draw: &mut Sequence, limit: &mut u32, from: u64, to: u64| {
            if draw.percent(40) {
                *limit = draw.between(from, to) as u32;
            }
        };
        low(draw, &mut tight.connections_max, clients, clients + 4);
        low(draw, &mut tight.sessions_max, clients + 1, clients + 4);
        low(draw, &mut tight.keys_max, 1, u64::from(setup.keys) + 3);
        low(draw, &mut tight.claims_max, 1, 20);
        low(draw, &mut tight.pieces_max, 1, 20);
        low(draw, &mut tight.requests_per_session_max, 1, 10);
    }
    if bytes {
        let has_lines = setup.clients.iter().any(|client| client.is_dialect());
        tight.name_bytes_max = draw.between(10, 60) as u32;
        let least = 326 + tight.name_bytes_max;
        let least = if has_lines { least.max(700) } else { least };
        setup.frame_bytes_max = least + draw.skewed(1, 300) as u32 - 1;
        let more = draw.skewed(1, 4 * u64::from(setup.frame_bytes_max));
        setup.output_bytes_max = setup.frame_bytes_max + 3 + more as u32;
        if draw.percent(60) {
            tight.buffered_bytes_max = draw.skewed(1, 20_000);
        }
        tight.reads_on = draw.percent(50);
    }
    if draw.percent(40) {
        tight.resume_window_ns_max = 4 * SECOND;
    }
    tight.asks_for_token = draw.percent(30);
    if draw.percent(30) {
        tight.deadlock_search_max = draw.below(12) as u32;
    }
    // Some of live-mutex's may not wait, even for a token.
    let scripted = |client: &ClientSetup| matches!(client, ClientSetup::Scripted(_));
    if draw.percent(40) && !setup.durable && !setup.clients.iter().any(scripted) {
        tight.tokens_at_a_time = draw.between(1, 5);
    }
    // A longer one would keep a broker that restarts waiting for longer than a run lasts.
    let windows = tight.resume_window_ns_max == 4 * SECOND;
    setup.tight = tight;
    let may_stay = setup.tight.connections_max >= 1024 && setup.tight.sessions_max >= 65_536;
    let keys = setup.keys;
    setup.clients.push(ClientSetup::Hostile);
    let node = plan.clients;
    plan.clients += 1;
    plan.drifts_ppm.push(0);
    let span_ns = plan.heal_ns.saturating_sub(10 * SECOND).max(1);
    let first = plan.ops_bound() as u32;
    let lease_ns_max = draw.skewed(10, 5_000) * MS;
    for id in first..first + draw.skewed(2, 20) as u32 {
        let mut edge = edge(draw, (behind, windows), keys, lease_ns_max);
        if edge.is_lines() && !may_stay {
            edge = Edge::Convert;
        }
        plan.ops.push(Op {
            id,
            at_ns: draw.below(span_ns),
            client: node,
            action: Action::Hostile(Hostile::Edge(edge)),
        });
        if let Edge::Crowd { lease_ns, .. } = edge
            && may_pause
            && draw.percent(70)
        {
            // Over the end of all those leases.
            plan.faults.push(FaultEvent {
                when: When::Asked {
                    op: id,
                    after_ns: draw.between(lease_ns / 2, lease_ns),
                },
                lasts_ns: draw.skewed(MS, 3 * lease_ns),
                fault: Fault::Pause(0),
            });
        }
    }
    for _ in 0..draw.below(4) * u64::from(behind && may_pause) {
        plan.faults.push(FaultEvent {
            when: When::At(draw.below(span_ns)),
            lasts_ns: draw.skewed(100, 60_000) * MS,
            fault: Fault::Pause(0),
        });
    }
    plan.ops.sort_by_key(|op| (op.at_ns, op.id));
}

fn edge(
    draw: &mut Sequence,
    (behind, windows): (bool, bool),
    keys: u32,
    lease_ns_max: u64,
) -> Edge {
    if behind && draw.percent(50) {
        return Edge::Crowd {
            key: draw.percent(50).then(|| draw.below(u64::from(keys)) as u32),
            count: draw.skewed(1, 60) as u32,
            lease_ns: draw.between(lease_ns_max / 2, lease_ns_max),
        };
    }
    let more = draw.below(2) as u32;
    match draw.below(12) {
        0 => Edge::Name(more),
        1 => Edge::Frame(more),
        2 => Edge::Greeting(more),
        3 => Edge::Line(more),
        4 => Edge::EndlessLine(more),
        5 => Edge::Version,
        6 | 7 => Edge::Token(draw.below(6) as u32),
        8 => Edge::LineToken(draw.below(8) as u32),
        9 if windows => Edge::Window,
        9 | 10 => Edge::Convert,
        _ => Edge::Deaf(draw.skewed(1, 200) as u32),
    }
}
