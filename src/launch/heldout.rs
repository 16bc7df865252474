//! The questions of suites on the plan's own data, which no arm may train on.

use std::collections::BTreeSet;
use std::path::PathBuf;

use super::observer::Observer;
use crate::base::error::{Context, HintExt, Result, anyhow};
use crate::data::{Dataset, Tokenizer, carves, load_heldout, locate};
use crate::plan::{DataSpec, Plan, WORLD};
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
        if carves(&plan.data) && plan.data.heldout_fraction > 0.0 {
            observer
                .note("no suite asks about what is held out: data.heldout_fraction = 0 trains on all of it");
        }
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
    let files = |data: &DataSpec, split: &str| -> Result<BTreeSet<PathBuf>> {
        // One file may be called by several paths.
        Ok(locate(data, split)?.0.into_iter().map(|file| file.canonicalize().unwrap_or(file)).collect())
    };
    let asked = files(&plan.data, if parted { &plan.data.split } else { &plan.data.heldout_split })?;
    let mut looked = BTreeSet::new();
    for arm in plan.arms.iter().filter(|arm| arm.data.source != WORLD && !(parted && carves(&arm.data))) {
        let DataSpec { source, revision, config, split, .. } = &arm.data;
        // Each look costs a request to the hub.
        if !looked.insert((source, revision, config, split)) {
            continue;
        }
        if let Some(file) = files(&arm.data, split)?.intersection(&asked).next() {
            return Err(anyhow!("arm {} trains on {}, which is to be held out", arm.name, file.display()))
                .hint("give data.split and data.heldout_split splits of their own");
        }
    }
    Ok(())
}
