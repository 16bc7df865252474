//! What a sweep says of the claim that it tests: the verdicts of `comparisons.csv`, read along the swept values.

use crate::plan::Plan;
use crate::record::{ComparisonRow, Family, Verdict};

/// One arm against another along a sweep, on one metric.
#[derive(Clone, Debug, PartialEq)]
pub struct Claim {
    pub suite: String,
    pub metric: String,
    /// The arm as the plan wrote it.
    pub arm: String,
    /// What it is held against: an arm of the plan at the same values, or one arm throughout.
    pub against: String,
    pub finding: Finding,
    pub words: String,
    /// Lines of `comparisons.csv` (the header is line 1).
    pub lines: Vec<usize>,
}

/// Whether the arm matches the other: better than it, or equivalent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Finding {
    /// At every value.
    Holds,
    /// At some values, and at none is it worse.
    HoldsInPart,
    /// Better or equivalent at some values, worse at others.
    Mixed,
    /// Worse at some values, better or equivalent at none.
    Fails,
    /// Undecided at every value.
    Open,
    /// No comparison stands.
    Invalid,
}

impl Finding {
    /// For a chip beside the sentence.
    pub fn word(self) -> &'static str {
        match self {
            Self::Holds => "holds",
            Self::HoldsInPart => "holds in part",
            Self::Mixed => "mixed",
            Self::Fails => "fails",
            Self::Open => "undecided",
            Self::Invalid => "invalid",
        }
    }

    fn of(verdicts: &[Verdict]) -> Self {
        let any = |wanted: &[Verdict]| verdicts.iter().any(|v| wanted.contains(v));
        let (matched, worse) = (any(&[Verdict::Better, Verdict::Equivalent]), any(&[Verdict::Worse]));
        let (open, invalid) = (any(&[Verdict::Undecided]), any(&[Verdict::Invalid]));
        match (matched, worse) {
            (true, true) => Self::Mixed,
            (true, false) if open || invalid => Self::HoldsInPart,
            (true, false) => Self::Holds,
            (false, true) => Self::Fails,
            (false, false) if open => Self::Open,
            _ => Self::Invalid,
        }
    }
}

/// A comparison as the claim sees it.
struct Entry<'a> {
    key: (&'a str, &'a str, String, String),
    value: String,
    verdict: Verdict,
    line: usize,
}

/// The claims of a swept plan on its primary metrics, in the order of the comparisons; none without a sweep.
pub fn claims(plan: &Plan, comparisons: &[ComparisonRow]) -> Vec<Claim> {
    let primary = comparisons.iter().enumerate().filter(|(_, c)| c.family == Family::Primary);
    let entries: Vec<Entry<'_>> = primary.flat_map(|(i, c)| entries(plan, c, i + 2)).collect();
    let mut keys: Vec<&(&str, &str, String, String)> = vec![];
    for entry in &entries {
        if !keys.contains(&&entry.key) {
            keys.push(&entry.key);
        }
    }
    let of_key = |key| entries.iter().filter(move |e| &e.key == key).collect::<Vec<_>>();
    keys.into_iter().map(|key| claim(plan, &of_key(key))).collect()
}

fn entries<'a>(plan: &Plan, c: &'a ComparisonRow, line: usize) -> Vec<Entry<'a>> {
    let point = |name: &str| plan.arms.iter().find(|a| a.name == name).and_then(|a| a.point.as_ref());
    let against = |name: &str| plan.sweep.against.iter().any(|a| a == name);
    let entry = |arm: &str, other: String, value: String, verdict| Entry {
        key: (&c.suite, &c.metric, arm.to_owned(), other),
        value,
        verdict,
        line,
    };
    let (a, b) = (point(&c.arm_a), point(&c.arm_b));
    let mut found = vec![];
    for (this, that, verdict) in [(a, &c.arm_b, c.verdict), (b, &c.arm_a, turned(c.verdict))] {
        if let Some(p) = this.filter(|_| against(that)) {
            found.push(entry(&p.arm, that.clone(), p.text(), verdict));
        }
    }
    match (a, b) {
        (Some(p), Some(q)) if p.arm != q.arm && (p.axes == q.axes || found.is_empty()) => {
            let longer = if p.axes.len() >= q.axes.len() { p } else { q };
            found.push(entry(&p.arm, q.arm.clone(), longer.text(), c.verdict));
        }
        (Some(p), None) if found.is_empty() => {
            found.push(entry(&p.arm, c.arm_b.clone(), p.text(), c.verdict))
        }
        (None, Some(q)) if found.is_empty() => {
            found.push(entry(&q.arm, c.arm_a.clone(), q.text(), turned(c.verdict)))
        }
        _ => {}
    }
    found
}

/// The verdict seen from the other arm.
fn turned(verdict: Verdict) -> Verdict {
    match verdict {
        Verdict::Better => Verdict::Worse,
        Verdict::Worse => Verdict::Better,
        other => other,
    }
}

fn claim(plan: &Plan, entries: &[&Entry<'_>]) -> Claim {
    let (suite, metric, arm, against) = &entries[0].key;
    let finding = Finding::of(&entries.iter().map(|e| e.verdict).collect::<Vec<_>>());
    let at = |verdict: Verdict| {
        let values: Vec<&str> =
            entries.iter().filter(|e| e.verdict == verdict).map(|e| e.value.as_str()).collect();
        joined(&values)
    };
    let parts: Vec<String> = [
        (Verdict::Better, "better"),
        (Verdict::Equivalent, "equivalent"),
        (Verdict::Worse, "worse"),
        (Verdict::Undecided, "undecided"),
        (Verdict::Invalid, "no verdict"),
    ]
    .into_iter()
    .filter_map(|(verdict, word)| at(verdict).map(|values| format!("{word} at {values}")))
    .collect();
    let throughout = plan.arms.iter().any(|a| a.name == *against);
    let same = if throughout { "" } else { " at the same value" };
    let words = format!(
        "{arm} against {against}{same}, {} on {suite}: {}",
        metric.replace('_', " "),
        parts.join("; ")
    );
    Claim {
        suite: (*suite).to_owned(),
        metric: (*metric).to_owned(),
        arm: arm.clone(),
        against: against.clone(),
        finding,
        words: format!("{}{words}", stated(plan, finding)),
        lines: entries.iter().map(|e| e.line).collect(),
    }
}

/// `Claim "…": holds in part. `
fn stated(plan: &Plan, finding: Finding) -> String {
    match plan.sweep.claim.trim() {
        "" => String::new(),
        claim => format!("“{claim}”: {}. ", finding.word()),
    }
}

/// `fraction=0.1, 0.3 and 1`: the key once, where all values are of one.
fn joined(values: &[&str]) -> Option<String> {
    let (first, rest) = values.split_first()?;
    let key = first.split_once('=').map(|(key, _)| key).filter(|_| !first.contains('@'));
    let short = |v: &&str| match key.and_then(|k| v.strip_prefix(k)?.strip_prefix('=')) {
        Some(value) => value.to_owned(),
        None => (*v).to_owned(),
    };
    let mut all = vec![(*first).to_owned()];
    all.extend(rest.iter().map(short));
    let last = all.pop().expect("there is a first");
    Some(if all.is_empty() { last } else { format!("{} and {last}", all.join(", ")) })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::Overrides;

    const PLAN: &str = r#"
seeds = [1, 2]
budget = { tokens = 1000 }
[model]
source = "world"
[data]
source = "world"
[data.feedback]
fraction = [0.1, 1.0]
[sweep]
claim = "KTO matches DPO at less feedback"
against = ["dpo@fraction=1"]
[[arm]]
method = "kto"
[[arm]]
method = "dpo"
"#;

    fn row(arm_a: &str, arm_b: &str, verdict: Verdict) -> ComparisonRow {
        ComparisonRow {
            suite: "world".into(),
            subset: "all".into(),
            metric: "win_rate_base".into(),
            family: Family::Primary,
            arm_a: arm_a.into(),
            arm_b: arm_b.into(),
            mean_a: 0.0,
            mean_b: 0.0,
            difference: 0.0,
            standard_error: 0.0,
            low: 0.0,
            high: 0.0,
            p: 1.0,
            p_adjusted: 1.0,
            p_equivalence: 1.0,
            margin: 0.02,
            verdict,
            seeds: 2,
            examples: 1,
            clusters: 1,
            detectable: 0.0,
            variance_seed: None,
            variance_prompt: None,
            variance_judge: None,
            variance_residual: None,
            p_permutation: None,
            p_mcnemar: None,
            bootstrap_low: None,
            bootstrap_high: None,
            words: String::new(),
        }
    }

    #[test]
    fn a_claim_reads_the_verdicts_along_the_sweep() {
        let plan = Plan::parse(PLAN, "p.toml", &Overrides::default()).unwrap();
        let rows = [
            row("kto@fraction=0.1", "dpo@fraction=0.1", Verdict::Better),
            row("kto@fraction=0.1", "dpo@fraction=1", Verdict::Worse),
            row("kto@fraction=1", "dpo@fraction=1", Verdict::Equivalent),
            row("dpo@fraction=0.1", "dpo@fraction=1", Verdict::Undecided),
            ComparisonRow {
                family: Family::Secondary,
                ..row("kto@fraction=1", "dpo@fraction=1", Verdict::Worse)
            },
        ];
        let found = claims(&plan, &rows);
        let said: Vec<(&str, Finding, &str)> =
            found.iter().map(|c| (c.against.as_str(), c.finding, c.words.as_str())).collect();
        assert_eq!(
            said,
            [
                (
                    "dpo",
                    Finding::Holds,
                    "“KTO matches DPO at less feedback”: holds. kto against dpo at the same value, win rate base on world: better at fraction=0.1; equivalent at fraction=1"
                ),
                (
                    "dpo@fraction=1",
                    Finding::Mixed,
                    "“KTO matches DPO at less feedback”: mixed. kto against dpo@fraction=1, win rate base on world: equivalent at fraction=1; worse at fraction=0.1"
                ),
                (
                    "dpo@fraction=1",
                    Finding::Open,
                    "“KTO matches DPO at less feedback”: undecided. dpo against dpo@fraction=1, win rate base on world: undecided at fraction=0.1"
                ),
            ]
        );
        assert_eq!(found[1].lines, [3, 4]);
    }

    #[test]
    fn an_arm_that_is_not_swept_is_the_other_side_of_every_point() {
        let text = PLAN
            .replace("fraction = [0.1, 1.0]", "")
            .replace("against = [\"dpo@fraction=1\"]", "")
            .replace("method = \"kto\"", "method = \"kto\"\nbeta = [0.1, 0.2, 0.3]");
        let plan = Plan::parse(&text, "p.toml", &Overrides::default()).unwrap();
        let rows: Vec<_> = ["0.1", "0.2", "0.3"]
            .iter()
            .map(|b| {
                row(
                    "dpo",
                    &format!("kto@beta={b}"),
                    if *b == "0.3" { Verdict::Undecided } else { Verdict::Worse },
                )
            })
            .collect();
        let found = claims(&plan, &rows);
        assert_eq!((found.len(), found[0].finding), (1, Finding::HoldsInPart));
        assert!(
            found[0].words.ends_with("better at beta=0.1 and 0.2; undecided at beta=0.3"),
            "{}",
            found[0].words
        );
    }
}
