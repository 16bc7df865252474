//! A short training run that a GPU and the CPU must agree on.
#![allow(dead_code, reason = "each test binary uses a part")]

use crate::engine::random_sequence;
use candle_core::{DType, Device};
use kto_eval::model::{Decoder, DecoderConfig, Gradients, Packed, Size};
use kto_eval::plan::TrainSpec;
use kto_eval::train::AdamW;

/// Prompts that two completions share, one that stands alone, and a longer one.
pub fn batch(vocab: u32, seed: u64) -> Packed {
    let mut packed = Packed::default();
    for (i, (prompt, completions)) in
        [(5, vec![4, 7]), (3, vec![6]), (9, vec![30, 12])].into_iter().enumerate()
    {
        let of = |n: &usize| random_sequence(seed + i as u64, prompt, *n, vocab);
        let group: Vec<_> = completions.iter().map(of).collect();
        packed.push_group(&group.iter().collect::<Vec<_>>());
    }
    packed
}

/// The loss of each of `steps` batches before its update: SFT of a small Llama, clipped, with weight decay.
pub fn trained(dtype: DType, steps: u64, device: &Device) -> Vec<f64> {
    let size =
        Size { vocab: 61, hidden: 32, layers: 2, heads: 4, kv_heads: 2, intermediate: 48, context: 64 };
    let mut policy = Decoder::random(DecoderConfig::llama(size).unwrap(), 3, dtype, device).unwrap();
    let spec = TrainSpec { weight_decay: 0.01, ..TrainSpec::default() };
    let mut optimizer = AdamW::new(&spec, &policy).unwrap();
    let mut grads = Gradients::zeros(&policy).unwrap();
    let step = |step: u64| {
        let packed = batch(61, step % 4);
        let (logps, tape) = policy.forward(&packed).unwrap();
        let n = logps.len() as f64;
        policy.backward(tape, &vec![-1.0 / n; logps.len()], &mut grads).unwrap();
        let norm = grads.global_norm().unwrap();
        optimizer.step(&mut policy, &grads, 3e-3, (1.0 / norm).min(1.0)).unwrap();
        grads.zero_().unwrap();
        -logps.iter().sum::<f64>() / n
    };
    (0..steps).map(step).collect()
}
