//! The training data of a plan's arms: read once, treated and tokenized once for each treatment.

use super::observer::Observer;
use super::prepare::{TrainingSet, tokenized};
use crate::base::error::{Context, Result};
use crate::data::{Dataset, Loaded, Tokenizer, load_with, split_prompts, treat};
use crate::plan::{DataSpec, FeedbackSpec, Plan};

/// A tokenized set for each treatment of the data that an arm has.
pub struct TrainingSets {
    sets: Vec<(DataSpec, TrainingSet)>,
    /// Prompts kept out of all training, for the choice between trials; empty where nothing is tuned.
    pub validation: Dataset,
    /// Content hash of the data as read, before any treatment.
    pub hash: String,
    /// The data as read.
    text: Dataset,
}

impl TrainingSets {
    /// # Errors
    /// Data that cannot be read, treated or tokenized.
    pub fn read(plan: &Plan, tokenizer: &Tokenizer, observer: &mut dyn Observer) -> Result<Self> {
        let mut read: Vec<(DataSpec, Loaded)> = vec![];
        let none = || Dataset::Paired(vec![]);
        let mut made = Self { sets: vec![], validation: none(), hash: String::new(), text: none() };
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
                let loaded = load_with(&untreated, &untreated.split, &tokenizer.template())?;
                loaded.notes.iter().for_each(|note| observer.note(note));
                read.push((untreated.clone(), loaded));
            }
            let loaded = &read.iter().find(|(spec, _)| *spec == untreated).expect("read above").1;
            if made.hash.is_empty() {
                made.hash = loaded.hash.clone();
                made.text = loaded.dataset.clone();
            }
            let mut dataset = loaded.dataset.clone();
            if let Some(tune) = &plan.tune {
                (dataset, made.validation) = split_prompts(dataset, tune.validation, tune.seed)
                    .context("tune.validation: a validation split of the training data")?;
            }
            let treated = treat(dataset, &arm.data.feedback).with_context(|| format!("arm {}", arm.name))?;
            if !treated.notes.is_empty() {
                observer.note(&format!("{}: {}", arm.name, treated.notes.join("; ")));
            }
            let set = tokenized(&arm.data, &treated.dataset, loaded.format, tokenizer, observer)?;
            made.sets.push((arm.data.clone(), set));
        }
        Ok(made)
    }

    /// The data as read, before any treatment; given away once, since training needs only tokens.
    pub(super) fn take_text(&mut self) -> Dataset {
        std::mem::replace(&mut self.text, Dataset::Paired(vec![]))
    }

    /// The set of the plan's first arm.
    pub fn first(&self) -> &TrainingSet {
        &self.sets.first().expect("a plan has an arm").1
    }

    /// The set of an arm's data.
    ///
    /// # Panics
    /// If no arm of the plan that was read has these.
    pub fn of(&self, spec: &DataSpec) -> &TrainingSet {
        &self.sets.iter().find(|(known, _)| known == spec).expect("every arm's data is read").1
    }
}
