//! Tells the program which commit it is built from, for `environment.json`.

use std::path::Path;
use std::process::Command;

/// What the program is made of. A commit that leaves these as they are builds nothing anew: the program then names the
/// checkout that it was built in.
const SOURCES: [&str; 7] = [
    "src",
    "suites/generation",
    "suites/judges",
    "suites/plans",
    "suites/preference",
    "Cargo.toml",
    "Cargo.lock",
];

fn main() {
    println!("cargo:rerun-if-env-changed=KTO_EVAL_COMMIT");
    SOURCES.iter().for_each(|source| println!("cargo:rerun-if-changed={source}"));
    let commit = std::env::var("KTO_EVAL_COMMIT").unwrap_or_else(|_| checkout());
    println!("cargo:rustc-env=KTO_EVAL_COMMIT={}", commit.trim());
}

/// HEAD, with `-dirty` where files were changed; empty outside a checkout of its own (a package from a registry).
fn checkout() -> String {
    let here = std::env::var("CARGO_MANIFEST_DIR").unwrap_or_default();
    // A folder, or in a worktree a file.
    if !Path::new(&here).join(".git").exists() {
        return String::new();
    }
    let describe = ["-C", &here, "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"];
    match Command::new("git").args(describe).env("GIT_OPTIONAL_LOCKS", "0").output() {
        Ok(out) if out.status.success() => String::from_utf8_lossy(&out.stdout).into_owned(),
        _ => String::new(),
    }
}
