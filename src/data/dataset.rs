//! What a data set is as a whole: its size, its hash, and pairs as single examples.

use crate::base::hash::Hasher;

use super::types::{Dataset, PreferencePair, UnpairedExample};

impl Dataset {
    pub fn len(&self) -> usize {
        match self {
            Self::Paired(pairs) => pairs.len(),
            Self::Unpaired(examples) => examples.len(),
        }
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// A pair gives two examples, the chosen one (desirable) and then the rejected one; their ids are the
    /// pair's with `#chosen` and `#rejected`.
    pub fn to_unpaired(self) -> Self {
        match self {
            Self::Paired(pairs) => Self::Unpaired(pairs.into_iter().flat_map(split).collect()),
            unpaired => unpaired,
        }
    }

    /// Hash of what the examples say: prompts, completions, labels and subsets, in order. Ids and places do
    /// not count, so that a copy of the data has the same hash.
    pub fn hash(&self) -> String {
        let mut hasher = Hasher::new("kto-eval/dataset");
        match self {
            Self::Paired(pairs) => {
                for p in pairs {
                    for text in ["pair", &p.prompt, &p.chosen, &p.rejected, &p.subset] {
                        hasher = hasher.part(text.as_bytes());
                    }
                }
            }
            Self::Unpaired(examples) => {
                for e in examples {
                    let label = if e.desirable { "desirable" } else { "undesirable" };
                    for text in [label, &e.prompt, &e.completion, &e.subset] {
                        hasher = hasher.part(text.as_bytes());
                    }
                }
            }
        }
        hasher.hex()
    }
}

fn split(pair: PreferencePair) -> [UnpairedExample; 2] {
    let PreferencePair { id, prompt, chosen, rejected, subset } = pair;
    let side = |name: &str, completion, desirable| UnpairedExample {
        id: format!("{id}#{name}"),
        prompt: prompt.clone(),
        completion,
        desirable,
        subset: subset.clone(),
    };
    [side("chosen", chosen, true), side("rejected", rejected, false)]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pair(id: &str) -> PreferencePair {
        let text = |s: &str| format!("{s} of {id}");
        let (prompt, chosen, rejected) = (text("prompt"), text("chosen"), text("rejected"));
        PreferencePair { id: id.to_owned(), prompt, chosen, rejected, subset: "x".to_owned() }
    }

    #[test]
    fn a_pair_gives_a_desirable_and_an_undesirable_example_side_by_side() {
        let Dataset::Unpaired(examples) = Dataset::Paired(vec![pair("a"), pair("b")]).to_unpaired() else {
            panic!("to_unpaired gives unpaired examples")
        };
        let seen: Vec<_> =
            examples.iter().map(|e| (e.id.as_str(), e.completion.as_str(), e.desirable)).collect();
        assert_eq!(
            seen,
            [
                ("a#chosen", "chosen of a", true),
                ("a#rejected", "rejected of a", false),
                ("b#chosen", "chosen of b", true),
                ("b#rejected", "rejected of b", false),
            ]
        );
        assert!(examples.iter().all(|e| e.subset == "x" && e.prompt.starts_with("prompt of")));
    }

    #[test]
    fn the_hash_sees_the_words_and_not_the_ids() {
        let hash = |p: PreferencePair| Dataset::Paired(vec![p]).hash();
        let renamed = PreferencePair { id: "elsewhere:9".to_owned(), ..pair("a") };
        assert_eq!(hash(pair("a")), hash(renamed));
        let other = PreferencePair { rejected: "changed".to_owned(), ..pair("a") };
        assert_ne!(hash(pair("a")), hash(other));
    }
}
