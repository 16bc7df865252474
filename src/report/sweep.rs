//! A swept plan as the report looks at it: axes, lines and the claims, read from the plan.

use serde_json::Value;

use super::input::Input;
use super::view::distinct;
use crate::plan::{Axis, Plan};
use crate::stats::{Claim, claims};

/// The plan of a report, where it is one of this program's.
pub fn plan(input: &Input) -> Option<Plan> {
    serde_json::from_value(input.plan.clone()).ok()
}

/// The claims of a swept plan.
pub fn found(input: &Input) -> Vec<Claim> {
    // Most plans sweep nothing; theirs need not be typed.
    let arms = input.plan.get("arms").and_then(Value::as_array);
    let swept = arms.is_some_and(|arms| arms.iter().any(|a| a.get("point").is_some_and(|p| !p.is_null())));
    match plan(input).filter(|_| swept) {
        Some(plan) => claims(&plan, &input.comparisons),
        None => vec![],
    }
}

/// A swept key with the lines to draw along it.
pub struct Swept {
    pub key: String,
    pub lines: Vec<Line>,
    /// Arms that do not move along the key.
    pub still: Vec<String>,
}

/// One arm of the plan along a key; the values of its other axes are fixed.
pub struct Line {
    pub label: String,
    /// (value, name of the expanded arm) in the plan's order.
    pub points: Vec<(String, String)>,
}

impl Swept {
    /// All values that a line has, in the order of first sight.
    pub fn values(&self) -> Vec<String> {
        distinct(self.lines.iter().flat_map(|l| l.points.iter().map(|(value, _)| value.as_str())))
    }

    /// The key as an axis says it.
    pub fn title(&self) -> String {
        let short = self.key.rsplit('.').next().unwrap_or(&self.key);
        match short {
            "fraction" => "share of the feedback labels kept".to_owned(),
            "flip" => "share of the labels flipped".to_owned(),
            "imbalance" => "desirable completions for each undesirable one".to_owned(),
            "one_completion" => "one completion a prompt".to_owned(),
            "sft_first" => "share of the budget spent on SFT first".to_owned(),
            "beta" => "β".to_owned(),
            "tokens" => "budget a run (policy tokens)".to_owned(),
            other => other.replace('_', " "),
        }
    }

    /// Values that are shares are written as per cent.
    pub fn percent(&self) -> bool {
        ["fraction", "flip", "sft_first"].iter().any(|k| self.key.ends_with(k))
    }
}

/// The swept keys, in the order of the plan.
pub fn axes(plan: &Plan) -> Vec<Swept> {
    let points = || plan.arms.iter().filter_map(|a| Some((a, a.point.as_ref()?)));
    let keys = distinct(points().flat_map(|(_, p)| p.axes.iter().map(|a| a.key.as_str())));
    let swept = |key: String| {
        let mut lines: Vec<Line> = vec![];
        for (arm, point) in points() {
            let Some(own) = point.axes.iter().find(|a| a.key == key) else { continue };
            let label = label(&point.arm, point.axes.iter().filter(|a| a.key != key));
            let place = (own.value.clone(), arm.name.clone());
            match lines.iter_mut().find(|l| l.label == label) {
                Some(line) => line.points.push(place),
                None => lines.push(Line { label, points: vec![place] }),
            }
        }
        let still = plan.arms.iter().filter(|a| a.point.is_none()).map(|a| a.name.clone()).collect();
        Swept { key, lines, still }
    };
    keys.into_iter().map(swept).collect()
}

fn label<'a>(arm: &str, others: impl Iterator<Item = &'a Axis>) -> String {
    let others: Vec<String> = others.map(|a| format!("{} {}", a.short(), a.value)).collect();
    if others.is_empty() { arm.to_owned() } else { format!("{arm}, {}", others.join(", ")) }
}
