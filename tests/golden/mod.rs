//! Where the golden numbers lie, and how closely a number must meet one.

use serde_json::Value;
use std::path::PathBuf;

/// `../shared` beside the repository, or where `KTO_EVAL_SHARED` says.
pub fn shared() -> PathBuf {
    match std::env::var_os("KTO_EVAL_SHARED") {
        Some(path) => path.into(),
        None => PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../shared"),
    }
}

/// A golden file: of those that travel with the repository, else of `../shared/golden`, or `None` (and a line that says
/// so) where it is absent.
#[allow(dead_code, reason = "not every test that includes this module reads golden files")]
pub fn golden(name: &str) -> Option<Value> {
    let own = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/golden").join(name);
    let path = if own.exists() { own } else { shared().join("golden").join(name) };
    match std::fs::read_to_string(&path) {
        Ok(text) => Some(serde_json::from_str(&text).expect("a golden file is JSON")),
        Err(_) => {
            println!("skipped: {} needs ../shared", path.display());
            None
        }
    }
}

#[allow(dead_code, reason = "not every test that includes this module reads lists")]
pub fn numbers(value: &Value) -> Vec<f64> {
    value.as_array().expect("a list").iter().map(|x| x.as_f64().expect("a number")).collect()
}

/// |got − want| ≤ tolerance · |want|.
#[allow(dead_code, reason = "not every test that includes this module compares so")]
#[track_caller]
pub fn close(what: &str, got: f64, want: f64, tolerance: f64) {
    let off = (got - want).abs() / want.abs().max(f64::MIN_POSITIVE);
    assert!(off <= tolerance, "{what}: got {got}, want {want}, off by {off:.3e} (at most {tolerance:.0e})");
}
