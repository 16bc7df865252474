//! The annotators whose answers are compared: some careful, some not.

use rand::seq::{IndexedRandom, SliceRandom};
use rand::{Rng, RngExt};

use super::task::{Task, completion};
use super::words::{ADJECTIVES, FILLERS, LETTERS, NAMES, NUMBERS, RUDE};

/// How an answer is made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Level {
    /// The right answer, finished.
    Careful,
    /// One slip; a quarter of the answers lack the stop.
    Hasty,
    /// The right answer, or one with a slip, among two to five words too many.
    Rambling,
    /// The wrong procedure; half of the answers are rude, a quarter lack the stop.
    Careless,
}

impl Level {
    pub const ALL: [Self; 4] = [Self::Careful, Self::Hasty, Self::Rambling, Self::Careless];

    /// Share of the pool.
    pub fn share(self) -> f64 {
        match self {
            Self::Careful | Self::Hasty => 0.3,
            Self::Rambling | Self::Careless => 0.2,
        }
    }

    pub fn draw(rng: &mut impl Rng) -> Self {
        let mut left = rng.random::<f64>();
        for level in Self::ALL {
            left -= level.share();
            if left < 0.0 {
                return level;
            }
        }
        Self::Careless
    }
}

/// An answer of this level, as the text of a completion (with its leading space).
pub fn answer(task: &Task, level: Level, rng: &mut impl Rng) -> String {
    let mut words = ideal(task, rng);
    match level {
        Level::Careful => {}
        Level::Hasty => slip(task, &mut words, rng),
        Level::Rambling => {
            if rng.random_bool(0.3) {
                slip(task, &mut words, rng);
            }
            for _ in 0..rng.random_range(2..=5) {
                let at = if rng.random_bool(0.5) { 0 } else { words.len() };
                words.insert(at, one(&FILLERS, rng));
            }
        }
        Level::Careless => {
            words = careless(task, rng);
            if rng.random_bool(0.5) {
                let at = if rng.random_bool(0.5) { 0 } else { words.len() };
                words.insert(at, one(&RUDE, rng));
            }
        }
    }
    let breaks_off = matches!(level, Level::Hasty | Level::Careless) && rng.random_bool(0.25);
    completion(&words, !breaks_off)
}

fn ideal(task: &Task, rng: &mut impl Rng) -> Vec<String> {
    let mut adjectives = ADJECTIVES;
    adjectives.shuffle(rng);
    task.ideal(&adjectives)
}

/// Makes one mistake.
fn slip(task: &Task, words: &mut Vec<String>, rng: &mut impl Rng) {
    match task {
        Task::Count { .. } | Task::Add { .. } => {
            let truth = task.number().unwrap_or_default();
            let step = rng.random_range(1..=2);
            let said = if truth >= step && rng.random_bool(0.5) { truth - step } else { truth + step };
            *words = vec![said.min(NUMBERS - 1).to_string()];
        }
        Task::Reply { name, .. } => match rng.random_range(0..4) {
            0 => words[1] = other(&NAMES, name, rng),
            1 => words[2] = if words[2] == "sorry" { "happy" } else { "sorry" }.to_owned(),
            2 => words.truncate(words.len() - 1),
            _ => drop(words.drain(..2)),
        },
        Task::Describe { .. } => {
            if words.len() > 1 && rng.random_bool(0.5) {
                words.pop();
            } else {
                words.push(one(&ADJECTIVES, rng));
            }
        }
        Task::Reverse { .. } | Task::Sort { .. } => {
            let at = rng.random_range(0..words.len());
            match rng.random_range(0..3) {
                0 if at + 1 < words.len() => words.swap(at, at + 1),
                1 => drop(words.remove(at)),
                _ if matches!(task, Task::Sort { .. }) => words[at] = rng.random_range(0..=9).to_string(),
                _ => words[at] = one(&LETTERS, rng),
            }
        }
    }
}

/// Does something else than what was asked.
fn careless(task: &Task, rng: &mut impl Rng) -> Vec<String> {
    match task {
        Task::Reverse { letters } => letters.clone(),
        Task::Sort { digits } => digits.iter().map(u32::to_string).collect(),
        Task::Count { letters, .. } => vec![rng.random_range(0..=letters.len()).to_string()],
        Task::Add { .. } => vec![rng.random_range(0..NUMBERS).to_string()],
        Task::Reply { colour, thing, .. } => ["the", colour, thing].map(str::to_owned).to_vec(),
        Task::Describe { colour, thing, .. } => {
            let n = rng.random_range(1..=8);
            let mut words: Vec<String> = (0..n).map(|_| one(&ADJECTIVES, rng)).collect();
            words.extend([colour.clone(), thing.clone()]);
            words
        }
    }
}

fn one(from: &[&str], rng: &mut impl Rng) -> String {
    from.choose(rng).map(|w| (*w).to_owned()).unwrap_or_default()
}

fn other(from: &[&str], than: &str, rng: &mut impl Rng) -> String {
    let others: Vec<&str> = from.iter().copied().filter(|w| *w != than).collect();
    one(&others, rng)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::seed;
    use crate::data::world::{Kind, gold_reward};

    #[test]
    fn careful_answers_are_perfect_and_the_levels_are_ordered() {
        let mut rng = seed::rng(2, "test");
        for kind in Kind::ALL {
            let mut mean = |level| {
                let rewards = (0..400).map(|_| {
                    let task = Task::draw(kind, &mut rng);
                    gold_reward(&task.prompt(), &answer(&task, level, &mut rng))
                });
                rewards.sum::<f64>() / 400.0
            };
            let [careful, hasty, rambling, careless] = Level::ALL.map(&mut mean);
            assert_eq!(careful, 1.0, "{kind:?}");
            assert!(
                hasty < 0.9 && rambling < 0.9 && careless < hasty,
                "{kind:?}: {hasty} {rambling} {careless}"
            );
        }
    }

    #[test]
    fn levels_are_drawn_by_their_shares() {
        let mut rng = seed::rng(3, "test");
        let mut counts = [0.0; 4];
        for _ in 0..10_000 {
            let level = Level::draw(&mut rng);
            counts[Level::ALL.iter().position(|l| *l == level).unwrap()] += 1.0;
        }
        for (count, level) in counts.iter().zip(Level::ALL) {
            // Four standard errors of a share of 0.3 among 10,000.
            assert!((count / 10_000.0 - level.share()).abs() < 0.0184, "{level:?}: {count}");
        }
    }
}
