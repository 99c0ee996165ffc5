//! Past its limits: whoever asks too much is told so, and everybody else goes on.
