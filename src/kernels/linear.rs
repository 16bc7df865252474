//! y = x·Wᵀ + b, with W as (out, in) the way checkpoints store it.

use candle_core::Tensor;

use super::cpu::{self, dispatch};
use super::cuda;
use super::matrix::{View, matmul, product};
use super::quantized::Quantized;
use super::real::Real;
use super::{plain, rowwise};
use crate::base::error::{Result, ensure};

/// How a forward product is computed on the CPU. The two differ in their last bits; in both, a row has the same
/// bits whoever stands beside it, so that a log-prob does not depend on what it was packed with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Products {
    /// Fastest for many rows.
    Blocked,
    /// Fastest for few: decoding.
    Rowwise,
}

/// W (n, k), as numbers or, where it is frozen, as quantised blocks.
#[derive(Clone, Copy)]
pub enum Weight<'a> {
    Plain(&'a Tensor),
    Quantized(&'a Quantized),
}

impl<'a> From<&'a Tensor> for Weight<'a> {
    fn from(tensor: &'a Tensor) -> Self {
        Self::Plain(tensor)
    }
}

impl Weight<'_> {
    /// As numbers, in the type and on the device of `like`.
    fn numbers(self, like: &Tensor) -> Result<Tensor> {
        Ok(match self {
            Self::Plain(tensor) => tensor.clone(),
            Self::Quantized(blocks) => blocks.dequantized(like.device())?.to_dtype(like.dtype())?,
        })
    }
}

/// x (t, k), weight (n, k), bias (n,) → (t, n).
pub fn forward<'a>(x: &Tensor, weight: impl Into<Weight<'a>>, bias: Option<&Tensor>) -> Result<Tensor> {
    let weight = weight.into();
    if let Some(gpu) = cuda::of(x) {
        return cuda::linear::forward(&*gpu, x, &weight.numbers(x)?, bias, None);
    }
    if cpu::applies(x) {
        return dispatch!(x.dtype(), forward_cpu(x, weight, bias, None, Products::Blocked));
    }
    let y = x.matmul(&weight.numbers(x)?.t()?)?;
    Ok(match bias {
        Some(b) => y.broadcast_add(b)?,
        None => y,
    })
}

/// As [`forward`], added to base (t, n) where there is one: a projection onto the residual stream.
pub fn forward_as<'a>(
    products: Products,
    base: Option<&Tensor>,
    x: &Tensor,
    weight: impl Into<Weight<'a>>,
    bias: Option<&Tensor>,
) -> Result<Tensor> {
    let weight = weight.into();
    if let Some(gpu) = cuda::of(x) {
        return cuda::linear::forward(&*gpu, x, &weight.numbers(x)?, bias, base);
    }
    if cpu::applies(x) {
        return dispatch!(x.dtype(), forward_cpu(x, weight, bias, base, products));
    }
    let y = forward(x, weight, bias)?;
    Ok(match base {
        Some(base) => (base + y)?,
        None => y,
    })
}

/// dy (t, n) → dx (t, k).
pub fn backward_input<'a>(dy: &Tensor, weight: impl Into<Weight<'a>>) -> Result<Tensor> {
    let weight = weight.into();
    if let Some(gpu) = cuda::of(dy) {
        return cuda::linear::backward_input(&*gpu, dy, &weight.numbers(dy)?);
    }
    if cpu::applies(dy) {
        return dispatch!(dy.dtype(), backward_input_cpu(dy, weight));
    }
    Ok(dy.matmul(&weight.numbers(dy)?)?)
}

/// Whether [`first_backward_weight`] takes this gradient: one that kernels of ours take, not candle.
pub fn can_write_over(dy: &Tensor) -> bool {
    cpu::applies(dy) || cuda::of(dy).is_some()
}

/// dW = dyᵀ·x, whatever dW was.
///
/// # Errors
/// Where [`can_write_over`] says no.
pub fn first_backward_weight(dy: &Tensor, x: &Tensor, dweight: &Tensor) -> Result<()> {
    if let Some(gpu) = cuda::of(dy) {
        return cuda::linear::backward_weight(&*gpu, dy, x, dweight, false);
    }
    ensure!(can_write_over(dy), "a gradient is written over by this crate's kernels only");
    dispatch!(dy.dtype(), backward_weight_cpu(dy, x, dweight, false))
}

/// dW += dyᵀ·x.
pub fn backward_weight(dy: &Tensor, x: &Tensor, dweight: &mut Tensor) -> Result<()> {
    if let Some(gpu) = cuda::of(dy) {
        return cuda::linear::backward_weight(&*gpu, dy, x, dweight, true);
    }
    if cpu::applies(dy) {
        return dispatch!(dy.dtype(), backward_weight_cpu(dy, x, dweight, true));
    }
    plain::accumulate(dweight, &dy.t()?.matmul(x)?)
}

/// db += Σ over rows of dy.
pub fn backward_bias(dy: &Tensor, dbias: &mut Tensor) -> Result<()> {
    if let Some(gpu) = cuda::of(dy) {
        return cuda::sums::columns(&*gpu, dy, dbias);
    }
    if cpu::applies(dy) {
        return dispatch!(dy.dtype(), backward_bias_cpu(dy, dbias));
    }
    plain::accumulate(dbias, &dy.sum(0)?)
}

fn forward_cpu<T: Real>(
    x: &Tensor,
    weight: Weight<'_>,
    bias: Option<&Tensor>,
    base: Option<&Tensor>,
    products: Products,
) -> Result<Tensor> {
    let (mut out, n) = match weight {
        Weight::Plain(weight) => (product_cpu::<T>(x, weight, base, products)?, weight.dim(0)?),
        Weight::Quantized(blocks) => (quantized_cpu::<T>(x, blocks, base, products)?, blocks.dims().0),
    };
    if let Some(bias) = bias {
        let bias = cpu::slice::<T>(bias)?;
        let bias: &[T] = &bias;
        cpu::over_rows(&mut out, n, |_, block| {
            for row in block.chunks_exact_mut(n) {
                for (y, &b) in row.iter_mut().zip(bias) {
                    *y += b;
                }
            }
        });
    }
    Ok(Tensor::from_vec(out, (x.dim(0)?, n), x.device())?)
}

/// Products with at most this many rows of W, and with fewer rows of x than the other, have sums of their own
/// order in `gemm` (small blocks, matrix times vector); all others are blocked by their depth alone.
const SMALL: usize = 64;
const LEAST_ROWS: usize = 4;

/// x (t, k), w (n, k) → `out` = x·wᵀ, or `out` += x·wᵀ, with rows of `out` `stride` apart; a row has the same bits
/// whoever stands beside it.
pub(super) fn rows_product<T: Real>(
    out: &mut [T],
    stride: usize,
    accumulate: bool,
    x: &[T],
    w: &[T],
    k: usize,
) {
    let (t, n) = (x.len() / k.max(1), w.len() / k.max(1));
    if n <= SMALL && k > 0 {
        return rowwise::product(out, stride, accumulate, x, w, k);
    }
    let w = View::new(w, n, k, k).transposed();
    if t >= LEAST_ROWS {
        return matmul(out, stride, accumulate, View::new(x, t, k, k), w, cpu::all_threads());
    }
    let mut rows = x.to_vec();
    rows.resize(LEAST_ROWS * k, T::ZERO);
    let mut wide: Vec<T> = cpu::zeros(LEAST_ROWS * n);
    let places = |i: usize| i * stride..i * stride + n;
    if accumulate {
        (0..t).for_each(|i| wide[i * n..(i + 1) * n].copy_from_slice(&out[places(i)]));
    }
    matmul(&mut wide, n, accumulate, View::new(&rows, LEAST_ROWS, k, k), w, cpu::all_threads());
    (0..t).for_each(|i| out[places(i)].copy_from_slice(&wide[i * n..(i + 1) * n]));
}

/// base + x·Wᵀ, or x·Wᵀ.
fn product_cpu<T: Real>(
    x: &Tensor,
    weight: &Tensor,
    base: Option<&Tensor>,
    products: Products,
) -> Result<Vec<T>> {
    let ((t, k), (n, _)) = (x.dims2()?, weight.dims2()?);
    let (xs, ws) = (cpu::slice::<T>(x)?, cpu::slice::<T>(weight)?);
    if base.is_none() && products == Products::Blocked && t >= LEAST_ROWS && n > SMALL {
        let (a, b) = (View::new(&xs, t, k, k), View::new(&ws, n, k, k).transposed());
        return Ok(product(a, b, cpu::all_threads()));
    }
    let mut out = begun(base, t * n)?;
    match products {
        _ if k == 0 => {}
        Products::Rowwise => rowwise::product(&mut out, n, base.is_some(), &xs, &ws, k),
        Products::Blocked => rows_product(&mut out, n, base.is_some(), &xs, &ws, k),
    }
    Ok(out)
}

fn quantized_cpu<T: Real>(
    x: &Tensor,
    weight: &Quantized,
    base: Option<&Tensor>,
    products: Products,
) -> Result<Vec<T>> {
    let ((t, k), (n, width)) = (x.dims2()?, weight.dims());
    ensure!(k == width, "a product of x ({t}, {k}) with a quantised W ({n}, {width})");
    let mut out = begun(base, t * n)?;
    weight.forward(&mut out, base.is_some(), &cpu::slice::<T>(x)?, products)?;
    Ok(out)
}

/// What a product is added to.
fn begun<T: Real>(base: Option<&Tensor>, count: usize) -> Result<Vec<T>> {
    Ok(match base {
        Some(base) => cpu::copied(&cpu::slice::<T>(base)?),
        None => cpu::zeros(count),
    })
}

fn backward_input_cpu<T: Real>(dy: &Tensor, weight: Weight<'_>) -> Result<Tensor> {
    let weight = match weight {
        Weight::Plain(weight) => weight,
        Weight::Quantized(blocks) => {
            let ((t, n), (rows, k)) = (dy.dims2()?, blocks.dims());
            ensure!(n == rows, "a product of dy ({t}, {n}) with a quantised W ({rows}, {k})");
            let dx = blocks.backward_input(&cpu::slice::<T>(dy)?)?;
            return Ok(Tensor::from_vec(dx, (t, k), dy.device())?);
        }
    };
    let ((t, n), (_, k)) = (dy.dims2()?, weight.dims2()?);
    let (dys, ws) = (cpu::slice::<T>(dy)?, cpu::slice::<T>(weight)?);
    let out = product(View::new(&dys, t, n, n), View::new(&ws, n, k, k), cpu::all_threads());
    Ok(Tensor::from_vec(out, (t, k), dy.device())?)
}

fn backward_weight_cpu<T: Real>(dy: &Tensor, x: &Tensor, dweight: &Tensor, adds: bool) -> Result<()> {
    let ((t, n), (_, k)) = (dy.dims2()?, x.dims2()?);
    let (dys, xs) = (cpu::slice::<T>(dy)?, cpu::slice::<T>(x)?);
    cpu::update::<T>(dweight, |dw| {
        let (a, b) = (View::new(&dys, t, n, n).transposed(), View::new(&xs, t, k, k));
        matmul(dw, k, adds, a, b, cpu::all_threads());
        Ok(())
    })
}

fn backward_bias_cpu<T: Real>(dy: &Tensor, dbias: &Tensor) -> Result<()> {
    let (_, n) = dy.dims2()?;
    let dys = cpu::slice::<T>(dy)?;
    cpu::update::<T>(dbias, |db| {
        for row in dys.chunks_exact(n) {
            for (sum, &d) in db.iter_mut().zip(row) {
                *sum += d;
            }
        }
        Ok(())
    })
}
