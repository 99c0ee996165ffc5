//! A broker whose every word is written down.
