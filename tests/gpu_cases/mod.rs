//! What the GPU's kernels must give, whoever runs them: emulated (`gpu_emulated.rs`) or on the card (`gpu.rs`).
//! References are the CPU's kernels in f64 on the same, already rounded numbers.
#![allow(dead_code, reason = "each test binary uses a part")]

use candle_core::{DType, Device, Tensor};
use kto_eval::base::seed;
use kto_eval::kernels::activation::{self, Activation};
use kto_eval::kernels::cuda::{self, Gpu, adamw::Update};
use kto_eval::kernels::head::{self, Head};
use kto_eval::kernels::linear::{self, Products};
use kto_eval::kernels::low_rank::{self, LowRank, Mask};
use kto_eval::kernels::norm::{self, Kind, Norm, NormGrads};
use kto_eval::kernels::{embedding, plain, rope};
use kto_eval::model::generate::{Chooser, Decoding, choose, sample_with_logp};
use rand_chacha::rand_core::Rng;

mod attention_cases;
pub use attention_cases::*;

/// Random numbers on a GPU and on the CPU.
pub struct Numbers<'a> {
    pub dtype: DType,
    pub gpu: &'a dyn Gpu,
}

impl Numbers<'_> {
    /// Uniform on ±2, rounded to the dtype: on the GPU, and the same in f64 on the CPU.
    fn random(&self, name: &str, shape: &[usize]) -> (Tensor, Tensor) {
        let mut rng = seed::rng(3, name);
        let count = shape.iter().product::<usize>();
        let numbers: Vec<f64> = (0..count).map(|_| rng.next_u32() as f64 / 2f64.powi(30) - 2.0).collect();
        let narrow = Tensor::from_vec(numbers, shape, &Device::Cpu).unwrap().to_dtype(self.dtype).unwrap();
        (narrow.to_device(self.gpu.device()).unwrap(), f64_of(&narrow))
    }

    /// Within `tolerance` in f32, and within eight roundings more in bf16, of the size of the numbers around.
    #[track_caller]
    fn close(&self, what: &str, found: &Tensor, wanted: &Tensor, tolerance: f64) {
        assert_eq!(found.dims(), wanted.dims(), "{what}");
        let (found, wanted) = (flat(found), flat(wanted));
        let norm = (wanted.iter().map(|x| x * x).sum::<f64>() / wanted.len().max(1) as f64).sqrt();
        let allowed = if self.dtype == DType::BF16 { tolerance + 8.0 / 512.0 } else { tolerance };
        for (i, (x, y)) in found.iter().zip(&wanted).enumerate() {
            let off = (x - y).abs();
            assert!(off <= allowed * (norm + y.abs()), "{what}, {:?}: {x} at {i}, want {y}", self.dtype);
        }
    }
}

fn f64_of(x: &Tensor) -> Tensor {
    x.to_device(&Device::Cpu).unwrap().to_dtype(DType::F64).unwrap()
}

fn flat(tensor: &Tensor) -> Vec<f64> {
    f64_of(tensor).flatten_all().unwrap().to_vec1().unwrap()
}

/// Where the gradient of a parameter accumulates: f64 for f64, else f32.
fn gradient(of: &Tensor) -> Tensor {
    let dtype = if of.dtype() == DType::F64 { DType::F64 } else { DType::F32 };
    Tensor::zeros(of.shape(), dtype, of.device()).unwrap()
}

pub fn norms(n: &Numbers) {
    for (rows, c) in [(1, 1), (3, 7), (70, 64), (5, 300), (33, 1032)] {
        for kind in [Kind::Rms, Kind::RmsPlusOne, Kind::Layer] {
            let ((x, x64), (w, w64)) = (n.random("x", &[rows, c]), n.random("w", &[c]));
            let ((b, b64), (dy, dy64)) = (n.random("b", &[c]), n.random("dy", &[rows, c]));
            let (base, base64) = n.random("base", &[rows, c]);
            let layer = kind == Kind::Layer;
            let of = |w, b| Norm { kind, eps: 1e-3, weight: w, bias: layer.then_some(b) };
            let what = format!("{kind:?} of {rows} × {c}");
            let y = norm::forward(&x, of(&w, &b)).unwrap();
            n.close(&what, &y, &norm::forward(&x64, of(&w64, &b64)).unwrap(), 1e-5);
            for base in [None, Some((base, base64))] {
                let run = |dy, x: &Tensor, norm: Norm, base: Option<Tensor>| {
                    let (mut dw, mut db) = (gradient(norm.weight), gradient(norm.weight));
                    plain::accumulate(&mut dw, norm.weight).unwrap();
                    let bias = layer.then_some(&mut db);
                    let grads = NormGrads { weight: &mut dw, bias };
                    let dx = norm::backward(dy, x, norm, grads, base).unwrap();
                    [dx, dw, db]
                };
                let (narrow, wide) = base.clone().unzip();
                let found = run(&dy, &x, of(&w, &b), narrow);
                let wanted = run(&dy64, &x64, of(&w64, &b64), wide);
                for ((found, wanted), part) in found.iter().zip(&wanted).zip(["dx", "dw", "db"]) {
                    n.close(&format!("{part} of {what}"), found, wanted, 1e-4);
                }
            }
        }
    }
}

pub fn activations(n: &Numbers) {
    for activation in [Activation::Silu, Activation::GeluTanh, Activation::GeluErf, Activation::Relu] {
        for (t, f, gated) in [(1, 1, true), (3, 24, true), (7, 30, false), (40, 64, true)] {
            let width = if gated { 2 * f } else { f };
            let ((x, x64), (dy, dy64)) = (n.random("x", &[t, width]), n.random("dy", &[t, f]));
            let what = format!("{activation:?} of {t} × {f}");
            let wanted = activation::forward(&x64, activation, gated).unwrap();
            n.close(&what, &activation::forward(&x, activation, gated).unwrap(), &wanted, 1e-5);
            let (y, dx) = activation::backward(dy, x, activation, gated).unwrap();
            let (y64, dx64) = activation::backward(dy64, x64, activation, gated).unwrap();
            n.close(&what, &y, &y64, 1e-5);
            n.close(&format!("dx of {what}"), &dx, &dx64, 1e-5);
        }
    }
}

pub fn rotations(n: &Numbers) {
    for (t, heads, rest, half, still) in [(1, 1, 0, 1, 0), (9, 3, 2, 8, 0), (20, 2, 1, 3, 4), (3, 2, 1, 6, 4)]
    {
        let d = 2 * half + still;
        let (x, x64) = n.random("x", &[t, (heads + rest) * d]);
        let positions: Vec<u32> = (0..t as u32).map(|p| p * 7 % 31).collect();
        let frequencies: Vec<f64> = (0..half).map(|i| 0.5f64.powi(i as i32)).collect();
        let angles = |like| rope::angles(&positions, &frequencies, 1.0, like).unwrap();
        let y = rope::forward(x.copy().unwrap(), &angles(&x), heads, d).unwrap();
        let y64 = rope::forward(x64.copy().unwrap(), &angles(&x64), heads, d).unwrap();
        n.close("rotation", &y, &y64, 1e-5);
        n.close("back", &rope::backward(y, &angles(&x), heads, d).unwrap(), &x64, 1e-5);
    }
}

pub fn rows_of_a_table(n: &Numbers) {
    for (c, ids) in [(1, vec![0u32]), (40, vec![3, 1, 3, 3, 0]), (600, vec![5, 5, 2, 5, 4, 2, 2])] {
        let ((table, table64), (dy, dy64)) = (n.random("t", &[6, c]), n.random("dy", &[ids.len(), c]));
        let found = embedding::forward(&table, &ids, 1.5).unwrap();
        n.close("rows", &found, &embedding::forward(&table64, &ids, 1.5).unwrap(), 1e-6);
        for narrow in [false, true] {
            let mut sums = if narrow { table.copy().unwrap() } else { gradient(&table) };
            let mut sums64 = if narrow { table64.copy().unwrap() } else { gradient(&table64) };
            embedding::backward(&dy, &ids, 0.5, &mut sums).unwrap();
            embedding::backward(&dy64, &ids, 0.5, &mut sums64).unwrap();
            n.close("sums of rows", &sums, &sums64, 1e-6);
        }
    }
}

pub fn linear_maps_and_sums(n: &Numbers) {
    for (t, m, k) in [(1, 1, 1), (5, 7, 3), (70, 150, 33)] {
        let ((x, x64), (w, w64)) = (n.random("x", &[t, k]), n.random("w", &[m, k]));
        let ((b, b64), (base, base64)) = (n.random("b", &[m]), n.random("base", &[t, m]));
        let (dy, dy64) = n.random("dy", &[t, m]);
        let y = linear::forward(&x, &w, Some(&b)).unwrap();
        n.close("x·Wᵀ + b", &y, &linear::forward(&x64, &w64, Some(&b64)).unwrap(), 1e-5);
        for (b, b64) in [(None, None), (Some(&b), Some(&b64))] {
            let y = linear::forward_as(Products::Blocked, Some(&base), &x, &w, b).unwrap();
            n.close(
                "onto",
                &y,
                &linear::forward_as(Products::Blocked, Some(&base64), &x64, &w64, b64).unwrap(),
                1e-5,
            );
        }
        let dx = linear::backward_input(&dy, &w).unwrap();
        n.close("dx", &dx, &linear::backward_input(&dy64, &w64).unwrap(), 1e-5);
        let (mut dw, mut db) = (gradient(&w), gradient(&b));
        let (mut dw64, mut db64) = (gradient(&w64), gradient(&b64));
        for _ in 0..2 {
            linear::backward_weight(&dy, &x, &mut dw).unwrap();
            linear::backward_bias(&dy, &mut db).unwrap();
            linear::backward_weight(&dy64, &x64, &mut dw64).unwrap();
            linear::backward_bias(&dy64, &mut db64).unwrap();
        }
        n.close("dW", &dw, &dw64, 1e-5);
        n.close("db", &db, &db64, 1e-5);
        n.close("sum", &plain::add(base.copy().unwrap(), &dy).unwrap(), &(base64 + &dy64).unwrap(), 1e-6);
        let squares = cuda::sums::sums_of_squares(n.gpu, &[dy.clone(), b.clone()]).unwrap();
        for (found, of) in squares.iter().zip([&dy64, &b64]) {
            let wanted: f64 = flat(of).iter().map(|x| x * x).sum();
            assert!((found - wanted).abs() < 1e-5 * wanted, "{found} against {wanted}");
        }
        cuda::sums::scale(n.gpu, &dy, -0.25).unwrap();
        n.close("scaled", &dy, &(dy64 * -0.25).unwrap(), 1e-6);
        let nan = Tensor::full(f32::NAN, m, n.gpu.device()).unwrap();
        cuda::sums::scale(n.gpu, &nan, 0.0).unwrap();
        assert!(flat(&nan).iter().all(|x| *x == 0.0), "a factor of 0 clears NaN");
    }
}

/// An adapter's side path, at the head, in the middle and at the end of a fused projection.
pub fn low_rank_paths(n: &Numbers) {
    for (t, k, r, m, width, start) in [(1, 3, 1, 2, 2, 0), (70, 33, 4, 40, 130, 0), (9, 64, 16, 65, 130, 65)]
    {
        let ((x, x64), (y, y64)) = (n.random("x", &[t, k]), n.random("y", &[t, width]));
        let ((a, a64), (b, b64)) = (n.random("a", &[r, k]), n.random("b", &[m, r]));
        let (dy, dy64) = n.random("dy", &[t, width]);
        let run = |y: Tensor, x: &Tensor, dy: &Tensor, path: LowRank<'_>| {
            let y = low_rank::forward_onto(y, x, path, Products::Blocked).unwrap();
            let mask = Mask { key: 11, p: 0.3, first_row: 2, rows: None };
            let dx = low_rank::backward_input(x.copy().unwrap(), dy, path, None).unwrap();
            let masked = low_rank::backward_input(x.copy().unwrap(), dy, path, Some(mask)).unwrap();
            let (mut da, mut db) = (gradient(path.a), gradient(path.b));
            for _ in 0..2 {
                low_rank::backward_weights(dy, x, path, &mut da, &mut db).unwrap();
            }
            [y, dx, masked, da, db]
        };
        let found = run(y, &x, &dy, LowRank { a: &a, b: &b, start, scale: 0.7 });
        let wanted = run(y64, &x64, &dy64, LowRank { a: &a64, b: &b64, start, scale: 0.7 });
        for (what, (found, wanted)) in
            ["y", "dx", "dx with dropout", "dA", "dB"].into_iter().zip(found.iter().zip(&wanted))
        {
            n.close(&format!("side path: {what}"), found, wanted, 1e-5);
        }
    }
}

/// The mask is that of the CPU, bit for bit: whole numbers keep products exact.
pub fn dropout(n: &Numbers) {
    let (t, k, rows) = (9, 300, [0, 7, 1, 1, 90, 4, 5, 6, u32::MAX]);
    let x = Tensor::arange(1f32, 1.0 + (t * k) as f32, &Device::Cpu).unwrap().reshape((t, k)).unwrap();
    let x = (x / 64.0).unwrap().round().unwrap().to_dtype(n.dtype).unwrap();
    let there = x.to_device(n.gpu.device()).unwrap();
    for (p, first_row, rows) in [(0.5, 0, None), (0.1, 1 << 40, Some(&rows[..])), (0.999, 5, Some(&rows[..]))]
    {
        let mask = Mask { key: 0x1234_5678_9abc_def0, p, first_row, rows };
        let found = cuda::low_rank::dropped(n.gpu, &there, mask).unwrap();
        let wanted = flat(&low_rank::dropped(&f64_of(&x), Some(mask)).unwrap());
        // 1/(1 − p) and the product, rounded to the dtype.
        let rounded = |x: f64| match n.dtype {
            DType::BF16 => half::bf16::from_f64(x).to_f64(),
            _ => f64::from(x as f32),
        };
        let kept = rounded(f64::from((1.0 / (1.0 - p)) as f32));
        let dropped = wanted.iter().filter(|x| **x == 0.0).count();
        assert!(dropped > 0 && dropped < t * k, "{dropped} of {}", t * k);
        for (i, ((found, wanted), x)) in flat(&found).iter().zip(&wanted).zip(flat(&x)).enumerate() {
            let exact = if *wanted == 0.0 { 0.0 } else { rounded(x * kept) };
            assert_eq!(*found, exact, "{i} of dropout {p}, {:?}", n.dtype);
        }
    }
}

pub fn log_probs(n: &Numbers) {
    for (m, c, v) in [(1, 1, 2), (5, 8, 37), (9, 6, 1100), (3, 8, 4098), (2, 4, 8204)] {
        for (softcap, keep) in [(None, true), (None, false), (Some(5.0), true)] {
            let ((h, h64), (w, w64)) = (n.random("h", &[m, c]), n.random("w", &[v, c]));
            let mut rng = seed::rng(7, "targets");
            let mut targets: Vec<head::Target> =
                (0..m as u32).rev().map(|row| (row, rng.next_u32() % v as u32)).collect();
            // A row with several targets, two of them the same.
            targets.extend([(0, 1), (0, 0), (0, 1)]);
            let dlogps: Vec<f64> = (0..targets.len()).map(|i| 0.3 * i as f64 - 0.7).collect();
            let run = |h: &Tensor, w: &Tensor| {
                let head = Head { weight: w, softcap };
                let (logps, saved) = head::forward(h, head, &targets, keep).unwrap();
                let mut dw = gradient(w);
                let dh = head::backward(&dlogps, h, head, &targets, saved, Some(&mut dw)).unwrap();
                (Tensor::new(logps, &Device::Cpu).unwrap(), dh, dw)
            };
            let (found, wanted) = (run(&h, &w), run(&h64, &w64));
            // Logits are f32 whatever the dtype: the log-probs are as exact.
            let exact = Numbers { dtype: DType::F32, gpu: n.gpu };
            let what = format!("{m} × {c} to {v}, softcap {softcap:?}, keep {keep}");
            exact.close(&format!("log-probs of {what}"), &found.0, &wanted.0, 1e-5);
            n.close(&format!("dh of {what}"), &found.1, &wanted.1, 1e-5);
            n.close(&format!("dW of {what}"), &found.2, &wanted.2, 1e-5);
        }
    }
}

/// The tokens that the host's sampler draws from the same numbers; rows that are shared, and in bf16 many ties.
pub fn drawn_tokens(n: &Numbers) {
    let sampling = || Decoding { temperature: 1.0, ..Decoding::default() };
    let decodings = [
        Decoding::default(),
        Decoding { repetition_penalty: 1.5, ..Decoding::default() },
        sampling(),
        Decoding { temperature: 0.7, repetition_penalty: 0.8, ..sampling() },
        Decoding { top_k: 5, ..sampling() },
        Decoding { top_p: 0.4, ..sampling() },
        Decoding { temperature: 1.6, min_p: 0.2, ..sampling() },
        Decoding {
            temperature: 1.3,
            top_k: 40,
            top_p: 0.8,
            min_p: 0.05,
            repetition_penalty: 1.2,
            ..sampling()
        },
    ];
    let draws = |i: usize| seed::rng(i as u64, "draws");
    for (rows, v) in [(1, 1), (3, 300), (2, 2053)] {
        let logits = (n.random("logits", &[rows, v]).0.to_dtype(DType::F32).unwrap() * 3.0).unwrap();
        let host: Vec<Vec<f32>> = logits.to_vec2().unwrap();
        for decoding in &decodings {
            let mut rngs: Vec<_> = (0..7).map(draws).collect();
            let seen: Vec<Vec<u32>> = (0..7).map(|i| vec![i, 2 * i, i, v as u32 - 1, v as u32]).collect();
            let chooser = |(i, rng): (usize, _)| Chooser { row: i * 5 % rows, seen: &seen[i], rng };
            let mut choosers: Vec<Chooser<'_>> = rngs.iter_mut().enumerate().map(chooser).collect();
            let found = choose(&logits, &mut choosers, decoding).unwrap();
            for (i, (token, logp)) in found.into_iter().enumerate() {
                let mut row = host[i * 5 % rows].clone();
                let wanted = sample_with_logp(&mut row, &seen[i], decoding, &mut draws(i)).unwrap();
                assert_eq!(token, wanted.0, "sequence {i} of {rows} × {v}, {decoding:?}");
                assert!((logp - wanted.1).abs() < 1e-5, "{logp} against {} of {decoding:?}", wanted.1);
            }
        }
    }
    for (row, wanted) in [
        ([0.5, f32::NAN, f32::NAN], "the logit of token 1 is NaN"),
        ([f32::NEG_INFINITY; 3], "no finite logit among 3"),
    ] {
        let logits = Tensor::new(&[row], n.gpu.device()).unwrap();
        let mut rng = draws(0);
        let error = choose(&logits, &mut [Chooser { row: 0, seen: &[], rng: &mut rng }], &sampling());
        assert!(error.as_ref().is_err_and(|e| e.to_string().contains(wanted)), "{error:?}");
    }
}

pub fn adamw(n: &Numbers) {
    // As many as packs of four hold, and not.
    [3000, 1501].into_iter().for_each(|count| adamw_of(n, count));
}

fn adamw_of(n: &Numbers, count: usize) {
    let u = Update {
        keep: 0.999,
        beta1: 0.9,
        beta2: 0.99,
        epsilon: 1e-8,
        step_size: 0.02,
        correction: 0.3,
        scale: 0.5,
    };
    let f32_of = |name| n.random(name, &[count]).0.to_dtype(DType::F32).unwrap();
    let (p, m, v, g) = (f32_of("p"), f32_of("m"), f32_of("v").sqr().unwrap(), f32_of("g"));
    let [p0, m0, v0, g0] = [&p, &m, &v, &g].map(flat);
    let copy = (n.dtype == DType::BF16).then(|| n.random("copy", &[count]).0);
    cuda::adamw::step(n.gpu, [&p, &m, &v, &g], copy.as_ref(), u).unwrap();
    let (b1, b2) = (f64::from(u.beta1), f64::from(u.beta2));
    let wanted = |i: usize| {
        let d = g0[i] * f64::from(u.scale);
        let (m, v) = (b1 * m0[i] + (1.0 - b1) * d, b2 * v0[i] + (1.0 - b2) * d * d);
        let root = v.sqrt() / f64::from(u.correction) + f64::from(u.epsilon);
        (p0[i] * f64::from(u.keep) - f64::from(u.step_size) * m / root, m, v)
    };
    for (i, ((p, m), v)) in flat(&p).into_iter().zip(flat(&m)).zip(flat(&v)).enumerate() {
        let (wp, wm, wv) = wanted(i);
        assert!((p - wp).abs() < 1e-5 && (m - wm).abs() < 1e-6 && (v - wv).abs() < 1e-5, "{i}: {p} {wp}");
    }
    if let Some(copy) = copy {
        let rounded = p.to_dtype(DType::BF16).unwrap();
        assert_eq!(flat(&copy), flat(&rounded), "bf16 parameters are the master weights rounded");
    }
}
