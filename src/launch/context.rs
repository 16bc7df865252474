//! Training data against the context that a model was made for.

use super::observer::Observer;
use super::training_set::TrainingSet;
use crate::base::error::{HintExt, Result, anyhow};
use crate::model::DecoderConfig;

/// Tells of sequences that are longer than the context that the model was made for.
///
/// # Errors
/// It has no positions there.
pub(super) fn within_context(
    config: &DecoderConfig,
    set: &TrainingSet,
    observer: &mut dyn Observer,
) -> Result<()> {
    let most = config.max_positions;
    let lengths: Vec<usize> = match set {
        TrainingSet::Paired(pairs) => {
            pairs.iter().map(|p| p.chosen.ids.len().max(p.rejected.ids.len())).collect()
        }
        TrainingSet::Unpaired(examples) => examples.iter().map(|e| e.sequence.ids.len()).collect(),
    };
    let beyond = lengths.iter().filter(|length| **length > most).count();
    if beyond == 0 {
        return Ok(());
    }
    let what = format!("{beyond} of {} examples are longer than the model's {most} positions", lengths.len());
    let remedy = format!("data.max_length = {most} cuts them");
    if config.learned_positions {
        return Err(anyhow!("{what}, and it has learned no more")).hint(remedy);
    }
    observer.note(&format!("{what} (max_position_embeddings), beyond which it is not itself: {remedy}"));
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::error::render;
    use crate::data::{Sequence, TokenizedExample};
    use crate::launch::observer::Silent;
    use crate::model::Size;

    #[derive(Default)]
    struct Notes(Vec<String>);

    impl Observer for Notes {
        fn note(&mut self, text: &str) {
            self.0.push(text.to_owned());
        }
    }

    #[test]
    fn positions_that_were_never_learned_are_refused_and_others_are_told_of() {
        let size =
            Size { vocab: 9, hidden: 8, layers: 1, heads: 2, kv_heads: 2, intermediate: 8, context: 4 };
        let mut config = DecoderConfig::llama(size).unwrap();
        let of = |length: usize| TokenizedExample {
            id: String::new(),
            subset: String::new(),
            sequence: Sequence { ids: vec![1; length].into(), prompt_len: 1 },
            desirable: true,
        };
        let long = TrainingSet::Unpaired(vec![of(4), of(5), of(6)]);
        let mut notes = Notes::default();
        within_context(&config, &TrainingSet::Unpaired(vec![of(4)]), &mut notes).unwrap();
        assert!(notes.0.is_empty(), "{:?}", notes.0);
        within_context(&config, &long, &mut notes).unwrap();
        assert!(
            notes.0[0].starts_with("2 of 3 examples are longer than the model's 4 positions"),
            "{:?}",
            notes.0
        );
        config.learned_positions = true;
        let text = render(&within_context(&config, &long, &mut Silent).unwrap_err());
        assert!(text.contains("has learned no more") && text.contains("data.max_length = 4"), "{text}");
    }
}
