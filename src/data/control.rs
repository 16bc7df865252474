//! Control tokens between prompt and completion (CSFT): they belong to the prompt, and no loss covers them.

use super::tokenizer::Tokenizer;
use super::types::{Sequence, TokenizedExample, TokenizedPair};
use crate::base::error::{HintExt, Result, anyhow, bail};

/// What says of a completion that it is desirable, or not, as token ids.
#[derive(Clone, Debug, PartialEq)]
pub struct Control {
    pub desirable: Vec<u32>,
    pub undesirable: Vec<u32>,
}

impl Control {
    /// # Errors
    /// A text of no token; two texts of the same tokens.
    pub fn new(tokenizer: &Tokenizer, desirable: &str, undesirable: &str) -> Result<Self> {
        let control =
            Self { desirable: ids(tokenizer, desirable)?, undesirable: ids(tokenizer, undesirable)? };
        if control.desirable == control.undesirable {
            return Err(anyhow!("`{desirable}` and `{undesirable}` are the same tokens for this tokenizer"))
                .hint("set desirable_token and undesirable_token to texts that its vocabulary tells apart");
        }
        Ok(control)
    }

    /// The examples after their class's control tokens, cut to `max_length` again; those whose prompt then fills it
    /// are left out.
    pub fn examples(&self, examples: &[TokenizedExample], max_length: usize) -> Vec<TokenizedExample> {
        let conditioned = |e: &TokenizedExample| {
            let sequence = self.sequence(&e.sequence, e.desirable, max_length)?;
            Some(TokenizedExample { sequence, ..e.clone() })
        };
        examples.iter().filter_map(conditioned).collect()
    }

    /// As [`Control::examples`]; the two completions of a pair have different prompts then.
    pub fn pairs(&self, pairs: &[TokenizedPair], max_length: usize) -> Vec<TokenizedPair> {
        let conditioned = |p: &TokenizedPair| {
            let chosen = self.sequence(&p.chosen, true, max_length)?;
            let rejected = self.sequence(&p.rejected, false, max_length)?;
            Some(TokenizedPair { chosen, rejected, ..p.clone() })
        };
        pairs.iter().filter_map(conditioned).collect()
    }

    fn sequence(&self, sequence: &Sequence, desirable: bool, max_length: usize) -> Option<Sequence> {
        let control = if desirable { &self.desirable } else { &self.undesirable };
        let Sequence { ids, prompt_len } = sequence.conditioned(control);
        let length = ids.len().min(max_length);
        (prompt_len < length).then(|| Sequence { ids: ids[..length].into(), prompt_len })
    }
}

/// Token ids of a control text, without what the tokenizer puts before every text.
///
/// # Errors
/// A text of no token, or with a character that the vocabulary lacks.
pub fn ids(tokenizer: &Tokenizer, text: &str) -> Result<Vec<u32>> {
    let ids = tokenizer.encode_within(text)?;
    if ids.is_empty() || tokenizer.unknown().is_some_and(|unknown| ids.contains(&unknown)) {
        bail!("the control token `{text}` is nothing that the tokenizer's vocabulary can write");
    }
    Ok(ids)
}

impl Sequence {
    /// The same completion after prompt and control tokens; not cut.
    pub fn conditioned(&self, control: &[u32]) -> Sequence {
        let ids = self.prompt().iter().chain(control).chain(self.completion()).copied().collect();
        Sequence { ids, prompt_len: self.prompt_len + control.len() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn example(prompt: &[u32], completion: &[u32], desirable: bool) -> TokenizedExample {
        let sequence = Sequence { ids: [prompt, completion].concat().into(), prompt_len: prompt.len() };
        TokenizedExample { id: "e".into(), subset: String::new(), sequence, desirable }
    }

    #[test]
    fn control_tokens_join_the_prompt_and_sequences_are_cut_where_they_were() {
        let control = Control { desirable: vec![7], undesirable: vec![8, 9] };
        let given = [example(&[1, 2], &[3, 4, 5], true), example(&[1, 2, 3], &[4, 5], false)];
        let found = control.examples(&given, 5);
        assert_eq!(found.len(), 1, "three prompt and two control tokens fill five");
        assert_eq!((&found[0].sequence.ids[..], found[0].sequence.prompt_len), (&[1, 2, 7, 3, 4][..], 3));
        let found = control.examples(&given, 6);
        assert_eq!((&found[1].sequence.ids[..], found[1].sequence.prompt_len), (&[1, 2, 3, 8, 9, 4][..], 5));
        assert_eq!(found[1].sequence.completion(), [4]);
        let pair = TokenizedPair {
            id: "p".into(),
            subset: String::new(),
            chosen: given[0].sequence.clone(),
            rejected: given[1].sequence.clone(),
        };
        let both = control.pairs(std::slice::from_ref(&pair), 9);
        assert_eq!(both[0].chosen.prompt(), [1, 2, 7]);
        assert_eq!(both[0].rejected.prompt(), [1, 2, 3, 8, 9]);
        assert!(control.pairs(&[pair], 5).is_empty());
    }
}
