//! What all runs of a plan share: model, tokenizer, reference, data, suites.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::Mutex;

use candle_core::Device;

use super::context::within_context;
use super::device;
use super::external::check_trainer;
use super::fits::{check_counts, check_tokens};
use super::heldout::{heldout, pairs_for};
use super::judges::Judges;
use super::keep::cache_folder;
use super::metrics::{check_primary, validation_suite};
use super::models::{Start, check_arms, open_reference, open_start};
use super::observer::Observer;
use super::online::check_arm;
use super::training_sets::TrainingSets;
use crate::base::error::{Context, Error, HintExt, Result, anyhow, ensure};
use crate::base::hash::Hasher;
use crate::data::{Dataset, Sequence, Tokenizer};
use crate::model::Decoder;
use crate::plan::Plan;
use crate::record::{Environment, Overlap};
use crate::suite::logps::sequence_logps;
use crate::suite::{self, Kind, Suite, SuiteData};
use crate::train::ReferenceCache;

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
    /// What is wrong with the first suite whose examples cannot be read: see [`ready`].
    unread: Option<Error>,
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
    check_primary(plan, &suites, observer)?;
    let validation = plan.tune.as_ref().map(validation_suite).transpose()?;
    let asked: Vec<Suite> = suites.iter().chain(&validation).cloned().collect();
    let judges = Judges::of_suites(&asked, &plan.judge, &device)?;
    let start = open_start(plan, &device, observer)?;
    let control_tokens = check_arms(plan, &start)?;
    let reference = open_reference(plan, &start.decoder, observer)?;
    let mut environment = environment(plan, &device, &start.decoder, reference.as_ref())?;
    let Start { decoder: start, tokenizer, dir: start_dir, adapted } = start;
    let mut data = TrainingSets::read(plan, &tokenizer, observer)?;
    validation.iter().try_for_each(|suite| pairs_for(suite, &data.validation)).context("tune.suite")?;
    environment.data_hash = data.hash.clone();
    for (place, arm) in plan.arms.iter().enumerate() {
        // Of arms that share their data the first.
        if plan.arms[..place].iter().any(|other| other.data == arm.data) {
            continue;
        }
        within_context(start.config(), data.of(&arm.data), observer)
            .with_context(|| format!("arm {}", arm.name))?;
    }
    let heldout = heldout(plan, &suites, &tokenizer, observer)?;
    let most = plan.suites.max_examples;
    let from = SuiteData { tokenizer: &tokenizer, data: &plan.data, heldout: &heldout, max_examples: most };
    let unread;
    (environment.contamination, unread) = overlaps(&data.take_prompts(), &from, &suites);
    Ok(Prepared {
        cache: reference_cache(&environment.reference_hash, &device, observer),
        scored: Mutex::default(),
        spare_start: false,
        device,
        tokenizer,
        start,
        start_dir,
        adapted,
        reference,
        data,
        heldout,
        suites,
        judges,
        control_tokens,
        environment,
        unread,
    })
}

/// [`prepare`], and each arm and suite held against what was read: a comparison can be begun.
///
/// # Errors
/// Whatever is missing or does not fit; the message names it.
pub(super) fn ready(plan: &Plan, device: Device, observer: &mut dyn Observer) -> Result<Prepared> {
    let mut prepared = prepare(plan, device, observer)?;
    let context = prepared.start.config().max_positions;
    for arm in &plan.arms {
        // What an external trainer can use of the data is its own affair.
        match &arm.trainer {
            Some(trainer) => check_trainer(&prepared, &arm.name, trainer)?,
            None => check_arm(arm, prepared.data.of(&arm.data), context)
                .with_context(|| format!("arm {}", arm.name))?,
        }
    }
    check_counts(plan)?;
    for note in check_tokens(plan, &|arm| prepared.data.of(&arm.data))? {
        observer.note(&note);
    }
    // Last: what is wrong with an arm is better said before.
    prepared.unread.take().map_or(Ok(prepared), Err)
}

/// # Errors
/// A plan without a suite.
pub(super) fn measures_something(plan: &Plan) -> Result<()> {
    if !plan.suites.preference.is_empty() || !plan.suites.generation.is_empty() {
        return Ok(());
    }
    Err(anyhow!("plan `{}` names no suite: nothing would be measured", plan.name))
        .hint("`kto-eval suites list` lists the suites")
}

/// Where and on what the plan is run; the data's hash is not known yet.
fn environment(
    plan: &Plan,
    device: &Device,
    start: &Decoder,
    reference: Option<&Decoder>,
) -> Result<Environment> {
    Ok(Environment {
        plan: plan.name.clone(),
        plan_hash: plan.hash(),
        model_hash: start.weights_hash()?,
        reference_hash: reference.unwrap_or(start).weights_hash()?,
        ..Environment::here(&device::name(device), rayon::current_num_threads())
    })
}

/// The user's cache of log-probs under the reference with these weights.
fn reference_cache(weights: &str, device: &Device, observer: &mut dyn Observer) -> ReferenceCache {
    // The last bits of a product depend on the number of threads.
    let address = match device.is_cpu() {
        true => format!("{weights}-{}-threads", rayon::current_num_threads()),
        false => format!("{weights}-gpu"),
    };
    ReferenceCache::open(&address, cache_folder(observer).as_deref())
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
