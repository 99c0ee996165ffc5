//! What a protocol can be called.

use std::path::Path;

/// Why a protocol cannot have this name.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum WrongName {
    #[error("its name is empty")]
    Empty,
    #[error("`{}` is no name: a name has letters, digits, `-`, `_` and `.`, and begins with no `-`", .0.escape_debug())]
    Character(String),
    #[error("`{0}` is no name: it ends in .json, as files do")]
    File(String),
    #[error("there is a protocol `{0}` already, and plans name theirs: choose another name")]
    Taken(String),
}

/// Names stand on command lines and in plans, and tell a protocol from all that there are.
pub(crate) fn check_name(name: &str) -> Result<(), WrongName> {
    let is_sound = |c: char| c.is_alphanumeric() || "-_.".contains(c);
    if name.is_empty() {
        Err(WrongName::Empty)
    } else if name.starts_with('-') || !name.chars().all(is_sound) {
        Err(WrongName::Character(name.to_owned()))
    } else if Path::new(name)
        .extension()
        .is_some_and(|extension| extension.eq_ignore_ascii_case("json"))
    {
        Err(WrongName::File(name.to_owned()))
    } else if crate::sweep::protocol(name).is_some() {
        Err(WrongName::Taken(name.to_owned()))
    } else {
        Ok(())
    }
}
