//! Rotary position embedding (Su et al. 2021) of the query and key heads of a fused projection.
//!
//! Heads are rotated in halves, as Hugging Face checkpoints expect: component i turns with i + r/2, where
//! r ≤ d is the rotated part of a head.

use candle_core::{D, DType, Tensor};
use rayon::prelude::*;
use std::collections::BTreeSet;

use super::cpu::{self, dispatch};
use super::cuda;
use super::real::Real;
use crate::base::error::Result;

/// Cosines and sines of the batch's tokens, (t, r/2) each.
#[derive(Clone, Debug)]
pub struct Angles {
    pub cos: Tensor,
    pub sin: Tensor,
}

/// Turns the first `heads` heads of width `d` of each row of x (t, n); the rest stays. May overwrite
/// x: the caller gives it up.
pub fn forward(x: Tensor, angles: &Angles, heads: usize, d: usize) -> Result<Tensor> {
    turn(x, angles, heads, d, 1.0)
}

/// The gradient of a rotation is the rotation back. May overwrite dy.
pub fn backward(dy: Tensor, angles: &Angles, heads: usize, d: usize) -> Result<Tensor> {
    turn(dy, angles, heads, d, -1.0)
}

fn turn(x: Tensor, angles: &Angles, heads: usize, d: usize, sign: f64) -> Result<Tensor> {
    if let Some(gpu) = cuda::of(&x) {
        cuda::rope::turn(&*gpu, &x, angles, heads, d, sign)?;
        return Ok(x);
    }
    if cpu::applies(&x) {
        dispatch!(x.dtype(), turn_cpu(&x, angles, heads, d, sign))?;
        return Ok(x);
    }
    plain_turn(&x, angles, heads, d, sign)
}

/// The same out of candle ops.
pub fn plain_turn(x: &Tensor, angles: &Angles, heads: usize, d: usize, sign: f64) -> Result<Tensor> {
    let ((t, n), (_, half)) = (x.dims2()?, angles.cos.dims2()?);
    let dtype = x.dtype();
    let inner = if dtype == DType::F64 { DType::F64 } else { DType::F32 };
    let q = x.narrow(1, 0, heads * d)?.reshape((t, heads, d))?.to_dtype(inner)?;
    let (a, b) = (q.narrow(D::Minus1, 0, half)?, q.narrow(D::Minus1, half, half)?);
    let (cos, sin) = (angles.cos.to_dtype(inner)?, (angles.sin.to_dtype(inner)? * sign)?);
    let (cos, sin) = (cos.reshape((t, 1, half))?, sin.reshape((t, 1, half))?);
    let first = (a.broadcast_mul(&cos)? - b.broadcast_mul(&sin)?)?;
    let second = (b.broadcast_mul(&cos)? + a.broadcast_mul(&sin)?)?;
    let rest = q.narrow(D::Minus1, 2 * half, d - 2 * half)?;
    let turned = Tensor::cat(&[first, second, rest], D::Minus1)?.reshape((t, heads * d))?;
    let turned = turned.to_dtype(dtype)?;
    if n == heads * d {
        return Ok(turned);
    }
    Ok(Tensor::cat(&[turned, x.narrow(1, heads * d, n - heads * d)?], 1)?)
}

fn turn_cpu<T: Real>(x: &Tensor, angles: &Angles, heads: usize, d: usize, sign: f64) -> Result<()> {
    let ((_, n), (_, half)) = (x.dims2()?, angles.cos.dims2()?);
    let (cos, sin) = (cpu::slice::<T>(&angles.cos)?, cpu::slice::<T>(&angles.sin)?);
    let (cos, sin): (&[T], &[T]) = (&cos, &sin);
    let sign = T::of(sign);
    cpu::update::<T>(x, |x| {
        cpu::over_rows(x, n, |first, block| {
            cpu::simd(
                #[inline(always)]
                || {
                    let rows = block.chunks_exact_mut(n);
                    let angles =
                        cos[first * half..].chunks_exact(half).zip(sin[first * half..].chunks_exact(half));
                    for (row, (cos, sin)) in rows.zip(angles) {
                        for head in row[..heads * d].chunks_exact_mut(d) {
                            let (a, b) = head[..2 * half].split_at_mut(half);
                            for (((a, b), &cos), &sin) in a.iter_mut().zip(b).zip(cos).zip(sin) {
                                let (x, y, sin) = (*a, *b, sin * sign);
                                *a = x * cos - y * sin;
                                *b = y * cos + x * sin;
                            }
                        }
                    }
                },
            );
        });
        Ok(())
    })
}

/// Inverse frequencies → angles at `positions`, in `dtype` on `device`. Packed sequences have most positions in
/// common, and each is computed once.
pub fn angles(positions: &[u32], inverse_frequencies: &[f64], scale: f64, like: &Tensor) -> Result<Angles> {
    let known: Vec<u32> = positions.iter().copied().collect::<BTreeSet<_>>().into_iter().collect();
    let turned = |&p: &u32| -> Vec<(f64, f64)> {
        inverse_frequencies.iter().map(|f| (f64::from(p) * f).sin_cos()).collect()
    };
    let turned: Vec<Vec<(f64, f64)>> = known.par_iter().with_min_len(16).map(turned).collect();
    let shape = (positions.len(), inverse_frequencies.len());
    let inner = if like.dtype() == DType::F64 { DType::F64 } else { DType::F32 };
    let tensor = |part: fn(&(f64, f64)) -> f64| -> Result<Tensor> {
        let rows = positions.iter().filter_map(|p| known.binary_search(p).ok());
        let numbers = rows.flat_map(|row| &turned[row]).map(|angle| part(angle) * scale);
        Ok(match inner {
            DType::F64 => Tensor::from_vec(numbers.collect::<Vec<f64>>(), shape, like.device())?,
            _ => Tensor::from_vec(numbers.map(|x| x as f32).collect::<Vec<f32>>(), shape, like.device())?,
        })
    };
    Ok(Angles { cos: tensor(|(_, cos)| *cos)?, sin: tensor(|(sin, _)| *sin)? })
}
