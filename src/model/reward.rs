//! Reward models: a decoder with a scalar head on the last token of a sequence, in Hugging Face's form for
//! sequence classification with one label (`score.weight`, `pad_token_id`).

use candle_core::{DType, Device};
use serde_json::{Map, Value, json};
use std::path::Path;

use super::config::{Family, ScalarHead};
use super::decoder::Decoder;
use super::packed::Packed;
use crate::base::error::{HintExt, Result, anyhow, ensure};
use crate::data::Sequence;

const SCORED: &str = "ForSequenceClassification";
/// Tokens of a batch in scoring.
const BATCH_TOKENS: usize = 2048;

/// A model that gives a sequence a score: the higher, the better.
///
/// The score is read at the last token that is not `pad_token_id` (Hugging Face's rule: where padding is EOS,
/// a closing EOS is not read either), at the last token where the configuration names no padding.
pub struct RewardModel {
    decoder: Decoder,
}

impl RewardModel {
    /// The starting checkpoint with a head drawn from N(0, 1/(c + 1)) (Stiennon et al. 2020, arXiv 2009.01325,
    /// appendix C), c the hidden width. `pad` is written to the configuration.
    ///
    /// # Errors
    /// The model has a scalar head already.
    pub fn from_start(start: &Decoder, pad: u32, seed: u64) -> Result<Self> {
        let mut source = start.config().source.clone();
        source.insert("architectures".to_owned(), json!([architecture(start.config().family)]));
        source.insert("num_labels".to_owned(), json!(1));
        source.insert("id2label".to_owned(), json!({"0": "LABEL_0"}));
        source.insert("label2id".to_owned(), json!({"LABEL_0": 0}));
        source.insert("pad_token_id".to_owned(), json!(pad));
        let std = (start.config().hidden as f64 + 1.0).powf(-0.5);
        Ok(Self { decoder: start.with_scalar(ScalarHead::Score, source, seed, std)? })
    }

    /// Takes a decoder with a score head.
    ///
    /// # Errors
    /// It has none.
    pub fn new(decoder: Decoder) -> Result<Self> {
        ensure!(
            decoder.config().scalar == Some(ScalarHead::Score),
            "the model has no `score.weight`: it is no reward model"
        );
        Ok(Self { decoder })
    }

    /// Reads a Hugging Face directory for sequence classification with one label.
    ///
    /// # Errors
    /// As [`Decoder::load`]; a directory of another kind of model; more than one label.
    pub fn load(dir: &Path, dtype: DType, device: &Device) -> Result<Self> {
        let decoder = Decoder::load(dir, dtype, device)?;
        if decoder.config().scalar != Some(ScalarHead::Score) {
            return Err(anyhow!("{} holds no reward model: config.json names no …{SCORED}", dir.display()))
                .hint("`kto-eval train --method reward` trains one");
        }
        Ok(Self { decoder })
    }

    pub fn decoder(&self) -> &Decoder {
        &self.decoder
    }

    pub fn into_decoder(self) -> Decoder {
        self.decoder
    }

    /// The padding token of the configuration: trailing ones are not read.
    pub fn pad(&self) -> Option<u32> {
        self.decoder.pad_token()
    }

    /// (n,) scores of token sequences, each computed by itself in a packed batch.
    ///
    /// # Errors
    /// A forward pass fails, or a score is not finite (the sequence is named by its place).
    pub fn scores(&self, sequences: &[&Sequence]) -> Result<Vec<f64>> {
        let scores = self.any_scores(sequences)?;
        if let Some(at) = scores.iter().position(|s| !s.is_finite()) {
            let (n, score) = (scores.len(), scores[at]);
            return Err(anyhow!("the reward model gives sequence {at} of {n} the score {score}"))
                .hint("its weights are broken, or its training diverged");
        }
        Ok(scores)
    }

    /// [`RewardModel::scores`], finite or not: what is not is the caller's to name.
    ///
    /// # Errors
    /// A forward pass fails.
    pub fn any_scores(&self, sequences: &[&Sequence]) -> Result<Vec<f64>> {
        let mut scores = Vec::with_capacity(sequences.len());
        let mut rest = sequences;
        while !rest.is_empty() {
            let (mut batch, mut taken) = (Packed::default(), 0);
            for sequence in rest {
                if taken > 0 && batch.ids.len() + sequence.ids.len() > BATCH_TOKENS {
                    break;
                }
                batch.push_scored(&[sequence], self.pad());
                taken += 1;
            }
            scores.extend(self.decoder.scalars(&batch)?);
            rest = &rest[taken..];
        }
        Ok(scores)
    }

    /// (n,) scores of completions, finite or not, of prompts that neighbours share as [`Packed::push_scored`] says.
    ///
    /// # Errors
    /// A forward pass fails.
    pub fn shared_scores(&self, sequences: &[&Sequence]) -> Result<Vec<f64>> {
        let mut scores = Vec::with_capacity(sequences.len());
        for batch in self.shared_packs(sequences) {
            scores.extend(self.decoder.scalars(&batch)?);
        }
        Ok(scores)
    }

    /// The batches of [`RewardModel::shared_scores`].
    pub fn shared_packs(&self, sequences: &[&Sequence]) -> Vec<Packed> {
        let mut packs = vec![Packed::default()];
        for group in sequences.chunk_by(|a, b| a.prompt() == b.prompt()) {
            let tokens = group[0].prompt_len + group.iter().map(|s| s.completion_len()).sum::<usize>();
            let last = packs.last_mut().filter(|p| p.ids.is_empty() || p.ids.len() + tokens <= BATCH_TOKENS);
            match last {
                Some(pack) => pack.push_scored(group, self.pad()),
                None => {
                    let mut pack = Packed::default();
                    pack.push_scored(group, self.pad());
                    packs.push(pack);
                }
            }
        }
        packs
    }
}

impl Decoder {
    /// A copy with a value head beside the vocabulary projection, drawn as [`RewardModel::from_start`] draws its
    /// own: the policy and the critic of PPO in one set of weights.
    ///
    /// # Errors
    /// The model has a scalar head already.
    pub fn with_critic(&self, seed: u64) -> Result<Self> {
        let std = (self.config().hidden as f64 + 1.0).powf(-0.5);
        self.with_scalar(ScalarHead::Value, self.config().source.clone(), seed, std)
    }

    /// `pad_token_id` of the configuration.
    pub fn pad_token(&self) -> Option<u32> {
        self.config().source.get("pad_token_id").and_then(Value::as_u64).and_then(|id| u32::try_from(id).ok())
    }
}

/// The head that `config.json` asks for.
///
/// # Errors
/// A sequence classifier of more than one label.
pub(super) fn scalar_head(source: &Map<String, Value>) -> Result<Option<ScalarHead>> {
    let named = source.get("architectures").and_then(|a| a.get(0)).and_then(Value::as_str).unwrap_or("");
    if !named.ends_with(SCORED) {
        return Ok(None);
    }
    let by_names = source.get("id2label").and_then(Value::as_object).map(Map::len);
    let labels =
        by_names.or(source.get("num_labels").and_then(Value::as_u64).map(|n| n as usize)).unwrap_or(2);
    if labels != 1 {
        return Err(anyhow!("config.json: {named} with {labels} labels; a reward model has one"))
            .hint("a model saved with num_labels = 1 has `id2label` with one entry");
    }
    Ok(Some(ScalarHead::Score))
}

fn architecture(family: Family) -> String {
    let name = match family {
        Family::Llama => "Llama",
        Family::Mistral => "Mistral",
        Family::Qwen2 => "Qwen2",
        Family::Qwen3 => "Qwen3",
        Family::GptNeox => "GPTNeoX",
        Family::Gpt2 => "GPT2",
        Family::Gemma2 => "Gemma2",
        Family::Gemma3 => "Gemma3Text",
        Family::Olmo2 => "Olmo2",
    };
    format!("{name}{SCORED}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::packed::last_token;
    use crate::model::{DecoderConfig, Size};

    fn start() -> Decoder {
        let size =
            Size { vocab: 30, hidden: 16, layers: 2, heads: 2, kv_heads: 1, intermediate: 24, context: 64 };
        Decoder::random(DecoderConfig::llama(size).unwrap(), 3, DType::F32, &Device::Cpu).unwrap()
    }

    fn sequence(ids: &[u32], prompt_len: usize) -> Sequence {
        Sequence { ids: ids.into(), prompt_len }
    }

    #[test]
    fn the_score_is_read_at_the_last_token_that_is_no_padding() {
        assert_eq!(last_token(&[5, 6, 7], None), 2);
        assert_eq!(last_token(&[5, 0, 7, 0, 0], Some(0)), 2);
        assert_eq!(last_token(&[0, 0], Some(0)), 0);
        let model = RewardModel::from_start(&start(), 0, 1).unwrap();
        let scores = |s: &[Sequence]| model.scores(&s.iter().collect::<Vec<_>>()).unwrap();
        let plain = scores(&[sequence(&[5, 6, 7], 1)])[0];
        let padded = scores(&[sequence(&[9, 9], 1), sequence(&[5, 6, 7, 0, 0], 2)])[1];
        assert!((plain - padded).abs() < 1e-6, "{plain} {padded}");
        assert!((plain - scores(&[sequence(&[5, 6, 8], 1)])[0]).abs() > 1e-4, "the last token counts");
    }

    #[test]
    fn a_shared_prompt_changes_no_score() {
        let model = RewardModel::from_start(&start(), 0, 1).unwrap();
        let (a, b) = (sequence(&[1, 2, 3, 4, 5], 3), sequence(&[1, 2, 3, 6, 0], 3));
        // Nothing but padding after the prompt: the score stands within the prompt.
        let c = sequence(&[1, 2, 3, 0], 3);
        let mut shared = Packed::default();
        shared.push_scored(&[&a, &b, &c], Some(0));
        let (together, alone) =
            (model.decoder.scalars(&shared).unwrap(), model.scores(&[&a, &b, &c]).unwrap());
        for (x, y) in together.iter().zip(&alone) {
            assert!((x - y).abs() < 1e-6, "{together:?} {alone:?}");
        }
    }

    #[test]
    fn a_saved_reward_model_gives_the_same_scores_and_is_refused_with_two_labels() {
        let dir = tempfile::tempdir().unwrap();
        let model = RewardModel::from_start(&start(), 0, 1).unwrap();
        model.decoder().save(dir.path()).unwrap();
        let again = RewardModel::load(dir.path(), DType::F32, &Device::Cpu).unwrap();
        let s = sequence(&[4, 8, 15, 16, 23], 2);
        assert_eq!(model.scores(&[&s]).unwrap(), again.scores(&[&s]).unwrap());
        let path = dir.path().join("config.json");
        let text = std::fs::read_to_string(&path).unwrap().replace("\"LABEL_0\"\n", "\"A\", \"1\": \"B\"\n");
        std::fs::write(&path, text).unwrap();
        let error = format!("{:#}", RewardModel::load(dir.path(), DType::F32, &Device::Cpu).err().unwrap());
        assert!(error.contains("2 labels"), "{error}");
        start().save(dir.path()).unwrap();
        assert!(RewardModel::load(dir.path(), DType::F32, &Device::Cpu).is_err());
    }
}
