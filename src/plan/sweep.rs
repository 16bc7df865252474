//! Lists in a plan. A key of an arm, of `[train]`, of `[data]` or of `[budget]` that holds a list where a single
//! value belongs makes one arm of each value; several lists make every combination.
//!
//! Expansion is pure: arms in the plan's order, the last list fastest. What an arm becomes depends on nothing
//! but that arm and the sections, so that another arm beside it moves no name, no seed and no run.

mod lists;
mod points;
#[cfg(test)]
mod tests;

use serde::{Deserialize, Serialize};

pub(super) use lists::{asks_only, text};
pub(super) use points::{Expanded, expand};

use super::source::Source;
use super::types::Plan;
use crate::base::error::{HintExt, Result, anyhow};

/// Where an arm stands in a sweep.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Point {
    /// The arm as the plan wrote it, of which this is one value.
    pub arm: String,
    pub axes: Vec<Axis>,
}

/// A swept key and this arm's value of it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Axis {
    /// Dotted: `data.feedback.fraction`, `beta`, `budget.tokens`.
    pub key: String,
    pub value: String,
}

impl Axis {
    /// The key's last part.
    pub fn short(&self) -> &str {
        self.key.rsplit('.').next().unwrap_or(&self.key)
    }
}

impl Point {
    /// `fraction=0.1`, several joined by `@`: what stands after the arm's name, of characters that a file's name may have.
    pub fn text(&self) -> String {
        let plain = |c: char| if c.is_ascii_alphanumeric() || "-_.+".contains(c) { c } else { '-' };
        let part = |a: &Axis| format!("{}={}", a.short(), a.value.chars().map(plain).collect::<String>());
        self.axes.iter().map(part).collect::<Vec<_>>().join("@")
    }

    fn value(&self, key: &str) -> Option<&str> {
        self.axes.iter().find(|a| a.key == key).map(|a| a.value.as_str())
    }

    /// Every axis of this point stands in the other one, with the same value.
    fn within(&self, other: &Point) -> bool {
        self.axes.iter().all(|a| other.value(&a.key) == Some(&a.value))
    }

    /// The two stand at the same values of what both sweep.
    pub fn meets(&self, other: &Point) -> bool {
        self.within(other) || other.within(self)
    }
}

impl Plan {
    /// Whether any key held a list.
    pub fn swept(&self) -> bool {
        self.arms.iter().any(|a| a.point.is_some())
    }

    /// Whether the sweep's claim speaks of `arm` held against `other`.
    pub fn claims(&self, arm: &str, other: &str) -> bool {
        let label = |name: &str| {
            let point = self.arms.iter().find(|a| a.name == name).and_then(|a| a.point.as_ref());
            point.map_or(name.to_owned(), |p| p.arm.clone())
        };
        let named = |list: &[String], name: &str| {
            list.is_empty() || list.iter().any(|x| x == name || *x == label(name))
        };
        // Where the plan has several arms, none is held against itself at another point of the sweep.
        let labels: Vec<&str> =
            self.arms.iter().filter_map(|a| a.point.as_ref()).map(|p| p.arm.as_str()).collect();
        let alone = labels.iter().all(|l| *l == labels[0]);
        let own = self.sweep.arms.is_empty() && !alone && label(arm) == label(other);
        !own && named(&self.sweep.arms, arm) && named(&self.sweep.against, other)
    }

    /// Whether these two trained arms are compared.
    ///
    /// Without a sweep all are. In a sweep: different arms at the same values of what both sweep, an arm that is
    /// not swept with every other, and every arm with those named in `sweep.against`. The rest (one arm's own
    /// values among each other, unequal values) is not, so that no test is spent on what was not asked.
    pub fn compares(&self, a: &str, b: &str) -> bool {
        let against = |name: &str| self.sweep.against.iter().any(|x| x == name);
        let point =
            |name: &str| self.arms.iter().find(|arm| arm.name == name).and_then(|arm| arm.point.as_ref());
        match (point(a), point(b)) {
            _ if against(a) || against(b) => true,
            (Some(p), Some(q)) => p.arm != q.arm && p.meets(q),
            _ => true,
        }
    }
}

/// The arms that `[sweep]` names must be there.
pub(super) fn check_against(plan: &Plan, source: &Source) -> Result<()> {
    let labels = plan.arms.iter().filter_map(|a| a.point.as_ref()).map(|p| p.arm.as_str());
    let mut known: Vec<&str> = plan.arms.iter().map(|a| a.name.as_str()).chain(labels).collect();
    let mut seen = std::collections::BTreeSet::new();
    known.retain(|name| seen.insert(*name));
    for (key, names) in [("sweep.against", &plan.sweep.against), ("sweep.arms", &plan.sweep.arms)] {
        if let Some(name) = names.iter().find(|name| !known.contains(&name.as_str())) {
            return Err(source.unknown(key, "arm", name, &known));
        }
    }
    if plan.sweep != super::types::SweepSpec::default() && !plan.swept() {
        return Err(anyhow!("{}: no key of the plan holds a list", source.at("sweep")))
            .hint("give a list, such as `beta = [0.05, 0.1]`, or leave [sweep] out");
    }
    Ok(())
}
