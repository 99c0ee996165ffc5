use super::*;

fn place(typed: WhereArgs, object: &str, environment: &[(&str, &str)]) -> Result<Place, Failure> {
    let object = OptionObject::parse(object)?;
    Place::new(typed, None, &object, &|name| {
        let (_, value) = environment.iter().find(|(known, _)| *known == name)?;
        Some(OsString::from(value))
    })
}

fn address(typed: WhereArgs, object: &str, environment: &[(&str, &str)]) -> String {
    place(typed, object, environment)
        .unwrap()
        .endpoint
        .to_string()
}

#[test]
fn the_default_is_that_of_live_mutex() {
    assert_eq!(address(WhereArgs::default(), "", &[]), "localhost:6970");
}

#[test]
fn what_was_typed_beats_the_object_beats_the_environment() {
    let environment = [
        ("LMX_HOST", "env.example"),
        ("LMX_PORT", "1"),
        ("live_mutex_port", "2"),
    ];
    let typed = WhereArgs {
        port: Some(4),
        ..WhereArgs::default()
    };
    assert_eq!(
        address(typed, r#"{"port":3,"host":"object.example"}"#, &environment),
        "object.example:4"
    );
    assert_eq!(
        address(WhereArgs::default(), r#"{"port":3}"#, &environment),
        "env.example:3"
    );
    assert_eq!(
        address(WhereArgs::default(), "", &environment),
        "env.example:1"
    );
    assert_eq!(
        address(WhereArgs::default(), "", &environment[2..]),
        "localhost:2"
    );
}

#[test]
fn a_socket_in_the_environment_yields_to_a_port_that_was_typed() {
    let environment = [("LMX_UNIX", "/run/lmx.sock"), ("HOME", "/home/me")];
    assert_eq!(
        address(WhereArgs::default(), "", &environment),
        "unix:/run/lmx.sock"
    );
    assert_eq!(
        address(WhereArgs::default(), r#"{"udsPath":"/o"}"#, &environment),
        "unix:/o"
    );
    let port = WhereArgs {
        port: Some(7),
        ..WhereArgs::default()
    };
    assert_eq!(address(port, "", &environment), "localhost:7");
    let uds = WhereArgs {
        use_uds: true,
        ..WhereArgs::default()
    };
    assert_eq!(
        address(uds, "", &environment),
        "unix:/home/me/.lmx/uds.sock"
    );
}

#[test]
fn an_unusable_variable_is_named() {
    let failure = place(WhereArgs::default(), "", &[("LMX_PORT", "http")]).unwrap_err();
    assert!(format!("{failure:?}").contains("LMX_PORT"));
    assert_eq!(failure.code(), exit::USAGE);
    place(WhereArgs::default(), "", &[("LMX_PORT", "0")]).unwrap_err();
}

#[test]
fn the_key_comes_from_the_first_place_that_has_one() {
    let environment = |name: &str| (name == "live_mutex_key").then(|| OsString::from("env"));
    let mut object = OptionObject::parse(r#"{"key":"object"}"#).unwrap();
    let key = |typed: Option<&str>, object: &mut OptionObject| {
        super::key(typed.map(OsString::from), object, &environment)
    };
    assert_eq!(key(Some("typed"), &mut object).unwrap(), b"typed");
    assert_eq!(key(None, &mut object).unwrap(), b"object");
    assert_eq!(key(None, &mut OptionObject::default()).unwrap(), b"env");
    assert_eq!(
        super::key(None, &mut OptionObject::default(), &|_| None)
            .unwrap_err()
            .code(),
        exit::USAGE
    );
    assert_eq!(key(Some(""), &mut object).unwrap_err().code(), exit::USAGE);
}

#[test]
fn a_token_is_the_first_line_of_its_file() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("token");
    std::fs::write(&path, "secret\r\nmore\n").unwrap();
    assert_eq!(
        auth_token(Some(&path), &|_| None).unwrap(),
        Some(b"secret".to_vec())
    );
    std::fs::write(&path, "\n").unwrap();
    auth_token(Some(&path), &|_| None).unwrap_err();
    auth_token(Some(folder.path()), &|_| None).unwrap_err();
}

#[test]
fn one_code_for_both_conflicts_unless_one_has_its_own() {
    let codes = Codes::from(ExitArgs {
        conflict_exit_code: Some(5),
        exit_timeout: Some(6),
        ..ExitArgs::default()
    });
    assert_eq!((codes.busy, codes.timed_out), (5, 6));
    let codes = Codes::default();
    assert_eq!(
        (codes.busy, codes.timed_out, codes.unreachable),
        (1, 75, 69)
    );
}
