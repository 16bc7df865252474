//! The training data of a plan's arms: read once, treated and tokenized once for each treatment.

use std::collections::BTreeSet;

use super::observer::Observer;
use super::training_set::{TrainingSet, tokenized};
use crate::base::error::{Context, Result, ensure};
use crate::base::hash::Hasher;
use crate::data::{
    Dataset, Loaded, Tokenizer, carves, load_training, prompts, split_prompts, treat, without,
};
use crate::objective::{Feedback, info};
use crate::plan::{Arm, DataSpec, FeedbackSpec, Plan};

/// A tokenized set for each treatment of the data that an arm has.
pub struct TrainingSets {
    sets: Vec<(DataSpec, TrainingSet)>,
    /// Prompts kept out of all training, for the choice between trials; empty where nothing is tuned.
    pub validation: Dataset,
    /// Content hash of the data as read, before any treatment; of several sets, of their hashes in the arms' order.
    pub hash: String,
    /// The prompts of all that was read.
    prompts: BTreeSet<String>,
}

impl TrainingSets {
    /// # Errors
    /// Data that cannot be read, treated or tokenized.
    pub fn read(plan: &Plan, tokenizer: &Tokenizer, observer: &mut dyn Observer) -> Result<Self> {
        let read = read_all(plan, tokenizer, observer)?;
        let validation = validation(plan, &read)?;
        let kept_out: BTreeSet<&str> = prompts(&validation).collect();
        let mut made = Self {
            sets: vec![],
            hash: hash_of(&read),
            prompts: read.iter().flat_map(|(_, l)| prompts(&l.dataset)).map(str::to_owned).collect(),
            validation: Dataset::Paired(vec![]),
        };
        for arm in &plan.arms {
            if made.sets.iter().any(|(spec, _)| *spec == arm.data) {
                continue;
            }
            let whose = || format!("arm {}", arm.name);
            let untreated = untreated(plan, &arm.data);
            let loaded =
                &read.iter().find(|(spec, _)| *spec == untreated).expect("every arm's data is read").1;
            let treated =
                treat(without(loaded.dataset.clone(), &kept_out), &arm.data.feedback).with_context(whose)?;
            ensure!(
                !treated.dataset.is_empty(),
                "arm {}: the validation split took all its prompts",
                arm.name
            );
            if !treated.notes.is_empty() {
                observer.note(&format!("{}: {}", arm.name, treated.notes.join("; ")));
            }
            let set = tokenized(&arm.data, &treated.dataset, loaded.format, tokenizer, observer)?;
            made.sets.push((arm.data.clone(), set));
        }
        made.validation = validation;
        made.one_sided(plan).iter().for_each(|note| observer.note(note));
        Ok(made)
    }

    /// Arms that learn from completions of both classes and are given one: a likely mistake that no loss shows.
    fn one_sided(&self, plan: &Plan) -> Vec<String> {
        let both = |arm: &&Arm| info(arm.method.name()).is_ok_and(|i| i.feedback == Feedback::Unpaired);
        let note = |(data, set): &(DataSpec, TrainingSet)| {
            let (class, missing) = match set.only_class()? {
                true => ("desirable", "what to avoid"),
                false => ("undesirable", "what to do instead"),
            };
            let arms = plan.arms.iter().filter(|arm| arm.trainer.is_none() && arm.data == *data);
            let names: Vec<&str> = arms.filter(both).map(|arm| arm.name.as_str()).collect();
            let whose = Some(names.join(", ")).filter(|names| !names.is_empty())?;
            Some(format!(
                "{whose}: every completion is {class}; nothing shows {missing}, which the method is made to learn too"
            ))
        };
        self.sets.iter().filter_map(note).collect()
    }

    /// The prompts of all that was read, before any treatment; given away once, since training needs only tokens.
    pub(super) fn take_prompts(&mut self) -> BTreeSet<String> {
        std::mem::take(&mut self.prompts)
    }

    /// The set of the plan's first arm.
    pub fn first(&self) -> &TrainingSet {
        &self.sets.first().expect("a plan has an arm").1
    }

    /// Every set, to be changed before it is trained on.
    pub fn each_mut(&mut self) -> impl Iterator<Item = &mut TrainingSet> {
        self.sets.iter_mut().map(|(_, set)| set)
    }

    /// The set of an arm's data.
    ///
    /// # Panics
    /// If no arm of the plan that was read has these.
    pub fn of(&self, spec: &DataSpec) -> &TrainingSet {
        &self.sets.iter().find(|(known, _)| known == spec).expect("every arm's data is read").1
    }
}

/// An arm's data as they are read, once for all its treatments.
fn untreated(plan: &Plan, data: &DataSpec) -> DataSpec {
    DataSpec { feedback: FeedbackSpec::default(), max_length: plan.data.max_length, ..data.clone() }
}

/// Each set that an arm trains on, read once, in the arms' order.
fn read_all(
    plan: &Plan,
    tokenizer: &Tokenizer,
    observer: &mut dyn Observer,
) -> Result<Vec<(DataSpec, Loaded)>> {
    let mut read: Vec<(DataSpec, Loaded)> = vec![];
    for arm in &plan.arms {
        let spec = untreated(plan, &arm.data);
        if read.iter().all(|(known, _)| *known != spec) {
            observer.stage(&format!("reading {}", spec.source));
            let loaded = load_training(&spec, carves(&plan.data), &tokenizer.template())?;
            loaded.notes.iter().for_each(|note| observer.note(note));
            read.push((spec, loaded));
        }
    }
    Ok(read)
}

/// What trials are chosen by: a share of the prompts of the largest set, of which the others are beginnings.
fn validation(plan: &Plan, read: &[(DataSpec, Loaded)]) -> Result<Dataset> {
    let largest = read.iter().map(|(_, loaded)| &loaded.dataset).max_by_key(|set| set.len());
    let (Some(tune), Some(largest)) = (&plan.tune, largest) else { return Ok(Dataset::Paired(vec![])) };
    split_prompts(largest.clone(), tune.validation, tune.seed)
        .context("tune.validation: a validation split of the training data")
}

fn hash_of(read: &[(DataSpec, Loaded)]) -> String {
    let mut hashes: Vec<&str> = read.iter().map(|(_, loaded)| loaded.hash.as_str()).collect();
    hashes.dedup();
    match hashes.as_slice() {
        [one] => (*one).to_owned(),
        several => several.iter().fold(Hasher::new("kto-eval/data"), |h, x| h.part(x.as_bytes())).hex(),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::super::observer::Silent;
    use super::*;
    use crate::data::load;
    use crate::data::world::World;
    use crate::plan::Overrides;

    #[test]
    fn trials_are_chosen_by_prompts_that_no_arm_is_trained_on() {
        let plan = |sizes: &str| {
            let text = format!(
                "seeds = [1]\nbudget = {{ tokens = 1000 }}\n[model]\nsource = \"world\"\n[data]\nsource = \"world\"\n\
                 max_examples = {sizes}\n[tune]\ntrials = 2\n[[arm]]\nmethod = \"kto\"\ntune.beta = [0.1, 0.2]\n"
            );
            Plan::parse(&text, "p.toml", &Overrides::default()).unwrap()
        };
        let whole = plan("400");
        let dir = tempfile::tempdir().unwrap();
        World::new(&whole.data.world).unwrap().write_tokenizer(dir.path()).unwrap();
        let tokenizer = Tokenizer::load(dir.path()).unwrap();
        let Dataset::Paired(pairs) = load(&whole.data, "train").unwrap().dataset else { panic!("pairs") };
        let prompt_of: BTreeMap<&str, &str> =
            pairs.iter().map(|p| (p.id.as_str(), p.prompt.as_str())).collect();
        let alone = TrainingSets::read(&whole, &tokenizer, &mut Silent).unwrap().validation;
        for sizes in ["[400, 60]", "[60, 400]"] {
            let made = TrainingSets::read(&plan(sizes), &tokenizer, &mut Silent).unwrap();
            assert_eq!(made.validation, alone, "{sizes}");
            let asked: BTreeSet<&str> = prompts(&made.validation).collect();
            assert_eq!(made.sets.len(), 2);
            for (spec, set) in &made.sets {
                let TrainingSet::Paired(set) = set else { panic!("pairs") };
                let all = pairs[..spec.max_examples].iter().filter(|p| !asked.contains(p.prompt.as_str()));
                assert_eq!(set.len(), all.count());
                assert!(set.iter().all(|p| !asked.contains(prompt_of[p.id.as_str()])), "{sizes}");
            }
        }
    }
}
