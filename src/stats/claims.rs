//! What a sweep says of the claim that it tests: the verdicts of `comparisons.csv`, read along the swept values.

use crate::plan::Plan;
use crate::record::{ComparisonRow, Family, Verdict, metric_words};

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
    /// The plan's claim does not speak of these arms.
    Besides,
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
            Self::Besides => "besides",
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

/// What the comparisons of one sentence have in common.
#[derive(Clone, PartialEq)]
struct Key<'a> {
    suite: &'a str,
    metric: &'a str,
    arm: String,
    against: String,
    /// The plan's claim is about them.
    claimed: bool,
}

/// A comparison as the claim sees it.
struct Entry<'a> {
    key: Key<'a>,
    value: String,
    verdict: Verdict,
    line: usize,
}

/// The claims of a swept plan on its primary metrics, those that the plan speaks of first, else in the order of the
/// comparisons; none without a sweep.
pub fn claims(plan: &Plan, comparisons: &[ComparisonRow]) -> Vec<Claim> {
    let primary = comparisons.iter().enumerate().filter(|(_, c)| c.family == Family::Primary);
    let entries: Vec<Entry<'_>> = primary.flat_map(|(i, c)| entries(plan, c, i + 2)).collect();
    let mut keys: Vec<&Key<'_>> = vec![];
    for entry in &entries {
        if !keys.contains(&&entry.key) {
            keys.push(&entry.key);
        }
    }
    keys.sort_by_key(|key| !key.claimed);
    let of_key = |key| entries.iter().filter(move |e| &e.key == key).collect::<Vec<_>>();
    keys.into_iter().map(|key| claim(plan, &of_key(key))).collect()
}

fn entries<'a>(plan: &Plan, c: &'a ComparisonRow, line: usize) -> Vec<Entry<'a>> {
    let point = |name: &str| plan.arms.iter().find(|a| a.name == name).and_then(|a| a.point.as_ref());
    let against = |name: &str| point(name).is_some() && plan.sweep.against.iter().any(|a| a == name);
    // `this` is a point by its name, `arm` and `other` are what the sentence calls the two.
    let entry = |this: &str, arm: &str, other: &str, value: String, verdict| Entry {
        key: Key {
            suite: &c.suite,
            metric: &c.metric,
            arm: arm.to_owned(),
            against: other.to_owned(),
            claimed: plan.claims(this, other),
        },
        value,
        verdict,
        line,
    };
    let (this, that) = (c.arm_a.as_str(), c.arm_b.as_str());
    let (a, b) = (point(this), point(that));
    let mut found = vec![];
    for (p, this, that, verdict) in [(a, this, that, c.verdict), (b, that, this, turned(c.verdict))] {
        if let Some(p) = p.filter(|_| against(that)) {
            found.push(entry(this, &p.arm, that, p.text(), verdict));
        }
    }
    let named = !found.is_empty();
    match (a, b) {
        (Some(p), Some(q)) if p.arm != q.arm && (p.axes == q.axes || (!named && p.meets(q))) => {
            let longer = if p.axes.len() >= q.axes.len() { p } else { q };
            // The claim's own arm is the subject of its sentence.
            let turn = plan.claims(that, &p.arm) && !plan.claims(this, &q.arm);
            found.push(match turn {
                true => entry(that, &q.arm, &p.arm, longer.text(), turned(c.verdict)),
                false => entry(this, &p.arm, &q.arm, longer.text(), c.verdict),
            });
        }
        (Some(p), None) if !named => found.push(entry(this, &p.arm, that, p.text(), c.verdict)),
        (None, Some(q)) if !named => found.push(entry(that, &q.arm, this, q.text(), turned(c.verdict))),
        _ => {}
    }
    // What the claim speaks of is not said a second time beside it.
    if found.iter().any(|e| e.key.claimed) {
        found.retain(|e| e.key.claimed);
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
    let Key { suite, metric, arm, against, claimed } = &entries[0].key;
    let finding = match claimed {
        true => Finding::of(&entries.iter().map(|e| e.verdict).collect::<Vec<_>>()),
        false => Finding::Besides,
    };
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
    let swept = plan.arms.iter().any(|a| a.point.as_ref().is_some_and(|p| p.arm == *against));
    let same = if swept { " at the same value" } else { "" };
    let words =
        format!("{arm} against {against}{same}, {} on {suite}: {}", metric_words(metric), parts.join("; "));
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
        _ if finding == Finding::Besides => String::new(),
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
            detectable: None,
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
                    "dpo@fraction=1",
                    Finding::Mixed,
                    "“KTO matches DPO at less feedback”: mixed. kto against dpo@fraction=1, win rate against base on world: equivalent at fraction=1; worse at fraction=0.1"
                ),
                (
                    "dpo",
                    Finding::Besides,
                    "kto against dpo at the same value, win rate against base on world: better at fraction=0.1"
                ),
                (
                    "dpo@fraction=1",
                    Finding::Besides,
                    "dpo against dpo@fraction=1, win rate against base on world: undecided at fraction=0.1"
                ),
            ]
        );
        assert_eq!(found[0].lines, [3, 4]);

        let less = PLAN.replace("against", "arms = [\"kto@fraction=0.1\"]\nagainst");
        let found = claims(&Plan::parse(&less, "p.toml", &Overrides::default()).unwrap(), &rows);
        assert_eq!((found[0].finding, &found[0].lines[..]), (Finding::Fails, &[3][..]));
        assert!(found[1..].iter().all(|c| c.finding == Finding::Besides));

        // An arm as the plan wrote it: at equal values.
        let equal = PLAN.replace("[\"dpo@fraction=1\"]", "[\"dpo\"]\narms = [\"kto\"]");
        let found = claims(&Plan::parse(&equal, "p.toml", &Overrides::default()).unwrap(), &rows);
        let holds = (Finding::Holds, "better at fraction=0.1; equivalent at fraction=1");
        assert!(found[0].finding == holds.0 && found[0].words.ends_with(holds.1), "{found:?}");
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
