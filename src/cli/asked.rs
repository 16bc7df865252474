//! Data that a verb without a plan names itself: its options, and over them `--set data.…`.

use super::args::Common;
use super::judge::JudgeOptions;
use crate::base::error::{HintExt, Result, anyhow};
use crate::plan::{DataSpec, Overrides, Plan};

/// What stands where no data are named.
const NONE: &str = "-";

/// The plan around them; its arm is never trained.
const PLAN: &str = "seeds = [0]\nbudget = { steps = 1 }\n[model]\nsource = \"-\"\n[data]\nsource = \"-\"\n\
                    [[arm]]\nmethod = \"sft\"\n";

/// Keys of `[data]` that say what a plan trains on and what it holds out.
const TRAINING: [&str; 3] = ["data.feedback", "data.split", "data.heldout"];

/// A plan whose `[data]` is what the options give (place, split and sizes of `data`; an empty place: none) and what
/// `--set` says besides, with the keys that begin with one of `keys`.
///
/// # Errors
/// A `--set` of another key, which would do nothing; a value that no plan may have.
pub fn asked(
    verb: &str,
    common: &Common,
    judge: &JudgeOptions,
    data: &DataSpec,
    keys: &[&str],
) -> Result<Plan> {
    for set in &common.set {
        let begins = |key: &&str| set.trim_start().starts_with(key);
        if !keys.iter().any(begins) || TRAINING.iter().any(begins) {
            let (keys, but) = (keys.join(", "), TRAINING.join(", "));
            return Err(anyhow!("`kto-eval {verb}` has no use for --set {set}"))
                .hint(format!("it takes keys that begin with {keys}, but for {but}; --split names a split"));
        }
    }
    let word = |key: &str, word: &str| format!("data.{key}={}", toml::Value::String(word.to_owned()));
    let mut set = vec![
        word("source", if data.source.is_empty() { NONE } else { &data.source }),
        word("config", &data.config),
        format!("data.max_length={}", data.max_length),
        format!("data.max_examples={}", data.max_examples),
    ];
    set.extend(common.set.clone());
    let overrides = Overrides { set, seeds: common.seed.clone(), ..Overrides::default() };
    let mut plan = Plan::parse(PLAN, verb, &judge.over(overrides))?;
    // Not by the plan's key: that is the split that is trained on.
    plan.data.split.clone_from(&data.split);
    if plan.data.source == NONE {
        plan.data.source.clear();
    }
    Ok(plan)
}
