//! The data model: examples as text, and as token ids.

use std::sync::Arc;

use serde::Serialize;

/// A prompt with two completions, one preferred.
#[derive(Clone, Debug, PartialEq)]
pub struct PreferencePair {
    /// Stable and unique within its data set: `<file name>:<line>` unless the row brings its own.
    pub id: String,
    pub prompt: String,
    pub chosen: String,
    pub rejected: String,
    /// A part of the data set that is reported on its own (`harmless`, a task kind); may be empty.
    pub subset: String,
}

/// A prompt with one completion and a label.
#[derive(Clone, Debug, PartialEq)]
pub struct UnpairedExample {
    pub id: String,
    pub prompt: String,
    pub completion: String,
    /// `true`: desirable; `false`: undesirable.
    pub desirable: bool,
    pub subset: String,
}

/// A data set as read.
#[derive(Clone, Debug, PartialEq)]
pub enum Dataset {
    Paired(Vec<PreferencePair>),
    Unpaired(Vec<UnpairedExample>),
}

/// Token ids of a prompt and its completion.
///
/// `ids = prompt ids ++ completion ids (with EOS, unless it was cut off)`; only completion tokens are
/// ever counted in a loss. Cut to the plan's `max_length` at the end, as TRL does.
#[derive(Clone, Debug, PartialEq)]
pub struct Sequence {
    pub ids: Arc<[u32]>,
    /// At least 1 and less than `ids.len()`: the first completion token needs a token before it.
    pub prompt_len: usize,
}

impl Sequence {
    pub fn prompt(&self) -> &[u32] {
        &self.ids[..self.prompt_len]
    }
    pub fn completion(&self) -> &[u32] {
        &self.ids[self.prompt_len..]
    }
    pub fn completion_len(&self) -> usize {
        self.ids.len() - self.prompt_len
    }
}

#[derive(Clone, Debug, PartialEq)]
pub struct TokenizedPair {
    pub id: String,
    pub subset: String,
    pub chosen: Sequence,
    pub rejected: Sequence,
}

#[derive(Clone, Debug, PartialEq)]
pub struct TokenizedExample {
    pub id: String,
    pub subset: String,
    pub sequence: Sequence,
    pub desirable: bool,
}

/// What tokenization kept and left out.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct TokenizeStats {
    pub examples: usize,
    /// Sequences that lost tokens (and so their EOS) to `max_length`.
    pub cut: usize,
    /// Examples dropped because the prompt alone fills `max_length`, or a completion has no token.
    pub dropped: usize,
    pub prompt_tokens: usize,
    pub completion_tokens: usize,
    /// Sequences whose prompt tokens change once the completion follows (a merge across the boundary).
    pub boundary_merges: usize,
}
