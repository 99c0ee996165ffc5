use alloc::format;
use core::time::Duration;

use super::*;

fn frame(text: &str) -> Frame<'_> {
    match Line::parse(text) {
        Line::Frame(frame) => frame,
        other => panic!("{text} is {other:?}"),
    }
}

#[test]
fn lines_are_told_apart() {
    for text in [
        "", "  ", "\r", "{", "{}{}", "{} x", "nonsense", "[1,]", "\"open",
    ] {
        assert!(matches!(Line::parse(text), Line::Nothing), "{text:?}");
    }
    for text in ["1", "-2e3", "null", "true", "[]", " [{}] ", "\"{}\""] {
        assert!(matches!(Line::parse(text), Line::NotAnObject), "{text:?}");
    }
    frame(" {} \r");
}

#[test]
fn deeply_nested_values_end_no_stack() {
    let deep = format!(
        "{{\"more\":{}1{}}}",
        "[".repeat(100_000),
        "]".repeat(100_000)
    );
    // Whether it counts as JSON does not matter.
    let _ = Line::parse(&deep);
    let _ = Line::parse(&"[".repeat(100_000));
    let _ = Line::parse(&"{\"key\":".repeat(100_000));
}

#[test]
fn truth_is_javascripts() {
    for text in ["null", "false", "0", "-0", "0.0", "0e7", "\"\""] {
        assert!(!Raw(text).truthy(), "{text}");
    }
    for text in ["true", "1", "-1", "0.5", "\"0\"", "\"false\"", "[]", "{}"] {
        assert!(Raw(text).truthy(), "{text}");
    }
}

#[test]
fn names_are_javascripts_strings() {
    for (text, name) in [
        ("\"a\"", "a"),
        ("\"\\u0061\"", "a"),
        ("\"a\\nb\"", "a\nb"),
        ("1", "1"),
        ("1.0", "1"),
        ("1e3", "1000"),
        ("0.10", "0.1"),
        ("-5", "-5"),
        ("12345678901234567890", "12345678901234567890"),
        ("null", "null"),
        ("true", "true"),
        ("{\"a\":1}", "{\"a\":1}"),
    ] {
        assert_eq!(Raw(text).name(), name, "{text}");
    }
    // Half a pair has no text in Rust; it still differs from the other half.
    assert_ne!(Raw("\"\\ud800\"").name(), Raw("\"\\ud801\"").name());
}

#[test]
fn ids_keep_their_uuid_or_get_one() {
    let usual = "0b9f4a3c-5d6e-4f70-8192-a3b4c5d6e7f8";
    let id = request_id(Raw(&format!("\"{usual}\"")));
    assert_eq!(format!("{id}"), usual);
    // Other spellings are other strings.
    for text in [
        "\"0B9F4A3C-5D6E-4F70-8192-A3B4C5D6E7F8\"",
        "\"0b9f4a3c5d6e4f708192a3b4c5d6e7f8\"",
        "\"anything\"",
        "\"\"",
        "7",
    ] {
        let hashed = request_id(Raw(text));
        assert_ne!(hashed, id);
        assert_eq!(hashed.uuid().get_version_num(), 8, "{text}");
        assert_eq!(hashed, request_id(Raw(text)));
    }
    assert_eq!(request_id(Raw("7")), request_id(Raw("\"7\"")));
    assert_ne!(request_id(Raw("\"a\"")), request_id(Raw("\"b\"")));
}

#[test]
fn ids_that_are_made_are_uuids_of_version_8_whatever_their_bits() {
    for bits in [0, u128::MAX] {
        let id = made_id(bits).uuid();
        assert_eq!(id.get_version_num(), 8);
        assert_eq!(id.get_variant(), uuid::Variant::RFC4122);
    }
}

#[test]
fn ttl_becomes_a_lease() {
    let default = Ok(Some(Duration::from_secs(5)));
    for (text, lease) in [
        ("{}", default),
        ("{\"ttl\":0}", default),
        ("{\"ttl\":false}", default),
        ("{\"ttl\":\"\"}", default),
        ("{\"ttl\":null}", Ok(None)),
        ("{\"ttl\":1500}", Ok(Some(Duration::from_millis(1500)))),
        ("{\"ttl\":\"1500\"}", Ok(Some(Duration::from_millis(1500)))),
        ("{\"ttl\":1.5e3}", Ok(Some(Duration::from_millis(1500)))),
        ("{\"ttl\":0.25}", Ok(Some(Duration::from_millis(1)))),
        ("{\"ttl\":1e300}", Ok(Some(Duration::MAX))),
        ("{\"ttl\":-1}", Err(UNFIT_TTL)),
        ("{\"ttl\":\"soon\"}", Err(UNFIT_TTL)),
        ("{\"ttl\":\"NaN\"}", Err(UNFIT_TTL)),
        ("{\"ttl\":true}", Err(UNFIT_TTL)),
        ("{\"ttl\":[1]}", Err(UNFIT_TTL)),
        ("{\"ttl\":1e999}", Err(UNFIT_TTL)),
    ] {
        if text.contains("1e999") {
            // No number of JSON's that Rust can hold: then the line is none either way.
            if let Line::Frame(frame) = Line::parse(text) {
                assert_eq!(frame.lease(), lease);
            }
            continue;
        }
        assert_eq!(frame(text).lease(), lease, "{text}");
    }
}

#[test]
fn max_becomes_a_capacity() {
    for (text, capacity) in [
        ("{}", Ok(None)),
        ("{\"max\":null}", Ok(None)),
        ("{\"max\":1}", Ok(Some(1))),
        ("{\"max\":2.0}", Ok(Some(2))),
        ("{\"max\":1e12}", Ok(Some(u32::MAX))),
        ("{\"maxWrite\":3,\"maxRead\":4}", Ok(Some(3))),
        (
            "{\"maxWrite\":3,\"maxRead\":4,\"rwStatus\":\"begin_read\"}",
            Ok(Some(4)),
        ),
        ("{\"max\":2,\"maxWrite\":3}", Ok(Some(2))),
        ("{\"max\":0}", Err(UNFIT_MAX)),
        ("{\"max\":1.5}", Err(UNFIT_MAX)),
        ("{\"max\":\"1\"}", Err(UNFIT_MAX)),
        ("{\"max\":false}", Err(UNFIT_MAX)),
        ("{\"max\":1,\"maxRead\":-1}", Err(UNFIT_MAX)),
    ] {
        assert_eq!(frame(text).capacity(), capacity, "{text}");
    }
}

#[test]
fn a_field_counts_as_its_last() {
    let frame = frame("{\"uuid\":1,\"uuid\":\"b\",\"more\":[1,2],\"\\u006bey\":\"k\"}");
    assert_eq!(frame.uuid.unwrap().text(), "\"b\"");
    assert_eq!(frame.key_name(), "k");
}

#[test]
fn only_the_node_client_writes_every_field() {
    let node = "{\"keepLocksAfterDeath\":false,\"retryCount\":0,\"uuid\":\"u\",\"key\":\"k\",\
                \"type\":\"lock\",\"ttl\":7050,\"rwStatus\":null,\"max\":null,\"pid\":1}";
    assert!(frame(node).is_from_node());
    let rust = "{\"type\":\"lock\",\"uuid\":\"u\",\"key\":\"k\",\"ttl\":null,\"max\":null,\
                \"pid\":1,\"keepLocksAfterDeath\":false}";
    assert!(!frame(rust).is_from_node());
}

#[test]
fn strings_are_all_or_nothing() {
    assert_eq!(strings(Raw("[\"a\", \"\\u0062\"]")).unwrap(), ["a", "b"]);
    assert!(strings(Raw("[]")).unwrap().is_empty());
    for text in ["[1]", "[\"a\",null]", "\"a\"", "{}", "null"] {
        assert!(strings(Raw(text)).is_none(), "{text}");
    }
}

#[test]
fn numbers_are_written_as_javascript_writes_them() {
    for (text, name) in [
        ("1.50", "1.5"),
        ("1e3", "1000"),
        ("1e20", "100000000000000000000"),
        // From here on JavaScript writes an exponent, too.
        ("1e21", "1e21"),
        ("true", "true"),
    ] {
        assert_eq!(Raw(text).name(), name);
    }
}
