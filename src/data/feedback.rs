//! Less, rarer and poorer feedback than a data set holds: `[data.feedback]` of a plan.
//!
//! Every draw belongs to an example and a named stream, so that a smaller share is a subset of a larger one, a lower
//! flip rate flips a subset of what a higher one flips, and one treatment never moves another's draws.

use std::collections::{BTreeMap, BTreeSet};

use rand::RngExt;
use rand::seq::SliceRandom;

use super::heldout::prompts;
use super::types::{Dataset, PreferencePair, UnpairedExample};
use crate::base::error::{HintExt, Result, anyhow};
use crate::base::seed;
use crate::plan::FeedbackSpec;

/// A data set after its treatment, and what that did.
#[derive(Clone, Debug, PartialEq)]
pub struct Treated {
    pub dataset: Dataset,
    /// Labels kept of those there were: pairs, or labelled completions.
    pub labels: usize,
    pub notes: Vec<String>,
}

/// Flips labels, keeps a share of them, keeps one completion a prompt, thins out a class: in this order, each where
/// the plan asks for it. Examples stay in the data set's order.
///
/// # Errors
/// A class that is to be thinned out in proportion to one that is empty.
pub fn treat(dataset: Dataset, spec: &FeedbackSpec) -> Result<Treated> {
    let (all, mut notes) = (dataset.len(), vec![]);
    let mut dataset = dataset;
    if spec.flip > 0.0 {
        let flipped = flip(&mut dataset, spec);
        notes.push(format!("{flipped} of {all} labels flipped"));
    }
    if spec.fraction < 1.0 {
        dataset = keep_share(dataset, spec);
        notes.push(format!("{} of {all} labels kept", dataset.len()));
    }
    let labels = dataset.len();
    if spec.one_completion {
        dataset = one_completion(dataset, spec);
        notes.push(format!("one completion a prompt: {} are left", dataset.len()));
    }
    if spec.imbalance > 0.0 {
        dataset = thin_out(dataset, spec)?;
        let (desirable, undesirable) = classes(&dataset);
        notes.push(format!("{desirable} desirable and {undesirable} undesirable completions are left"));
    }
    let labels = if spec.one_completion || spec.imbalance > 0.0 { dataset.len() } else { labels };
    Ok(Treated { dataset, labels, notes })
}

fn flip(dataset: &mut Dataset, spec: &FeedbackSpec) -> usize {
    let flips = |i: usize| seed::rng_at(spec.seed, "feedback/flip", i as u64).random::<f64>() < spec.flip;
    let which: Vec<usize> = (0..dataset.len()).filter(|&i| flips(i)).collect();
    match dataset {
        Dataset::Paired(pairs) => {
            for &i in &which {
                let PreferencePair { chosen, rejected, .. } = &mut pairs[i];
                std::mem::swap(chosen, rejected);
            }
        }
        Dataset::Unpaired(examples) => which.iter().for_each(|&i| examples[i].desirable ^= true),
    }
    which.len()
}

/// How many of n a share is: at least one.
fn share(n: usize, fraction: f64) -> usize {
    ((n as f64 * fraction).round() as usize).clamp(1.min(n), n)
}

/// The first `count` of a seeded permutation of `candidates`, as a set: nested in `count`.
fn drawn(mut candidates: Vec<usize>, count: usize, seed: u64, stream: &str) -> BTreeSet<usize> {
    candidates.shuffle(&mut seed::rng(seed, stream));
    candidates.into_iter().take(count).collect()
}

fn keep_share(dataset: Dataset, spec: &FeedbackSpec) -> Dataset {
    let n = dataset.len();
    let kept = drawn((0..n).collect(), share(n, spec.fraction), spec.seed, "feedback/fraction");
    only(dataset, &kept)
}

pub(super) fn only(dataset: Dataset, kept: &BTreeSet<usize>) -> Dataset {
    fn pick<T>(items: Vec<T>, kept: &BTreeSet<usize>) -> Vec<T> {
        items.into_iter().enumerate().filter(|(i, _)| kept.contains(i)).map(|(_, item)| item).collect()
    }
    match dataset {
        Dataset::Paired(pairs) => Dataset::Paired(pick(pairs, kept)),
        Dataset::Unpaired(examples) => Dataset::Unpaired(pick(examples, kept)),
    }
}

fn unpaired(dataset: Dataset) -> Vec<UnpairedExample> {
    match dataset.to_unpaired() {
        Dataset::Unpaired(examples) => examples,
        Dataset::Paired(_) => unreachable!("to_unpaired gives single completions"),
    }
}

/// One completion of each prompt. The draw belongs to the prompt's text, so that it is the same whatever else is kept.
fn one_completion(dataset: Dataset, spec: &FeedbackSpec) -> Dataset {
    let examples = unpaired(dataset);
    let mut by_prompt: BTreeMap<&str, Vec<usize>> = BTreeMap::new();
    for (i, example) in examples.iter().enumerate() {
        by_prompt.entry(&example.prompt).or_default().push(i);
    }
    let pick = |(prompt, of): (&&str, &Vec<usize>)| {
        of[seed::rng(spec.seed, &format!("feedback/side/{prompt}")).random_range(0..of.len())]
    };
    let kept: BTreeSet<usize> = by_prompt.iter().map(pick).collect();
    only(Dataset::Unpaired(examples), &kept)
}

fn classes(dataset: &Dataset) -> (usize, usize) {
    match dataset {
        Dataset::Paired(pairs) => (pairs.len(), pairs.len()),
        Dataset::Unpaired(examples) => {
            let desirable = examples.iter().filter(|e| e.desirable).count();
            (desirable, examples.len() - desirable)
        }
    }
}

/// Drops completions of the class that is too many until there are `imbalance` desirable to each undesirable one.
fn thin_out(dataset: Dataset, spec: &FeedbackSpec) -> Result<Dataset> {
    let examples = unpaired(dataset);
    let of_class =
        |class: bool| (0..examples.len()).filter(|&i| examples[i].desirable == class).collect::<Vec<_>>();
    let (desirable, undesirable) = (of_class(true), of_class(false));
    let (d, u) = (desirable.len(), undesirable.len());
    if d == 0 || u == 0 {
        return Err(anyhow!(
            "data.feedback.imbalance: there are {d} desirable and {u} undesirable completions"
        ))
        .hint("a ratio of the classes takes data with both; leave `imbalance` out");
    }
    let ratio = spec.imbalance;
    let (keep_d, keep_u) = if (d as f64) < ratio * u as f64 {
        (d, share(u, d as f64 / ratio / u as f64))
    } else {
        (share(d, ratio * u as f64 / d as f64), u)
    };
    let mut kept = drawn(desirable, keep_d, spec.seed, "feedback/desirable");
    kept.extend(drawn(undesirable, keep_u, spec.seed, "feedback/undesirable"));
    Ok(only(Dataset::Unpaired(examples), &kept))
}

/// A validation split: a seeded share of the prompts with all that belongs to them, at least one prompt in it and one
/// out of it.
///
/// # Errors
/// Fewer than two different prompts.
pub fn split_prompts(dataset: Dataset, validation: f64, seed: u64) -> Result<Dataset> {
    let distinct: Vec<&str> = prompts(&dataset).collect::<BTreeSet<_>>().into_iter().collect();
    if distinct.len() < 2 {
        return Err(anyhow!(
            "{} different prompts cannot be split into training and validation",
            distinct.len()
        ));
    }
    let count = share(distinct.len(), validation).min(distinct.len() - 1);
    let held = drawn((0..distinct.len()).collect(), count, seed, "tune/validation");
    let held: BTreeSet<&str> = held.into_iter().map(|i| distinct[i]).collect();
    let rows = rows_where(&dataset, |prompt| held.contains(prompt));
    Ok(only(dataset, &rows))
}

/// What a data set has beside some prompts.
pub fn without(dataset: Dataset, left_out: &BTreeSet<&str>) -> Dataset {
    let rows = rows_where(&dataset, |prompt| !left_out.contains(prompt));
    only(dataset, &rows)
}

fn rows_where(dataset: &Dataset, wanted: impl Fn(&str) -> bool) -> BTreeSet<usize> {
    prompts(dataset).enumerate().filter(|(_, prompt)| wanted(prompt)).map(|(i, _)| i).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pairs(n: usize) -> Dataset {
        let pair = |i: usize| PreferencePair {
            id: i.to_string(),
            prompt: format!("prompt {}", i % (n - n / 10)),
            chosen: format!("good {i}"),
            rejected: format!("bad {i}"),
            subset: String::new(),
        };
        Dataset::Paired((0..n).map(pair).collect())
    }

    fn ids(dataset: &Dataset) -> BTreeSet<String> {
        match dataset {
            Dataset::Paired(pairs) => pairs.iter().map(|p| p.id.clone()).collect(),
            Dataset::Unpaired(examples) => examples.iter().map(|e| e.id.clone()).collect(),
        }
    }

    fn treated(spec: FeedbackSpec) -> Dataset {
        treat(pairs(400), &spec).unwrap().dataset
    }

    #[test]
    fn nothing_asked_nothing_done() {
        let result = treat(pairs(50), &FeedbackSpec::default()).unwrap();
        assert_eq!((result.dataset, result.labels, result.notes), (pairs(50), 50, vec![]));
    }

    #[test]
    fn smaller_shares_are_subsets_of_larger_ones_and_have_their_size() {
        let mut larger = ids(&pairs(400));
        for (fraction, count) in [(0.5, 200), (0.1, 40), (0.03, 12), (0.0001, 1)] {
            let kept = ids(&treated(FeedbackSpec { fraction, ..FeedbackSpec::default() }));
            assert_eq!(kept.len(), count);
            assert!(kept.is_subset(&larger), "{fraction}");
            larger = kept;
        }
        let at = |seed| ids(&treated(FeedbackSpec { fraction: 0.5, seed, ..FeedbackSpec::default() }));
        assert_ne!(at(0), at(1));
        assert_eq!(at(1), at(1));
    }

    #[test]
    fn flips_are_nested_and_near_their_rate_and_do_not_move_with_the_share() {
        let flipped = |spec: FeedbackSpec| -> BTreeSet<String> {
            let Dataset::Paired(pairs) = treated(spec) else { panic!() };
            pairs.iter().filter(|p| p.chosen.starts_with("bad")).map(|p| p.id.clone()).collect()
        };
        let at = |flip| flipped(FeedbackSpec { flip, ..FeedbackSpec::default() });
        let (few, many) = (at(0.1), at(0.4));
        assert!(few.is_subset(&many));
        // Binomial(400, p): five standard deviations.
        assert!((few.len() as f64 - 40.0).abs() < 30.0 && (many.len() as f64 - 160.0).abs() < 49.0);
        let half = FeedbackSpec { flip: 0.4, fraction: 0.5, ..FeedbackSpec::default() };
        let kept = ids(&treated(FeedbackSpec { flip: 0.0, ..half.clone() }));
        assert_eq!(flipped(half), many.intersection(&kept).cloned().collect());
    }

    #[test]
    fn one_completion_a_prompt_leaves_each_prompt_once() {
        let Dataset::Unpaired(left) =
            treated(FeedbackSpec { one_completion: true, ..FeedbackSpec::default() })
        else {
            panic!("single completions are no pairs")
        };
        let prompts: BTreeSet<&str> = left.iter().map(|e| e.prompt.as_str()).collect();
        assert_eq!((left.len(), prompts.len()), (360, 360), "40 prompts stand twice in the data");
        let desirable = left.iter().filter(|e| e.desirable).count() as f64;
        assert!((desirable - 180.0).abs() < 50.0, "either side is as likely: {desirable}");
    }

    #[test]
    fn classes_come_out_in_the_ratio_that_was_asked_for() {
        for (imbalance, want) in [(10.0, (400, 40)), (0.1, (40, 400)), (1.0, (400, 400)), (2.5, (400, 160))] {
            let spec = FeedbackSpec { imbalance, ..FeedbackSpec::default() };
            assert_eq!(classes(&treated(spec)), want, "{imbalance}");
        }
        let both = FeedbackSpec { imbalance: 4.0, fraction: 0.5, ..FeedbackSpec::default() };
        assert_eq!(classes(&treated(both)), (200, 50));
        let one_class = Dataset::Unpaired(unpaired(pairs(20)).into_iter().filter(|e| e.desirable).collect());
        let spec = FeedbackSpec { imbalance: 4.0, ..FeedbackSpec::default() };
        assert!(treat(one_class, &spec).unwrap_err().to_string().contains("20 desirable and 0 undesirable"));
    }

    #[test]
    fn a_validation_split_shares_no_prompt_with_training() {
        let validation = split_prompts(pairs(400), 0.1, 3).unwrap();
        let b: BTreeSet<&str> = prompts(&validation).collect();
        let training = without(pairs(400), &b);
        assert!(prompts(&training).all(|prompt| !b.contains(prompt)));
        assert_eq!((b.len(), training.len() + validation.len()), (36, 400));
        assert!(split_prompts(Dataset::Paired(vec![]), 0.1, 0).is_err());
    }
}
