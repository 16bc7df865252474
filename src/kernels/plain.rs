//! What every plain version shares: gradients by candle's autograd, accumulation, sums.

use candle_core::{Tensor, Var};

use super::cpu;
use super::cpu::dispatch;
use super::cuda;
use super::real::Real;
use crate::base::error::Result;

/// Gradients of `Σ dy·f(inputs)` in each of the inputs, by candle's autograd.
pub fn backward(
    inputs: &[&Tensor],
    dy: &Tensor,
    f: impl Fn(&[Tensor]) -> Result<Tensor>,
) -> Result<Vec<Tensor>> {
    let vars = inputs.iter().map(|x| Ok(Var::from_tensor(x)?)).collect::<Result<Vec<_>>>()?;
    let tensors: Vec<Tensor> = vars.iter().map(|v| v.as_tensor().clone()).collect();
    let grads = (f(&tensors)? * dy)?.sum_all()?.backward()?;
    let grad = |v: &Var| match grads.get(v) {
        Some(g) => Ok(g.clone()),
        None => Ok(v.zeros_like()?),
    };
    vars.iter().map(grad).collect()
}

/// `total += value`, in place on the CPU and on a GPU; the total may be wider.
pub fn accumulate(total: &mut Tensor, value: &Tensor) -> Result<()> {
    if let (Some(gpu), Some(_)) = (cuda::of(total), cuda::of(value)) {
        return cuda::sums::add(&*gpu, total, &value.contiguous()?);
    }
    let value = value.to_dtype(total.dtype())?;
    if !cpu::applies(total) {
        *total = (&*total + value)?;
        return Ok(());
    }
    let value = value.contiguous()?;
    dispatch!(total.dtype(), accumulate_cpu(total, &value))
}

fn accumulate_cpu<T: Real>(total: &Tensor, value: &Tensor) -> Result<()> {
    let value = cpu::slice::<T>(value)?;
    cpu::update::<T>(total, |total| {
        let value: &[T] = &value;
        cpu::over_rows(total, 256, |row, block| {
            let from = &value[row * 256..];
            cpu::simd(
                #[inline(always)]
                || {
                    for (a, &b) in block.iter_mut().zip(from) {
                        *a += b;
                    }
                },
            );
        });
        Ok(())
    })
}

/// `a + b`, which may overwrite `a`: the caller gives `a` up.
pub fn add(mut a: Tensor, b: &Tensor) -> Result<Tensor> {
    accumulate(&mut a, b)?;
    Ok(a)
}
