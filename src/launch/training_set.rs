//! Training data as token ids, and what tokenizing them kept.

use std::borrow::Cow;

use super::observer::Observer;
use crate::base::error::Result;
use crate::data::{
    Control, Dataset, TokenizeStats, TokenizedExample, TokenizedPair, Tokenizer, load_with, tokenize_pairs,
    tokenize_unpaired,
};
use crate::plan::{DataFormat, DataSpec, Method};
use crate::train::TrainData;

/// Tokenized training data.
#[derive(Clone)]
pub enum TrainingSet {
    Paired(Vec<TokenizedPair>),
    Unpaired(Vec<TokenizedExample>),
}

impl TrainingSet {
    /// The set as an arm learns from it: after control tokens, where its method has any.
    ///
    /// # Errors
    /// Control tokens that the tokenizer cannot write or tell apart.
    pub fn conditioned(
        &self,
        method: &Method,
        tokenizer: &Tokenizer,
        max_length: usize,
    ) -> Result<Cow<'_, Self>> {
        let Method::Csft(spec) = method else { return Ok(Cow::Borrowed(self)) };
        let control = Control::new(tokenizer, &spec.desirable_token, &spec.undesirable_token)?;
        Ok(Cow::Owned(match self {
            Self::Paired(pairs) => Self::Paired(control.pairs(pairs, max_length)),
            Self::Unpaired(examples) => Self::Unpaired(control.examples(examples, max_length)),
        }))
    }

    /// The class of all its completions, where these are single ones of one class.
    pub(super) fn only_class(&self) -> Option<bool> {
        let Self::Unpaired(examples) = self else { return None };
        let first = examples.first()?.desirable;
        examples.iter().all(|e| e.desirable == first).then_some(first)
    }

    pub fn as_data(&self) -> TrainData<'_> {
        match self {
            Self::Paired(pairs) => TrainData::Paired(pairs),
            Self::Unpaired(examples) => TrainData::Unpaired(examples),
        }
    }
}

/// Reads and tokenizes a split.
pub(super) fn read_training_set(
    spec: &DataSpec,
    tokenizer: &Tokenizer,
    observer: &mut dyn Observer,
) -> Result<TrainingSet> {
    observer.stage(&format!("reading {}", spec.source));
    let loaded = load_with(spec, &spec.split, &tokenizer.template())?;
    for note in &loaded.notes {
        observer.note(note);
    }
    tokenized(spec, &loaded.dataset, loaded.format, tokenizer, observer)
}

/// Tokenizes a data set, and tells what that kept.
pub(super) fn tokenized(
    spec: &DataSpec,
    dataset: &Dataset,
    format: DataFormat,
    tokenizer: &Tokenizer,
    observer: &mut dyn Observer,
) -> Result<TrainingSet> {
    let (set, stats) = match dataset {
        Dataset::Paired(pairs) => {
            let (pairs, stats) = tokenize_pairs(pairs, tokenizer, spec.max_length)?;
            (TrainingSet::Paired(pairs), stats)
        }
        Dataset::Unpaired(examples) => {
            let (examples, stats) = tokenize_unpaired(examples, tokenizer, spec.max_length)?;
            (TrainingSet::Unpaired(examples), stats)
        }
    };
    observer.note(&describe(spec, &format, &stats));
    Ok(set)
}

fn describe(spec: &DataSpec, format: &DataFormat, stats: &TokenizeStats) -> String {
    let format =
        serde_json::to_value(format).ok().and_then(|v| v.as_str().map(str::to_owned)).unwrap_or_default();
    format!(
        "{} ({}): {} examples as {format}, {} prompt and {} completion tokens; cut at {} tokens: {}, dropped: {}",
        spec.source,
        spec.split,
        stats.examples,
        stats.prompt_tokens,
        stats.completion_tokens,
        spec.max_length,
        stats.cut,
        stats.dropped
    )
}
