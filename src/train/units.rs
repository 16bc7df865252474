//! What a method trains on, one unit after another.

use crate::base::error::{HintExt, Result, anyhow, ensure};
use crate::data::{Sequence, TokenizedExample, TokenizedPair};
use crate::objective::{ClassCounts, Feedback};

/// Tokenized training data.
#[derive(Clone, Copy, Debug)]
pub enum TrainData<'a> {
    Paired(&'a [TokenizedPair]),
    Unpaired(&'a [TokenizedExample]),
}

/// The smallest thing that a step takes: a pair, or one completion.
#[derive(Clone, Debug, PartialEq)]
pub struct Unit {
    pub id: String,
    /// `[chosen, rejected]`, or one completion.
    pub sequences: Vec<Sequence>,
    /// Class of a single completion; true for a pair.
    pub desirable: bool,
}

impl Unit {
    /// Each sequence with its class.
    pub fn sides(&self) -> impl Iterator<Item = (&Sequence, bool)> {
        self.sequences.iter().enumerate().map(|(i, s)| (s, if i == 0 { self.desirable } else { false }))
    }

    /// Prompt and completion tokens, the prompt counted for each completion.
    pub fn tokens(&self) -> usize {
        self.sequences.iter().map(|s| s.ids.len()).sum()
    }
}

/// The data as `feedback` wants it: a pair gives a chosen and a rejected completion where single ones are
/// wanted, in this order; the undesirable are left out where only desirable ones are learned from.
///
/// # Errors
/// Pairs wanted of unpaired data; nothing left to train on.
pub fn units(data: TrainData<'_>, feedback: Feedback) -> Result<Vec<Unit>> {
    let single = |id: &str, sequence: &Sequence, desirable: bool| Unit {
        id: id.to_owned(),
        sequences: vec![sequence.clone()],
        desirable,
    };
    let units: Vec<Unit> = match (data, feedback) {
        (TrainData::Paired(pairs), Feedback::Paired) => pairs
            .iter()
            .map(|p| Unit {
                id: p.id.clone(),
                sequences: vec![p.chosen.clone(), p.rejected.clone()],
                desirable: true,
            })
            .collect(),
        (TrainData::Paired(pairs), Feedback::Unpaired) => pairs
            .iter()
            .flat_map(|p| [single(&p.id, &p.chosen, true), single(&p.id, &p.rejected, false)])
            .collect(),
        (_, Feedback::Prompts) => {
            return Err(anyhow!("the method draws its own samples; it does not train on given completions"));
        }
        (TrainData::Paired(pairs), Feedback::Completions) => {
            pairs.iter().map(|p| single(&p.id, &p.chosen, true)).collect()
        }
        (TrainData::Unpaired(_), Feedback::Paired) => {
            return Err(anyhow!("the method needs pairs, and the data has single completions with labels"))
                .hint(
                    "single labels do not say which completion of a prompt is better: use kto, bco or sft",
                );
        }
        (TrainData::Unpaired(examples), _) => examples
            .iter()
            .filter(|e| e.desirable || feedback == Feedback::Unpaired)
            .map(|e| single(&e.id, &e.sequence, e.desirable))
            .collect(),
    };
    ensure!(
        !units.is_empty(),
        "no training example is left for this method (an empty split, or no desirable one)"
    );
    Ok(units)
}

/// Completions of each class.
pub fn class_counts<'a>(units: impl IntoIterator<Item = &'a Unit>) -> ClassCounts {
    let mut counts = ClassCounts::default();
    for (_, desirable) in units.into_iter().flat_map(Unit::sides) {
        if desirable {
            counts.desirable += 1;
        } else {
            counts.undesirable += 1;
        }
    }
    counts
}
