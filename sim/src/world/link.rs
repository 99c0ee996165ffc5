//! Links: the way from one node to another, one for each direction.

use crate::plan::Network;
use crate::plan::fault::NodeId;
use crate::rng::Draws;

/// The state of one direction between two nodes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Link {
    pub(crate) extra_ns: u64,
    pub(crate) extra_until_ns: u64,
    pub(crate) stalled_until_ns: u64,
    pub(crate) dropping_until_ns: u64,
}

/// All links.
#[derive(Clone, Debug)]
pub(crate) struct Links {
    links: Vec<Link>,
    nodes: usize,
    network: Network,
    draws: Draws,
}

impl Links {
    pub(crate) fn new(nodes: u16, network: Network, draws: Draws) -> Self {
        let nodes = usize::from(nodes);
        Self {
            links: vec![Link::default(); nodes * nodes],
            nodes,
            network,
            draws: draws.of(0x6c69_6e6b),
        }
    }

    fn place(&self, from: NodeId, to: NodeId) -> usize {
        usize::from(from) * self.nodes + usize::from(to)
    }

    pub(crate) fn link(&self, from: NodeId, to: NodeId) -> &Link {
        &self.links[self.place(from, to)]
    }

    /// When what is sent now would arrive. Drawn by link and time, so that leaving an
    /// earlier message out does not change a later one's delay.
    pub(crate) fn arrival_ns(&self, now_ns: u64, from: NodeId, to: NodeId) -> u64 {
        let place = self.place(from, to);
        let draws = self.draws.of(place as u64);
        let Network {
            delay_ns_min,
            delay_ns_max,
            slow_ppm,
            ..
        } = self.network;
        let bits = draws.bits(now_ns);
        let span = delay_ns_max.saturating_sub(delay_ns_min) + 1;
        let mut delay_ns = delay_ns_min + ((u128::from(bits) * u128::from(span)) >> 64) as u64;
        // The low bits, which the line above hardly used, decide about slowness.
        if slow_ppm > 0 && ((bits & 0xf_ffff) * 1_000_000) >> 20 < u64::from(slow_ppm) {
            delay_ns *= 10;
        }
        let link = &self.links[place];
        if link.extra_until_ns > now_ns {
            delay_ns += link.extra_ns;
        }
        now_ns + delay_ns
    }

    /// The longest that one way takes in good times.
    pub(crate) const fn delay_ns_max(network: &Network) -> u64 {
        if network.slow_ppm > 0 {
            network.delay_ns_max * 10
        } else {
            network.delay_ns_max
        }
    }

    pub(crate) fn delay(&mut self, from: NodeId, to: NodeId, extra_ns: u64, until_ns: u64) {
        let place = self.place(from, to);
        let link = &mut self.links[place];
        link.extra_ns = extra_ns;
        link.extra_until_ns = until_ns;
    }

    pub(crate) fn stall(&mut self, from: NodeId, to: NodeId, until_ns: u64) {
        let place = self.place(from, to);
        let link = &mut self.links[place];
        link.stalled_until_ns = link.stalled_until_ns.max(until_ns);
    }

    pub(crate) fn drop(&mut self, from: NodeId, to: NodeId, until_ns: u64) {
        let place = self.place(from, to);
        let link = &mut self.links[place];
        link.dropping_until_ns = link.dropping_until_ns.max(until_ns);
    }
}
