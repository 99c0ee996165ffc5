//! The broker machine, driven as a transport would drive it.

#![cfg(feature = "alloc")]

mod behaviour;
mod bounds;
mod peer;
mod script;
mod scripts;
