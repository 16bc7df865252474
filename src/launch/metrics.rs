//! Metrics that a plan names: whether they are measured is looked at before anything is trained.

use super::observer::Observer;
use crate::base::error::{Context, HintExt, Result, anyhow, unknown};
use crate::plan::{Plan, TuneSpec, VerdictSpec};
use crate::suite::{self, Direction, METRICS, Suite};

/// Suites on the plan's own data that measure something of the default `verdict.primary`.
const MEASURE_IT: &str = "what suites heldout (where the data are pairs), heldout-labels (where completions have labels), \
                          heldout-judged (with a language model as judge) and heldout-rewarded (with a reward model) measure is there";

/// Whether the metrics of `verdict.primary` are there to be judged.
///
/// # Errors
/// A name that is no metric with a direction; a list of the plan's own of which its suites measure nothing.
pub(super) fn check_primary(plan: &Plan, suites: &[Suite], observer: &mut dyn Observer) -> Result<()> {
    let primary = plan.verdict.renewed().primary;
    let known: Vec<&str> =
        METRICS.iter().filter(|m| m.direction != Direction::Neutral).map(|m| m.name).collect();
    if let Some(name) = primary.iter().find(|name| !known.contains(&name.as_str())) {
        return Err(unknown("metric with a direction", name, &known)).context("verdict.primary");
    }
    let measured: Vec<&str> = suites.iter().flat_map(directed).collect();
    if suites.is_empty() || primary.is_empty() || primary.iter().any(|name| measured.contains(&name.as_str()))
    {
        return Ok(());
    }
    let message = format!(
        "the plan's suites measure nothing of verdict.primary ({}): every comparison would be exploratory",
        primary.join(", ")
    );
    if primary == VerdictSpec::default().primary {
        observer.note(&format!("{message}; {MEASURE_IT}"));
        return Ok(());
    }
    Err(anyhow!(message)).hint(format!("its suites measure {}", measured.join(", ")))
}

/// The suite by which trials are chosen.
///
/// # Errors
/// None of that name; one with questions of its own; a metric that it does not measure, or that has no better end.
pub(super) fn validation_suite(spec: &TuneSpec) -> Result<Suite> {
    let known = ["preference", "generation"];
    let found = known.iter().map(|folder| suite::find(&spec.suite, folder));
    let suite = found.reduce(|a, b| a.or(b)).expect("there are two folders").context("tune.suite")?;
    if suite.source != "plan" {
        return Err(anyhow!("tune.suite: `{}` has questions of its own, which are held out", suite.name))
            .hint("choose by a suite on the plan's data (`source = \"plan\"`), such as heldout: it is asked on the validation split");
    }
    let known: Vec<&str> = directed(&suite).collect();
    if !known.contains(&spec.metric.as_str()) {
        let what = format!("metric with a direction of suite {}", suite.name);
        return Err(unknown(&what, &spec.metric, &known)).context("tune.metric");
    }
    Ok(suite)
}

/// The metrics of a suite of which more, or less, is better.
fn directed(suite: &Suite) -> impl Iterator<Item = &'static str> {
    suite.metrics.iter().map(|m| m.info()).filter(|m| m.direction != Direction::Neutral).map(|m| m.name)
}
