//! Where this program keeps what it need not compute twice.

use std::path::{Path, PathBuf};

use super::atomic;
use super::error::{Context, Result};

/// `$KTO_EVAL_CACHE`, else `$XDG_CACHE_HOME/kto-eval`, else `~/.cache/kto-eval`; `None` where no home is
/// known. Everything in it is addressed by content and may be deleted at any time.
pub fn user_folder() -> Option<PathBuf> {
    let variable = |name: &str| std::env::var_os(name).filter(|v| !v.is_empty()).map(PathBuf::from);
    variable("KTO_EVAL_CACHE")
        .or_else(|| variable("XDG_CACHE_HOME").map(|d| d.join("kto-eval")))
        .or_else(|| variable("HOME").map(|d| d.join(".cache").join("kto-eval")))
}

/// What to do about a folder of [`user_folder`] that cannot be written to.
pub const ELSEWHERE: &str = "the environment variable KTO_EVAL_CACHE names another folder";

/// Tries whether a file can be kept in `folder`, which is made where it is missing.
///
/// # Errors
/// It cannot.
pub fn check(folder: &Path) -> Result<()> {
    let probe = folder.join(format!(".probe-{}", std::process::id()));
    atomic::write(&probe, b"")?;
    std::fs::remove_file(&probe).with_context(|| format!("deleting {}", probe.display()))
}
