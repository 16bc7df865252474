//! `customBiggerIsBetter` and `customSmallerIsBetter` of github-action-benchmark.

use serde_json::{Value, json};

use crate::gate::finding::{Findings, amount};
use crate::record::Direction;

/// The candidate's values of metrics with this direction: `[{name, unit, value, range, extra}]`.
pub fn benchmark(findings: &Findings, direction: Direction) -> Value {
    let measured = findings.findings.iter().filter(|f| f.direction == direction);
    let entry = |f: &crate::gate::Finding| {
        let value = f.candidate.filter(|v| v.is_finite())?;
        let mut entry = json!({"name": f.id, "unit": f.unit, "value": value});
        if let (Some(low), Some(high)) = (f.low, f.high) {
            entry["range"] =
                format!("{} to {}", amount(low, f.relative, &f.unit), amount(high, f.relative, &f.unit))
                    .into();
        }
        entry["extra"] = format!("{}: {}", f.verdict.name(), f.words).into();
        Some(entry)
    };
    Value::Array(measured.filter_map(entry).collect())
}
