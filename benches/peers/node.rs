//! Node.js and the npm packages that are peers.

use std::path::{Path, PathBuf};
use std::process::Command;

use crate::process;

/// The scripts and the list of packages.
const SOURCES: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/benches/peers/node");

/// Where the packages are installed: among the build's results, so that `cargo clean`
/// removes them.
fn folder() -> PathBuf {
    Path::new(env!("CARGO_TARGET_TMPDIR")).join("peers-node")
}

/// Installs the npm packages, and says how to get what comes from Debian.
pub(crate) fn install() -> Result<(), String> {
    println!("Debian: apt-get install redis-server postgresql etcd-server nodejs npm");
    let folder = folder();
    std::fs::create_dir_all(&folder)
        .and_then(|()| {
            std::fs::copy(
                Path::new(SOURCES).join("package.json"),
                folder.join("package.json"),
            )
        })
        .map_err(|error| format!("cannot prepare {}: {error}", folder.display()))?;
    let status = Command::new("npm")
        // live-mutex's install script edits the user's home folder.
        .args(["install", "--ignore-scripts", "--no-audit", "--no-fund"])
        .current_dir(&folder)
        .status()
        .map_err(|error| format!("cannot run npm: {error} (Debian: apt-get install npm)"))?;
    if status.success() {
        println!("npm: installed into {}", folder.display());
        Ok(())
    } else {
        Err(format!("npm ended with {status}"))
    }
}

/// A command that runs a script of ours, in which `package` can be required.
pub(crate) fn script(name: &str, package: &str) -> Result<Command, String> {
    version_of(package)?;
    let node = process::find("node", &[]).ok_or("no node (Debian: apt-get install nodejs)")?;
    let mut command = Command::new(node);
    command
        .arg(Path::new(SOURCES).join(name))
        .env("NODE_PATH", folder().join("node_modules"));
    Ok(command)
}

/// The version of a package that is installed.
pub(crate) fn version_of(package: &str) -> Result<String, String> {
    let manifest = folder()
        .join("node_modules")
        .join(package)
        .join("package.json");
    let missing = || format!("no npm package {package} (cargo bench --bench peers -- --install)");
    let text = std::fs::read_to_string(manifest).map_err(|_| missing())?;
    let manifest: serde_json::Value = serde_json::from_str(&text).map_err(|_| missing())?;
    manifest["version"]
        .as_str()
        .map(str::to_owned)
        .ok_or_else(missing)
}

/// The version of Node.js.
pub(crate) fn node_version() -> Result<String, String> {
    let node = process::find("node", &[]).ok_or("no node (Debian: apt-get install nodejs)")?;
    process::first_line(Command::new(node).arg("--version"))
}
