//! What a round yields, and what several rounds say together.

use std::fmt;

use hdrhistogram::Histogram;

use crate::clock::Duration;

/// The longest latency that is told from longer ones, in nanoseconds.
const LATENCY_MAX: u64 = 100_000_000_000;

/// For latencies in nanoseconds.
pub(crate) fn histogram() -> Histogram<u64> {
    Histogram::new_with_max(LATENCY_MAX, 3).expect("3 digits are within its range")
}

/// One round of one peer.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Sample {
    /// Cycles of lock and unlock that ended in the measured window.
    pub(crate) cycles: u64,
    /// Grants in it to another loop than the one before: whoever polls often takes a lock
    /// again before anybody else has asked.
    pub(crate) handoffs: u64,
    /// How long the window was.
    pub(crate) elapsed: Duration,
    /// Median time of a cycle, waiting included, in microseconds.
    pub(crate) p50_us: f64,
    /// 99th percentile of the same.
    pub(crate) p99_us: f64,
}

impl Sample {
    /// Of the latencies in nanoseconds of all cycles of a window.
    pub(crate) fn of(latency: &Histogram<u64>, elapsed: Duration) -> Self {
        Self {
            cycles: latency.len(),
            handoffs: 0,
            elapsed,
            p50_us: micros(latency.value_at_quantile(0.5)),
            p99_us: micros(latency.value_at_quantile(0.99)),
        }
    }

    /// Cycles per second.
    #[expect(clippy::cast_precision_loss, reason = "counts far below 2^52")]
    pub(crate) fn rate(&self) -> f64 {
        self.cycles as f64 / self.elapsed.as_secs_f64()
    }

    /// Handoffs per second.
    #[expect(clippy::cast_precision_loss, reason = "counts far below 2^52")]
    pub(crate) fn handoff_rate(&self) -> f64 {
        self.handoffs as f64 / self.elapsed.as_secs_f64()
    }
}

impl fmt::Display for Sample {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{:.0} cycles/s, p50 {:.0} us, p99 {:.0} us",
            self.rate(),
            self.p50_us,
            self.p99_us
        )
    }
}

#[expect(clippy::cast_precision_loss, reason = "latencies far below 2^52 ns")]
fn micros(nanos: u64) -> f64 {
    nanos as f64 / 1_000.0
}

/// A median, and the least and the most that were seen.
#[derive(Clone, Copy, Debug, serde::Serialize)]
pub(crate) struct Spread {
    /// The middle one; of an even number the mean of the middle two.
    pub(crate) median: f64,
    /// The least.
    pub(crate) min: f64,
    /// The most.
    pub(crate) max: f64,
}

impl Spread {
    /// Of at least one value.
    pub(crate) fn of(values: impl IntoIterator<Item = f64>) -> Self {
        let mut values: Vec<f64> = values.into_iter().collect();
        values.sort_by(f64::total_cmp);
        let middle = values.len() / 2;
        let median = if values.len().is_multiple_of(2) {
            f64::midpoint(values[middle - 1], values[middle])
        } else {
            values[middle]
        };
        Self {
            median,
            min: values[0],
            max: values[values.len() - 1],
        }
    }
}
