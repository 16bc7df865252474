//! RMSNorm (Zhang and Sennrich 2019), Gemma's variant with 1 + w, and LayerNorm (Ba et al. 2016).

use candle_core::{D, DType, Tensor};

use super::cpu::{self, dispatch};
use super::cuda;
use super::plain;
use super::real::Real;
use super::reduce;
use crate::base::error::Result;

/// Accumulators of a sum over a row.
const LANES: usize = 16;

/// How a row is normalised.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Kind {
    /// x / rms(x) · w
    Rms,
    /// x / rms(x) · (1 + w)
    RmsPlusOne,
    /// (x − mean) / std · w + b
    Layer,
}

/// A normalisation over rows of `weight.len()` numbers.
#[derive(Clone, Copy)]
pub struct Norm<'a> {
    pub kind: Kind,
    pub eps: f64,
    pub weight: &'a Tensor,
    /// Only with [`Kind::Layer`].
    pub bias: Option<&'a Tensor>,
}

/// Where the gradients of a normalisation's parameters go.
pub struct NormGrads<'a> {
    pub weight: &'a mut Tensor,
    pub bias: Option<&'a mut Tensor>,
}

/// x (…, c) → (…, c); each run of c = `weight.len()` numbers is one row.
pub fn forward(x: &Tensor, norm: Norm<'_>) -> Result<Tensor> {
    if let Some(gpu) = cuda::of(x) {
        return cuda::norm::forward(&*gpu, x, norm);
    }
    if cpu::applies(x) {
        return dispatch!(x.dtype(), forward_cpu(x, norm));
    }
    plain_forward(x, norm.weight, norm.bias, norm.kind, norm.eps)
}

/// Returns base + dx, and may overwrite base; adds to the parameters' gradients.
pub fn backward(
    dy: &Tensor,
    x: &Tensor,
    norm: Norm<'_>,
    grads: NormGrads<'_>,
    base: Option<Tensor>,
) -> Result<Tensor> {
    if let Some(gpu) = cuda::of(x) {
        return cuda::norm::backward(&*gpu, dy, x, norm, grads, base);
    }
    if cpu::applies(x) {
        return dispatch!(x.dtype(), backward_cpu(dy, x, norm, grads, base));
    }
    let mut inputs = vec![x, norm.weight];
    inputs.extend(norm.bias);
    let f = |v: &[Tensor]| plain_forward(&v[0], &v[1], v.get(2), norm.kind, norm.eps);
    let d = plain::backward(&inputs, dy, f)?;
    plain::accumulate(grads.weight, &d[1])?;
    if let (Some(total), Some(bias)) = (grads.bias, d.get(2)) {
        plain::accumulate(total, bias)?;
    }
    Ok(match base {
        Some(base) => (base + &d[0])?,
        None => d[0].clone(),
    })
}

/// The same out of candle ops, in f32 at least.
pub fn plain_forward(
    x: &Tensor,
    weight: &Tensor,
    bias: Option<&Tensor>,
    kind: Kind,
    eps: f64,
) -> Result<Tensor> {
    let (dtype, shape, c) = (x.dtype(), x.shape(), weight.elem_count());
    let inner = if dtype == DType::F64 { DType::F64 } else { DType::F32 };
    let rows = x.reshape(((), c))?.to_dtype(inner)?;
    let centred = match kind {
        Kind::Layer => rows.broadcast_sub(&rows.mean_keepdim(D::Minus1)?)?,
        _ => rows,
    };
    let mean_square = centred.sqr()?.mean_keepdim(D::Minus1)?;
    let unit = centred.broadcast_div(&(mean_square + eps)?.sqrt()?)?;
    let weight = weight.to_dtype(inner)?;
    let weight = if kind == Kind::RmsPlusOne { (weight + 1.0)? } else { weight };
    let y = unit.broadcast_mul(&weight)?;
    let y = match bias {
        Some(b) => y.broadcast_add(&b.to_dtype(inner)?)?,
        None => y,
    };
    Ok(y.to_dtype(dtype)?.reshape(shape)?)
}

/// The mean to subtract and the factor to multiply by.
#[inline(always)]
fn moments<T: Real>(row: &[T], kind: Kind, eps: T) -> (T, T) {
    let n = T::of(row.len() as f64);
    let mean = if kind == Kind::Layer { reduce::sum(row) / n } else { T::ZERO };
    let square = reduce::sum_with(row, row, |x, _, sum| (x - mean).mul_add(x - mean, sum));
    (mean, T::ONE / (square / n + eps).sqrt())
}

fn forward_cpu<T: Real>(x: &Tensor, norm: Norm<'_>) -> Result<Tensor> {
    let c = norm.weight.elem_count();
    let (xs, ws) = (cpu::slice::<T>(x)?, cpu::slice::<T>(norm.weight)?);
    let bias = norm.bias.map(cpu::slice::<T>).transpose()?;
    let (xs, ws, bias): (&[T], &[T], Option<&[T]>) = (&xs, &ws, bias.as_deref());
    let (kind, eps) = (norm.kind, T::of(norm.eps));
    let offset = if kind == Kind::RmsPlusOne { T::ONE } else { T::ZERO };
    let (out, _) = cpu::over_new_rows(xs.len() / c, c, |first, block| {
        cpu::simd(
            #[inline(always)]
            || {
                for (y, x) in block.chunks_exact_mut(c).zip(xs[first * c..].chunks_exact(c)) {
                    let (mean, scale) = moments(x, kind, eps);
                    for ((y, &x), &w) in y.iter_mut().zip(x).zip(ws) {
                        *y = (x - mean) * scale * (w + offset);
                    }
                    if let Some(bias) = bias {
                        for (y, &b) in y.iter_mut().zip(bias) {
                            *y += b;
                        }
                    }
                }
            },
        );
    });
    Ok(Tensor::from_vec(out, x.shape(), x.device())?)
}

/// With u = (x − mean)·s and g = dy·w: dx = s·(g − mean(g) − u·mean(g·u)), the middle term for LayerNorm only.
fn backward_cpu<T: Real>(
    dy: &Tensor,
    x: &Tensor,
    norm: Norm<'_>,
    grads: NormGrads<'_>,
    base: Option<Tensor>,
) -> Result<Tensor> {
    let c = norm.weight.elem_count();
    let dx = match base {
        Some(base) => base,
        None => x.zeros_like()?,
    };
    let (dys, xs, ws) = (cpu::slice::<T>(dy)?, cpu::slice::<T>(x)?, cpu::slice::<T>(norm.weight)?);
    let (dys, xs, ws): (&[T], &[T], &[T]) = (&dys, &xs, &ws);
    let (kind, eps) = (norm.kind, T::of(norm.eps));
    let mut partials = Vec::new();
    cpu::update::<T>(&dx, |dx| {
        partials = cpu::over_rows(dx, c, |first, block| {
            let (mut dw, mut db) = (vec![T::ZERO; c], vec![T::ZERO; c]);
            let rows = xs[first * c..].chunks_exact(c).zip(dys[first * c..].chunks_exact(c));
            cpu::simd(
                #[inline(always)]
                || {
                    for (dx, (x, dy)) in block.chunks_exact_mut(c).zip(rows) {
                        backward_row(dx, x, dy, ws, &mut dw, &mut db, kind, eps);
                    }
                },
            );
            (dw, db)
        });
        Ok(())
    })?;
    let (dw, db): (Vec<_>, Vec<_>) = partials.into_iter().unzip();
    cpu::update::<T>(grads.weight, |total| {
        cpu::add_partials(total, &dw);
        Ok(())
    })?;
    if let Some(bias) = grads.bias {
        cpu::update::<T>(bias, |total| {
            cpu::add_partials(total, &db);
            Ok(())
        })?;
    }
    Ok(dx)
}

#[inline(always)]
#[expect(clippy::too_many_arguments, reason = "one row of eight slices and scalars, inlined")]
fn backward_row<T: Real>(
    dx: &mut [T],
    x: &[T],
    dy: &[T],
    w: &[T],
    dw: &mut [T],
    db: &mut [T],
    kind: Kind,
    eps: T,
) {
    let (mean, scale) = moments(x, kind, eps);
    let offset = if kind == Kind::RmsPlusOne { T::ONE } else { T::ZERO };
    let n = T::of(x.len() as f64);
    // `dx` holds the base that the gradient is added to, so there is no room to keep g: it is computed twice.
    let (mut along, mut level) = ([T::ZERO; LANES], [T::ZERO; LANES]);
    let whole = x.len() - x.len() % LANES;
    for start in (0..whole).step_by(LANES) {
        let at = start..start + LANES;
        let (x, dy, w) = (&x[at.clone()], &dy[at.clone()], &w[at]);
        for i in 0..LANES {
            let g = dy[i] * (w[i] + offset);
            along[i] = g.mul_add((x[i] - mean) * scale, along[i]);
            level[i] += g;
        }
    }
    let (mut along, mut level) = (reduce::sum(&along), reduce::sum(&level));
    for i in whole..x.len() {
        let g = dy[i] * (w[i] + offset);
        along += g * (x[i] - mean) * scale;
        level += g;
    }
    let along = along / n;
    let level = if kind == Kind::Layer { level / n } else { T::ZERO };
    for ((((dx, &x), &dy), &w), dw) in dx.iter_mut().zip(x).zip(dy).zip(w).zip(dw.iter_mut()) {
        let unit = (x - mean) * scale;
        *dx += scale * (dy * (w + offset) - level - unit * along);
        *dw = dy.mul_add(unit, *dw);
    }
    if kind == Kind::Layer {
        for (db, &dy) in db.iter_mut().zip(dy) {
            *db += dy;
        }
    }
}
