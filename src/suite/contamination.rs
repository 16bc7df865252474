//! Contamination: suite prompts that the training data already holds.

use std::collections::HashSet;

use crate::base::hash::Hasher;

/// Words of an n-gram that counts as an overlap (GPT-3 used 8 to 13; arXiv 2005.14165, appendix C).
pub const WORDS: usize = 13;

/// How much of a suite the training prompts hold.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Contamination {
    pub prompts: usize,
    /// Prompts that stand in the training data word for word.
    pub identical: usize,
    /// Prompts that share an n-gram of words with some training prompt, identical ones included.
    pub overlapping: usize,
    /// Words of an n-gram.
    pub words: usize,
}

impl Contamination {
    pub fn share(&self) -> f64 {
        if self.prompts == 0 { 0.0 } else { self.overlapping as f64 / self.prompts as f64 }
    }
}

/// Compares suite prompts with training prompts by n-grams of lower-cased words without punctuation.
///
/// A prompt of fewer than `n` words overlaps where all its words together are a training prompt.
pub fn contamination<'a>(
    training: impl IntoIterator<Item = &'a str>,
    suite: impl IntoIterator<Item = &'a str>,
    n: usize,
) -> Contamination {
    let (mut grams, mut wholes) = (HashSet::new(), HashSet::new());
    for prompt in training {
        let words = words(prompt);
        grams.extend(words.windows(n).map(hash));
        wholes.insert(hash(&words));
    }
    let mut found = Contamination { words: n, ..Contamination::default() };
    for prompt in suite {
        let words = words(prompt);
        let identical = wholes.contains(&hash(&words));
        found.prompts += 1;
        found.identical += usize::from(identical);
        found.overlapping += usize::from(identical || words.windows(n).any(|g| grams.contains(&hash(g))));
    }
    found
}

fn words(text: &str) -> Vec<String> {
    let split = text.split(|c: char| !c.is_alphanumeric()).filter(|w| !w.is_empty());
    split.map(str::to_lowercase).collect()
}

fn hash(words: &[String]) -> u64 {
    words.iter().fold(Hasher::new("n-gram"), |h, w| h.part(w.as_bytes())).u64()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn copies_quotations_and_strangers_are_told_apart() {
        let training = ["The quick brown fox jumps over the lazy dog today.", "Say hi"];
        let suite = [
            "the QUICK brown fox; jumps over the lazy dog today",
            "He wrote: brown fox jumps over the lazy cat",
            "Say, hi!",
            "Say hi to everyone you meet on the way home",
        ];
        let found = contamination(training, suite, 5);
        assert_eq!(found, Contamination { prompts: 4, identical: 2, overlapping: 3, words: 5 });
        assert_eq!(found.share(), 0.75);
    }
}
