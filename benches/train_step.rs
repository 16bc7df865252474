//! Forward and backward of packed preference pairs: useful GFLOP/s, and its share of this machine's fp32
//! matrix-product peak; then a whole step of each kind of method.
//!
//! `cargo bench --bench train_step [-- 4m|27m] [rounds]`. Times are CPU seconds of the process, so that other
//! load on the machine disturbs less; with several threads waiting counts too. Lengths are drawn like those of
//! HH: prompts around 100 tokens, completions around 60.

use candle_core::{DType, Device};
use kto_eval::base::error::Result;
use kto_eval::base::seed;
use kto_eval::data::Sequence;
use kto_eval::model::{Decoder, DecoderConfig, Gradients, Packed, Size};
use kto_eval::objective::{ClassCounts, Feedback, build};
use kto_eval::plan::{
    BetaSpec, DpoSpec, KtoSpec, Lambda, Likelihood, Method, OrpoSpec, SimpoSpec, TrainSpec, Z0,
};
use kto_eval::train::{
    AdamW, Reference, ReferenceCache, StepInput, Unit, compute_step, mismatched_sequences,
};
use rand_chacha::rand_core::Rng;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn cpu_seconds() -> f64 {
    let mut usage = std::mem::MaybeUninit::<libc::rusage>::zeroed();
    // SAFETY: `getrusage` fills the struct that it is given; all zeros is a valid value of it.
    let usage = unsafe {
        libc::getrusage(libc::RUSAGE_SELF, usage.as_mut_ptr());
        usage.assume_init()
    };
    let seconds = |t: libc::timeval| t.tv_sec as f64 + t.tv_usec as f64 * 1e-6;
    seconds(usage.ru_utime) + seconds(usage.ru_stime)
}

/// Peak of a 1024³ product per CPU second of one thread, the best of a few.
fn peak() -> f64 {
    let n = 1024;
    let a = vec![0.5f32; n * n];
    let mut out = vec![0f32; n * n];
    let mut best = 0f64;
    for _ in 0..6 {
        let start = cpu_seconds();
        let view = || kto_eval::kernels::matrix::View::new(&a, n, n, n);
        kto_eval::kernels::matrix::matmul(&mut out, n, false, view(), view(), 1);
        best = best.max(2.0 * (n as f64).powi(3) / (cpu_seconds() - start));
    }
    best
}

fn pairs(count: usize, vocab: u32) -> Packed {
    let mut rng = seed::rng(5, "bench pairs");
    let mut draw = |low: u32, high: u32| (low + rng.next_u32() % (high - low)) as usize;
    let mut packed = Packed::default();
    for _ in 0..count {
        let (prompt, chosen, rejected) = (draw(30, 170), draw(15, 105), draw(15, 105));
        let head: Vec<u32> = (0..prompt).map(|_| draw(0, vocab) as u32).collect();
        let mut whole = |n: usize| {
            let tail: Vec<u32> = (0..n).map(|_| draw(0, vocab) as u32).collect();
            Sequence { ids: [head.clone(), tail].concat().into(), prompt_len: prompt }
        };
        let (chosen, rejected) = (whole(chosen), whole(rejected));
        packed.push_group(&[&chosen, &rejected]);
    }
    packed
}

/// Units of one step: pairs, their chosen sides, or both sides one by one.
fn units(feedback: Feedback, vocab: u32) -> Vec<Unit> {
    let mut rng = seed::rng(6, "bench units");
    let mut draw = |low: u32, high: u32| (low + rng.next_u32() % (high - low)) as usize;
    let mut list = Vec::new();
    for i in 0..8 {
        let prompt = draw(30, 170);
        let head: Vec<u32> = (0..prompt).map(|_| draw(0, vocab) as u32).collect();
        let mut side = || {
            let tail: Vec<u32> = (0..draw(15, 105)).map(|_| draw(0, vocab) as u32).collect();
            Sequence { ids: [head.clone(), tail].concat().into(), prompt_len: prompt }
        };
        let (chosen, rejected) = (side(), side());
        let mut unit = |sequences, desirable| list.push(Unit { id: i.to_string(), sequences, desirable });
        match feedback {
            Feedback::Paired => unit(vec![chosen, rejected], true),
            Feedback::Unpaired => {
                unit(vec![chosen], true);
                unit(vec![rejected], false);
            }
            _ => unit(vec![chosen], true),
        }
    }
    list
}

/// A whole step of each method: reference (not known yet), KL term, forward, backward, AdamW.
fn methods(config: &DecoderConfig, rounds: usize) -> Result<()> {
    let beta = || BetaSpec { beta: 0.1 };
    let all = [
        Method::Sft,
        Method::Dpo(DpoSpec { beta: 0.1 }),
        Method::Kto(KtoSpec { beta: 0.1, lambda: Lambda::Auto, z0: Z0::Next }),
        Method::Simpo(SimpoSpec { beta: 2.0, gamma: 0.5 }),
        Method::Orpo(OrpoSpec { beta: 0.1, likelihood: Likelihood::Completion }),
        Method::Bco(beta()),
    ];
    for method in all {
        let objective = build(&method)?;
        let mut policy = Decoder::random(config.clone(), 1, DType::F32, &Device::Cpu)?;
        let reference = policy.duplicate()?;
        let units = units(objective.feedback(), config.vocab as u32);
        let units: Vec<&Unit> = units.iter().collect();
        let tokens: usize = units.iter().map(|u| u.tokens()).sum();
        let mismatched = match objective.z0() {
            Some(z0) => mismatched_sequences(&units, z0, 512)?,
            None => vec![],
        };
        let mut optimizer = AdamW::new(&TrainSpec::default(), &policy)?;
        let mut gradients = Gradients::zeros(&policy)?;
        let mut times = Vec::new();
        for _ in 0..rounds {
            let cache = ReferenceCache::open("bench", None);
            let input = StepInput {
                units: &units,
                mismatched: &mismatched,
                reference: Some(Reference::new(&reference, &cache)),
                micro_tokens: TrainSpec::default().micro_tokens,
                dropout: None,
                classes: ClassCounts { desirable: 1, undesirable: 1 },
                reward_shift: 0.0,
            };
            let start = cpu_seconds();
            gradients.restart_()?;
            compute_step(&policy, objective.as_ref(), &input, &mut gradients)?;
            optimizer.step(&mut policy, &gradients, 1e-5, 1.0)?;
            times.push(cpu_seconds() - start);
        }
        times.sort_by(f64::total_cmp);
        let time = times[times.len() / 2];
        println!(
            "  step of {}: {tokens} tokens, {:.0} ms, {:.0} tokens per CPU second",
            objective.name(),
            time * 1e3,
            tokens as f64 / time
        );
    }
    Ok(())
}

fn main() -> Result<()> {
    let args: Vec<String> = std::env::args().skip(1).filter(|a| a != "--bench").collect();
    let wanted = args.first().map_or("", String::as_str);
    let rounds: usize = args.get(1).and_then(|r| r.parse().ok()).unwrap_or(5);
    let sizes = [
        (
            "4m",
            Size {
                vocab: 4096,
                hidden: 256,
                layers: 4,
                heads: 4,
                kv_heads: 2,
                intermediate: 688,
                context: 1024,
            },
        ),
        (
            "27m",
            Size {
                vocab: 4096,
                hidden: 512,
                layers: 8,
                heads: 8,
                kv_heads: 8,
                intermediate: 1376,
                context: 2048,
            },
        ),
    ];
    println!("{} threads; peak of one thread {:.1} GFLOP/s", rayon::current_num_threads(), peak() / 1e9);
    for (name, size) in sizes.into_iter().filter(|(name, _)| wanted.is_empty() || *name == wanted) {
        let decoder = Decoder::random(DecoderConfig::llama(size)?, 1, DType::F32, &Device::Cpu)?;
        let mut grads = Gradients::zeros(&decoder)?;
        let micro: Vec<Packed> = (0..2).map(|_| pairs(4, size.vocab as u32)).collect();
        let flops: f64 = micro.iter().map(|p| decoder.flops(p)).sum();
        let tokens: usize = micro.iter().map(|p| p.ids.len()).sum();
        let (mut forward, mut backward) = (Vec::new(), Vec::new());
        let mut peaks = Vec::new();
        for _ in 0..rounds {
            peaks.push(peak());
            let (mut f, mut b) = (0.0, 0.0);
            for packed in &micro {
                let start = cpu_seconds();
                let (logps, tape) = decoder.forward(packed)?;
                let middle = cpu_seconds();
                decoder.backward(tape, &vec![0.01; logps.len()], &mut grads)?;
                f += middle - start;
                b += cpu_seconds() - middle;
            }
            forward.push(f);
            backward.push(b);
        }
        let median = |v: &mut Vec<f64>| {
            v.sort_by(f64::total_cmp);
            v[v.len() / 2]
        };
        let (f, b, peak) = (median(&mut forward), median(&mut backward), median(&mut peaks));
        println!(
            "{name}: {tokens} tokens; forward {:.1} ms {:.1} GFLOP/s {:.0} %; backward {:.1} ms {:.1} GFLOP/s {:.0} %; together {:.0} %",
            f * 1e3,
            flops / f / 1e9,
            100.0 * flops / f / peak,
            b * 1e3,
            2.0 * flops / b / 1e9,
            200.0 * flops / b / peak,
            300.0 * flops / (f + b) / peak
        );
        methods(decoder.config(), rounds)?;
    }
    Ok(())
}
