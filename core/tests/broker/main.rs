//! The broker machine, driven as a transport would drive it.

mod behaviour;
mod peer;
mod script;
mod scripts;
