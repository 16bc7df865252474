//! Contestants that ought to lose. A suite on which a constant answer wins measures something else than
//! quality (constant answers reach 86.5 % on AlpacaEval 2, length-controlled: arXiv 2410.07137).

use std::collections::BTreeMap;

use super::definition::OpponentKind;
use super::estimate;
use super::judge::{Judge, Match, Task};
use super::scored::{Game, SentinelScore};
use crate::base::error::Result;

/// Says the same whatever the prompt: the data's most frequent chosen completion (the first by the alphabet
/// among equals), or a refusal where the data has none.
const CONSTANT: &str = "constant";
/// Repeats the prompt.
const COPY: &str = "copy-prompt";
/// The longest of the base model's samples, whatever it was an answer to: long and beside the point.
const LONGEST: &str = "longest";
/// The starting checkpoint.
const BASE: &str = "base";

const REFUSAL: &str = " I am sorry, but I cannot help with that.";

/// Lets the sentinels play. `base` holds the starting checkpoint's sample of each task.
pub fn play(
    judge: &dyn Judge,
    base: &[(&Task, &str)],
    opponents: &[OpponentKind],
) -> Result<Vec<SentinelScore>> {
    let constant = most_frequent(base).unwrap_or(REFUSAL);
    let longest =
        base.iter().map(|(_, sample)| *sample).rev().max_by_key(|s| s.chars().count()).unwrap_or_default();
    let mut scores = Vec::new();
    for (sentinel, answer) in [
        (CONSTANT, &(|_: &Task, _: &str| constant.to_owned()) as &dyn Fn(&Task, &str) -> String),
        (COPY, &|task, _| task.prompt.clone()),
        (LONGEST, &|_, _| longest.to_owned()),
        (BASE, &|_, sample| sample.to_owned()),
    ] {
        for &opponent in opponents {
            if (sentinel, opponent) != (BASE, OpponentKind::Base) {
                scores.extend(against(judge, base, sentinel, opponent, answer)?);
            }
        }
    }
    Ok(scores)
}

fn against(
    judge: &dyn Judge,
    base: &[(&Task, &str)],
    sentinel: &'static str,
    opponent: OpponentKind,
    answer: &dyn Fn(&Task, &str) -> String,
) -> Result<Option<SentinelScore>> {
    let games: Vec<(&Task, String, &str)> = base
        .iter()
        .filter_map(|(task, sample)| {
            let baseline = match opponent {
                OpponentKind::Base => Some(*sample),
                OpponentKind::Chosen => task.answer.as_deref(),
            };
            baseline.map(|b| (*task, answer(task, sample), b))
        })
        .collect();
    let matches: Vec<Match> =
        games.iter().map(|(task, candidate, baseline)| Match { task, candidate, baseline }).collect();
    let outcomes = judge.compare(&matches)?;
    let valid: Vec<(f64, &str)> = outcomes
        .iter()
        .zip(&games)
        .filter_map(|(o, (task, ..))| o.preference.map(|p| (p, task.cluster.as_str())))
        .collect();
    if valid.is_empty() {
        return Ok(None);
    }
    let (values, clusters): (Vec<f64>, Vec<&str>) = valid.into_iter().unzip();
    let e = estimate::mean(&values, &clusters);
    let (win_rate, n, standard_error) = (e.value, e.n, e.standard_error);
    let games = matches.iter().zip(outcomes).map(|(m, outcome)| Game::of(m, outcome)).collect();
    Ok(Some(SentinelScore { sentinel, opponent, win_rate, n, standard_error, games }))
}

fn most_frequent<'a>(base: &[(&'a Task, &str)]) -> Option<&'a str> {
    let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
    for answer in base.iter().filter_map(|(task, _)| task.answer.as_deref()) {
        *counts.entry(answer).or_default() += 1;
    }
    counts.into_iter().rev().max_by_key(|(_, n)| *n).map(|(answer, _)| answer)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::suite::judge::Grade;

    /// A judge that loves length.
    struct Length;

    impl Judge for Length {
        fn grade(&self, _: &Task, completion: &str) -> Result<Grade> {
            Ok(Grade { reward: Some(completion.len() as f64), ..Grade::default() })
        }
    }

    fn task(prompt: &str, answer: &str) -> Task {
        let (id, cluster, prompt) = (prompt.to_owned(), prompt.to_owned(), prompt.to_owned());
        Task { id, cluster, prompt, answer: Some(answer.to_owned()), ..Task::default() }
    }

    #[test]
    fn a_judge_that_loves_length_is_found_out() {
        let tasks = [task("a long prompt", "yes"), task("b", "yes"), task("c", "not so sure")];
        let base: Vec<(&Task, &str)> = tasks.iter().zip(["base", "base, at length", "base"]).collect();
        let opponents = [OpponentKind::Base, OpponentKind::Chosen];
        let sentinels = play(&Length, &base, &opponents).unwrap();
        let rate = |name: &str, o| {
            sentinels.iter().find(|s| s.sentinel == name && s.opponent == o).unwrap().win_rate
        };
        // `yes` is the most frequent answer: shorter than `base`, equal twice and shorter once to the chosen.
        assert_eq!(rate("constant", OpponentKind::Base), 0.0);
        assert!((rate("constant", OpponentKind::Chosen) - 1.0 / 3.0).abs() < 1e-12);
        assert!((rate("copy-prompt", OpponentKind::Base) - 1.0 / 3.0).abs() < 1e-12);
        assert!((rate("longest", OpponentKind::Base) - 2.5 / 3.0).abs() < 1e-12, "it ties with itself");
        assert_eq!(sentinels.len(), 7, "the base does not play against itself");
    }
}
