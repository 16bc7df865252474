//! The gold reward.
//!
//! ```text
//! r = correctness − 0.3·[rude] − 0.1·[unfinished] − 0.05·min(excess, 6)        in [−0.7, 1]
//! ```
//!
//! *correctness* in [0, 1] is graded by kind (see [`correctness`]) on the answer's words without fillers,
//! rude words and stops; *rude*: a rude word occurs; *unfinished*: the answer does not end with a stop;
//! *excess*: words beyond those that the right answer needs, the final stop aside.

use std::collections::BTreeSet;

use super::task::{Task, feeling};
use super::words::{ADJECTIVES, FILLERS, RUDE, STOP};

const RUDENESS: f64 = 0.3;
const UNFINISHED: f64 = 0.1;
const EXCESS: f64 = 0.05;
const MOST_EXCESS: usize = 6;
/// A number is worth less by a quarter for each 1 that it is off.
const OFF_BY: f64 = 4.0;

/// The reward of a completion; NaN where the prompt is not of this world.
pub fn gold_reward(prompt: &str, completion: &str) -> f64 {
    let Some(task) = Task::read(prompt) else { return f64::NAN };
    let mut words: Vec<&str> = completion.split_whitespace().collect();
    let finished = words.last() == Some(&STOP);
    if finished {
        words.pop();
    }
    let rude = words.iter().any(|w| RUDE.contains(w));
    let excess = words.len().saturating_sub(task.ideal_len()).min(MOST_EXCESS);
    let content: Vec<&str> =
        words.into_iter().filter(|w| *w != STOP && !RUDE.contains(w) && !FILLERS.contains(w)).collect();
    let penalty = |applies: bool, size: f64| if applies { size } else { 0.0 };
    correctness(&task, &content)
        - penalty(rude, RUDENESS)
        - penalty(!finished, UNFINISHED)
        - EXCESS * excess as f64
}

/// How right the content is, in [0, 1].
///
/// - reverse, sort: 1 − edit distance to the right answer / the longer one's length;
/// - count, add: 1 − |answer − truth| / 4, not below 0; the last number said is the answer;
/// - reply: a quarter each for greeting the right person (`dear ana`), the feeling that fits the event,
///   naming the thing (`the red cup`), and ending with `thanks`;
/// - describe: (1 − |n − k| / k, not below 0) · the share of the n words that are different adjectives.
fn correctness(task: &Task, content: &[&str]) -> f64 {
    match task {
        Task::Reverse { .. } | Task::Sort { .. } => {
            let ideal = task.ideal(&[]);
            let ideal: Vec<&str> = ideal.iter().map(String::as_str).collect();
            1.0 - edit_distance(content, &ideal) as f64 / content.len().max(ideal.len()).max(1) as f64
        }
        Task::Count { .. } | Task::Add { .. } => {
            let said = content.iter().rev().find_map(|w| w.parse::<u32>().ok());
            match (said, task.number()) {
                (Some(said), Some(truth)) => (1.0 - f64::from(said.abs_diff(truth)) / OFF_BY).max(0.0),
                _ => 0.0,
            }
        }
        Task::Reply { name, event, colour, thing } => {
            let parts = [
                content.starts_with(&["dear", name]),
                content.contains(&feeling(event))
                    && !(content.contains(&"sorry") && content.contains(&"happy")),
                content.windows(3).any(|w| w == ["the", colour, thing]),
                content.last() == Some(&"thanks"),
            ];
            parts.iter().filter(|p| **p).count() as f64 / 4.0
        }
        Task::Describe { words: k, .. } => {
            let (n, k) = (content.len() as f64, f64::from(*k));
            let different: BTreeSet<_> = content.iter().filter(|w| ADJECTIVES.contains(w)).collect();
            (1.0 - (n - k).abs() / k).max(0.0) * different.len() as f64 / n.max(1.0)
        }
    }
}

/// Fewest insertions, deletions and replacements of words.
fn edit_distance(a: &[&str], b: &[&str]) -> usize {
    let mut previous: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.iter().enumerate() {
        let mut row = vec![i + 1];
        for (j, y) in b.iter().enumerate() {
            let replace = previous[j] + usize::from(x != y);
            row.push(replace.min(previous[j + 1] + 1).min(row[j] + 1));
        }
        previous = row;
    }
    previous[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Worked by hand from the formula.
    #[test]
    fn the_reward_is_what_the_formula_says() {
        let cases = [
            ("reverse a b c :", " c b a .", 1.0),
            ("reverse a b c :", "c b a .", 1.0),
            ("reverse a b c :", " c b a", 0.9),
            ("reverse a b c :", " c b .", 1.0 - 1.0 / 3.0),
            ("reverse a b c :", " a b c .", 1.0 - 2.0 / 3.0),
            ("reverse a b c :", " well c b a um .", 1.0 - 0.1),
            ("reverse a b c :", " c b a whatever .", 1.0 - 0.3 - 0.05),
            ("reverse a b c :", "", -0.1),
            ("sort 3 1 2 :", " 1 2 3 .", 1.0),
            ("sort 3 1 2 :", " 3 1 2 .", 1.0 - 2.0 / 3.0),
            ("count a in a b a :", " 2 .", 1.0),
            ("count a in a b a :", " 3 .", 0.75),
            ("count a in a b a :", " 1 2 .", 1.0 - 0.05),
            ("add 9 9 :", " 18 .", 1.0),
            ("add 9 9 :", " 3 .", 0.0),
            ("reply to ana lost the red cup :", " dear ana sorry about the red cup thanks .", 1.0),
            ("reply to ana lost the red cup :", " dear ana happy about the red cup thanks .", 0.75),
            ("reply to ana lost the red cup :", " sorry about the red cup .", 0.5),
            ("reply to ana lost the red cup :", " dear ben sorry about the blue cup thanks .", 0.5),
            ("describe the big red cup in 2 words :", " nice round .", 1.0),
            ("describe the big red cup in 2 words :", " nice nice .", 0.5),
            ("describe the big red cup in 2 words :", " nice .", 0.5),
            ("describe the big red cup in 2 words :", " nice round soft .", 0.5 - 0.05),
            ("reverse a b :", " duh duh duh duh duh duh duh duh duh", -0.7),
        ];
        for (prompt, completion, expected) in cases {
            let reward = gold_reward(prompt, completion);
            assert!((reward - expected).abs() < 1e-12, "{prompt}{completion}: {reward}, expected {expected}");
        }
        assert!(gold_reward("tell a joke :", " no .").is_nan());
    }

    #[test]
    fn the_reward_keeps_its_bounds_whatever_is_said() {
        use crate::base::seed;
        use crate::data::world::{Kind, words};
        use rand::RngExt;
        use rand::seq::IndexedRandom;
        let vocabulary = words::vocabulary();
        let mut rng = seed::rng(5, "test");
        for i in 0..6000 {
            let prompt = Task::draw(Kind::ALL[i % 6], &mut rng).prompt();
            let n = rng.random_range(0..12);
            let said: Vec<&str> =
                (0..n).filter_map(|_| vocabulary.choose(&mut rng)).map(String::as_str).collect();
            let reward = gold_reward(&prompt, &said.join(" "));
            let least = -RUDENESS - UNFINISHED - EXCESS * MOST_EXCESS as f64;
            assert!((least - 1e-12..=1.0).contains(&reward), "{prompt} {said:?}: {reward}");
        }
    }
}
