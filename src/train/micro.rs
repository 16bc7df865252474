//! Units packed into micro-batches, and log-probs taken apart again.

use super::units::Unit;
use crate::data::Sequence;
use crate::model::{Packed, Read};
use std::ops::Range;

/// Some units of a step, packed.
pub struct Micro {
    pub packed: Packed,
    /// Which of the step's units.
    pub units: Range<usize>,
    /// For each packed sequence: whether it stands for a prompt's tokens rather than a completion's.
    prompt: Vec<bool>,
}

/// Cuts a step into micro-batches of at most `micro_tokens` computed tokens (a longer unit goes alone). Neighbours
/// with the same prompt share it.
///
/// With `prompts`, the tokens of each unit's prompt are read too, as a sequence of their own after the
/// unit's completions, and each unit has its own.
pub fn micros(units: &[&Unit], micro_tokens: usize, prompts: bool) -> Vec<Micro> {
    ranges(units, micro_tokens, !prompts).into_iter().map(|range| Micro::of(units, range, prompts)).collect()
}

/// The units of each micro-batch.
fn ranges(units: &[&Unit], micro_tokens: usize, share: bool) -> Vec<Range<usize>> {
    let (mut ranges, mut taken): (Vec<Range<usize>>, usize) = (Vec::new(), 0);
    for (i, unit) in units.iter().enumerate() {
        let alone = computed_tokens(unit);
        let shared = if share && i > 0 { shared_prompt(units[i - 1], unit) } else { 0 };
        match ranges.last_mut() {
            Some(range) if taken + alone - shared <= micro_tokens => {
                range.end = i + 1;
                taken += alone - shared;
            }
            _ => {
                ranges.push(i..i + 1);
                taken = alone;
            }
        }
    }
    ranges
}

/// Tokens of the prompt with which one unit ends and the next begins.
fn shared_prompt(unit: &Unit, next: &Unit) -> usize {
    match (unit.sequences.last(), next.sequences.first()) {
        (Some(a), Some(b)) if a.prompt() == b.prompt() => a.prompt_len,
        _ => 0,
    }
}

/// As [`micros`], with one read a sequence, where a reward model's score stands.
pub fn scored_micros(units: &[&Unit], micro_tokens: usize, pad: Option<u32>) -> Vec<Micro> {
    let micro = |range: Range<usize>| {
        let mut packed = Packed::default();
        units[range.clone()].iter().for_each(|u| push_scored_unit(&mut packed, u, pad));
        Micro { prompt: vec![false; packed.sequences], packed, units: range }
    };
    ranges(units, micro_tokens, false).into_iter().map(micro).collect()
}

/// Adds a unit as [`push_units`] does, with the reads of scores.
pub fn push_scored_unit(packed: &mut Packed, unit: &Unit, pad: Option<u32>) {
    let sequences: Vec<&Sequence> = unit.sequences.iter().collect();
    for group in sequences.chunk_by(|a, b| a.prompt() == b.prompt()) {
        packed.push_scored(group, pad);
    }
}

/// Sequences in packed batches of at most `tokens` tokens, in order; neighbours with the same prompt share
/// it. Sequence i of the batches, counted through, is `sequences[i]`.
pub fn packs(sequences: &[&Sequence], tokens: usize) -> Vec<Packed> {
    let mut packs: Vec<Packed> = Vec::new();
    for group in sequences.chunk_by(|a, b| a.prompt() == b.prompt()) {
        if packs.last().is_none_or(|p| p.ids.len() + group_tokens(group) > tokens) {
            packs.push(Packed::default());
        }
        packs.last_mut().expect("one was pushed if there was none").push_group(group);
    }
    packs
}

/// Adds units; neighbouring completions share the prompt unless tokenization tied it to one of them.
pub fn push_units<'a>(packed: &mut Packed, units: impl IntoIterator<Item = &'a Unit>) {
    let sequences: Vec<&Sequence> = units.into_iter().flat_map(|u| &u.sequences).collect();
    for group in sequences.chunk_by(|a, b| a.prompt() == b.prompt()) {
        packed.push_group(group);
    }
}

/// (n,) sums of per-read values over the reads of each sequence.
pub fn sums(packed: &Packed, values: &[f64]) -> Vec<f64> {
    let mut sums = vec![0.0; packed.sequences];
    for (read, value) in packed.reads.iter().zip(values) {
        sums[read.sequence as usize] += value;
    }
    sums
}

/// Tokens that a unit takes in a packed batch: a shared prompt once.
fn computed_tokens(unit: &Unit) -> usize {
    let sequences: Vec<&Sequence> = unit.sequences.iter().collect();
    sequences.chunk_by(|a, b| a.prompt() == b.prompt()).map(group_tokens).sum()
}

fn group_tokens(group: &[&Sequence]) -> usize {
    let completions: usize = group.iter().map(|s| s.completion_len()).sum();
    group.first().map_or(0, |s| s.prompt_len) + completions
}

impl Micro {
    fn of(units: &[&Unit], range: Range<usize>, prompts: bool) -> Self {
        let mut micro = Self { packed: Packed::default(), units: range.clone(), prompt: Vec::new() };
        match prompts {
            true => units[range].iter().for_each(|unit| micro.push_with_prompt(unit)),
            false => {
                push_units(&mut micro.packed, units[range].iter().copied());
                micro.prompt = vec![false; micro.packed.sequences];
            }
        }
        micro
    }

    fn push_with_prompt(&mut self, unit: &Unit) {
        let start = self.packed.ids.len();
        push_units(&mut self.packed, [unit]);
        self.prompt.extend(unit.sequences.iter().map(|_| false));
        if let Some(first) = unit.sequences.first() {
            let sequence = self.packed.sequences as u32;
            for (i, &target) in first.prompt().iter().enumerate().skip(1) {
                self.packed.reads.push(Read { row: (start + i - 1) as u32, target, sequence });
            }
            self.packed.sequences += 1;
            self.prompt.push(true);
        }
    }

    /// Sums over completions and sums over prompts, of per-read values.
    pub fn split(&self, values: &[f64]) -> (Vec<f64>, Vec<f64>) {
        let (mut completions, mut prompts) = (vec![], vec![]);
        for (sum, &prompt) in sums(&self.packed, values).into_iter().zip(&self.prompt) {
            if prompt { prompts.push(sum) } else { completions.push(sum) }
        }
        (completions, prompts)
    }

    /// (r,) the gradient of each read from those of the sums.
    pub fn spread(&self, completions: &[f64], prompts: &[f64]) -> Vec<f64> {
        let (mut completions, mut prompts) = (completions.iter(), prompts.iter());
        let per_sequence: Vec<f64> = self
            .prompt
            .iter()
            .map(|&prompt| *if prompt { prompts.next() } else { completions.next() }.unwrap_or(&0.0))
            .collect();
        self.packed.reads.iter().map(|r| per_sequence[r.sequence as usize]).collect()
    }

    /// Completion tokens that are read: what the ledger must say.
    pub fn completion_reads(&self) -> u64 {
        self.packed.reads.iter().filter(|r| !self.prompt[r.sequence as usize]).count() as u64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sequence(prompt: &[u32], completion: &[u32]) -> Sequence {
        Sequence { ids: [prompt, completion].concat().into(), prompt_len: prompt.len() }
    }

    fn pair() -> Unit {
        of_prompt(&[1, 2, 3])
    }

    fn of_prompt(prompt: &[u32]) -> Unit {
        let sequences = vec![sequence(prompt, &[4, 5]), sequence(prompt, &[6, 7, 8])];
        Unit { id: "p".into(), sequences, desirable: true }
    }

    #[test]
    fn micro_batches_hold_what_fits_and_a_long_unit_goes_alone() {
        let units = [pair(), of_prompt(&[1, 2, 9]), pair()];
        let units: Vec<&Unit> = units.iter().collect();
        let ranges = |tokens| micros(&units, tokens, false).into_iter().map(|m| m.units).collect::<Vec<_>>();
        assert_eq!(ranges(16), [0..2, 2..3], "a pair takes 3 + 2 + 3 tokens");
        assert_eq!(ranges(1), [0..1, 1..2, 2..3]);
        assert_eq!(ranges(1000).len(), 1);
        let micro = &micros(&units, 16, false)[0];
        assert_eq!(micro.packed.ids.len(), 16);
        assert_eq!(micro.completion_reads(), 10);
    }

    #[test]
    fn neighbours_with_the_same_prompt_share_it() {
        let units = [pair(), pair(), of_prompt(&[9, 2, 3]), pair()];
        let units: Vec<&Unit> = units.iter().collect();
        let ranges = |tokens| micros(&units, tokens, false).into_iter().map(|m| m.units).collect::<Vec<_>>();
        assert_eq!(ranges(13), [0..2, 2..3, 3..4], "two pairs of one prompt take 3 + 2·5 tokens");
        assert_eq!(ranges(21), [0..3, 3..4]);
        let micro = &micros(&units, 21, false)[0];
        assert_eq!((micro.packed.ids.len(), micro.packed.sequences), (21, 6));
        assert_eq!(micro.completion_reads(), 15);
        let targets: Vec<u32> = micro.packed.reads.iter().map(|r| r.target).collect();
        assert_eq!(targets, [4, 5, 6, 7, 8].repeat(3), "in the order of the units");
    }

    #[test]
    fn prompts_are_read_once_a_pair_and_never_mixed_with_completions() {
        let unit = pair();
        let micro = &micros(&[&unit, &unit], 100, true)[0];
        let targets: Vec<u32> = micro.packed.reads.iter().map(|r| r.target).collect();
        assert_eq!(targets, [4, 5, 6, 7, 8, 2, 3, 4, 5, 6, 7, 8, 2, 3]);
        for read in &micro.packed.reads {
            // Each target follows its row's token in the data: 1 → 2, 2 → 3, 3 → 4 or 6, …
            let before = micro.packed.ids[read.row as usize];
            assert!(
                before + 1 == read.target || (before == 3 && read.target == 6),
                "{read:?} after {before}"
            );
        }
        let values: Vec<f64> = targets.iter().map(|&t| f64::from(t)).collect();
        assert_eq!(micro.split(&values), (vec![9.0, 21.0, 9.0, 21.0], vec![5.0, 5.0]));
        assert_eq!(micro.completion_reads(), 10);
        let spread = micro.spread(&[0.1, 0.2, 0.3, 0.4], &[5.0, 6.0]);
        assert_eq!(spread[..7], [0.1, 0.1, 0.2, 0.2, 0.2, 5.0, 5.0]);
        assert_eq!(spread[12..], [6.0, 6.0]);
    }
}
