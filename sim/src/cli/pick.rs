//! Reads what was typed.

use std::time::Duration;

use crate::plan::{FaultSet, Plan};
use crate::protocol::AnyProtocol;

/// `A..B`.
pub(super) fn seeds(text: &str) -> Result<(u64, u64), String> {
    let wrong = || format!("`{text}` is not a range of seeds, such as 0..1000");
    let (first, end) = text.split_once("..").ok_or_else(wrong)?;
    let first: u64 = first.parse().map_err(|_| wrong())?;
    let end: u64 = end.parse().map_err(|_| wrong())?;
    if first >= end {
        return Err(format!("`{text}` is an empty range of seeds"));
    }
    Ok((first, end))
}

/// A number and a unit.
pub(super) fn duration(text: &str) -> Result<Duration, String> {
    let wrong = || format!("`{text}` is not a time, such as 250ms, 60s, 5m or 2h");
    let digits = text
        .find(|c: char| !c.is_ascii_digit() && c != '.')
        .ok_or_else(wrong)?;
    let (number, unit) = text.split_at(digits);
    let number: f64 = number.parse().map_err(|_| wrong())?;
    let seconds = match unit {
        "us" => 1e-6,
        "ms" => 1e-3,
        "s" => 1.0,
        "m" | "min" => 60.0,
        "h" => 3_600.0,
        _ => return Err(wrong()),
    };
    Duration::try_from_secs_f64(number * seconds).map_err(|_| wrong())
}

pub(super) fn protocol(name: &str) -> Result<&'static dyn AnyProtocol, String> {
    crate::sweep::protocol(name)
        .ok_or_else(|| format!("there is no protocol `{name}`; `lmx-sim protocols` lists them"))
}

/// A seed's plan, or one from a file.
pub(super) fn plan(
    source: &str,
    protocol_name: &str,
    faults: FaultSet,
) -> Result<(&'static dyn AnyProtocol, Plan), String> {
    if let Ok(seed) = source.parse() {
        let protocol = protocol(protocol_name)?;
        return Ok((protocol, protocol.plan(seed, faults)));
    }
    let text = std::fs::read_to_string(source).map_err(|error| {
        format!("`{source}` is neither a seed nor a file that can be read: {error}")
    })?;
    let plan = Plan::from_json(&text).map_err(|error| format!("{source} is no plan: {error}"))?;
    Ok((protocol(&plan.protocol)?, plan))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_and_ranges_are_read_and_nonsense_is_named() {
        assert_eq!(duration("2h"), Ok(Duration::from_hours(2)));
        assert_eq!(duration("1.5s"), Ok(Duration::from_millis(1_500)));
        assert!(duration("2 parsecs").unwrap_err().contains("`2 parsecs`"));
        assert!(duration("17").is_err());
        assert_eq!(seeds("3..9"), Ok((3, 9)));
        assert!(seeds("9..3").unwrap_err().contains("empty"));
        assert!(seeds("3-9").is_err());
    }
}
