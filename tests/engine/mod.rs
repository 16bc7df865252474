//! What the tests of the engine share.
#![allow(dead_code, reason = "each test binary uses a part")]

use kto_eval::data::Sequence;
use serde_json::Value;
use std::path::{Path, PathBuf};

/// `../shared` beside the repository, or `KTO_EVAL_SHARED`; says so where it is absent.
pub fn shared() -> Option<PathBuf> {
    let beside = Path::new(env!("CARGO_MANIFEST_DIR")).join("../shared");
    let dir = std::env::var_os("KTO_EVAL_SHARED").map_or(beside, PathBuf::from);
    if dir.join("golden").is_dir() {
        return Some(dir);
    }
    println!("skipped: the golden numbers need ../shared");
    None
}

pub fn json(path: &Path) -> Value {
    let text = std::fs::read_to_string(path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    serde_json::from_str(&text).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
}

pub fn ids(value: &Value) -> Vec<u32> {
    value.as_array().expect("a list of ids").iter().map(|v| v.as_u64().expect("an id") as u32).collect()
}

pub fn floats(value: &Value) -> Vec<f64> {
    value.as_array().expect("a list of numbers").iter().map(|v| v.as_f64().expect("a number")).collect()
}

pub fn sequence(ids: &[u32], prompt_len: usize) -> Sequence {
    Sequence { ids: ids.into(), prompt_len }
}

pub fn largest_difference(a: &[f64], b: &[f64]) -> f64 {
    assert_eq!(a.len(), b.len());
    a.iter().zip(b).map(|(x, y)| (x - y).abs()).fold(0.0, f64::max)
}
