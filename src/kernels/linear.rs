//! y = x·Wᵀ + b, with W as (out, in) the way checkpoints store it.

use std::cell::Cell;

use candle_core::Tensor;

use super::cpu::{self, dispatch};
use super::cuda;
use super::real::{Real, View, matmul, product};
use super::{few, plain};
use crate::base::error::Result;

thread_local! {
    /// Whether this thread is inside [`of_few_rows`].
    static FEW: Cell<bool> = const { Cell::new(false) };
}

/// Runs `f`, in which forward products on the CPU are those for few rows: a decoding step, one row a sequence.
///
/// The caller says so, and not the number of rows, because the two kinds of product differ in their last bits, and
/// a sample must not depend on how many others are drawn beside it.
pub fn of_few_rows<R>(f: impl FnOnce() -> R) -> R {
    struct Restore(bool);
    impl Drop for Restore {
        fn drop(&mut self) {
            FEW.set(self.0);
        }
    }
    let _restore = Restore(FEW.replace(true));
    f()
}

/// x (t, k), weight (n, k), bias (n,) → (t, n).
pub fn forward(x: &Tensor, weight: &Tensor, bias: Option<&Tensor>) -> Result<Tensor> {
    if let Some(gpu) = cuda::of(x) {
        return cuda::linear::forward(&*gpu, x, weight, bias, None);
    }
    if cpu::applies(x) {
        return dispatch!(x.dtype(), forward_cpu(x, weight, bias, None));
    }
    let y = x.matmul(&weight.t()?)?;
    Ok(match bias {
        Some(b) => y.broadcast_add(b)?,
        None => y,
    })
}

/// base + x·Wᵀ + b: a projection onto the residual stream, base (t, n).
pub fn forward_onto(base: &Tensor, x: &Tensor, weight: &Tensor, bias: Option<&Tensor>) -> Result<Tensor> {
    if let Some(gpu) = cuda::of(x) {
        return cuda::linear::forward(&*gpu, x, weight, bias, Some(base));
    }
    if cpu::applies(x) {
        return dispatch!(x.dtype(), forward_cpu(x, weight, bias, Some(base)));
    }
    Ok((base + forward(x, weight, bias)?)?)
}

/// dy (t, n) → dx (t, k).
pub fn backward_input(dy: &Tensor, weight: &Tensor) -> Result<Tensor> {
    if let Some(gpu) = cuda::of(dy) {
        return cuda::linear::backward_input(&*gpu, dy, weight);
    }
    if cpu::applies(dy) {
        return dispatch!(dy.dtype(), backward_input_cpu(dy, weight));
    }
    Ok(dy.matmul(weight)?)
}

/// dW += dyᵀ·x.
pub fn backward_weight(dy: &Tensor, x: &Tensor, dweight: &mut Tensor) -> Result<()> {
    if let Some(gpu) = cuda::of(dy) {
        return cuda::linear::backward_weight(&*gpu, dy, x, dweight);
    }
    if cpu::applies(dy) {
        return dispatch!(dy.dtype(), backward_weight_cpu(dy, x, dweight));
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
    weight: &Tensor,
    bias: Option<&Tensor>,
    base: Option<&Tensor>,
) -> Result<Tensor> {
    let ((t, k), (n, _)) = (x.dims2()?, weight.dims2()?);
    let (xs, ws) = (cpu::slice::<T>(x)?, cpu::slice::<T>(weight)?);
    let (a, b) = (View::new(&xs, t, k, k), View::new(&ws, n, k, k).transposed());
    let mut out = match base {
        _ if FEW.get() && k > 0 => {
            let mut out = match base {
                Some(base) => cpu::slice::<T>(base)?.to_vec(),
                None => vec![T::ZERO; t * n],
            };
            few::product(&mut out, base.is_some(), &xs, &ws, k);
            out
        }
        Some(base) => {
            let mut out = cpu::slice::<T>(base)?.to_vec();
            matmul(&mut out, n, true, a, b, cpu::all_threads());
            out
        }
        None => product(a, b, cpu::all_threads()),
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
    Ok(Tensor::from_vec(out, (t, n), x.device())?)
}

fn backward_input_cpu<T: Real>(dy: &Tensor, weight: &Tensor) -> Result<Tensor> {
    let ((t, n), (_, k)) = (dy.dims2()?, weight.dims2()?);
    let (dys, ws) = (cpu::slice::<T>(dy)?, cpu::slice::<T>(weight)?);
    let out = product(View::new(&dys, t, n, n), View::new(&ws, n, k, k), cpu::all_threads());
    Ok(Tensor::from_vec(out, (t, k), dy.device())?)
}

fn backward_weight_cpu<T: Real>(dy: &Tensor, x: &Tensor, dweight: &Tensor) -> Result<()> {
    let ((t, n), (_, k)) = (dy.dims2()?, x.dims2()?);
    let (dys, xs) = (cpu::slice::<T>(dy)?, cpu::slice::<T>(x)?);
    cpu::update::<T>(dweight, |dw| {
        matmul(
            dw,
            k,
            true,
            View::new(&dys, t, n, n).transposed(),
            View::new(&xs, t, k, k),
            cpu::all_threads(),
        );
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
