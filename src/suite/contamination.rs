//! Contamination: suite prompts that the training data already holds.

use std::collections::{HashMap, HashSet};

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
/// Words that all prompts of a side begin with (a system message, a template) are taken off that side first.
/// A prompt of fewer than `n` words overlaps where all its words together are a training prompt. Memory grows
/// with the suite, not with the training data.
pub fn contamination<'a>(training: &[&'a str], suite: &[&'a str], n: usize) -> Contamination {
    let (skip_theirs, skip_ours) = (common_start(training), common_start(suite));
    let (mut grams, mut wholes) = (HashMap::<u64, Vec<usize>>::new(), HashMap::<u64, Vec<usize>>::new());
    for (i, prompt) in suite.iter().enumerate() {
        let words = hashes(prompt, skip_ours);
        wholes.entry(gram(&words)).or_default().push(i);
        for g in words.windows(n).map(gram).collect::<HashSet<u64>>() {
            grams.entry(g).or_default().push(i);
        }
    }
    let (mut identical, mut overlapping) = (vec![false; suite.len()], vec![false; suite.len()]);
    let mut seen = HashSet::new();
    for prompt in training.iter().filter(|p| seen.insert(**p)) {
        let words = hashes(prompt, skip_theirs);
        for &i in wholes.get(&gram(&words)).into_iter().flatten() {
            (identical[i], overlapping[i]) = (true, true);
        }
        for g in words.windows(n).map(gram) {
            // Found once is found: the entry is taken out, so that a common phrase costs once.
            for i in grams.remove(&g).into_iter().flatten() {
                overlapping[i] = true;
            }
        }
    }
    let count = |marks: &[bool]| marks.iter().filter(|m| **m).count();
    Contamination {
        prompts: suite.len(),
        identical: count(&identical),
        overlapping: count(&overlapping),
        words: n,
    }
}

/// Lower-cased words without punctuation.
fn words(text: &str) -> impl Iterator<Item = String> + '_ {
    text.split(|c: char| !c.is_alphanumeric()).filter(|w| !w.is_empty()).map(str::to_lowercase)
}

/// How many words all prompts begin with; 0 where they are all the same prompt.
fn common_start(prompts: &[&str]) -> usize {
    let Some((first, rest)) = prompts.split_first() else { return 0 };
    let first: Vec<String> = words(first).collect();
    let mut common = first.len();
    let mut differ = false;
    for prompt in rest {
        let theirs: Vec<String> = words(prompt).take(common + 1).collect();
        let same = theirs.iter().zip(&first).take_while(|(a, b)| a == b).count();
        differ |= same < first.len() || theirs.len() > first.len();
        common = common.min(same);
        if common == 0 {
            break;
        }
    }
    if differ { common } else { 0 }
}

/// FNV-1a of each word after the first `skip`.
fn hashes(text: &str, skip: usize) -> Vec<u64> {
    let fnv = |w: String| {
        w.bytes().fold(0xcbf2_9ce4_8422_2325, |h: u64, b| (h ^ u64::from(b)).wrapping_mul(0x0100_0000_01b3))
    };
    words(text).skip(skip).map(fnv).collect()
}

/// One number for a run of words, their order included.
fn gram(words: &[u64]) -> u64 {
    words.iter().fold(words.len() as u64, |h, w| (h ^ w).wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_left(29))
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
        let found = contamination(&training, &suite, 5);
        assert_eq!((found.prompts, found.identical, found.overlapping, found.words), (4, 2, 3, 5));
        assert_eq!(found.share(), 0.75);
        assert_eq!(contamination(&training, &[], 5).share(), 0.0);
    }

    #[test]
    fn what_every_prompt_begins_with_is_no_overlap() {
        let system = "You are a helpful assistant made by a company with a long name. User:";
        let with = |text: &str| format!("{system} {text}");
        let (a, b, c) = (with("how do planes fly"), with("what is a fugue"), with("name a river"));
        let (d, e) = (with("how do planes fly"), with("who wrote faust"));
        let found = contamination(&[&a, &b, &c], &[&d, &e], 5);
        assert_eq!(
            (found.identical, found.overlapping),
            (1, 1),
            "one question is the same, the system message is not counted"
        );
        // Against raw questions the template's words do not hide the overlap.
        assert_eq!(contamination(&[&a, &b, &c], &["how do planes fly", "who wrote faust"], 5).identical, 1);
        // A training set of one prompt, repeated, is that prompt and not a template.
        assert_eq!(contamination(&["say hi", "say hi"], &["say hi", "go"], 5).identical, 1);
    }

    /// By the definition, over strings, on texts from a small vocabulary, so that overlaps are frequent.
    #[test]
    fn it_is_what_a_plain_search_finds() {
        let text = |seed: usize, n: usize| {
            (0..n)
                .map(|i| ["a", "b", "c"][(seed * 7 + i * i * (seed + 3) + i / 3) % 3])
                .collect::<Vec<_>>()
                .join(" ")
        };
        let training: Vec<String> = (0..12).map(|s| text(s, 6 + s % 5)).collect();
        let suite: Vec<String> = (20..50).map(|s| text(s, 3 + s % 6)).collect();
        let (training, suite): (Vec<&str>, Vec<&str>) =
            (training.iter().map(String::as_str).collect(), suite.iter().map(String::as_str).collect());
        assert_eq!(
            (common_start(&training), common_start(&suite)),
            (0, 0),
            "the search below takes nothing off"
        );
        let n = 5;
        let overlaps = |p: &&&str| {
            let words: Vec<&str> = p.split(' ').collect();
            training.contains(*p)
                || words.windows(n).any(|w| {
                    training.iter().any(|t| format!(" {t} ").contains(&format!(" {} ", w.join(" "))))
                })
        };
        let wanted = suite.iter().filter(overlaps).count();
        assert!(wanted > 3 && wanted < suite.len(), "{wanted} of {}", suite.len());
        assert_eq!(contamination(&training, &suite, n).overlapping, wanted);
    }
}
