//! Each fused operation against the same thing out of candle ops, forward and backward (backward of the
//! plain version is candle's autograd, its forward included, as a user of it would pay).
//!
//! `cargo bench --bench kernels [-- FILTER]`. Sizes are those of a 27 M-parameter Llama on a packed step of
//! 1,024 tokens.

use candle_core::{DType, Device, Tensor, Var};
use criterion::{BatchSize, BenchmarkId, Criterion, criterion_group, criterion_main};
use kto_eval::base::seed;
use kto_eval::kernels::activation::{self, Activation};
use kto_eval::kernels::attention::{self, Shape, Tree};
use kto_eval::kernels::head::{self, Head};
use kto_eval::kernels::norm::{self, Kind, Norm, NormGrads};
use kto_eval::kernels::{linear, plain, rope};
use kto_eval::model::{Decoder, DecoderConfig, Gradients, Size};
use kto_eval::plan::TrainSpec;
use kto_eval::train::AdamW;
use rand_chacha::rand_core::Rng;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const TOKENS: usize = 1024;
const HIDDEN: usize = 512;
const INNER: usize = 1376;
const VOCAB: usize = 4096;
const HEADS: usize = 8;

fn random(name: &str, shape: &[usize]) -> Tensor {
    let mut rng = seed::rng(1, name);
    let count = shape.iter().product::<usize>();
    let numbers: Vec<f32> = (0..count).map(|_| rng.next_u32() as f32 / 2f32.powi(31) - 1.0).collect();
    Tensor::from_vec(numbers, shape, &Device::Cpu).unwrap()
}

fn norms(c: &mut Criterion) {
    for (name, kind) in [("rms_norm", Kind::Rms), ("layer_norm", Kind::Layer)] {
        let (x, w, dy) =
            (random("x", &[TOKENS, HIDDEN]), random("w", &[HIDDEN]), random("dy", &[TOKENS, HIDDEN]));
        let bias = (kind == Kind::Layer).then(|| random("b", &[HIDDEN]));
        let norm = Norm { kind, eps: 1e-5, weight: &w, bias: bias.as_ref() };
        let mut group = c.benchmark_group(name);
        group.bench_function("fused forward", |b| b.iter(|| norm::forward(&x, norm).unwrap()));
        group.bench_function("plain forward", |b| {
            b.iter(|| norm::plain_forward(&x, &w, bias.as_ref(), kind, 1e-5).unwrap())
        });
        let (mut dw, mut db) = (w.zeros_like().unwrap(), w.zeros_like().unwrap());
        group.bench_function("fused backward", |b| {
            b.iter(|| {
                let grads = NormGrads { weight: &mut dw, bias: bias.is_some().then_some(&mut db) };
                norm::backward(&dy, &x, norm, grads, None).unwrap()
            })
        });
        let mut inputs = vec![&x, &w];
        inputs.extend(bias.as_ref());
        group.bench_function("plain forward and backward", |b| {
            b.iter(|| {
                plain::backward(&inputs, &dy, |v| norm::plain_forward(&v[0], &v[1], v.get(2), kind, 1e-5))
                    .unwrap()
            })
        });
    }
}

fn gates(c: &mut Criterion) {
    for (name, activation) in [("swiglu", Activation::Silu), ("geglu", Activation::GeluTanh)] {
        let (x, dy) = (random("x", &[TOKENS, 2 * INNER]), random("dy", &[TOKENS, INNER]));
        let mut group = c.benchmark_group(name);
        group.bench_function("fused forward", |b| {
            b.iter(|| activation::forward(&x, activation, true).unwrap())
        });
        group.bench_function("plain forward", |b| {
            b.iter(|| activation::plain_forward(&x, activation, true).unwrap())
        });
        group.bench_function("fused backward", |b| {
            b.iter_batched(
                || (dy.copy().unwrap(), x.copy().unwrap()),
                |(dy, x)| activation::backward(dy, x, activation, true).unwrap(),
                BatchSize::LargeInput,
            )
        });
        group.bench_function("plain forward and backward", |b| {
            b.iter(|| {
                plain::backward(&[&x], &dy, |v| activation::plain_forward(&v[0], activation, true)).unwrap()
            })
        });
    }
}

fn rotations(c: &mut Criterion) {
    let d = HIDDEN / HEADS;
    let x = random("x", &[TOKENS, 3 * HIDDEN]);
    let positions: Vec<u32> = (0..TOKENS as u32).map(|p| p % 256).collect();
    let frequencies: Vec<f64> = (0..d / 2).map(|i| 1e4f64.powf(-2.0 * i as f64 / d as f64)).collect();
    let angles = rope::angles(&positions, &frequencies, 1.0, &x).unwrap();
    let mut group = c.benchmark_group("rope");
    group.bench_function("fused forward", |b| {
        b.iter_batched(
            || x.copy().unwrap(),
            |x| rope::forward(x, &angles, 2 * HEADS, d).unwrap(),
            BatchSize::LargeInput,
        )
    });
    group.bench_function("plain forward", |b| {
        b.iter(|| rope::plain_turn(&x, &angles, 2 * HEADS, d, 1.0).unwrap())
    });
    group.bench_function("fused backward", |b| {
        b.iter_batched(
            || x.copy().unwrap(),
            |dy| rope::backward(dy, &angles, 2 * HEADS, d).unwrap(),
            BatchSize::LargeInput,
        )
    });
    group.bench_function("plain forward and backward", |b| {
        b.iter(|| {
            plain::backward(&[&x], &x, |v| rope::plain_turn(&v[0], &angles, 2 * HEADS, d, 1.0)).unwrap()
        })
    });
}

/// Sequences of one length, and pairs that share their prompt.
fn attentions(c: &mut Criterion) {
    let d = HIDDEN / HEADS;
    let shape = Shape {
        heads: HEADS,
        kv_heads: HEADS,
        head_dim: d,
        scale: 1.0 / (d as f64).sqrt(),
        window: None,
        softcap: None,
    };
    let mut group = c.benchmark_group("attention");
    for len in [128, 256, 512, 1024] {
        let trees: Vec<Tree> =
            (0..TOKENS / len).map(|i| Tree { root: i * len..(i + 1) * len, branches: vec![] }).collect();
        let (qkv, dy) = (random("qkv", &[TOKENS, shape.width()]), random("dy", &[TOKENS, HIDDEN]));
        let (out, lse) = attention::forward(&qkv, &trees, &shape).unwrap();
        group.bench_function(BenchmarkId::new("fused forward", len), |b| {
            b.iter(|| attention::forward(&qkv, &trees, &shape).unwrap())
        });
        group.bench_function(BenchmarkId::new("plain forward", len), |b| {
            b.iter(|| attention::plain_forward(&qkv, &trees, &shape).unwrap())
        });
        group.bench_function(BenchmarkId::new("fused backward", len), |b| {
            b.iter(|| attention::backward(&dy, &qkv, &out, &lse, &trees, &shape).unwrap())
        });
        group.bench_function(BenchmarkId::new("plain forward and backward", len), |b| {
            b.iter(|| {
                plain::backward(&[&qkv], &dy, |v| attention::plain_forward(&v[0], &trees, &shape)).unwrap()
            })
        });
    }
}

fn heads(c: &mut Criterion) {
    // As many rows as a step of HH reads.
    let rows = 400;
    let (hidden, weight) = (random("h", &[rows, HIDDEN]), random("w", &[VOCAB, HIDDEN]));
    let head = Head { weight: &weight, softcap: None };
    let targets: Vec<(u32, u32)> = (0..rows as u32).map(|i| (i, i * 7 % VOCAB as u32)).collect();
    let dlogps = vec![0.01; rows];
    let mut dw = weight.zeros_like().unwrap();
    let mut group = c.benchmark_group("linear_to_logp");
    group.bench_function("fused forward", |b| {
        b.iter(|| head::forward(&hidden, head, &targets, true).unwrap())
    });
    group.bench_function("plain forward", |b| {
        b.iter(|| head::plain_forward(&hidden, head, &targets).unwrap())
    });
    group.bench_function("fused backward", |b| {
        b.iter_batched(
            || head::forward(&hidden, head, &targets, true).unwrap().1,
            |saved| head::backward(&dlogps, &hidden, head, &targets, saved, Some(&mut dw)).unwrap(),
            BatchSize::LargeInput,
        )
    });
    let dy = Tensor::new(dlogps.as_slice(), &Device::Cpu).unwrap().to_dtype(DType::F32).unwrap();
    group.bench_function("plain forward and backward", |b| {
        b.iter(|| {
            let of =
                |v: &[Tensor]| head::plain_forward(&v[0], Head { weight: &v[1], softcap: None }, &targets);
            plain::backward(&[&hidden, &weight], &dy, of).unwrap()
        })
    });
}

fn linears(c: &mut Criterion) {
    let (x, w, dy) =
        (random("x", &[TOKENS, HIDDEN]), random("w", &[INNER, HIDDEN]), random("dy", &[TOKENS, INNER]));
    let mut dw = w.zeros_like().unwrap();
    let mut group = c.benchmark_group("linear");
    group.bench_function("ours forward", |b| b.iter(|| linear::forward(&x, &w, None).unwrap()));
    group.bench_function("plain forward", |b| b.iter(|| x.matmul(&w.t().unwrap()).unwrap()));
    group.bench_function("ours backward", |b| {
        b.iter(|| {
            linear::backward_weight(&dy, &x, &mut dw).unwrap();
            linear::backward_input(&dy, &w).unwrap()
        })
    });
    group.bench_function("plain forward and backward", |b| {
        b.iter(|| plain::backward(&[&x, &w], &dy, |v| Ok(v[0].matmul(&v[1].t()?)?)).unwrap())
    });
}

/// All parameters of the 27 M-parameter model, one update.
fn optimizers(c: &mut Criterion) {
    let size = Size {
        vocab: VOCAB,
        hidden: HIDDEN,
        layers: 8,
        heads: HEADS,
        kv_heads: HEADS,
        intermediate: INNER,
        context: TOKENS,
    };
    let config = DecoderConfig::llama(size).unwrap();
    let mut policy = Decoder::random(config, 1, DType::F32, &Device::Cpu).unwrap();
    let gradients = Gradients::zeros(&policy).unwrap();
    let mut optimizer = AdamW::new(&TrainSpec::default(), &policy).unwrap();
    let mut group = c.benchmark_group("adamw");
    group.bench_function("fused", |b| b.iter(|| optimizer.step(&mut policy, &gradients, 1e-5, 1.0).unwrap()));
    let vars: Vec<Var> = policy.params().iter().map(|p| Var::from_tensor(&p.tensor).unwrap()).collect();
    let mut moments: Vec<(Tensor, Tensor)> =
        vars.iter().map(|v| (v.zeros_like().unwrap(), v.zeros_like().unwrap())).collect();
    group.bench_function("plain", |b| {
        b.iter(|| {
            for ((var, (m, v)), g) in vars.iter().zip(&mut moments).zip(gradients.tensors()) {
                *m = ((&*m * 0.9).unwrap() + (g * 0.1).unwrap()).unwrap();
                *v = ((&*v * 0.999).unwrap() + (g.sqr().unwrap() * 0.001).unwrap()).unwrap();
                let root = (v.sqrt().unwrap() + 1e-8).unwrap();
                let step = ((&*m / root).unwrap() * 1e-5).unwrap();
                var.set(&(var.as_tensor() - step).unwrap()).unwrap();
            }
        })
    });
}

criterion_group! {
    name = kernels;
    config = Criterion::default().sample_size(20).measurement_time(std::time::Duration::from_secs(2));
    targets = norms, gates, rotations, attentions, heads, linears, optimizers
}
criterion_main!(kernels);
