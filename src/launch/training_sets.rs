//! The training data of a plan's arms: read once, treated and tokenized once for each treatment.

use std::collections::BTreeSet;

use super::observer::Observer;
use super::prepare::{TrainingSet, tokenized};
use crate::base::error::{Context, Result};
use crate::base::hash::Hasher;
use crate::data::{Dataset, Loaded, Tokenizer, Treated, load_training, prompts, split_prompts, treat};
use crate::plan::{DataSpec, FeedbackSpec, Plan, TuneSpec};

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
        let mut read: Vec<(DataSpec, Loaded)> = vec![];
        let none = || Dataset::Paired(vec![]);
        let mut made =
            Self { sets: vec![], validation: none(), hash: String::new(), prompts: BTreeSet::new() };
        for arm in &plan.arms {
            if made.sets.iter().any(|(spec, _)| *spec == arm.data) {
                continue;
            }
            let untreated = DataSpec {
                feedback: FeedbackSpec::default(),
                max_length: plan.data.max_length,
                ..arm.data.clone()
            };
            if !read.iter().any(|(spec, _)| *spec == untreated) {
                observer.stage(&format!("reading {}", untreated.source));
                let loaded = load_training(&untreated, &tokenizer.template())?;
                loaded.notes.iter().for_each(|note| observer.note(note));
                made.prompts.extend(prompts(&loaded.dataset).map(str::to_owned));
                read.push((untreated.clone(), loaded));
            }
            let loaded = &read.iter().find(|(spec, _)| *spec == untreated).expect("read above").1;
            let (treated, validation) =
                for_training(loaded.dataset.clone(), &arm.data.feedback, plan.tune.as_ref())
                    .with_context(|| format!("arm {}", arm.name))?;
            made.validation = validation;
            if !treated.notes.is_empty() {
                observer.note(&format!("{}: {}", arm.name, treated.notes.join("; ")));
            }
            let set = tokenized(&arm.data, &treated.dataset, loaded.format, tokenizer, observer)?;
            made.sets.push((arm.data.clone(), set));
        }
        let mut hashes: Vec<String> = read.into_iter().map(|(_, loaded)| loaded.hash).collect();
        hashes.dedup();
        made.hash = match hashes.as_slice() {
            [one] => one.clone(),
            several => several.iter().fold(Hasher::new("kto-eval/data"), |h, x| h.part(x.as_bytes())).hex(),
        };
        Ok(made)
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

/// A data set as an arm is trained on it, by this engine or another: less the prompts that the choice between trials
/// is made on (given second; empty where nothing is tuned), then treated.
///
/// # Errors
/// Data too few to split, or that cannot be treated so.
pub(super) fn for_training(
    dataset: Dataset,
    feedback: &FeedbackSpec,
    tune: Option<&TuneSpec>,
) -> Result<(Treated, Dataset)> {
    let (dataset, validation) = match tune {
        None => (dataset, Dataset::Paired(vec![])),
        Some(tune) => split_prompts(dataset, tune.validation, tune.seed)
            .context("tune.validation: a validation split of the training data")?,
    };
    Ok((treat(dataset, feedback)?, validation))
}
