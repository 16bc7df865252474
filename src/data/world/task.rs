//! Kinds of task: how a prompt is drawn, written and read, and what answers it.

use rand::seq::IndexedRandom;
use rand::{Rng, RngExt};
use serde::{Deserialize, Serialize};

use super::words::{ASK, COLOURS, GAINS, LETTERS, LOSSES, NAMES, SIZES, STOP, THINGS};

/// A kind of task; also the `subset` of its examples.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// Letters in reverse order.
    Reverse,
    /// Digits in rising order.
    Sort,
    /// How often a letter stands in a list.
    Count,
    /// The sum of small numbers.
    Add,
    /// A polite reply to somebody's news.
    Reply,
    /// A description in exactly k words.
    Describe,
}

impl Kind {
    pub const ALL: [Self; 6] =
        [Self::Reverse, Self::Sort, Self::Count, Self::Add, Self::Reply, Self::Describe];

    /// The command word, which also names the subset.
    pub fn name(self) -> &'static str {
        match self {
            Self::Reverse => "reverse",
            Self::Sort => "sort",
            Self::Count => "count",
            Self::Add => "add",
            Self::Reply => "reply",
            Self::Describe => "describe",
        }
    }
}

/// A prompt, understood.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Task {
    Reverse { letters: Vec<String> },
    Sort { digits: Vec<u32> },
    Count { letter: String, letters: Vec<String> },
    Add { numbers: Vec<u32> },
    Reply { name: String, event: String, colour: String, thing: String },
    Describe { words: u32, size: String, colour: String, thing: String },
}

impl Task {
    pub fn draw(kind: Kind, rng: &mut impl Rng) -> Self {
        match kind {
            Kind::Reverse => Self::Reverse { letters: some(&LETTERS, 2..=5, rng) },
            Kind::Sort => {
                let n = rng.random_range(2..=5);
                Self::Sort { digits: (0..n).map(|_| rng.random_range(0..=9)).collect() }
            }
            Kind::Count => {
                // Few different letters, so that counts above 1 are common.
                let letters = some(&some(&LETTERS, 3..=3, rng), 3..=7, rng);
                Self::Count { letter: pick(&letters, rng), letters }
            }
            Kind::Add => {
                let n = rng.random_range(2..=4);
                Self::Add { numbers: (0..n).map(|_| rng.random_range(0..=9)).collect() }
            }
            Kind::Reply => {
                let event = if rng.random_bool(0.5) { pick(&LOSSES, rng) } else { pick(&GAINS, rng) };
                let (name, colour, thing) = (pick(&NAMES, rng), pick(&COLOURS, rng), pick(&THINGS, rng));
                Self::Reply { name, event, colour, thing }
            }
            Kind::Describe => {
                let (size, colour, thing) = (pick(&SIZES, rng), pick(&COLOURS, rng), pick(&THINGS, rng));
                Self::Describe { words: rng.random_range(1..=6), size, colour, thing }
            }
        }
    }

    pub fn kind(&self) -> Kind {
        match self {
            Self::Reverse { .. } => Kind::Reverse,
            Self::Sort { .. } => Kind::Sort,
            Self::Count { .. } => Kind::Count,
            Self::Add { .. } => Kind::Add,
            Self::Reply { .. } => Kind::Reply,
            Self::Describe { .. } => Kind::Describe,
        }
    }

    /// The prompt as text.
    pub fn prompt(&self) -> String {
        let body = match self {
            Self::Reverse { letters } => letters.join(" "),
            Self::Sort { digits: numbers } | Self::Add { numbers } => spaced(numbers),
            Self::Count { letter, letters } => format!("{letter} in {}", letters.join(" ")),
            Self::Reply { name, event, colour, thing } => format!("to {name} {event} the {colour} {thing}"),
            Self::Describe { words, size, colour, thing } => {
                format!("the {size} {colour} {thing} in {words} words")
            }
        };
        format!("{} {body} {ASK}", self.kind().name())
    }

    /// The task that a prompt's text states, if it is one of this world's.
    pub fn read(prompt: &str) -> Option<Self> {
        let words: Vec<&str> = prompt.split_whitespace().collect();
        let words = words.strip_suffix(&[ASK])?;
        let owned = |w: &[&str]| w.iter().map(|w| (*w).to_owned()).collect::<Vec<_>>();
        let numbers = |w: &[&str]| w.iter().map(|w| w.parse().ok()).collect::<Option<Vec<u32>>>();
        let task = match words {
            ["reverse", letters @ ..] => Self::Reverse { letters: owned(letters) },
            ["sort", digits @ ..] => Self::Sort { digits: numbers(digits)? },
            ["count", letter, "in", letters @ ..] => {
                Self::Count { letter: (*letter).to_owned(), letters: owned(letters) }
            }
            ["add", rest @ ..] => Self::Add { numbers: numbers(rest)? },
            ["reply", "to", name, event, "the", colour, thing] => {
                let [name, event, colour, thing] = [name, event, colour, thing].map(|w| (*w).to_owned());
                Self::Reply { name, event, colour, thing }
            }
            ["describe", "the", size, colour, thing, "in", k, "words"] => {
                let [size, colour, thing] = [size, colour, thing].map(|w| (*w).to_owned());
                Self::Describe { words: k.parse().ok().filter(|k| *k > 0)?, size, colour, thing }
            }
            _ => return None,
        };
        Some(task)
    }

    /// The words of the right answer, without the final stop. For [`Task::Describe`] any `words` different
    /// adjectives are right: the answer is drawn from `adjectives`.
    pub fn ideal(&self, adjectives: &[&str]) -> Vec<String> {
        match self {
            Self::Reverse { letters } => letters.iter().rev().cloned().collect(),
            Self::Sort { digits } => {
                let mut sorted = digits.clone();
                sorted.sort_unstable();
                sorted.iter().map(u32::to_string).collect()
            }
            Self::Count { .. } | Self::Add { .. } => self.number().iter().map(u32::to_string).collect(),
            Self::Reply { name, event, colour, thing } => {
                let text = format!("dear {name} {} about the {colour} {thing} thanks", feeling(event));
                text.split(' ').map(str::to_owned).collect()
            }
            Self::Describe { words, .. } => {
                adjectives.iter().take(*words as usize).map(|w| (*w).to_owned()).collect()
            }
        }
    }

    /// How many words the right answer has, without the final stop.
    pub fn ideal_len(&self) -> usize {
        match self {
            Self::Reverse { letters } => letters.len(),
            Self::Sort { digits } => digits.len(),
            Self::Count { .. } | Self::Add { .. } => 1,
            Self::Reply { .. } => 8,
            Self::Describe { words, .. } => *words as usize,
        }
    }

    /// The number that answers a count or a sum.
    pub fn number(&self) -> Option<u32> {
        match self {
            Self::Count { letter, letters } => Some(letters.iter().filter(|l| *l == letter).count() as u32),
            Self::Add { numbers } => Some(numbers.iter().sum()),
            _ => None,
        }
    }
}

/// The word that fits an event.
pub fn feeling(event: &str) -> &'static str {
    if LOSSES.contains(&event) { "sorry" } else { "happy" }
}

/// An answer's words as the text of a completion, which follows the prompt after a space.
pub fn completion(words: &[String], finished: bool) -> String {
    let stop = if finished { Some(STOP) } else { None };
    words.iter().map(String::as_str).chain(stop).map(|w| format!(" {w}")).collect()
}

fn pick<T: AsRef<str>>(from: &[T], rng: &mut impl Rng) -> String {
    from.choose(rng).map(|w| w.as_ref().to_owned()).unwrap_or_default()
}

fn some<T: AsRef<str>>(from: &[T], n: std::ops::RangeInclusive<usize>, rng: &mut impl Rng) -> Vec<String> {
    let n = rng.random_range(n);
    (0..n).map(|_| pick(from, rng)).collect()
}

fn spaced(numbers: &[u32]) -> String {
    numbers.iter().map(u32::to_string).collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::seed;

    #[test]
    fn a_prompt_says_all_about_its_task() {
        let mut rng = seed::rng(1, "test");
        for i in 0..600 {
            let task = Task::draw(Kind::ALL[i % 6], &mut rng);
            assert_eq!(Task::read(&task.prompt()), Some(task));
        }
        for other in ["", "reverse a b", "sort x :", "tell a joke :", "describe the big red cup in 0 words :"]
        {
            assert_eq!(Task::read(other), None, "{other}");
        }
    }
}
