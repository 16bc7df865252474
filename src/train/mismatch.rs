//! KTO's mismatched completions, for z0.

use super::units::Unit;
use crate::base::error::{Result, ensure};
use crate::data::{Sequence, mismatched, reversed};
use crate::plan::Z0;

/// (n,) the prompt of each of the step's n examples with the completion of another, cut to `max_length`
/// tokens. Empty for [`Z0::Zero`], and for [`Z0::Reversed`]: see [`reversed_sequences`].
///
/// # Errors
/// Fewer than two different examples: the completion would be the prompt's own.
pub fn mismatched_sequences(units: &[&Unit], z0: Z0, max_length: usize) -> Result<Vec<Sequence>> {
    if matches!(z0, Z0::Zero | Z0::Reversed) {
        return Ok(vec![]);
    }
    ensure!(units.len() >= 2, "z0 needs a step of at least 2 examples, not {}", units.len());
    let takes = mismatched(units.len(), z0);
    let of = |i: usize| -> Result<Sequence> {
        // Where an epoch ends within a step, an example may be in it twice; it must not be given its own completion.
        let j = next_that_differs(&takes, i, |j| units[j] != units[i]);
        ensure!(
            j != i,
            "z0: a step that holds one example {} times has no mismatched completion",
            units.len()
        );
        Ok(joined(units[i], units[j], max_length))
    };
    (0..units.len()).map(of).collect()
}

/// As [`mismatched_sequences`] for samples, of which neighbours answer one prompt: sample p of a prompt takes sample p
/// (counted around) of the next, or previous, that is another prompt. A step of one prompt takes another sample of it.
///
/// # Errors
/// As [`mismatched_sequences`].
pub fn of_other_prompts(units: &[&Unit], z0: Z0, max_length: usize) -> Result<Vec<Sequence>> {
    let prompt = |unit: &Unit| unit.sequences[0].prompt().to_vec();
    let prompts: Vec<&[&Unit]> = units.chunk_by(|a, b| prompt(a) == prompt(b)).collect();
    if prompts.windows(2).all(|w| prompt(w[0][0]) == prompt(w[1][0])) {
        return mismatched_sequences(units, z0, max_length);
    }
    let takes = mismatched(prompts.len(), z0);
    let of = |g: usize| {
        let own = prompts[g];
        let others = prompts[next_that_differs(&takes, g, |j| prompt(prompts[j][0]) != prompt(own[0]))];
        own.iter().zip(others.iter().cycle()).map(|(own, other)| joined(own, other, max_length))
    };
    Ok((0..takes.len()).flat_map(of).collect())
}

/// The first place after `i`, in the order of `takes`, that `differs`; `i` where none does.
fn next_that_differs(takes: &[usize], i: usize, differs: impl Fn(usize) -> bool) -> usize {
    let mut j = takes[i];
    while j != i && !differs(j) {
        j = takes[j];
    }
    j
}

/// (n,) the prompt of each drawn unit with the completion of its fixed partner among `all` ([`reversed`]).
pub fn reversed_sequences(all: &[Unit], drawn: &[usize], max_length: usize) -> Vec<Sequence> {
    drawn.iter().map(|&i| joined(&all[i], &all[reversed(i, all.len())], max_length)).collect()
}

fn joined(own: &Unit, other: &Unit, max_length: usize) -> Sequence {
    let (own, other) = (&own.sequences[0], &other.sequences[0]);
    let ids = own.prompt().iter().chain(other.completion()).take(max_length).copied().collect();
    Sequence { ids, prompt_len: own.prompt_len }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn unit(tag: u32) -> Unit {
        let sequence = Sequence { ids: [tag, tag + 1, tag + 2, tag + 3].into(), prompt_len: 2 };
        Unit { id: tag.to_string(), sequences: vec![sequence], desirable: true }
    }

    fn ids(units: &[&Unit], z0: Z0, max_length: usize) -> Vec<Vec<u32>> {
        mismatched_sequences(units, z0, max_length).unwrap().iter().map(|s| s.ids.to_vec()).collect()
    }

    #[test]
    fn each_prompt_takes_its_neighbours_completion() {
        let (a, b, c) = (unit(10), unit(20), unit(30));
        let step = [&a, &b, &c];
        assert_eq!(ids(&step, Z0::Next, 9), [[10, 11, 22, 23], [20, 21, 32, 33], [30, 31, 12, 13]]);
        assert_eq!(ids(&step, Z0::Previous, 9), [[10, 11, 32, 33], [20, 21, 12, 13], [30, 31, 22, 23]]);
        assert_eq!(ids(&step, Z0::Next, 3), [[10, 11, 22], [20, 21, 32], [30, 31, 12]], "cut as the data is");
        assert!(ids(&step, Z0::Zero, 9).is_empty());
    }

    #[test]
    fn samples_take_the_completion_of_another_prompt() {
        let sample = |tag: u32, last: u32| {
            let sequences = vec![Sequence { ids: [tag, tag + 1, last].into(), prompt_len: 2 }];
            Unit { id: tag.to_string(), sequences, desirable: true }
        };
        let [a, b, c, d] = [sample(10, 1), sample(10, 2), sample(20, 3), sample(20, 4)];
        let of = |units: &[&Unit], z0| -> Vec<Vec<u32>> {
            of_other_prompts(units, z0, 9).unwrap().iter().map(|s| s.ids.to_vec()).collect()
        };
        let step = [&a, &b, &c, &d];
        for z0 in [Z0::Next, Z0::Previous] {
            assert_eq!(of(&step, z0), [[10, 11, 3], [10, 11, 4], [20, 21, 1], [20, 21, 2]], "each once");
        }
        let e = sample(30, 5);
        let uneven = [&a, &b, &c, &d, &e];
        assert_eq!(of(&uneven, Z0::Next), [[10, 11, 3], [10, 11, 4], [20, 21, 5], [20, 21, 5], [30, 31, 1]]);
        let again = [&a, &b, &c, &d, &a];
        assert_eq!(
            of(&again, Z0::Next),
            [[10, 11, 3], [10, 11, 4], [20, 21, 1], [20, 21, 1], [10, 11, 3]],
            "a prompt that comes again is no other one"
        );
        assert_eq!(of(&[&a, &b], Z0::Next), [[10, 11, 2], [10, 11, 1]], "one prompt: its own other sample");
        assert!(of(&step, Z0::Zero).is_empty());
        assert!(of_other_prompts(&[&a, &a], Z0::Next, 9).is_err());
    }

    #[test]
    fn an_example_that_stands_twice_in_a_step_never_gets_its_own_completion() {
        let (a, b) = (unit(10), unit(20));
        for step in [[&a, &a, &b], [&a, &b, &a], [&b, &a, &a]] {
            for z0 in [Z0::Next, Z0::Previous] {
                for (got, unit) in ids(&step, z0, 9).iter().zip(step) {
                    assert_ne!(got[..], unit.sequences[0].ids[..]);
                }
            }
        }
        assert!(mismatched_sequences(&[&a, &a], Z0::Next, 9).is_err());
        assert!(mismatched_sequences(&[&a], Z0::Next, 9).is_err());
    }
}
