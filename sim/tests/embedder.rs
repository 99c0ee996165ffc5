//! What an embedder does with the core's machines that the simulated worlds do not: hands in
//! wrong limits and damaged state, looks at what there is, calls what is seldom called, and
//! uses the rest of a client.

#[path = "embedder/apart.rs"]
mod apart;
#[path = "embedder/behind.rs"]
mod behind;
#[path = "embedder/brokers.rs"]
mod brokers;
#[path = "embedder/buffers.rs"]
mod buffers;
#[path = "embedder/clients.rs"]
mod clients;
#[path = "embedder/conversions.rs"]
mod conversions;
#[path = "embedder/forgotten.rs"]
mod forgotten;
#[path = "embedder/frames.rs"]
mod frames;
#[path = "embedder/kept.rs"]
mod kept;
#[path = "embedder/limits.rs"]
mod limits;
#[path = "embedder/lines.rs"]
mod lines;
#[path = "embedder/names.rs"]
mod names;
#[path = "embedder/saved.rs"]
mod saved;
#[path = "embedder/sizes.rs"]
mod sizes;
#[path = "embedder/takeover.rs"]
mod takeover;
#[path = "embedder/tokens.rs"]
mod tokens;
#[path = "embedder/views.rs"]
mod views;
#[path = "embedder/world.rs"]
mod world;
