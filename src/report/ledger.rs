//! The budget ledger: what was matched, how far apart the arms were, and what was not matched.

use serde_json::Value;

use super::figures::{Currency, Ledger, LedgerArm, MOST_APART};
use super::format::lines;
use super::summary::mean;
use super::view::View;
use crate::record::{RunRow, Status};

type Column = (&'static str, &'static str, fn(&RunRow) -> f64);

/// The columns of the ledger: name in `runs.csv`, name in words, value.
pub const COLUMNS: [Column; 14] = [
    ("policy_tokens", "policy tokens", |r| r.policy_tokens as f64),
    ("examples", "examples", |r| r.examples as f64),
    ("steps", "optimizer steps", |r| r.steps as f64),
    ("flops", "FLOPs", |r| r.flops),
    ("train_seconds", "training seconds", |r| r.train_seconds),
    ("labels", "feedback labels", |r| r.labels as f64),
    ("completion_tokens", "completion tokens", |r| r.completion_tokens as f64),
    ("computed_tokens", "computed tokens", |r| r.computed_tokens as f64),
    ("kl_tokens", "KL-term tokens", |r| r.kl_tokens as f64),
    ("reference_tokens", "reference tokens", |r| r.reference_tokens as f64),
    ("epochs", "epochs", |r| r.epochs),
    ("tokens_per_second", "tokens/s", |r| r.tokens_per_second),
    ("peak_host_mib", "peak host MiB", |r| r.peak_host_mib),
    ("peak_device_mib", "peak device MiB", |r| r.peak_device_mib),
];

pub fn ledger(view: &View<'_>) -> Ledger {
    let matched = matched_column(&view.input.plan);
    let arms: Vec<_> = view.trained().map(|a| arm(view, &a.name)).collect();
    let currencies: Vec<_> = COLUMNS.iter().map(|c| currency(view, *c, matched)).collect();
    let apart = currencies.iter().find(|c| c.matched).and_then(|c| c.apart);
    let too_far = apart.is_some_and(|a| a > MOST_APART);
    Ledger { matched: matched.to_owned(), apart, invalid: too_far, arms, currencies }
}

/// The column that the plan's budget is counted in.
fn matched_column(plan: &Value) -> &'static str {
    let budget = plan.get("budget").and_then(Value::as_object);
    match budget.and_then(|b| b.keys().next()).map(String::as_str) {
        Some("tokens") => "policy_tokens",
        Some("examples") => "examples",
        Some("steps") => "steps",
        Some("flops") => "flops",
        Some("seconds") => "train_seconds",
        _ => "",
    }
}

fn arm(view: &View<'_>, name: &str) -> LedgerArm {
    let all: Vec<_> = view.input.runs.iter().enumerate().filter(|(_, r)| r.arm == name).collect();
    let failed = all.iter().filter(|(_, r)| r.status != Status::Done);
    let notes = failed.map(|(_, r)| format!("{} (seed {}): {}", r.run, r.seed, r.note));
    let at: Vec<_> = all.iter().map(|(i, _)| i + 2).collect();
    LedgerArm {
        arm: name.to_owned(),
        method: all.first().map(|(_, r)| r.method.clone()).unwrap_or_default(),
        finished: view.runs(name).len(),
        started: all.len(),
        notes: notes.collect(),
        rows: format!("runs.csv:{}", lines(&at)),
    }
}

fn currency(view: &View<'_>, (column, label, value): Column, matched: &str) -> Currency {
    let of_arm = |name: &str| {
        let values: Vec<_> = view.runs(name).iter().map(|(_, r)| value(r)).collect();
        (!values.is_empty()).then(|| mean(&values))
    };
    let means: Vec<_> = view.trained().map(|a| of_arm(&a.name)).collect();
    let least = means.iter().flatten().copied().fold(f64::INFINITY, f64::min);
    let most = means.iter().flatten().copied().fold(f64::NEG_INFINITY, f64::max);
    // Some arms spend nothing in some currencies (KL-term tokens): no ratio then.
    let apart = (least > 0.0 && most.is_finite()).then(|| most / least - 1.0);
    Currency { column, label, matched: column == matched, means, apart }
}
