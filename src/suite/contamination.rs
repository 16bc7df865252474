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

/// Compares suite prompts with training prompts by n-grams of lower-cased words without punctuation.
///
/// Words that all prompts of a side begin or end with (a system message, a template) are taken off that side first;
/// whole prompts are compared with and without them. A prompt of fewer than `n` words overlaps where all its words
/// together are a training prompt. Memory grows with the suite, not with the training data.
pub fn contamination<'a>(training: &[&'a str], suite: &[&'a str], n: usize) -> Contamination {
    let (theirs, ours) = (Frame::of(training), Frame::of(suite));
    let (mut grams, mut wholes) = (HashMap::<u64, Vec<usize>>::new(), HashMap::<u64, Vec<usize>>::new());
    for (i, prompt) in suite.iter().enumerate() {
        let words = hashes(prompt);
        for whole in ours.wholes(&words) {
            wholes.entry(whole).or_default().push(i);
        }
        for g in ours.within(&words).windows(n).map(gram).collect::<HashSet<u64>>() {
            grams.entry(g).or_default().push(i);
        }
    }
    let (mut identical, mut overlapping) = (vec![false; suite.len()], vec![false; suite.len()]);
    let mut seen = HashSet::new();
    for prompt in training.iter().filter(|p| seen.insert(**p)) {
        let words = hashes(prompt);
        for &i in theirs.wholes(&words).iter().flat_map(|whole| wholes.get(whole)).flatten() {
            (identical[i], overlapping[i]) = (true, true);
        }
        for g in theirs.within(&words).windows(n).map(gram) {
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

/// How many words all prompts of a side begin and end with.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Frame {
    start: usize,
    end: usize,
}

impl Frame {
    fn of(prompts: &[&str]) -> Self {
        let all = || prompts.iter().map(|p| words(p));
        let start = common(all());
        let end = common(all().map(|w| w.into_iter().skip(start).rev().collect()));
        Self { start, end }
    }

    /// The words of a prompt between those that all have.
    fn within<'w>(&self, words: &'w [u64]) -> &'w [u64] {
        &words[self.start..words.len() - self.end]
    }

    /// The whole prompt with and without the frame; nothing for one that has no words then.
    fn wholes(&self, words: &[u64]) -> Vec<u64> {
        let mut wholes: Vec<u64> =
            [words, self.within(words)].into_iter().filter(|w| !w.is_empty()).map(gram).collect();
        wholes.dedup();
        wholes
    }
}

/// Lower-cased words without punctuation.
fn words(text: &str) -> Vec<String> {
    text.split(|c: char| !c.is_alphanumeric()).filter(|w| !w.is_empty()).map(str::to_lowercase).collect()
}

/// How many words all of these begin with; 0 where they are all the same.
fn common(mut texts: impl Iterator<Item = Vec<String>>) -> usize {
    let Some(first) = texts.next() else { return 0 };
    let mut common = first.len();
    let mut differ = false;
    for theirs in texts {
        let same = theirs.iter().zip(&first).take_while(|(a, b)| a == b).count();
        differ |= same < first.len() || theirs.len() > first.len();
        common = common.min(same);
        if common == 0 {
            break;
        }
    }
    if differ { common } else { 0 }
}

/// FNV-1a of each word.
fn hashes(text: &str) -> Vec<u64> {
    let fnv = |w: String| {
        w.bytes().fold(0xcbf2_9ce4_8422_2325, |h: u64, b| (h ^ u64::from(b)).wrapping_mul(0x0100_0000_01b3))
    };
    words(text).into_iter().map(fnv).collect()
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
        assert_eq!(contamination(&training, &[], 5).overlapping, 0);
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

    #[test]
    fn what_a_template_writes_after_the_question_hides_nothing() {
        let with = |text: &str| format!("\n\nHuman: {text}\n\nAssistant:");
        let (a, b) = (with("how do planes fly"), with("name a river"));
        let raw = ["how do planes fly", "who wrote faust"];
        assert_eq!(contamination(&[&a, &b], &raw, WORDS).identical, 1);
        let turned = [with("how do planes fly"), with("who wrote faust")];
        let turned: Vec<&str> = turned.iter().map(String::as_str).collect();
        assert_eq!(contamination(&["how do planes fly", "name a river"], &turned, WORDS).identical, 1);
        // Words that the questions of a suite share are part of them.
        let suite = ["What is love", "What is war"];
        assert_eq!(contamination(&["what is love?", "name a river"], &suite, WORDS).identical, 1);
        // A prompt that is only the shared beginning is empty without it, and an empty text is no prompt.
        assert_eq!(contamination(&["say hi", "say hi to me"], &["go on", "go on then"], WORDS).identical, 0);
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
        let nothing = Frame { start: 0, end: 0 };
        assert_eq!(
            (Frame::of(&training), Frame::of(&suite)),
            (nothing, nothing),
            "the search takes nothing off"
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
