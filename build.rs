//! Tells the program which commit it is built from, for `environment.json`.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

/// What the program is made of. A commit that leaves these as they are builds nothing anew: the program then names the
/// checkout that it was built in.
const SOURCES: [&str; 9] = [
    "build.rs",
    "src",
    "suites/generation",
    "suites/judges",
    "suites/plans",
    "suites/preference",
    ".ci/workflow.yml",
    "Cargo.toml",
    "Cargo.lock",
];

fn main() {
    println!("cargo:rerun-if-env-changed=KTO_EVAL_COMMIT");
    SOURCES.iter().for_each(|source| println!("cargo:rerun-if-changed={source}"));
    let here = PathBuf::from(std::env::var_os("CARGO_MANIFEST_DIR").unwrap_or_default());
    let commit = std::env::var("KTO_EVAL_COMMIT").ok().or_else(|| checkout(&here)).or_else(|| package(&here));
    println!("cargo:rustc-env=KTO_EVAL_COMMIT={}", commit.unwrap_or_default().trim());
}

/// HEAD, with `-dirty` where the sources were changed since; nothing outside a checkout of its own.
fn checkout(here: &Path) -> Option<String> {
    // A folder, or in a worktree a file.
    if !here.join(".git").exists() {
        return None;
    }
    let head = text(git(here, &["rev-parse", "HEAD"])?)?;
    let same = [&["diff", "--quiet", "--no-ext-diff", "HEAD", "--"][..], &SOURCES].concat();
    if git(here, &same)?.status.success() {
        return Some(head);
    }
    // The commit that takes the changes in changes no source: this script runs again when HEAD has moved.
    let log = git(here, &["rev-parse", "--git-path", "logs/HEAD"]).and_then(text).map(|log| here.join(log));
    if let Some(log) = log.filter(|log| log.exists()) {
        println!("cargo:rerun-if-changed={}", log.display());
    }
    Some(format!("{head}-dirty"))
}

/// Git in this checkout, whoever owns it, and whatever repository the environment (of a hook, say) is about.
fn git(here: &Path, arguments: &[&str]) -> Option<Output> {
    let mut command = Command::new("git");
    command.arg("-C").arg(here).arg("-c").arg(format!("safe.directory={}", here.display())).args(arguments);
    command.env("GIT_OPTIONAL_LOCKS", "0");
    ["GIT_DIR", "GIT_WORK_TREE", "GIT_INDEX_FILE"].iter().for_each(|name| {
        command.env_remove(name);
    });
    command.output().ok()
}

fn text(out: Output) -> Option<String> {
    out.status.success().then(|| String::from_utf8_lossy(&out.stdout).trim().to_owned())
}

/// The commit of a package from a registry, as `cargo package` wrote it down: `{"git": {"sha1": "…"}, …}`.
fn package(here: &Path) -> Option<String> {
    let text = std::fs::read_to_string(here.join(".cargo_vcs_info.json")).ok()?;
    let after = |key: &str| Some(text.split_once(&format!("\"{key}\""))?.1.trim_start_matches([' ', ':']));
    let commit = after("sha1")?.split('"').nth(1)?;
    let dirty = if after("dirty").is_some_and(|rest| rest.starts_with("true")) { "-dirty" } else { "" };
    Some(format!("{commit}{dirty}"))
}
