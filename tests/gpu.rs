//! On an NVIDIA GPU: `tests/gpu/run.sh`, or `cargo test --release --features cuda --test gpu -- --ignored`.
//! Every kernel against the CPU in f64, with poisoned memory; the bench's shapes against candle's plain operations;
//! a whole trajectory. A case in f32 and in bf16 are two tests, so that neither hides the other.
#![cfg(feature = "cuda")]

mod engine;
mod gpu_cases;
mod trajectory;

use candle_core::{DType, Device, Tensor};
use engine::largest_difference;
use gpu_cases::Numbers;
use kto_eval::kernels::activation::{self, Activation};
use kto_eval::kernels::attention::{self, Shape, Tree};
use kto_eval::kernels::cuda::device::{self, Cuda};
use kto_eval::kernels::head::{self, Head};
use kto_eval::kernels::norm::{self, Kind, Norm};
use kto_eval::kernels::plain;

fn card() -> Device {
    device::poison(true);
    device::open(0).expect("these tests need an NVIDIA GPU")
}

fn run(dtype: DType, case: impl Fn(&Numbers)) {
    let device = card();
    let gpu = Cuda::new(device.as_cuda_device().unwrap());
    case(&Numbers { dtype, gpu: &gpu });
}

/// A module of two tests for each of `gpu_cases`.
macro_rules! cases {
    ($($name:ident),* $(,)?) => {$(
        mod $name {
            #[test]
            #[ignore = "needs a GPU"]
            fn bf16() {
                super::run(super::DType::BF16, super::gpu_cases::$name);
            }
            #[test]
            #[ignore = "needs a GPU"]
            fn f32() {
                super::run(super::DType::F32, super::gpu_cases::$name);
            }
        }
    )*};
}

cases!(
    attention_of_width_64,
    linear_maps_and_sums,
    log_probs,
    norms,
    activations,
    rotations,
    rows_of_a_table,
    adamw,
    low_rank_paths,
    dropout,
    attention_over_trees,
    attention_with_windows_and_softcaps,
    attention_of_width_80,
    attention_of_width_128,
    attention_of_widths_that_pack_less,
    cached_attention,
    drawn_tokens,
    attention_of_width_256,
);

/// The largest error of a row, relative to its size and the rows' mean size.
fn worst_row(found: &Tensor, wanted: &Tensor) -> f64 {
    let sizes = |x: &Tensor| -> Vec<f64> {
        let squares = x.to_dtype(DType::F32).unwrap().sqr().unwrap().sum(1).unwrap();
        squares.to_vec1::<f32>().unwrap().into_iter().map(|x| f64::from(x).sqrt()).collect()
    };
    assert_eq!(found.dims(), wanted.dims());
    let off = sizes(&(found.to_dtype(DType::F32).unwrap() - wanted.to_dtype(DType::F32).unwrap()).unwrap());
    let of = sizes(wanted);
    let mean = of.iter().sum::<f64>() / of.len() as f64;
    let worst = off.iter().zip(&of).map(|(off, of)| off / (of + mean));
    worst.fold(0.0, |worst, x| if x <= worst { worst } else { x })
}

/// Uniform on ±`bound` in bf16, the same every time.
fn numbers(name: &str, shape: (usize, usize), bound: f32) -> Tensor {
    use rand_chacha::rand_core::Rng;
    let mut rng = kto_eval::base::seed::rng(9, name);
    let draw = |_| bound * (rng.next_u32() as f32 / 2f32.powi(31) - 1.0);
    let numbers: Vec<f32> = (0..shape.0 * shape.1).map(draw).collect();
    Tensor::from_vec(numbers, shape, &Device::Cpu).unwrap().to_dtype(DType::BF16).unwrap()
}

fn of_width(heads: usize, kv_heads: usize, head_dim: usize) -> Shape {
    let scale = 1.0 / (head_dim as f64).sqrt();
    Shape { heads, kv_heads, head_dim, scale, window: None, softcap: None }
}

/// 8 sequences of 1024 at the heads of a 1 B Llama.
#[test]
#[ignore = "needs a GPU"]
fn attention_at_the_benchs_shape() {
    let (device, shape, t) = (card(), of_width(32, 8, 64), 8192);
    let trees: Vec<Tree> =
        (0..8).map(|i| Tree { root: i * 1024..(i + 1) * 1024, branches: vec![] }).collect();
    let qkv = numbers("qkv", (t, shape.width()), 2.0).to_device(&device).unwrap();
    let dout = numbers("dout", (t, 2048), 1.0).to_device(&device).unwrap();
    let (out, lse) = attention::forward(&qkv, &trees, &shape).unwrap();
    let dqkv = attention::backward(&dout, &qkv, &out, &lse, &trees, &shape).unwrap();
    let wide = |x: &Tensor| x.to_dtype(DType::F32).unwrap();
    for tree in &trees {
        let rows = |x: &Tensor| x.narrow(0, tree.root.start, 1024).unwrap().contiguous().unwrap();
        let alone = [Tree { root: 0..1024, branches: vec![] }];
        let plainly = |x: &Tensor| attention::plain_forward(x, &alone, &shape);
        let off = worst_row(&rows(&out), &plainly(&wide(&rows(&qkv))).unwrap());
        assert!(off < 0.02, "out of {tree:?}: {off}");
        let wanted = plain::backward(&[&wide(&rows(&qkv))], &wide(&rows(&dout)), |v| plainly(&v[0])).unwrap();
        let off = worst_row(&rows(&dqkv), &wanted[0]);
        assert!(off < 0.03, "dqkv of {tree:?}: {off}");
    }
}

/// 8192 rows to 128,256 tokens; the first and the last 256 rows have gradients, the others none.
#[test]
#[ignore = "needs a GPU"]
fn log_probs_at_the_benchs_shape() {
    let (device, m, c, v, part) = (card(), 8192, 2048, 128_256, 256);
    let hidden = numbers("hidden", (m, c), 1.0).to_device(&device).unwrap();
    let weight = numbers("weight", (v, c), 0.05).to_device(&device).unwrap();
    let targets: Vec<head::Target> = (0..m as u32).map(|r| (r, (r * 7919) % v as u32)).collect();
    let read = |r: usize| r < part || r >= m - part;
    let dlogps: Vec<f64> = (0..m).map(|r| if read(r) { 1.0 + 0.001 * r as f64 } else { 0.0 }).collect();
    let mut dw = Tensor::zeros((v, c), DType::F32, &device).unwrap();
    let head = Head { weight: &weight, softcap: None };
    let (logps, saved) = head::forward(&hidden, head, &targets, true).unwrap();
    let dh = head::backward(&dlogps, &hidden, head, &targets, saved, Some(&mut dw)).unwrap();

    let ends = |x: &Tensor| {
        let ends = [x.narrow(0, 0, part).unwrap(), x.narrow(0, m - part, part).unwrap()];
        Tensor::cat(&ends, 0).unwrap().to_dtype(DType::F32).unwrap()
    };
    let of_ends =
        |x: &[f64]| -> Vec<f64> { x.iter().enumerate().filter(|(r, _)| read(*r)).map(|x| *x.1).collect() };
    let chosen: Vec<head::Target> =
        targets.iter().filter(|t| read(t.0 as usize)).enumerate().map(|(i, t)| (i as u32, t.1)).collect();
    let (h, w) = (ends(&hidden), weight.to_dtype(DType::F32).unwrap());
    let plainly = |h: &Tensor, w: &Tensor| head::plain_forward(h, Head { weight: w, softcap: None }, &chosen);
    let wanted: Vec<f64> = plainly(&h, &w).unwrap().to_dtype(DType::F64).unwrap().to_vec1().unwrap();
    let off = largest_difference(&of_ends(&logps), &wanted);
    assert!(off < 5e-3, "log-probs: {off}");
    assert!(logps.iter().all(|x| x.is_finite()));
    let d: Vec<f32> = of_ends(&dlogps).into_iter().map(|x| x as f32).collect();
    let d = Tensor::new(d, &device).unwrap();
    let wanted = plain::backward(&[&h, &w], &d, |x| plainly(&x[0], &x[1])).unwrap();
    let off = worst_row(&ends(&dh), &wanted[0]);
    assert!(off < 0.02, "dh: {off}");
    let off = worst_row(&dw, &wanted[1]);
    assert!(off < 0.02, "dW: {off}");
    let others = dh.narrow(0, part, m - 2 * part).unwrap().to_dtype(DType::F32).unwrap();
    assert_eq!(others.abs().unwrap().sum_all().unwrap().to_scalar::<f32>().unwrap(), 0.0);
}

/// Kernels with the instructions of PTX that C++ has no word for (ldmatrix, cvt) and without them.
#[test]
#[ignore = "needs a GPU"]
fn portable_kernels_give_the_same_bits() {
    let device = card();
    let bits = |x: Tensor| x.to_dtype(DType::F32).unwrap().flatten_all().unwrap().to_vec1::<f32>().unwrap();
    let results = |portable: bool| {
        device::portable(portable);
        let mut all = vec![];
        for (d, softcap) in [(16, None), (64, None), (80, Some(5.0)), (128, None)] {
            let shape = Shape { softcap, ..of_width(4, 2, d) };
            let trees = [Tree { root: 0..150, branches: vec![150..190, 190..290] }];
            let qkv = numbers("qkv", (290, shape.width()), 2.0).to_device(&device).unwrap();
            let dout = numbers("dout", (290, 4 * d), 1.0).to_device(&device).unwrap();
            let (out, lse) = attention::forward(&qkv, &trees, &shape).unwrap();
            let dqkv = attention::backward(&dout, &qkv, &out, &lse, &trees, &shape).unwrap();
            let named = [("out", out), ("lse", lse), ("dqkv", dqkv)];
            all.extend(named.map(|(what, x)| (format!("{what} of width {d}"), bits(x))));
        }
        let x = numbers("x", (70, 512), 2.0).to_device(&device).unwrap();
        let weight = x.narrow(0, 0, 1).unwrap().flatten_all().unwrap();
        let norm = Norm { kind: Kind::Rms, eps: 1e-5, weight: &weight, bias: None };
        all.push(("a norm".to_owned(), bits(norm::forward(&x, norm).unwrap())));
        all.push(("SwiGLU".to_owned(), bits(activation::forward(&x, Activation::Silu, true).unwrap())));
        device::portable(false);
        all
    };
    for ((what, tuned), (_, portable)) in results(false).into_iter().zip(results(true)) {
        let of = portable.len();
        let off = tuned.iter().zip(&portable).filter(|(a, b)| a.to_bits() != b.to_bits()).count();
        let most = tuned.iter().zip(&portable).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
        assert!(off == 0, "{what}: {off} of {of} numbers differ, by {most} at most");
    }
}

mod thirty_steps_are_those_of_the_cpu {
    use super::{DType, Device, card, largest_difference, trajectory};

    fn run(dtype: DType, tolerance: f64) {
        let wanted = trajectory::trained(DType::F32, 30, &Device::Cpu);
        let off = largest_difference(&trajectory::trained(dtype, 30, &card()), &wanted);
        assert!(off < tolerance, "{off}");
    }
    #[test]
    #[ignore = "needs a GPU"]
    fn bf16() {
        run(DType::BF16, 0.03);
    }
    #[test]
    #[ignore = "needs a GPU"]
    fn f32() {
        run(DType::F32, 1e-4);
    }
}

#[test]
#[ignore = "needs a GPU"]
fn the_same_run_gives_the_same_bits() {
    let run = || trajectory::trained(DType::BF16, 10, &card());
    assert_eq!(run(), run());
}
