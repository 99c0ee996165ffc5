//! What a broker is configured with when nobody says otherwise.

use std::io;

use lmx_core::broker::BrokerConfig;

/// Sane limits for a broker on a server. The seeds in it are placeholders that
/// [`BrokerBuilder::bind`](super::BrokerBuilder::bind) replaces.
#[must_use]
pub fn default_config() -> BrokerConfig {
    BrokerConfig::default()
}

/// Replaces every seed by one that clients cannot guess.
pub(super) fn draw_seeds(config: &mut BrokerConfig) -> io::Result<()> {
    let mut hash_seed = [0; 16];
    getrandom::fill(&mut hash_seed).map_err(io::Error::other)?;
    getrandom::fill(&mut config.secret_seed).map_err(io::Error::other)?;
    // A run that remembers nothing must not be taken for another one.
    let mut incarnation = [0; 4];
    getrandom::fill(&mut incarnation).map_err(io::Error::other)?;
    config.incarnation = u64::from(u32::from_le_bytes(incarnation)) + 1;
    let [low, high] = &mut config.table.hash_seed;
    (*low, *high) = halves(hash_seed);
    Ok(())
}

fn halves(bytes: [u8; 16]) -> (u64, u64) {
    let bits = u128::from_le_bytes(bytes);
    (bits as u64, (bits >> 64) as u64)
}
