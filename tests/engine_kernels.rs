//! Every kernel: the fused version against the plain one (values and gradients, the latter by candle's
//! autograd) and against finite differences, in f64 on random shapes; and f32 against f64.

use candle_core::{DType, Device, Tensor};
use kto_eval::base::error::Result;
use kto_eval::base::seed;
use kto_eval::kernels::activation::{self, Activation};
use kto_eval::kernels::attention::{self, Shape, Tree};
use kto_eval::kernels::head::{self, Head};
use kto_eval::kernels::linear::Products;
use kto_eval::kernels::norm::{self, Kind, Norm, NormGrads};
use kto_eval::kernels::{embedding, linear, plain, rope};
use proptest::prelude::*;
use rand_chacha::rand_core::Rng;

fn random(name: &str, shape: &[usize]) -> Tensor {
    let mut rng = seed::rng(3, name);
    let count = shape.iter().product::<usize>();
    let numbers: Vec<f64> = (0..count).map(|_| rng.next_u32() as f64 / 2f64.powi(30) - 2.0).collect();
    Tensor::from_vec(numbers, shape, &Device::Cpu).unwrap()
}

fn flat(tensor: &Tensor) -> Vec<f64> {
    tensor.flatten_all().unwrap().to_dtype(DType::F64).unwrap().to_vec1().unwrap()
}

#[track_caller]
fn close(a: &Tensor, b: &Tensor, tolerance: f64) {
    assert_eq!(a.dims(), b.dims());
    for (x, y) in flat(a).iter().zip(flat(b)) {
        assert!((x - y).abs() <= tolerance * (1.0 + y.abs()), "{x} against {y}");
    }
}

/// d/dε of Σ dy·f(x + ε·direction), from both sides.
#[track_caller]
fn slope_is(x: &Tensor, dx: &Tensor, dy: &Tensor, f: impl Fn(&Tensor) -> Result<Tensor>) {
    let direction = random("direction", x.dims());
    let value = |step: f64| -> f64 {
        let y = f(&(x + (&direction * step).unwrap()).unwrap()).unwrap();
        flat(&y).iter().zip(flat(dy)).map(|(a, b)| a * b).sum()
    };
    let numeric = (value(1e-5) - value(-1e-5)) / 2e-5;
    let exact: f64 = flat(dx).iter().zip(flat(&direction)).map(|(a, b)| a * b).sum();
    assert!((numeric - exact).abs() < 1e-6 * (1.0 + exact.abs()), "{numeric} against {exact}");
}

fn f32_of(x: &Tensor) -> Tensor {
    x.to_dtype(DType::F32).unwrap()
}

const KINDS: [Kind; 3] = [Kind::Rms, Kind::RmsPlusOne, Kind::Layer];
const ACTIVATIONS: [Activation; 4] =
    [Activation::Silu, Activation::GeluTanh, Activation::GeluErf, Activation::Relu];

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn norms(t in 1usize..40, c in 1usize..70, kind in 0usize..3) {
        let kind = KINDS[kind];
        let (x, w, dy) = (random("x", &[t, c]), random("w", &[c]), random("dy", &[t, c]));
        let bias = (kind == Kind::Layer).then(|| random("b", &[c]));
        let norm = Norm { kind, eps: 1e-3, weight: &w, bias: bias.as_ref() };
        let of = |x: &Tensor| norm::forward(x, norm);
        let y = of(&x).unwrap();
        close(&y, &norm::plain_forward(&x, &w, bias.as_ref(), kind, 1e-3).unwrap(), 1e-12);
        let (mut dw, mut db) = (w.zeros_like().unwrap(), w.zeros_like().unwrap());
        let grads = NormGrads { weight: &mut dw, bias: bias.is_some().then_some(&mut db) };
        let base = random("base", &[t, c]);
        let dx = norm::backward(&dy, &x, norm, grads, Some(base.copy().unwrap())).unwrap();
        let dx = (dx - base).unwrap();
        slope_is(&x, &dx, &dy, of);
        let mut inputs = vec![&x, &w];
        inputs.extend(bias.as_ref());
        let wanted = plain::backward(&inputs, &dy, |v| norm::plain_forward(&v[0], &v[1], v.get(2), kind, 1e-3)).unwrap();
        close(&dx, &wanted[0], 1e-9);
        close(&dw, &wanted[1], 1e-9);
        if bias.is_some() {
            close(&db, &wanted[2], 1e-9);
        }
        let bias = bias.map(|b| f32_of(&b));
        let single = Norm { kind, eps: 1e-3, weight: &f32_of(&w), bias: bias.as_ref() };
        close(&norm::forward(&f32_of(&x), single).unwrap(), &y, 2e-5);
    }

    #[test]
    fn activations(t in 1usize..30, f in 1usize..50, which in 0usize..4, gated: bool) {
        let activation = ACTIVATIONS[which];
        let n = if gated { 2 * f } else { f };
        // Up to ±6: where the curves bend and where they are flat.
        let x = (random("x", &[t, n]) * 3.0).unwrap();
        let dy = random("dy", &[t, f]);
        let y = activation::forward(&x, activation, gated).unwrap();
        // candle's own gelu_erf is a polynomial of limited accuracy.
        close(&y, &activation::plain_forward(&x, activation, gated).unwrap(), 1e-6);
        let (again, dx) =
            activation::backward(dy.copy().unwrap(), x.copy().unwrap(), activation, gated).unwrap();
        close(&again, &y, 1e-12);
        slope_is(&x, &dx, &dy, |x| activation::forward(x, activation, gated));
        let single = activation::forward(&f32_of(&x), activation, gated).unwrap();
        close(&single, &y, 5e-6);
        let (_, single) = activation::backward(f32_of(&dy), f32_of(&x), activation, gated).unwrap();
        close(&single, &dx, 2e-5);
    }

    #[test]
    fn rotations(t in 1usize..20, heads in 1usize..4, rest in 0usize..3, half in 1usize..5, still in 0usize..4) {
        let d = 2 * half + still;
        let x = random("x", &[t, (heads + rest) * d]);
        let positions: Vec<u32> = (0..t as u32).map(|p| p * 7 % 31).collect();
        let frequencies: Vec<f64> = (0..half).map(|i| 0.5f64.powi(i as i32)).collect();
        let angles = rope::angles(&positions, &frequencies, 1.0, &x).unwrap();
        let of = |x: &Tensor| rope::forward(x.copy()?, &angles, heads, d);
        let y = of(&x).unwrap();
        close(&y, &rope::plain_turn(&x, &angles, heads, d, 1.0).unwrap(), 1e-12);
        // A rotation back undoes it, and is its transpose.
        close(&rope::backward(y.copy().unwrap(), &angles, heads, d).unwrap(), &x, 1e-12);
        let dy = random("dy", x.dims());
        slope_is(&x, &rope::backward(dy.copy().unwrap(), &angles, heads, d).unwrap(), &dy, of);
    }

    #[test]
    fn linear_maps(t in 1usize..40, n in 1usize..40, k in 1usize..40) {
        let (x, w, b) = (random("x", &[t, k]), random("w", &[n, k]), random("b", &[n]));
        let (dy, base) = (random("dy", &[t, n]), random("base", &[t, n]));
        let y = linear::forward(&x, &w, Some(&b)).unwrap();
        let wanted = x.matmul(&w.t().unwrap()).unwrap().broadcast_add(&b).unwrap();
        close(&y, &wanted, 1e-12);
        let onto = (&base + &wanted).unwrap();
        for products in [Products::Blocked, Products::Rowwise] {
            close(&linear::forward_as(products, Some(&base), &x, &w, Some(&b)).unwrap(), &onto, 1e-12);
            close(&linear::forward_as(products, None, &x, &w, Some(&b)).unwrap(), &wanted, 1e-12);
        }
        close(&linear::backward_input(&dy, &w).unwrap(), &dy.matmul(&w).unwrap(), 1e-12);
        // Gradients add to what is there.
        let (mut dw, mut db) = (w.copy().unwrap(), b.copy().unwrap());
        linear::backward_weight(&dy, &x, &mut dw).unwrap();
        linear::backward_bias(&dy, &mut db).unwrap();
        close(&dw, &(&w + dy.t().unwrap().matmul(&x).unwrap()).unwrap(), 1e-12);
        close(&db, &(&b + dy.sum(0).unwrap()).unwrap(), 1e-12);
    }

    #[test]
    fn log_probs(m in 1usize..20, c in 1usize..12, v in 2usize..60, cap: bool, keep: bool) {
        let (hidden, weight) = (random("h", &[m, c]), random("w", &[v, c]));
        let softcap = cap.then_some(3.0);
        let head = Head { weight: &weight, softcap };
        // Some rows are read twice, some never.
        let targets: Vec<(u32, u32)> =
            (0..m as u32 + 3).map(|i| (i * 5 % m as u32, i * 7 % v as u32)).collect();
        let of = |hidden: &Tensor| {
            Ok(Tensor::from_vec(head::forward(hidden, head, &targets, keep)?.0, targets.len(), &Device::Cpu)?)
        };
        let logps = of(&hidden).unwrap();
        close(&logps, &head::plain_forward(&hidden, head, &targets).unwrap(), 1e-11);
        let dy = random("dy", &[targets.len()]);
        let saved = head::forward(&hidden, head, &targets, keep).unwrap().1;
        let mut dw = weight.zeros_like().unwrap();
        let dh = head::backward(&flat(&dy), &hidden, head, &targets, saved, Some(&mut dw)).unwrap();
        slope_is(&hidden, &dh, &dy, of);
        let plain = |v: &[Tensor]| head::plain_forward(&v[0], Head { weight: &v[1], softcap }, &targets);
        let wanted = plain::backward(&[&hidden, &weight], &dy, plain).unwrap();
        close(&dh, &wanted[0], 1e-9);
        close(&dw, &wanted[1], 1e-9);
        let single = f32_of(&weight);
        let single = head::forward(&f32_of(&hidden), Head { weight: &single, softcap }, &targets, keep).unwrap().0;
        close(&Tensor::from_vec(single, targets.len(), &Device::Cpu).unwrap(), &logps, 2e-5);
    }

    #[test]
    fn attention_of_packed_trees(
        lengths in prop::collection::vec((1usize..90, prop::collection::vec(1usize..80, 0..3)), 1..3),
        kv_heads in 1usize..3, group in 1usize..3, head_dim in 1usize..9, window in 0usize..40, cap: bool,
    ) {
        let (trees, t) = trees(&lengths);
        let shape = Shape {
            heads: kv_heads * group, kv_heads, head_dim, scale: 0.4,
            window: (window > 0).then_some(window), softcap: cap.then_some(2.0),
        };
        let (qkv, dy) = (random("qkv", &[t, shape.width()]), random("dy", &[t, shape.heads * head_dim]));
        let of = |x: &Tensor| Ok(attention::forward(x, &trees, &shape)?.0);
        let (out, lse) = attention::forward(&qkv, &trees, &shape).unwrap();
        let plain = |x: &Tensor| attention::plain_forward(x, &trees, &shape);
        close(&out, &plain(&qkv).unwrap(), 1e-11);
        let dx = attention::backward(&dy, &qkv, &out, &lse, &trees, &shape).unwrap();
        slope_is(&qkv, &dx, &dy, of);
        close(&dx, &plain::backward(&[&qkv], &dy, |v| plain(&v[0])).unwrap()[0], 1e-9);
        let (single, single_lse) = attention::forward(&f32_of(&qkv), &trees, &shape).unwrap();
        close(&single, &out, 2e-5);
        let single = attention::backward(&f32_of(&dy), &f32_of(&qkv), &single, &single_lse, &trees, &shape).unwrap();
        close(&single, &dx, 1e-4);
    }
}

fn trees(lengths: &[(usize, Vec<usize>)]) -> (Vec<Tree>, usize) {
    let mut t = 0;
    let mut take = |n: usize| {
        t += n;
        t - n..t
    };
    let mut tree = |(root, branches): &(usize, Vec<usize>)| Tree {
        root: take(*root),
        branches: branches.iter().map(|n| take(*n)).collect(),
    };
    (lengths.iter().map(&mut tree).collect(), t)
}

#[test]
fn embeddings_gather_and_scatter() {
    let table = random("table", &[7, 5]);
    let ids = [3, 0, 3, 6];
    let y = embedding::forward(&table, &ids, 2.0).unwrap();
    let index = Tensor::new(&ids, &Device::Cpu).unwrap();
    close(&y, &(table.index_select(&index, 0).unwrap() * 2.0).unwrap(), 1e-15);
    let dy = random("dy", &[4, 5]);
    let mut dtable = table.zeros_like().unwrap();
    embedding::backward(&dy, &ids, 2.0, &mut dtable).unwrap();
    let wanted = table.zeros_like().unwrap().index_add(&index, &(dy * 2.0).unwrap(), 0).unwrap();
    close(&dtable, &wanted, 1e-15);
    let error = embedding::forward(&table, &[7], 1.0).unwrap_err().to_string();
    assert!(error.contains("token id 7") && error.contains("7 rows"), "{error}");
}
