//! From text to token ids, with the boundary between prompt and completion.
//!
//! The rule is TRL's (1.16) for plain text: the prompt is tokenized alone, and again with the completion; EOS is
//! appended once; the completion begins where the two sequences of ids stop agreeing. Sequences are cut at the end. TRL
//! appends nothing to a conversation; here one whose template ends it with another token than the tokenizer's EOS (ChatML
//! on a base Qwen2.5) gets EOS after that, where generation ends.

use rayon::prelude::*;

use crate::base::error::{HintExt, Result, anyhow};

use super::tokenizer::Tokenizer;
use super::types::{
    PreferencePair, Sequence, TokenizeStats, TokenizedExample, TokenizedPair, UnpairedExample,
};

/// Tokenizes pairs, in order; a pair is dropped if either side has nothing to learn from.
///
/// # Errors
/// If the tokenizer fails, or if every pair is dropped.
pub fn tokenize_pairs(
    pairs: &[PreferencePair],
    tokenizer: &Tokenizer,
    max_length: usize,
) -> Result<(Vec<TokenizedPair>, TokenizeStats)> {
    let tokenized = each(pairs, |pair| {
        let chosen = tokenize(&pair.prompt, &pair.chosen, tokenizer, max_length)?;
        let rejected = tokenize(&pair.prompt, &pair.rejected, tokenizer, max_length)?;
        Ok(chosen.zip(rejected))
    })?;
    let mut stats = TokenizeStats::default();
    let mut kept = Vec::with_capacity(pairs.len());
    for (pair, sides) in pairs.iter().zip(tokenized) {
        let Some((chosen, rejected)) = sides else {
            stats.dropped += 1;
            continue;
        };
        stats.count(&chosen);
        stats.count(&rejected);
        let (id, subset) = (pair.id.clone(), pair.subset.clone());
        kept.push(TokenizedPair { id, subset, chosen: chosen.sequence, rejected: rejected.sequence });
    }
    stats.examples = kept.len();
    check_any(kept, stats, max_length)
}

/// Tokenizes unpaired examples, in order.
///
/// # Errors
/// As [`tokenize_pairs`].
pub fn tokenize_unpaired(
    examples: &[UnpairedExample],
    tokenizer: &Tokenizer,
    max_length: usize,
) -> Result<(Vec<TokenizedExample>, TokenizeStats)> {
    let tokenized = each(examples, |e| tokenize(&e.prompt, &e.completion, tokenizer, max_length))?;
    let mut stats = TokenizeStats::default();
    let mut kept = Vec::with_capacity(examples.len());
    for (example, tokenized) in examples.iter().zip(tokenized) {
        let Some(tokenized) = tokenized else {
            stats.dropped += 1;
            continue;
        };
        stats.count(&tokenized);
        kept.push(TokenizedExample {
            id: example.id.clone(),
            subset: example.subset.clone(),
            sequence: tokenized.sequence,
            desirable: example.desirable,
        });
    }
    stats.examples = kept.len();
    check_any(kept, stats, max_length)
}

/// In parallel, order kept.
fn each<T: Sync, U: Send>(items: &[T], f: impl Fn(&T) -> Result<U> + Sync + Send) -> Result<Vec<U>> {
    items.par_iter().map(f).collect()
}

fn check_any<T>(kept: Vec<T>, stats: TokenizeStats, max_length: usize) -> Result<(Vec<T>, TokenizeStats)> {
    if kept.is_empty() && stats.dropped > 0 {
        return Err(anyhow!(
            "all {} examples were dropped: prompts fill max_length = {max_length}, or completions are empty",
            stats.dropped
        ))
        .hint("raise max_length (data.max_length in a plan, --max-length), or look at the data with `kto-eval data inspect`");
    }
    Ok((kept, stats))
}

/// A sequence, and what happened to it on the way.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Tokenized {
    pub sequence: Sequence,
    pub cut: bool,
    pub merged: bool,
}

impl TokenizeStats {
    pub(super) fn count(&mut self, tokenized: &Tokenized) {
        self.cut += usize::from(tokenized.cut);
        self.boundary_merges += usize::from(tokenized.merged);
        self.prompt_tokens += tokenized.sequence.prompt_len;
        self.completion_tokens += tokenized.sequence.completion_len();
    }
}

/// `None` where nothing is left to learn from: an empty completion, a prompt of no token (nothing predicts
/// the first one), or a prompt that fills `max_length`.
pub(super) fn tokenize(
    prompt: &str,
    completion: &str,
    tokenizer: &Tokenizer,
    max_length: usize,
) -> Result<Option<Tokenized>> {
    let alone = tokenizer.encode(prompt)?;
    let text = format!("{prompt}{completion}");
    let mut ids = tokenizer.encode(&text)?;
    let prompt_len = alone.iter().zip(&ids).take_while(|(a, b)| a == b).count();
    if prompt_len == 0 || ids.len() == prompt_len {
        return Ok(None);
    }
    let merged = prompt_len < alone.len();
    if !ends_with_eos(&ids[prompt_len..], tokenizer)? {
        ids.push(tokenizer.eos());
    }
    if prompt_len >= max_length {
        return Ok(None);
    }
    let cut = ids.len() > max_length;
    ids.truncate(max_length);
    Ok(Some(Tokenized { sequence: Sequence { ids: ids.into(), prompt_len }, cut, merged }))
}

/// Whether the completion brings EOS itself. Chat templates may put a line break after it.
fn ends_with_eos(completion: &[u32], tokenizer: &Tokenizer) -> Result<bool> {
    let Some(at) = completion.iter().rposition(|&id| id == tokenizer.eos()) else { return Ok(false) };
    Ok(tokenizer.decode_all(&completion[at + 1..])?.trim().is_empty())
}
