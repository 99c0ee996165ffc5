//! What an embedder does with the core's machines that the simulated worlds do not: hands in
//! wrong limits and damaged state, looks at what there is, and uses the rest of a client.

#[path = "embedder/clients.rs"]
mod clients;
#[path = "embedder/limits.rs"]
mod limits;
#[path = "embedder/saved.rs"]
mod saved;
#[path = "embedder/views.rs"]
mod views;
