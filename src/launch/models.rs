//! The models of a plan, each held against it: the starting checkpoint with its tokenizer, and the reference.

use std::path::PathBuf;

use candle_core::{DType, Device};

use super::device;
use super::observer::Observer;
use super::source::{Opened, open_dir, writes};
use super::world_base;
use crate::base::error::{Context, HintExt, Result, anyhow, ensure};
use crate::data::{Control, Tokenizer, resolve_model};
use crate::model::Decoder;
use crate::plan::{Dtype, Method, Plan, WORLD};

/// The starting checkpoint.
pub(super) struct Start {
    /// Its adapter merged, where it had one.
    pub decoder: Decoder,
    pub tokenizer: Tokenizer,
    /// Where it came from: the base's folder, where the plan names an adapter.
    pub dir: PathBuf,
    /// The plan names an adapter.
    pub adapted: bool,
}

/// Opens the starting checkpoint.
///
/// # Errors
/// Whatever is missing or does not fit; an adapter on a base that is to be quantised; a reward model; a model that is
/// asked after control tokens; a vocabulary smaller than the tokenizer's.
pub(super) fn open_start(plan: &Plan, device: &Device, observer: &mut dyn Observer) -> Result<Start> {
    let source = &plan.model.source;
    let dir = directory(source, &plan.model.revision, plan, observer)?;
    let dtype = dtype(plan.model.dtype, device)?;
    if device.is_cuda()
        && let Some(better) = device::cpu_settings(plan)
    {
        observer.note(&better);
    }
    observer.stage(&format!("loading {source}"));
    let quantize = plan.model.quantize;
    let Opened { decoder, tokenizer_dir, weights_dir } = open_dir(&dir, dtype, device, quantize)?;
    let tokenizer = Tokenizer::load(&tokenizer_dir)?;
    let adapted = decoder.adapter().is_some();
    if adapted && quantize.is_on() {
        return Err(anyhow!(
            "{source} is an adapter, and model.quantize = \"{}\" asks for a frozen base",
            quantize.name()
        ))
        .hint("merge it first (kto-eval merge), and name the merged model; or leave `quantize` out");
    }
    let decoder = whole(decoder)?;
    writes(&decoder, source)?;
    no_control(&decoder, source)?;
    let vocabulary = decoder.config().vocab;
    tokenizer.check_fits(vocabulary).with_context(|| format!("model {}", weights_dir.display()))?;
    Ok(Start { decoder, tokenizer, dir: weights_dir, adapted })
}

/// Finds now, not when an arm's turn comes, what the model cannot do for it. Returns the number of tokens of the longest
/// control text after which an arm is asked.
///
/// # Errors
/// Control tokens that cannot be written; a LoRA target module that is not there. The message names the arm.
pub(super) fn check_arms(plan: &Plan, start: &Start) -> Result<usize> {
    let mut control_tokens = 0;
    for arm in &plan.arms {
        if let Method::Csft(spec) = &arm.method {
            let control = Control::new(&start.tokenizer, &spec.desirable_token, &spec.undesirable_token)
                .with_context(|| format!("arm {}", arm.name))?;
            control_tokens = control_tokens.max(control.desirable.len());
        }
    }
    for arm in plan.arms.iter().filter(|arm| arm.train.lora.is_on()) {
        start.decoder.with_adapter(&arm.train.lora, 0).with_context(|| format!("arm {}", arm.name))?;
    }
    Ok(control_tokens)
}

/// Opens the reference, where the plan names another model than the start.
///
/// # Errors
/// As [`open_start`]; a vocabulary of another size than the start's.
pub(super) fn open_reference(
    plan: &Plan,
    start: &Decoder,
    observer: &mut dyn Observer,
) -> Result<Option<Decoder>> {
    let source = &plan.model.reference;
    if source.is_empty() {
        return Ok(None);
    }
    let dir = directory(source, &plan.model.reference_revision, plan, observer)?;
    let opened = open_dir(&dir, start.dtype(), start.device(), plan.model.quantize)?;
    let reference = whole(opened.decoder)?;
    writes(&reference, source)?;
    no_control(&reference, source)?;
    let (theirs, ours) = (reference.config().vocab, start.config().vocab);
    ensure!(
        theirs == ours,
        "reference {source}: its vocabulary has {theirs} tokens, the model's {ours}; log-probs cannot be compared"
    );
    Ok(Some(reference))
}

/// The model without an adapter: merged, where it has one.
fn whole(decoder: Decoder) -> Result<Decoder> {
    if decoder.adapter().is_some() { decoder.merged() } else { Ok(decoder) }
}

/// Other methods would train, and references be asked, without what the model was trained to expect.
fn no_control(decoder: &Decoder, source: &str) -> Result<()> {
    let Some(control) = decoder.control() else { return Ok(()) };
    Err(anyhow!(
        "{source} was trained by csft: it is asked after `{control}`, and a comparison cannot start from it"
    ))
    .hint("start from a model without control tokens; `kto-eval score` asks this one as it was trained")
}

/// What a model is computed in.
///
/// # Errors
/// bf16 on the CPU.
pub(super) fn dtype(dtype: Dtype, device: &Device) -> Result<DType> {
    match dtype {
        Dtype::F32 => Ok(DType::F32),
        Dtype::Bf16 if device.is_cuda() => Ok(DType::BF16),
        Dtype::Bf16 => Err(anyhow!("model.dtype = \"bf16\": the CPU computes in f32 only"))
            .hint("take model.dtype = \"f32\", or a GPU (--device cuda)"),
    }
}

fn directory(source: &str, revision: &str, plan: &Plan, observer: &mut dyn Observer) -> Result<PathBuf> {
    if source == WORLD {
        return world_base::checkpoint(&plan.data.world, observer);
    }
    observer.stage(&format!("resolving model {source}"));
    resolve_model(source, revision)
}
