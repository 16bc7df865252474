//! What all runs of a plan share: model, tokenizer, reference, data, suites.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::Mutex;

use candle_core::{DType, Device};

use super::context::within_context;
use super::device;
use super::heldout::{heldout, pairs_for};
use super::judges::Judges;
use super::keep::cache_folder;
use super::metrics::{check_primary, validation_suite};
use super::observer::Observer;
use super::source::{Opened, open_dir, writes};
use super::training_sets::TrainingSets;
use super::world_base;
use crate::base::error::{Context, Error, HintExt, Result, anyhow, ensure};
use crate::base::hash::Hasher;
use crate::data::{
    Control, Dataset, Sequence, TokenizeStats, TokenizedExample, TokenizedPair, Tokenizer, load_with,
    resolve_model, tokenize_pairs, tokenize_unpaired,
};
use crate::model::Decoder;
use crate::plan::{DataFormat, DataSpec, Dtype, Method, Plan, WORLD};
use crate::record::{Environment, Overlap};
use crate::suite::logps::sequence_logps;
use crate::suite::{self, Kind, Suite, SuiteData};
use crate::train::{ReferenceCache, TrainData};

/// Tokenized training data.
#[derive(Clone)]
pub enum TrainingSet {
    Paired(Vec<TokenizedPair>),
    Unpaired(Vec<TokenizedExample>),
}

impl TrainingSet {
    /// The set as an arm learns from it: after control tokens, where its method has any.
    ///
    /// # Errors
    /// Control tokens that the tokenizer cannot write or tell apart.
    pub fn conditioned(
        &self,
        method: &Method,
        tokenizer: &Tokenizer,
        max_length: usize,
    ) -> Result<Cow<'_, Self>> {
        let Method::Csft(spec) = method else { return Ok(Cow::Borrowed(self)) };
        let control = Control::new(tokenizer, &spec.desirable_token, &spec.undesirable_token)?;
        Ok(Cow::Owned(match self {
            Self::Paired(pairs) => Self::Paired(control.pairs(pairs, max_length)),
            Self::Unpaired(examples) => Self::Unpaired(control.examples(examples, max_length)),
        }))
    }

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
    /// Nobody asks for the start once training has begun: it is trained in place, one copy less in memory.
    pub spare_start: bool,
    /// Where it came from (the base's folder, where the plan names an adapter).
    pub start_dir: PathBuf,
    /// The plan names an adapter: the start is its base with the adapter merged.
    pub adapted: bool,
    /// The reference, where it is another model than the start.
    pub reference: Option<Decoder>,
    /// Reference log-probs of training data, kept for later comparisons too.
    pub cache: ReferenceCache,
    /// Reference log-probs of held-out completions, by what was asked.
    scored: Mutex<BTreeMap<String, Vec<f64>>>,
    /// Training data, a set for each treatment that the arms ask for.
    pub data: TrainingSets,
    /// The held-out split of the plan's data; empty where no suite asks for it.
    pub heldout: Dataset,
    pub suites: Vec<Suite>,
    /// The models that judge, where a suite needs one.
    pub judges: Judges,
    /// The longest control text after which an arm is asked; suites leave room for it, the same for every arm.
    pub control_tokens: usize,
    /// With its hashes filled in.
    pub environment: Environment,
    /// Why the first suite that cannot be read cannot be.
    unread: Option<Error>,
}

impl Prepared {
    /// Says once whether every suite's examples were read. What is wrong with an arm is better said before.
    ///
    /// # Errors
    /// A suite whose data are missing, or are not what it needs.
    pub fn suites_read(&mut self) -> Result<()> {
        self.unread.take().map_or(Ok(()), Err)
    }

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
    check_primary(plan, &suites, observer)?;
    let validation = plan.tune.as_ref().map(validation_suite).transpose()?;
    let asked: Vec<Suite> = suites.iter().chain(&validation).cloned().collect();
    let judges = Judges::of_suites(&asked, &plan.judge, &device)?;
    let dir = directory(&plan.model.source, &plan.model.revision, plan, observer)?;
    let dtype = dtype(plan.model.dtype, &device)?;
    if device.is_cuda()
        && let Some(better) = super::device::cpu_settings(plan)
    {
        observer.note(&better);
    }
    observer.stage(&format!("loading {}", plan.model.source));
    let quantize = plan.model.quantize;
    let Opened { decoder, tokenizer_dir, weights_dir: start_dir } = open_dir(&dir, dtype, &device, quantize)?;
    let tokenizer = Tokenizer::load(&tokenizer_dir)?;
    let adapted = decoder.adapter().is_some();
    if adapted && quantize.is_on() {
        return Err(anyhow!(
            "{} is an adapter, and model.quantize = \"{}\" asks for a frozen base",
            plan.model.source,
            quantize.name()
        ))
        .hint("merge it first (kto-eval merge), and name the merged model; or leave `quantize` out");
    }
    let start = whole(decoder)?;
    writes(&start, &plan.model.source)?;
    no_control(&start, &plan.model.source)?;
    // Control tokens that cannot be written are found now too.
    let mut control_tokens = 0;
    for arm in &plan.arms {
        if let Method::Csft(spec) = &arm.method {
            let control = Control::new(&tokenizer, &spec.desirable_token, &spec.undesirable_token)
                .with_context(|| format!("arm {}", arm.name))?;
            control_tokens = control_tokens.max(control.desirable.len());
        }
    }
    // A target module that is not there is found now, not when its arm's turn comes.
    for arm in plan.arms.iter().filter(|arm| arm.train.lora.is_on()) {
        start.with_adapter(&arm.train.lora, 0).with_context(|| format!("arm {}", arm.name))?;
    }
    let vocabulary = start.config().vocab;
    tokenizer.check_fits(vocabulary).with_context(|| format!("model {}", start_dir.display()))?;
    let reference = match plan.model.reference.as_str() {
        "" => None,
        source => {
            let dir = directory(source, &plan.model.reference_revision, plan, observer)?;
            Some(whole(open_dir(&dir, dtype, &device, quantize)?.decoder)?)
        }
    };
    if let Some(reference) = &reference {
        writes(reference, &plan.model.reference)?;
        no_control(reference, &plan.model.reference)?;
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
    let mut data = TrainingSets::read(plan, &tokenizer, observer)?;
    validation.iter().try_for_each(|suite| pairs_for(suite, &data.validation)).context("tune.suite")?;
    environment.data_hash = data.hash.clone();
    for arm in &plan.arms {
        within_context(start.config(), data.of(&arm.data), observer)
            .with_context(|| format!("arm {}", arm.name))?;
    }
    let heldout = heldout(plan, &suites, &tokenizer, observer)?;
    let most = plan.suites.max_examples;
    let from = SuiteData { tokenizer: &tokenizer, data: &plan.data, heldout: &heldout, max_examples: most };
    let unread;
    (environment.contamination, unread) = overlaps(&data.take_prompts(), &from, &suites);
    // The last bits of a product depend on the number of threads.
    let address = match device.is_cpu() {
        true => format!("{weights}-{}-threads", rayon::current_num_threads()),
        false => format!("{weights}-gpu"),
    };
    let cache = ReferenceCache::open(&address, cache_folder(observer).as_deref());
    let scored = Mutex::default();
    Ok(Prepared {
        device,
        tokenizer,
        start,
        spare_start: false,
        start_dir,
        adapted,
        reference,
        cache,
        scored,
        data,
        heldout,
        suites,
        judges,
        control_tokens,
        environment,
        unread,
    })
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

/// The suites that a plan names, and not the one that its tuning asks.
///
/// # Errors
/// A name that is unknown, or twice there; a file that cannot be read.
pub fn suites(plan: &Plan) -> Result<Vec<Suite>> {
    let named = [("preference", &plan.suites.preference), ("generation", &plan.suites.generation)];
    let mut suites = Vec::new();
    for (folder, names) in named {
        for name in names {
            suites.push(suite::find(name, folder)?);
        }
    }
    tell_apart(&mut suites)?;
    Ok(suites)
}

/// Rows know a suite by its name: where a preference and a generation suite share one, the kind is said too.
///
/// # Errors
/// Two suites of one kind and name.
pub(super) fn tell_apart(suites: &mut [Suite]) -> Result<()> {
    let names: Vec<(String, Kind)> = suites.iter().map(|s| (s.name.clone(), s.kind)).collect();
    for (i, suite) in suites.iter_mut().enumerate() {
        ensure!(
            !names[..i].contains(&names[i]),
            "the {} suite `{}` is named twice: its rows could not be told apart",
            suite.kind.folder(),
            suite.name
        );
        if names.iter().any(|(name, kind)| *name == suite.name && *kind != suite.kind) {
            suite.name = format!("{}/{}", suite.kind.folder(), suite.name);
        }
    }
    Ok(())
}

/// How much of each suite the training prompts hold, and why one of them cannot be read, if one cannot.
fn overlaps(
    training: &BTreeSet<String>,
    from: &SuiteData,
    suites: &[Suite],
) -> (Vec<Overlap>, Option<Error>) {
    let training: Vec<&str> = training.iter().map(String::as_str).collect();
    let (mut overlaps, mut unread) = (vec![], None);
    for suite in suites {
        match from.prompts(suite) {
            Err(error) => unread = unread.or(Some(error)),
            Ok(prompts) => {
                let prompts: Vec<&str> = prompts.iter().map(String::as_str).collect();
                let found = suite::contamination(&training, &prompts, suite::WORDS);
                let suite::Contamination { prompts, identical, overlapping, words } = found;
                overlaps.push(Overlap { suite: suite.name.clone(), prompts, identical, overlapping, words });
            }
        }
    }
    (overlaps, unread)
}

/// Reads and tokenizes a split.
pub(super) fn read_training_set(
    spec: &DataSpec,
    tokenizer: &Tokenizer,
    observer: &mut dyn Observer,
) -> Result<TrainingSet> {
    observer.stage(&format!("reading {}", spec.source));
    let loaded = load_with(spec, &spec.split, &tokenizer.template())?;
    for note in &loaded.notes {
        observer.note(note);
    }
    tokenized(spec, &loaded.dataset, loaded.format, tokenizer, observer)
}

/// Tokenizes a data set, and tells what that kept.
pub(super) fn tokenized(
    spec: &DataSpec,
    dataset: &Dataset,
    format: DataFormat,
    tokenizer: &Tokenizer,
    observer: &mut dyn Observer,
) -> Result<TrainingSet> {
    let (set, stats) = match dataset {
        Dataset::Paired(pairs) => {
            let (pairs, stats) = tokenize_pairs(pairs, tokenizer, spec.max_length)?;
            (TrainingSet::Paired(pairs), stats)
        }
        Dataset::Unpaired(examples) => {
            let (examples, stats) = tokenize_unpaired(examples, tokenizer, spec.max_length)?;
            (TrainingSet::Unpaired(examples), stats)
        }
    };
    observer.note(&describe(spec, &format, &stats));
    Ok(set)
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
