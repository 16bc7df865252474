//! y = x·Wᵀ + b, with W as (out, in) the way checkpoints store it.

use candle_core::Tensor;

use super::cpu::{self, dispatch};
use super::cuda;
use super::real::{Real, View, matmul, product};
use super::{plain, rowwise};
use crate::base::error::Result;

/// How a forward product is computed on the CPU. The two differ in their last bits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Products {
    /// Fastest for many rows; how a row is rounded may depend on how many others there are.
    Blocked,
    /// For decoding: a row has the same bits whoever stands beside it.
    Rowwise,
}

/// x (t, k), weight (n, k), bias (n,) → (t, n).
pub fn forward(x: &Tensor, weight: &Tensor, bias: Option<&Tensor>) -> Result<Tensor> {
    if let Some(gpu) = cuda::of(x) {
        return cuda::linear::forward(&*gpu, x, weight, bias, None);
    }
    if cpu::applies(x) {
        return dispatch!(x.dtype(), forward_cpu(x, weight, bias, None, Products::Blocked));
    }
    let y = x.matmul(&weight.t()?)?;
    Ok(match bias {
        Some(b) => y.broadcast_add(b)?,
        None => y,
    })
}

/// As [`forward`], added to base (t, n) where there is one: a projection onto the residual stream.
pub fn forward_as(
    products: Products,
    base: Option<&Tensor>,
    x: &Tensor,
    weight: &Tensor,
    bias: Option<&Tensor>,
) -> Result<Tensor> {
    if let Some(gpu) = cuda::of(x) {
        return cuda::linear::forward(&*gpu, x, weight, bias, base);
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
    products: Products,
) -> Result<Tensor> {
    let ((t, k), (n, _)) = (x.dims2()?, weight.dims2()?);
    let (xs, ws) = (cpu::slice::<T>(x)?, cpu::slice::<T>(weight)?);
    let (a, b) = (View::new(&xs, t, k, k), View::new(&ws, n, k, k).transposed());
    let start = || match base {
        Some(base) => Ok::<_, anyhow::Error>(cpu::slice::<T>(base)?.to_vec()),
        None => Ok(vec![T::ZERO; t * n]),
    };
    let mut out = match (products, base) {
        (Products::Rowwise, _) if k > 0 => {
            let mut out = start()?;
            rowwise::product(&mut out, n, base.is_some(), &xs, &ws, k);
            out
        }
        (_, Some(_)) => {
            let mut out = start()?;
            matmul(&mut out, n, true, a, b, cpu::all_threads());
            out
        }
        (_, None) => product(a, b, cpu::all_threads()),
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
