//! The questions of suites on the plan's own data, which no arm may train on.

use super::observer::Observer;
use crate::base::error::{Context, HintExt, Result, anyhow};
use crate::data::{Dataset, Tokenizer, carves, load_heldout, locate};
use crate::plan::{Plan, WORLD};
use crate::suite::{Kind, Suite};

/// The held-out split of the plan's data; empty where no suite asks for it.
///
/// # Errors
/// A split that cannot be read, or that an arm trains on.
pub(super) fn heldout(
    plan: &Plan,
    suites: &[Suite],
    tokenizer: &Tokenizer,
    observer: &mut dyn Observer,
) -> Result<Dataset> {
    if !suites.iter().any(|s| s.source == "plan") {
        return Ok(Dataset::Paired(Vec::new()));
    }
    let split = &plan.data.heldout_split;
    let what = || format!("the held-out split `{split}` of the plan's data");
    let loaded = load_heldout(&plan.data, &tokenizer.template()).with_context(what)?;
    suites.iter().try_for_each(|suite| pairs_for(suite, &loaded.dataset)).with_context(what)?;
    not_trained_on(plan).with_context(what)?;
    for note in &loaded.notes {
        observer.note(&format!("held-out: {note}"));
    }
    Ok(loaded.dataset)
}

/// # Errors
/// A preference suite on the plan's data, where these are single completions.
pub(super) fn pairs_for(suite: &Suite, dataset: &Dataset) -> Result<()> {
    if suite.source != "plan" || suite.kind != Kind::Preference || matches!(dataset, Dataset::Paired(_)) {
        return Ok(());
    }
    let what = "holds single completions, and a preference suite asks about pairs";
    Err(anyhow!("suite `{}` {what}", suite.name)).hint(
        "take a generation suite (suites.preference = [] and suites.generation = [\"heldout-prompts\"]), or a preference \
         suite with data of its own",
    )
}

/// # Errors
/// An arm that trains on a file of the held-out split. Sets that are parted share files and no prompt.
fn not_trained_on(plan: &Plan) -> Result<()> {
    if plan.data.source == WORLD {
        return Ok(());
    }
    let parted = carves(&plan.data);
    let asked = locate(&plan.data, if parted { &plan.data.split } else { &plan.data.heldout_split })?.0;
    for arm in plan.arms.iter().filter(|arm| arm.data.source != WORLD && !(parted && carves(&arm.data))) {
        let (files, _) = locate(&arm.data, &arm.data.split)?;
        if let Some(file) = files.iter().find(|file| asked.contains(file)) {
            return Err(anyhow!("arm {} trains on {}, which is to be held out", arm.name, file.display()))
                .hint("give data.split and data.heldout_split splits of their own");
        }
    }
    Ok(())
}
