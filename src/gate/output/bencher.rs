//! Bencher Metric Format: benchmark → measure → `{value, lower_value, upper_value}`.

use serde_json::{Map, Value, json};

use crate::gate::finding::{Finding, Findings};

/// Benchmarks are arms (with their suite, for scores); measures are kinds or metrics. Bounds are the
/// baseline's value moved by the interval of the change.
pub fn bencher(findings: &Findings) -> Value {
    let mut benchmarks = Map::new();
    for f in &findings.findings {
        let Some(value) = f.candidate.filter(|v| v.is_finite()) else { continue };
        let mut metric = json!({"value": value});
        if let (Some(b), Some(low), Some(high)) = (f.baseline, f.low, f.high) {
            let moved = |by: f64| if f.relative { b + b.abs() * by } else { b + by };
            metric["lower_value"] = moved(low).into();
            metric["upper_value"] = moved(high).into();
        }
        let (benchmark, measure) = names(f);
        let entry = benchmarks.entry(benchmark).or_insert_with(|| Value::Object(Map::new()));
        entry[measure] = metric;
    }
    Value::Object(benchmarks)
}

/// `quality/kto/heldout/margin` → (`kto/heldout`, `margin`); `memory/kto` → (`kto`, `memory`).
fn names(f: &Finding) -> (String, String) {
    let parts: Vec<&str> = f.id.split('/').collect();
    match parts.as_slice() {
        [_, arm, suite @ .., metric] if !suite.is_empty() => {
            (format!("{arm}/{}", suite.join("/")), (*metric).to_owned())
        }
        _ => (f.arm.clone(), f.kind.name().to_owned()),
    }
}
