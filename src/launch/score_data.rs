//! Log-probs of every completion of a data set, under one model or two.

use candle_core::Device;
use serde::Serialize;

use super::models::dtype;
use super::observer::Silent;
use super::source::{Opened, open, writes};
use super::training_set::{TrainingSet, read_training_set};
use crate::base::error::{Context, Result, anyhow};
use crate::data::{Sequence, Tokenizer};
use crate::plan::{DataSpec, Dtype, Quantize};
use crate::suite::logps::{control_ids, policy_logps};

/// What to score.
#[derive(Clone, Debug)]
pub struct ScoreRequest {
    pub model: String,
    pub reference: Option<String>,
    pub revision: String,
    pub dtype: Dtype,
    /// How the weights are kept in memory.
    pub quantize: Quantize,
    pub data: DataSpec,
}

/// A row of the CSV.
#[derive(Serialize)]
struct Row<'a> {
    example: &'a str,
    /// `chosen`, `rejected`, `desirable` or `undesirable`.
    side: &'a str,
    prompt_tokens: usize,
    completion_tokens: usize,
    /// Σ log π over the completion, EOS included, nats.
    logp: f64,
    reference_logp: Option<f64>,
}

/// The CSV, a row for every completion, in the data's order.
///
/// # Errors
/// A model or data that cannot be read; a tokenizer that does not fit.
pub fn score_data(request: &ScoreRequest, device: Device) -> Result<String> {
    let dtype = dtype(request.dtype, &device)?;
    let Opened { decoder: policy, tokenizer_dir, .. } =
        open(&request.model, &request.revision, dtype, &device, request.quantize)?;
    writes(&policy, &request.model)?;
    let tokenizer = Tokenizer::load(&tokenizer_dir)?;
    tokenizer.check_fits(policy.config().vocab)?;
    // With its control text no sequence is longer than asked for.
    let room = request.data.max_length.saturating_sub(control_ids(&policy, &tokenizer)?.len());
    let data = DataSpec { max_length: room, ..request.data.clone() };
    let set = read_training_set(&data, &tokenizer, &mut Silent)?;
    let completions = completions(&set);
    // A pair's prompt is computed once.
    let width = if matches!(set, TrainingSet::Paired(_)) { 2 } else { 1 };
    let groups: Vec<Vec<&Sequence>> =
        completions.chunks(width).map(|c| c.iter().map(|(_, _, s)| *s).collect()).collect();
    let logps = policy_logps(&policy, &tokenizer, &groups)?;
    drop(policy);
    let reference = match &request.reference {
        None => None,
        Some(source) => {
            let decoder = open(source, &request.revision, dtype, &device, request.quantize)?.decoder;
            writes(&decoder, source)?;
            tokenizer.check_fits(decoder.config().vocab).context("the reference")?;
            Some(policy_logps(&decoder, &tokenizer, &groups)?)
        }
    };
    let mut writer = csv::Writer::from_writer(vec![]);
    for (i, (example, side, sequence)) in completions.iter().enumerate() {
        writer.serialize(Row {
            example,
            side,
            prompt_tokens: sequence.prompt_len,
            completion_tokens: sequence.completion_len(),
            logp: logps[i],
            reference_logp: reference.as_ref().map(|r| r[i]),
        })?;
    }
    let bytes = writer.into_inner().map_err(|e| anyhow!("{e}"))?;
    String::from_utf8(bytes).context("ids are text")
}

fn completions(set: &TrainingSet) -> Vec<(&str, &'static str, &Sequence)> {
    match set {
        TrainingSet::Paired(pairs) => pairs
            .iter()
            .flat_map(|p| [(p.id.as_str(), "chosen", &p.chosen), (p.id.as_str(), "rejected", &p.rejected)])
            .collect(),
        TrainingSet::Unpaired(examples) => examples
            .iter()
            .map(|e| (e.id.as_str(), if e.desirable { "desirable" } else { "undesirable" }, &e.sequence))
            .collect(),
    }
}
