//! `kto-eval-metrics.jsonl`: what a trainer says of itself, if it does. An object a step, keys as the columns of
//! `steps.csv`; other keys are its own business.

use std::path::Path;

use serde_json::{Map, Value};

use crate::base::error::{Context, Result, anyhow};
use crate::record::{RunRow, StepRow};

/// Reads the rows of a run; none where the file is not there.
///
/// # Errors
/// A line that is no object, with its number.
pub fn read(path: &Path, run: &RunRow) -> Result<Vec<StepRow>> {
    let text = match std::fs::read_to_string(path) {
        Ok(text) => text,
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(vec![]),
        Err(e) => return Err(e).with_context(|| format!("reading {}", path.display())),
    };
    let mut rows: Vec<StepRow> = vec![];
    for (i, line) in text.lines().enumerate().filter(|(_, l)| !l.trim().is_empty()) {
        // Python's json writes NaN and Infinity, which JSON does not have.
        let line = line.replace("NaN", "null").replace("-Infinity", "null").replace("Infinity", "null");
        let value: Value =
            serde_json::from_str(&line).map_err(|e| anyhow!("{}:{}: {e}", path.display(), i + 1))?;
        let object = value.as_object().ok_or_else(|| anyhow!("{}:{}: no object", path.display(), i + 1))?;
        let total = rows.last().map_or(0, |r| r.total_policy_tokens);
        rows.push(row(object, run, rows.len() as u64 + 1, total));
    }
    Ok(rows)
}

fn row(object: &Map<String, Value>, run: &RunRow, step: u64, before: u64) -> StepRow {
    let number = |key: &str| object.get(key).and_then(Value::as_f64);
    let count = |key: &str| number(key).map_or(0, |x| x.max(0.0) as u64);
    StepRow {
        run: run.run.clone(),
        arm: run.arm.clone(),
        seed: run.seed,
        step: number("step").map_or(step, |s| s as u64),
        loss: number("loss").unwrap_or(f64::NAN),
        grad_norm: number("grad_norm").unwrap_or(f64::NAN),
        learning_rate: number("learning_rate").unwrap_or(f64::NAN),
        reward_chosen: number("reward_chosen"),
        reward_rejected: number("reward_rejected"),
        margin: number("margin"),
        accuracy: number("accuracy"),
        kl_unclamped: number("kl_unclamped"),
        kl: number("kl"),
        desirable: count("desirable"),
        undesirable: count("undesirable"),
        logp_chosen: number("logp_chosen"),
        logp_rejected: number("logp_rejected"),
        policy_tokens: count("policy_tokens"),
        completion_tokens: count("completion_tokens"),
        kl_tokens: count("kl_tokens"),
        total_policy_tokens: before + count("policy_tokens"),
        seconds: number("seconds").unwrap_or(0.0),
    }
}

/// Adds up what the steps say was spent.
pub fn spend(run: &mut RunRow, steps: &[StepRow]) {
    run.steps = steps.len() as u64;
    run.policy_tokens = steps.iter().map(|s| s.policy_tokens).sum();
    run.completion_tokens = steps.iter().map(|s| s.completion_tokens).sum();
    run.kl_tokens = steps.iter().map(|s| s.kl_tokens).sum();
    run.examples = steps.iter().map(|s| s.desirable + s.undesirable).sum();
    run.final_loss = steps.last().map_or(f64::NAN, |s| s.loss);
}
