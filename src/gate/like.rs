//! Like with like: what must be the same on both sides before a number of one is held against the other.

use super::side::Side;

/// Differences that make the sides incomparable, then those that a reader should know of.
pub fn differences(baseline: &Side, candidate: &Side) -> (Vec<String>, Vec<String>) {
    let (b, c) = (&baseline.records, &candidate.records);
    let (mut refused, mut notes) = (vec![], vec![]);
    let (here, there) = (b.environment.device_class(), c.environment.device_class());
    if here != there {
        refused.push(format!("device class: {here} in the baseline, {there} in the candidate"));
    }
    for (what, x, y) in [
        ("data hash", &b.environment.data_hash, &c.environment.data_hash),
        ("model hash", &b.environment.model_hash, &c.environment.model_hash),
        ("reference hash", &b.environment.reference_hash, &c.environment.reference_hash),
    ] {
        if x.is_empty() || y.is_empty() {
            notes.push(format!("the {what} is not known on both sides: not checked"));
        } else if x != y {
            let short = |h: &str| h.chars().take(12).collect::<String>();
            refused.push(format!("{what}: {} in the baseline, {} in the candidate", short(x), short(y)));
        }
    }
    if b.plan.budget != c.plan.budget {
        refused
            .push(format!("budget: {} in the baseline, {} in the candidate", b.plan.budget, c.plan.budget));
    }
    if !b.plan.seeds.iter().any(|s| c.plan.seeds.contains(s)) {
        refused.push(format!("no seed in common: {:?} and {:?}", b.plan.seeds, c.plan.seeds));
    }
    if !b.plan.arms.iter().any(|a| c.plan.arms.iter().any(|o| o.name == a.name)) {
        refused.push("no arm in common".to_owned());
    }
    if b.plan.suites != c.plan.suites {
        refused.push(format!(
            "suites: {:?} in the baseline, {:?} in the candidate",
            b.plan.suites, c.plan.suites
        ));
    }
    notes.extend(plan_note(b, c));
    for (what, x, y) in [
        ("CPU", &b.environment.cpu, &c.environment.cpu),
        ("kto-eval", &b.environment.version, &c.environment.version),
    ] {
        if x != y {
            notes.push(format!("{what}: {x} in the baseline, {y} in the candidate"));
        }
    }
    if b.environment.threads != c.environment.threads {
        let (x, y) = (b.environment.threads, c.environment.threads);
        notes.push(format!(
            "threads: {x} in the baseline, {y} in the candidate; trajectories may differ by rounding"
        ));
    }
    (refused, notes)
}

/// The first line in which the plans differ, beyond their names and words.
fn plan_note(b: &crate::record::Records, c: &crate::record::Records) -> Option<String> {
    if b.plan == c.plan {
        return None;
    }
    let silent = |p: &crate::plan::Plan| {
        let (name, analysis) = (String::new(), String::new());
        crate::plan::Plan { name, analysis, ..p.clone() }.to_toml()
    };
    let (x, y) = (silent(&b.plan), silent(&c.plan));
    let (x, y) = x.lines().zip(y.lines()).find(|(x, y)| x != y)?;
    Some(format!("the plans differ, first in `{x}` in the baseline, `{y}` in the candidate"))
}
