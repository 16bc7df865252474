//! Data that a verb without a plan names itself: its options, and over them `--set data.…`.

use super::args::Common;
use super::judge::JudgeOptions;
use crate::base::error::{HintExt, Result, anyhow, ensure};
use crate::plan::{DataSpec, Overrides, Plan, WORLD};

/// What stands where no data are named.
const NONE: &str = "-";

/// The plan around them; its arm is never trained.
const PLAN: &str = "seeds = [0]\nbudget = { steps = 1 }\n[model]\nsource = \"-\"\n[data]\nsource = \"-\"\n\
                    [[arm]]\nmethod = \"sft\"\n";

/// What a verb takes by `--set`.
pub struct Keys<'a> {
    /// Beginnings of the keys that it takes.
    pub taken: &'a [&'a str],
    /// Beginnings of those among them that would say nothing to it.
    pub but: &'a [&'a str],
    /// Keys for which it has an option of its own, with that option.
    pub options: &'a [(&'a str, &'a str)],
}

/// The options of a verb that reads the data of `--data`.
pub const OPTIONS: [(&str, &str); 5] = [
    ("data.source", "--data"),
    ("data.split", "--split"),
    ("data.config", "--config"),
    ("data.max_length", "--max-length"),
    ("data.max_examples", "--max-examples"),
];

/// What a plan trains on and what it holds out.
pub const TRAINING: [&str; 2] = ["data.feedback", "data.heldout"];

impl Keys<'_> {
    fn check(&self, verb: &str, set: &str) -> Result<()> {
        let key = set.split('=').next().unwrap_or_default().trim();
        let error = || Err(anyhow!("`kto-eval {verb}` has no use for --set {set}"));
        if let Some((_, option)) = self.options.iter().find(|(own, _)| *own == key) {
            return error().hint(format!("it takes {option} for that"));
        }
        let among = |beginnings: &[&str]| beginnings.iter().any(|b| key.starts_with(b));
        if !among(self.taken) || among(self.but) {
            let but = if self.but.is_empty() {
                String::new()
            } else {
                format!(", but for {}", self.but.join(", "))
            };
            return error().hint(format!("it takes keys that begin with {}{but}", self.taken.join(", ")));
        }
        Ok(())
    }
}

/// A plan whose `[data]` is what the options give (place, split and sizes of `data`; an empty place: none) and what
/// `--set` says besides.
///
/// # Errors
/// A `--set` of a key that would do nothing, or that has an option of its own; a value that no plan may have.
pub fn asked(
    verb: &str,
    common: &Common,
    judge: &JudgeOptions,
    data: &DataSpec,
    keys: &Keys,
) -> Result<Plan> {
    common.set.iter().try_for_each(|set| keys.check(verb, set))?;
    ensure!(
        data.max_length > 1,
        "--max-length {}: a sequence has a token of the prompt and one of the completion, so it is at least 2",
        data.max_length
    );
    // The keys of a world are looked at where one is asked for.
    let source = if data.source == WORLD { WORLD } else { NONE };
    let mut set = vec![format!("data.source={source}")];
    set.extend(common.set.clone());
    let overrides = Overrides { set, seeds: common.seed.clone(), ..Overrides::default() };
    let mut plan = Plan::parse(PLAN, verb, &judge.over(overrides))?;
    // Not through the plan's keys: messages would name keys that nobody wrote, and `data.split` is the training split.
    let named = plan.data;
    plan.data = DataSpec {
        source: data.source.clone(),
        split: data.split.clone(),
        config: data.config.clone(),
        max_length: data.max_length,
        max_examples: named.max_examples.max(data.max_examples),
        ..named
    };
    Ok(plan)
}
