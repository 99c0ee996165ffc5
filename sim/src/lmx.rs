//! LMX itself in the world.
use serde::{Deserialize, Serialize};

/// What LMX's broker and clients are set to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Setup {}
/// Hostile.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Hostile {}
/// Question.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Question {}
