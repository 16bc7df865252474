//! The budget ledger: what was matched, how far apart the arms were, and what was not matched.

use serde_json::Value;

use super::figures::{Currency, Ledger, LedgerArm, MOST_APART};
use super::format::lines;
use super::summary::{mean, median};
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
    ("tokens_per_second", "tokens/s (median)", |r| r.tokens_per_second),
    ("peak_host_mib", "peak host MiB", |r| r.peak_host_mib),
    ("peak_device_mib", "peak device MiB", |r| r.peak_device_mib),
];

pub fn ledger(view: &View<'_>) -> Ledger {
    let matched = matched_column(&view.input.plan);
    let arms: Vec<_> = view.trained().map(|a| arm(view, &a.name)).collect();
    let mut currencies: Vec<_> = COLUMNS.iter().map(|c| currency(view, c.0, c.1, &c.2, matched)).collect();
    currencies.extend(money(view, matched));
    let apart = currencies.iter().find(|c| c.matched).and_then(|c| c.apart);
    let too_far = apart.is_some_and(|a| a > MOST_APART);
    let uneven = super::timing::uneven(view);
    Ledger { matched: matched.to_owned(), apart, invalid: too_far, arms, currencies, uneven }
}

/// The column that the plan's budget is counted in.
fn matched_column(plan: &Value) -> &'static str {
    let budget = plan.get("budget").and_then(Value::as_object);
    match budget.and_then(|b| b.keys().next()).map(String::as_str) {
        Some("tokens") => "policy_tokens",
        Some("examples") => "examples",
        Some("labels") => "labels",
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

/// What training and reference passes cost at the plan's price of a device-hour, on one device.
fn money(view: &View<'_>, matched: &str) -> Option<Currency> {
    let price = view.planned(&["prices", "device_hour"])?.as_f64().filter(|p| *p > 0.0)?;
    let value = |r: &RunRow| r.train_seconds / 3600.0 * price;
    Some(currency(view, "money", "money (at the plan's price)", &value, matched))
}

fn currency(
    view: &View<'_>,
    column: &'static str,
    label: &'static str,
    value: &dyn Fn(&RunRow) -> f64,
    matched: &str,
) -> Currency {
    let of_arm = |name: &str| {
        let values: Vec<_> = view.runs(name).iter().map(|(_, r)| value(r)).collect();
        // A speed is measured, not spent: other work on the machine must not count as the arm's.
        let of_runs = if column == "tokens_per_second" { median } else { mean };
        (!values.is_empty()).then(|| of_runs(&values))
    };
    let means: Vec<_> = view.trained().map(|a| of_arm(&a.name)).collect();
    let budgets: Vec<_> = view.trained().map(|a| planned_budget(view, &a.name)).collect();
    // Arms of a swept budget are held against those with the same one.
    let apart = budgets.iter().filter_map(|budget| {
        let same = budgets.iter().zip(&means).filter(|(b, _)| *b == budget).filter_map(|(_, m)| *m);
        // A command that does not say what it spent cannot be held to the budget; the others still are.
        if column == matched { self::apart(same) } else { spread(same) }
    });
    let apart = apart.reduce(f64::max);
    Currency { column, label, matched: column == matched, means, apart }
}

/// How far apart arms are that were to spend the same: largest / smallest − 1 of their means, those left out that do not
/// say what they spent (0).
pub fn apart(means: impl Iterator<Item = f64>) -> Option<f64> {
    spread(means.filter(|m| *m > 0.0))
}

/// Largest / smallest − 1. Some arms spend nothing in some currencies (KL-term tokens): no ratio then.
fn spread(means: impl Iterator<Item = f64>) -> Option<f64> {
    let (least, most) = means.fold((f64::INFINITY, f64::NEG_INFINITY), |(a, b), m| (a.min(m), b.max(m)));
    (least > 0.0 && most.is_finite()).then(|| most / least - 1.0)
}

fn planned_budget(view: &View<'_>, arm: &str) -> Option<String> {
    let arms = view.input.plan.get("arms")?.as_array()?;
    let planned = arms.iter().find(|a| a.get("name").and_then(Value::as_str) == Some(arm))?;
    planned.get("budget").map(Value::to_string)
}
