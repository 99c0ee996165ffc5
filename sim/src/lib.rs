//! A deterministic simulator for lock protocols.
