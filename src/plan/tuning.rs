//! Whether `[tune]` and what each arm tries go together with the rest of the plan.

use toml::Value;

use super::check::{check_keys, check_train};
use super::source::Source;
use super::trials::{MOST_TRIALS, Trial};
use super::types::*;
use crate::base::error::{HintExt, Result, anyhow};

/// Settings of `[tune]` that contradict each other or the rest of the plan.
pub(super) fn check_tune(plan: &Plan, source: &Source) -> Result<()> {
    let Some(spec) = &plan.tune else {
        let tuned = plan.arms.iter().find(|a| !a.tune.is_empty());
        return tuned.map_or(Ok(()), |arm| {
            let place = format!("arm.{}.tune", arm.template());
            Err(source.error(&place, "is given, and the plan has no [tune]")).hint("add [tune] with `trials`")
        });
    };
    if spec.trials == 0 {
        return Err(source.error("tune.trials", "is 0; it must be at least 1"));
    }
    if spec.trials > MOST_TRIALS {
        return Err(source.error("tune.trials", format!("is {}; at most {MOST_TRIALS}", spec.trials)));
    }
    plan.arms.iter().try_for_each(|arm| check_search(plan, spec, arm, source))
}

fn check_search(plan: &Plan, spec: &TuneSpec, arm: &Arm, source: &Source) -> Result<()> {
    let place = format!("arm.{}.tune", arm.template());
    if arm.trainer.is_some() {
        let place = format!("arm.{}.trainer", arm.template());
        return Err(source.error(&place, "is a command, and under [tune] this engine trains every arm"))
            .hint("tune the command by itself, and write what it found into a plan without [tune]");
    }
    if arm.tune.is_empty() {
        return Err(anyhow!("{}: arm `{}` has no `tune`", source.at(&place), arm.name)).hint(
            "under [tune] every arm searches, with the same number of trials; give it [arm.tune] with a key",
        );
    }
    if arm.data.feedback != FeedbackSpec::default() {
        return Err(source.error(
            &place,
            "stands beside data.feedback: the validation split would hold labels that the arm is not to have",
        ))
        .hint(
            "tune on the whole data first, and write the values found into the plan that sweeps the feedback",
        );
    }
    if (DataSpec {
        max_examples: arm.data.max_examples,
        max_length: arm.data.max_length,
        ..plan.data.clone()
    }) != arm.data
    {
        return Err(source.error(&place, "stands beside an arm's own data: there is one validation split"))
            .hint("tune on the plan's data first, and write the values found into the plan that sweeps the data");
    }
    let trials = arm.trials(spec).map_err(|e| e.context(source.at(&place)))?;
    if trials.len() != spec.trials + 1 {
        let message = format!(
            "makes a grid of {} where tune.trials is {}: every arm gets the same number of trials",
            trials.len() - 1,
            spec.trials
        );
        return Err(source.error(&place, message));
    }
    check_values(arm, source, &place)?;
    trials.iter().try_for_each(|trial| check_trial(arm, trial, source, &place))
}

/// Values that are sound one by one may contradict each other, and a draw lies between the ends of its range.
fn check_trial(arm: &Arm, trial: &Trial, source: &Source, place: &str) -> Result<()> {
    let checked = arm.with(&trial.values).and_then(|arm| check_train(&arm, source));
    let checked = checked.map_err(|e| e.context(format!("{}: trial {}", source.at(place), trial.text())));
    let whole =
        |(key, value): &(String, Value)| value.is_integer() && arm.tune.get(key).is_some_and(Value::is_table);
    match trial.values.iter().find(|drawn| whole(drawn)) {
        Some((key, _)) => checked.hint(format!("a draw of `{key}` may be any whole number: list its values")),
        None => checked,
    }
}

/// Every listed value, and both ends of a range, by itself; what goes together is for the trials to say.
fn check_values(arm: &Arm, source: &Source, place: &str) -> Result<()> {
    for (key, value) in &arm.tune {
        for end in ends(value) {
            let with = [(key.clone(), end)];
            let checked = arm.with(&with).and_then(|arm| check_keys(&arm, source));
            let said = format!("{}: {key} = {}", source.at(&format!("{place}.{key}")), with[0].1);
            checked.map_err(|e| e.context(said))?;
        }
    }
    Ok(())
}

/// All listed values, or both ends of a range.
fn ends(value: &Value) -> Vec<Value> {
    match value {
        Value::Array(values) => values.clone(),
        Value::Table(range) => ["from", "to"].iter().filter_map(|k| range.get(*k).cloned()).collect(),
        _ => vec![],
    }
}
