//! Completions and manual pages, out of the same definitions as the parser.

use std::fs;
use std::path::Path;

use clap::CommandFactory as _;

use super::Outcome;
use super::args::{Args, CompletionsArgs, ManArgs};
use super::exit::{self, Failure};
use super::print::{print, shown};

/// `lmx completions`.
pub(super) fn completions(typed: &CompletionsArgs) -> Outcome {
    let mut script = Vec::new();
    clap_complete::generate(typed.shell, &mut Args::command(), "lmx", &mut script);
    print(script).map(|()| exit::DONE)
}

/// `lmx man`.
pub(super) fn man(typed: &ManArgs) -> Outcome {
    let mut all = Args::command();
    all.build();
    if let Some(dir) = &typed.dir {
        return write_pages(&all, dir);
    }
    let Some(name) = &typed.subcommand else {
        return print(page(&all, "lmx")?).map(|()| exit::DONE);
    };
    let subcommand = visible(&all).find(|subcommand| {
        subcommand.get_name() == name || subcommand.get_all_aliases().any(|alias| alias == name)
    });
    let Some(found) = subcommand else {
        let names: Vec<&str> = visible(&all).map(clap::Command::get_name).collect();
        return Err(
            Failure::usage(format!("there is no subcommand {}", shown(name.as_bytes())))
                .hint(format!("there are: {}", names.join(", "))),
        );
    };
    print(page(found, &format!("lmx-{}", found.get_name()))?)?;
    Ok(exit::DONE)
}

fn write_pages(all: &clap::Command, dir: &Path) -> Outcome {
    let write = |command: &clap::Command, name: &str| {
        let path = dir.join(format!("{name}.1"));
        fs::write(&path, page(command, name)?).map_err(|error| {
            Failure::new(
                exit::SYSTEM,
                format!("cannot write {}: {error}", path.display()),
            )
        })
    };
    fs::create_dir_all(dir).map_err(|error| {
        Failure::new(
            exit::SYSTEM,
            format!("cannot make the directory {}: {error}", dir.display()),
        )
    })?;
    write(all, "lmx")?;
    for subcommand in visible(all) {
        write(subcommand, &format!("lmx-{}", subcommand.get_name()))?;
    }
    Ok(exit::DONE)
}

fn visible(all: &clap::Command) -> impl Iterator<Item = &clap::Command> {
    all.get_subcommands()
        .filter(|subcommand| !subcommand.is_hide_set())
}

fn page(command: &clap::Command, name: &str) -> Result<Vec<u8>, Failure> {
    let mut roff = Vec::new();
    clap_mangen::Man::new(command.clone().version(env!("CARGO_PKG_VERSION")))
        .title(name)
        .render(&mut roff)
        .map_err(|error| Failure::new(exit::SYSTEM, format!("cannot make the page: {error}")))?;
    Ok(roff)
}
