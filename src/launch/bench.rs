//! What this machine does with a plan's model and data: speed and memory of each phase, against the
//! machine's own matrix-product peak.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use candle_core::{DType, Device, Tensor};
use serde::Serialize;

use super::memory::PeakMemory;
use super::observer::Observer;
use super::pace::is_measured;
use super::prepare::{Prepared, prepare};
use super::run::start;
use super::training_set::TrainingSet;
use crate::base::error::{Context, Result, ensure};
use crate::data::Sequence;
use crate::kernels::matrix::{View, matmul};
use crate::kernels::{cpu, linear};
use crate::model::generate::{Decoding, Request, Text, generate};
use crate::model::{Gradients, Packed};
use crate::plan::{Arm, Budget, Plan, SuitesSpec};
use crate::train::{Hooks, Job, Reference, ReferenceCache, StepMetrics, train};

/// Sequences sampled at once.
const SLOTS: usize = 16;
const NEW_TOKENS: usize = 64;
/// Completions packed together where the engine alone is measured.
const PACKED: usize = 16;
/// Side of the matrix product that stands for the machine's peak: on a GPU a small one is over before it is fast.
const SIDE: usize = 1024;
const GPU_SIDE: usize = 8192;

/// One phase of the work.
#[derive(Clone, Debug, Serialize)]
pub struct Phase {
    pub phase: String,
    /// What a repetition handles, and how many there were.
    pub repetitions: usize,
    pub tokens: usize,
    /// Median over repetitions.
    pub seconds: f64,
    pub tokens_per_second: f64,
    /// Analytic work over time; none for phases that are not made of products.
    pub gflops: Option<f64>,
    /// Of the peak measured just before and after, in [0, 1].
    pub share_of_peak: Option<f64>,
    /// Peak resident memory beyond what was resident before the phase.
    pub extra_mib: f64,
}

/// The table that `kto-eval bench` prints.
#[derive(Clone, Debug, Serialize)]
pub struct Bench {
    pub model: String,
    pub parameters: usize,
    /// At which sequences are cut, in tokens.
    pub max_length: usize,
    pub threads: usize,
    pub device: String,
    /// Of an fp32 product of two 1024 × 1024 matrices with all threads, the best seen; on a GPU, of two of 8192 × 8192
    /// in the model's dtype.
    pub peak_gflops: f64,
    /// Resident with the model and the data loaded.
    pub loaded_mib: f64,
    pub phases: Vec<Phase>,
}

/// Measures for about `seconds` in all, or until `abort` is raised. Suites of the plan are not read, and arms that sample or are another program are
/// left out.
///
/// # Errors
/// What the plan names cannot be read; an arm fails its run-time checks.
pub fn bench(
    plan: &Plan,
    device: Device,
    seconds: f64,
    abort: &AtomicBool,
    observer: &mut dyn Observer,
) -> Result<Bench> {
    let suites = SuitesSpec { preference: vec![], generation: vec![], ..plan.suites.clone() };
    let plan = Plan { suites, ..plan.clone() };
    let prepared = prepare(&plan, device, observer)?;
    let (arms, others): (Vec<&Arm>, Vec<&Arm>) = plan.arms.iter().partition(|arm| is_measured(arm));
    for arm in others {
        observer.note(&format!("arm {}: not measured, since it samples or is another program", arm.name));
    }
    let mut meter = Meter::new(&prepared, seconds / (arms.len() + 3) as f64)?;
    let loaded_mib = PeakMemory::start().before_mib;
    let groups = groups(prepared.data.first());
    ensure!(!groups.is_empty(), "{}: no training data", plan.data.source);
    let packed = pack(&groups);
    let mut phases = vec![];
    observer.stage("engine, forward");
    phases.push(meter.forward(&prepared, &packed)?);
    observer.stage("engine, forward and backward");
    phases.push(meter.backward(&prepared, &plan, &packed)?);
    for arm in arms.into_iter().filter(|_| !abort.load(Ordering::Relaxed)) {
        observer.stage(&format!("steps of {}", arm.name));
        phases.push(meter.arm(&prepared, &plan, arm, abort).with_context(|| format!("arm {}", arm.name))?);
    }
    if !abort.load(Ordering::Relaxed) {
        observer.stage("sampling");
        let prompts = groups.iter().take(SLOTS).map(|g| g[0].prompt()).collect();
        phases.push(meter.sampling(&prepared, prompts)?);
    }
    Ok(Bench {
        model: plan.model.source.clone(),
        parameters: prepared.start.num_params(),
        max_length: plan.data.max_length,
        threads: rayon::current_num_threads(),
        device: super::device::name(&prepared.device),
        peak_gflops: meter.best / 1e9,
        loaded_mib,
        phases,
    })
}

/// Completions in groups of one prompt each, in the order of the data.
fn groups(data: &TrainingSet) -> Vec<Vec<&Sequence>> {
    match data {
        TrainingSet::Paired(pairs) => pairs.iter().map(|p| vec![&p.chosen, &p.rejected]).collect(),
        TrainingSet::Unpaired(examples) => examples.iter().map(|e| vec![&e.sequence]).collect(),
    }
}

fn pack(groups: &[Vec<&Sequence>]) -> Packed {
    let mut packed = Packed::default();
    let mut taken = 0;
    for group in groups {
        if taken >= PACKED {
            break;
        }
        packed.push_group(group);
        taken += group.len();
    }
    packed
}

/// Times a phase between two measurements of the peak.
struct Meter<'a> {
    device: &'a Device,
    dtype: DType,
    /// For each phase.
    allowed: Duration,
    best: f64,
}

/// What a phase did in each repetition.
struct Work {
    tokens: usize,
    flops: f64,
    seconds: f64,
}

impl<'a> Meter<'a> {
    fn new(prepared: &'a Prepared, seconds: f64) -> Result<Self> {
        let (device, dtype) = (&prepared.device, prepared.start.dtype());
        let mut meter = Self { device, dtype, allowed: Duration::from_secs_f64(seconds), best: 0.0 };
        meter.peak()?;
        Ok(meter)
    }

    /// FLOP/s of the product that stands for the peak, the best of a few.
    fn peak(&mut self) -> Result<f64> {
        let n = if self.device.is_cpu() { SIDE } else { GPU_SIDE };
        let flops = 2.0 * (n as f64).powi(3);
        let mut here = 0f64;
        let side = if self.device.is_cpu() { n } else { 0 };
        let (a, mut out) = (vec![0.5f32; side * side], vec![0f32; side * side]);
        let on_device = Tensor::full(0.5f32, if side == 0 { (n, n) } else { (1, 1) }, self.device)?;
        let on_device = on_device.to_dtype(self.dtype)?;
        for _ in 0..5 {
            let start = Instant::now();
            if self.device.is_cpu() {
                let view = || View::new(&a, n, n, n);
                matmul(&mut out, n, false, view(), view(), cpu::all_threads());
            } else {
                linear::forward(&on_device, &on_device, None)?;
                self.device.synchronize()?;
            }
            here = here.max(flops / start.elapsed().as_secs_f64());
        }
        self.best = self.best.max(here);
        Ok(here)
    }

    /// Repeats `work` until its time is over, at least three times after one that warms up.
    fn repeat(&mut self, name: &str, mut work: impl FnMut() -> Result<(usize, f64)>) -> Result<Phase> {
        let before = self.peak()?;
        let memory = PeakMemory::start();
        work()?;
        let begun = Instant::now();
        let mut done = vec![];
        while done.len() < 3 || begun.elapsed() < self.allowed {
            let start = Instant::now();
            let (tokens, flops) = work()?;
            self.device.synchronize()?;
            done.push(Work { tokens, flops, seconds: start.elapsed().as_secs_f64() });
        }
        let extra_mib = memory.peak_mib() - memory.before_mib;
        let after = self.peak()?;
        Ok(phase(name, &done, before.max(after), extra_mib))
    }

    fn forward(&mut self, prepared: &Prepared, packed: &Packed) -> Result<Phase> {
        let (decoder, flops) = (&prepared.start, prepared.start.flops(packed));
        self.repeat("engine: forward", || {
            decoder.logps(packed)?;
            Ok((packed.ids.len(), flops))
        })
    }

    /// On a quantised base through the first arm's adapter: the base itself has no gradients.
    fn backward(&mut self, prepared: &Prepared, plan: &Plan, packed: &Packed) -> Result<Phase> {
        let adapted = match prepared.start.is_quantized() {
            true => Some(prepared.start.with_adapter(&plan.arms[0].train.lora, 0)?),
            false => None,
        };
        let decoder = adapted.as_ref().unwrap_or(&prepared.start);
        let flops = decoder.training_flops(packed);
        let mut gradients = Gradients::zeros(decoder)?;
        self.repeat("engine: forward and backward", || {
            let (logps, tape) = decoder.forward(packed)?;
            decoder.backward(tape, &vec![0.01; logps.len()], &mut gradients)?;
            Ok((packed.ids.len(), flops))
        })
    }

    /// Training steps of an arm: through the loop, the optimizer and the run-time checks, the reference
    /// computed as it is needed. Within one epoch, so that no reference is already known.
    fn arm(&mut self, prepared: &Prepared, plan: &Plan, arm: &Arm, abort: &AtomicBool) -> Result<Phase> {
        let before = self.peak()?;
        let memory = PeakMemory::start();
        let seed = plan.seeds.first().copied().unwrap_or(1);
        let mut policy = start(prepared, arm, seed)?;
        let data = prepared.data.of(&arm.data);
        let data = data.conditioned(&arm.method, &prepared.tokenizer, arm.data.max_length)?;
        let cache = ReferenceCache::open(prepared.cache.weights(), None);
        let job = Job {
            method: &arm.method,
            spec: &arm.train,
            budget: Budget::Seconds(self.allowed.as_secs_f64().max(0.5)),
            seed,
            max_length: arm.data.max_length,
            data: data.as_data(),
            reference: Some(Reference::new(prepared.reference(), &cache)),
        };
        let enough = AtomicBool::new(false);
        let units = match prepared.data.of(&arm.data) {
            TrainingSet::Paired(pairs) => 2 * pairs.len(),
            TrainingSet::Unpaired(examples) => examples.len(),
        };
        let (mut steps, mut seen): (Vec<StepMetrics>, u64) = (vec![], 0);
        let mut hooks = Hooks {
            step: &mut |metrics| {
                steps.push(metrics.clone());
                seen += metrics.desirable + metrics.undesirable;
                let over = seen + arm.train.batch_size as u64 >= units as u64;
                enough.store(over || abort.load(Ordering::Relaxed), Ordering::Relaxed);
                Ok(())
            },
            progress: &mut |_| {},
            abort: &enough,
        };
        let outcome = train(&mut policy, &job, &mut hooks)?;
        let extra_mib = memory.peak_mib() - memory.before_mib;
        let after = self.peak()?;
        // Work is counted for the run; each step has its tokens' part of it. The first step also checks.
        let per_token = outcome.ledger.flops / outcome.ledger.policy_tokens as f64;
        let skipped = usize::from(steps.len() > 3);
        let done: Vec<Work> = steps[skipped..]
            .iter()
            .map(|s| Work {
                tokens: s.policy_tokens as usize,
                flops: per_token * s.policy_tokens as f64,
                seconds: s.seconds,
            })
            .collect();
        Ok(phase(&format!("steps of {}", arm.name), &done, before.max(after), extra_mib))
    }

    fn sampling(&mut self, prepared: &Prepared, prompts: Vec<&[u32]>) -> Result<Phase> {
        let model = &prepared.start;
        let room = model.config().max_positions.saturating_sub(NEW_TOKENS).max(1);
        let requests: Vec<Request> = prompts
            .iter()
            .enumerate()
            .map(|(i, p)| Request { id: i.to_string(), prompt: p[p.len().saturating_sub(room)..].to_vec() })
            .collect();
        let nothing = |_: &[u32]| Ok(String::new());
        let text = Text { decode: &nothing, eos: &[] };
        let decoding = Decoding { max_new_tokens: NEW_TOKENS, temperature: 1.0, ..Decoding::default() };
        let name = format!("sampling, {} at once", requests.len());
        let mut phase = self.repeat(&name, || {
            let done = generate(model, text, &requests, &decoding, 0, SLOTS)?;
            Ok((done.new_tokens, 0.0))
        })?;
        // A step of decoding reads every weight for a few rows: it is bound by memory, not by products.
        (phase.gflops, phase.share_of_peak) = (None, None);
        Ok(phase)
    }
}

fn phase(name: &str, done: &[Work], peak: f64, extra_mib: f64) -> Phase {
    let middle = |of: &dyn Fn(&Work) -> f64| {
        let mut values: Vec<f64> = done.iter().map(of).collect();
        values.sort_by(f64::total_cmp);
        values.get(values.len() / 2).copied().unwrap_or(0.0)
    };
    let speed = middle(&|w| w.flops / w.seconds);
    Phase {
        phase: name.to_owned(),
        repetitions: done.len(),
        tokens: middle(&|w| w.tokens as f64) as usize,
        seconds: middle(&|w| w.seconds),
        tokens_per_second: middle(&|w| w.tokens as f64 / w.seconds),
        gflops: Some(speed / 1e9),
        share_of_peak: Some(speed / peak),
        extra_mib: extra_mib.max(0.0),
    }
}
