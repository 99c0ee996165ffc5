//! The fuzz targets' bodies. The fuzzer runs them on what it thinks of; `core`'s tests run
//! them on the committed corpora and on random bytes, with any compiler.

mod dialect;
mod frames;
mod session;

pub use dialect::live_mutex_dialect;
pub use frames::frame_decoder;
pub use session::broker_session;
