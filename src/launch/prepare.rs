//! What all runs of a plan share: model, tokenizer, reference, data, suites.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Mutex;

use candle_core::{DType, Device};

use super::device;
use super::observer::Observer;
use super::world_base;
use crate::base::error::{Context, Result, ensure};
use crate::base::hash::Hasher;
use crate::data::{
    Dataset, Sequence, TokenizeStats, TokenizedExample, TokenizedPair, Tokenizer, load_with, resolve_model,
    tokenize_pairs, tokenize_unpaired,
};
use crate::model::Decoder;
use crate::plan::{DataSpec, Dtype, Plan, WORLD};
use crate::record::Environment;
use crate::suite::logps::sequence_logps;
use crate::suite::{self, Suite};
use crate::train::{ReferenceCache, TrainData};

/// The split that suites with `source = "plan"` are drawn from.
const HELDOUT_SPLIT: &str = "test";

/// Tokenized training data.
pub enum TrainingSet {
    Paired(Vec<TokenizedPair>),
    Unpaired(Vec<TokenizedExample>),
}

impl TrainingSet {
    pub fn as_data(&self) -> TrainData<'_> {
        match self {
            Self::Paired(pairs) => TrainData::Paired(pairs),
            Self::Unpaired(examples) => TrainData::Unpaired(examples),
        }
    }
}

/// Everything that the runs of a plan have in common, loaded once.
pub struct Prepared {
    pub device: Device,
    pub tokenizer: Tokenizer,
    /// The starting checkpoint, as it stays.
    pub start: Decoder,
    /// Where it came from.
    pub start_dir: PathBuf,
    /// The reference, where it is another model than the start.
    pub reference: Option<Decoder>,
    /// Reference log-probs of training data, kept for later comparisons too.
    pub cache: ReferenceCache,
    /// Reference log-probs of held-out completions, by what was asked.
    scored: Mutex<BTreeMap<String, Vec<f64>>>,
    pub data: TrainingSet,
    /// The held-out split of the plan's data; empty where no suite asks for it.
    pub heldout: Dataset,
    pub suites: Vec<Suite>,
    /// With its hashes filled in.
    pub environment: Environment,
}

impl Prepared {
    pub fn reference(&self) -> &Decoder {
        self.reference.as_ref().unwrap_or(&self.start)
    }

    /// The cache that a run takes its reference log-probs from; `own` is its place where runs share none.
    ///
    /// On the CPU each sequence is computed by itself, so that a number is the same whoever asked for it first,
    /// and all runs share one cache. On another device sequences are packed together, which moves the last
    /// bits: shared, they would make a run depend on those before it.
    pub fn reference_cache<'a>(&'a self, own: &'a mut Option<ReferenceCache>) -> &'a ReferenceCache {
        if self.device.is_cpu() {
            return &self.cache;
        }
        own.insert(ReferenceCache::open(self.cache.weights(), None))
    }

    /// (n,) Σ log π_ref of held-out completions, packed as a suite packs the policy's (`width` sequences of
    /// one prompt together), so that a policy that equals its reference has rewards of exactly 0.
    ///
    /// # Errors
    /// A forward pass fails.
    pub fn heldout_logps(&self, sequences: &[Sequence], width: usize) -> Result<Vec<f64>> {
        let mut key = Hasher::new("kto-eval/heldout-logps").part(&(width as u64).to_le_bytes());
        for sequence in sequences {
            key = key.ids(&sequence.ids).part(&(sequence.prompt_len as u64).to_le_bytes());
        }
        let key = key.hex();
        // A poisoned lock means that another thread panicked between two insertions; each is whole.
        let known = || self.scored.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        if let Some(logps) = known().get(&key) {
            return Ok(logps.clone());
        }
        let groups: Vec<Vec<&Sequence>> = sequences.chunks(width).map(|c| c.iter().collect()).collect();
        let logps = sequence_logps(self.reference(), &groups)?;
        known().insert(key, logps.clone());
        Ok(logps)
    }
}

/// Loads and checks all that the plan names, before anything is spent.
///
/// # Errors
/// Whatever is missing or does not fit; the message names it.
pub fn prepare(plan: &Plan, device: Device, observer: &mut dyn Observer) -> Result<Prepared> {
    let suites = suites(plan)?;
    let start_dir = directory(&plan.model.source, plan, observer)?;
    let tokenizer = Tokenizer::load(&start_dir)?;
    let dtype = dtype(plan.model.dtype, &device);
    observer.stage(&format!("loading {}", plan.model.source));
    let start = Decoder::load(&start_dir, dtype, &device)?;
    ensure!(
        start.config().scalar.is_none(),
        "{} is a reward model: it gives scores and writes nothing, so no policy can start from it",
        plan.model.source
    );
    let vocabulary = start.config().vocab;
    tokenizer.check_fits(vocabulary).with_context(|| format!("model {}", start_dir.display()))?;
    let reference = match plan.model.reference.as_str() {
        "" => None,
        source => Some(Decoder::load(&directory(source, plan, observer)?, dtype, &device)?),
    };
    if let Some(reference) = &reference {
        let theirs = reference.config().vocab;
        ensure!(
            theirs == vocabulary,
            "reference {}: its vocabulary has {theirs} tokens, the model's {vocabulary}; log-probs cannot be compared",
            plan.model.reference
        );
    }
    let weights = reference.as_ref().unwrap_or(&start).weights_hash()?;
    let mut environment = Environment::here(&device::name(&device), rayon::current_num_threads());
    environment.plan = plan.name.clone();
    environment.plan_hash = plan.hash();
    environment.model_hash = start.weights_hash()?;
    environment.reference_hash = weights.clone();
    let (data, hash) = read_training_set(&plan.data, &tokenizer, observer)?;
    environment.data_hash = hash;
    let heldout = heldout(plan, &suites, &tokenizer, observer)?;
    // The last bits of a product depend on the number of threads.
    let address = format!("{weights}-{}-threads", rayon::current_num_threads());
    let cache = ReferenceCache::open(&address, ReferenceCache::user_folder().as_deref());
    let scored = Mutex::default();
    Ok(Prepared {
        device,
        tokenizer,
        start,
        start_dir,
        reference,
        cache,
        scored,
        data,
        heldout,
        suites,
        environment,
    })
}

/// fp16 is a storage format on the CPU: there it is computed in fp32, and so is bf16.
pub(super) fn dtype(dtype: Dtype, device: &Device) -> DType {
    match dtype {
        _ if device.is_cpu() => DType::F32,
        Dtype::F32 => DType::F32,
        Dtype::Bf16 => DType::BF16,
        Dtype::F16 => DType::F16,
    }
}

fn directory(source: &str, plan: &Plan, observer: &mut dyn Observer) -> Result<PathBuf> {
    if source == WORLD {
        return world_base::checkpoint(&plan.data.world, observer);
    }
    observer.stage(&format!("resolving model {source}"));
    resolve_model(source, &plan.model.revision)
}

fn suites(plan: &Plan) -> Result<Vec<Suite>> {
    let named = [("preference", &plan.suites.preference), ("generation", &plan.suites.generation)];
    let mut suites = Vec::new();
    for (folder, names) in named {
        for name in names {
            suites.push(suite::find(name, folder)?);
        }
    }
    Ok(suites)
}

/// Reads and tokenizes a split; the second value is its content hash.
pub(super) fn read_training_set(
    spec: &DataSpec,
    tokenizer: &Tokenizer,
    observer: &mut dyn Observer,
) -> Result<(TrainingSet, String)> {
    observer.stage(&format!("reading {}", spec.source));
    let loaded = load_with(spec, &spec.split, &tokenizer.template())?;
    for note in &loaded.notes {
        observer.note(note);
    }
    let (set, stats) = match &loaded.dataset {
        Dataset::Paired(pairs) => {
            let (pairs, stats) = tokenize_pairs(pairs, tokenizer, spec.max_length)?;
            (TrainingSet::Paired(pairs), stats)
        }
        Dataset::Unpaired(examples) => {
            let (examples, stats) = tokenize_unpaired(examples, tokenizer, spec.max_length)?;
            (TrainingSet::Unpaired(examples), stats)
        }
    };
    observer.note(&describe(spec, &loaded.format, &stats));
    Ok((set, loaded.hash))
}

fn describe(spec: &DataSpec, format: &crate::plan::DataFormat, stats: &TokenizeStats) -> String {
    let format =
        serde_json::to_value(format).ok().and_then(|v| v.as_str().map(str::to_owned)).unwrap_or_default();
    format!(
        "{} ({}): {} examples as {format}, {} prompt and {} completion tokens; cut at {} tokens: {}, dropped: {}",
        spec.source,
        spec.split,
        stats.examples,
        stats.prompt_tokens,
        stats.completion_tokens,
        spec.max_length,
        stats.cut,
        stats.dropped
    )
}

fn heldout(
    plan: &Plan,
    suites: &[Suite],
    tokenizer: &Tokenizer,
    observer: &mut dyn Observer,
) -> Result<Dataset> {
    if !suites.iter().any(|s| s.source == "plan") {
        return Ok(Dataset::Paired(Vec::new()));
    }
    let spec = DataSpec { max_examples: 0, ..plan.data.clone() };
    let loaded = load_with(&spec, HELDOUT_SPLIT, &tokenizer.template())
        .with_context(|| format!("the held-out split `{HELDOUT_SPLIT}` of the plan's data"))?;
    for note in &loaded.notes {
        observer.note(&format!("held-out: {note}"));
    }
    Ok(loaded.dataset)
}
