//! Rows that say the same thing twice must agree: runs with their steps, samples with their examples.

use std::collections::HashMap;

use super::check::{Difference, close, difference};
use super::input::Input;
use crate::record::{RunRow, Status, StepRow};

/// The ledger of each finished run against the sums of its steps. A run without step rows (of another trainer)
/// is passed over.
pub fn runs(input: &Input) -> Vec<Difference> {
    let mut steps: HashMap<&str, Vec<&StepRow>> = HashMap::new();
    for step in &input.steps {
        steps.entry(&step.run).or_default().push(step);
    }
    let mut found = Vec::new();
    for (i, run) in input.runs.iter().enumerate().filter(|(_, r)| r.status == Status::Done) {
        let Some(steps) = steps.get(run.run.as_str()) else { continue };
        for (column, recorded, expected) in ledger(run, steps) {
            if !close(recorded, expected) {
                let place = format!("runs.csv:{}: {column} of {}", i + 2, run.run);
                found.push(difference(place, recorded, expected));
            }
        }
    }
    found
}

fn ledger(run: &RunRow, steps: &[&StepRow]) -> [(&'static str, f64, f64); 6] {
    let sum = |value: fn(&StepRow) -> u64| steps.iter().map(|s| value(s)).sum::<u64>() as f64;
    let last = steps.last().map_or(f64::NAN, |s| s.loss);
    [
        ("steps", run.steps as f64, steps.len() as f64),
        ("policy_tokens", run.policy_tokens as f64, sum(|s| s.policy_tokens)),
        ("completion_tokens", run.completion_tokens as f64, sum(|s| s.completion_tokens)),
        ("kl_tokens", run.kl_tokens as f64, sum(|s| s.kl_tokens)),
        ("final_loss", run.final_loss, last),
        ("tokens_per_second", run.tokens_per_second, run.policy_tokens as f64 / run.train_seconds),
    ]
}

/// Who won, in `samples.jsonl`, against the win rates of `examples.csv`.
pub fn samples(input: &Input) -> Vec<Difference> {
    let mut values: HashMap<(&str, u64, &str, &str, &str), f64> = HashMap::new();
    for e in input.examples.iter().filter(|e| e.metric.starts_with("win_rate_")) {
        values.insert((&e.run, e.seed, &e.suite, &e.example, &e.metric), e.value);
    }
    let mut found = Vec::new();
    for (i, s) in input.samples.iter().enumerate() {
        for o in &s.opponents {
            let metric = format!("win_rate_{}", o.name);
            let expected =
                values.get(&(s.run.as_str(), s.seed, s.suite.as_str(), s.example.as_str(), metric.as_str()));
            if let Some(expected) = expected.filter(|e| !close(**e, o.preference)) {
                let place = format!("samples.jsonl:{}: preference against {}", i + 1, o.name);
                found.push(difference(place, o.preference, expected));
            }
        }
    }
    found
}
