//! The nonlinearity of a feed-forward block, gated (SwiGLU, GeGLU; Shazeer 2020) or plain.

use candle_core::{DType, Tensor};

use super::cpu::{self, dispatch};
use super::cuda;
use super::plain;
use super::real::Real;
use crate::base::error::Result;

/// The function itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Activation {
    /// x·σ(x)
    Silu,
    /// GELU by its tanh approximation (Hendrycks and Gimpel 2016): x·σ(2√(2/π)(x + 0.044715x³))
    GeluTanh,
    /// x·Φ(x)
    GeluErf,
    /// max(x, 0)
    Relu,
}

/// Gated: x (t, 2f) holds gate and value side by side, → act(gate)·value (t, f). Plain: (t, f) → (t, f).
pub fn forward(x: &Tensor, activation: Activation, gated: bool) -> Result<Tensor> {
    if let Some(gpu) = cuda::of(x) {
        return cuda::activation::forward(&*gpu, x, activation, gated);
    }
    if cpu::applies(x) {
        return dispatch!(x.dtype(), forward_cpu(x, activation, gated));
    }
    plain_forward(x, activation, gated)
}

/// dy (t, f) and x → (y, dx): the output once more, which the next product's weight gradient needs, and the
/// gradient in x. May overwrite dy and x: the caller gives them up.
pub fn backward(dy: Tensor, x: Tensor, activation: Activation, gated: bool) -> Result<(Tensor, Tensor)> {
    if let Some(gpu) = cuda::of(&x) {
        return cuda::activation::backward(&*gpu, dy, x, activation, gated);
    }
    if cpu::applies(&x) {
        dispatch!(x.dtype(), backward_cpu(&dy, &x, activation, gated))?;
        return Ok((dy, x));
    }
    let mut dx = plain::backward(&[&x], &dy, |v| plain_forward(&v[0], activation, gated))?;
    Ok((plain_forward(&x, activation, gated)?, dx.swap_remove(0)))
}

/// The same out of candle ops.
pub fn plain_forward(x: &Tensor, activation: Activation, gated: bool) -> Result<Tensor> {
    let dtype = x.dtype();
    let x = if dtype == DType::F64 { x.clone() } else { x.to_dtype(DType::F32)? };
    let (_, n) = x.dims2()?;
    let gate = if gated { x.narrow(1, 0, n / 2)? } else { x.clone() };
    let y = match activation {
        Activation::Silu => (&gate / (gate.neg()?.exp()? + 1.0)?)?,
        Activation::GeluTanh => gate.gelu()?,
        Activation::GeluErf => gate.gelu_erf()?,
        Activation::Relu => gate.relu()?,
    };
    let y = if gated { (y * x.narrow(1, n / 2, n / 2)?)? } else { y };
    Ok(y.to_dtype(dtype)?)
}

/// (act(x), act'(x))
#[inline(always)]
fn value_and_slope<T: Real>(x: T, activation: Activation) -> (T, T) {
    match activation {
        Activation::Silu => {
            let s = x.sigmoid();
            let y = x * s;
            (y, s + y * (T::ONE - s))
        }
        Activation::GeluTanh => {
            let root = T::of(2.0 * (2.0 / std::f64::consts::PI).sqrt());
            let (cubic, one) = (T::of(0.044_715), T::ONE);
            let s = (root * x * (one + cubic * x * x)).sigmoid();
            let inner = root * (one + T::of(3.0) * cubic * x * x);
            (x * s, s + x * s * (one - s) * inner)
        }
        Activation::GeluErf => {
            let half = T::of(0.5);
            let cdf = half + half * (x * T::of(std::f64::consts::FRAC_1_SQRT_2)).erf();
            let density = T::of(0.398_942_280_401_432_7) * (-half * x * x).exp();
            (x * cdf, cdf + x * density)
        }
        Activation::Relu => {
            let slope = if x > T::ZERO { T::ONE } else { T::ZERO };
            (x * slope, slope)
        }
    }
}

fn forward_cpu<T: Real>(x: &Tensor, activation: Activation, gated: bool) -> Result<Tensor> {
    // One loop per function, so that the choice is made outside of it.
    match activation {
        Activation::Silu => forward_with::<T>(
            x,
            gated,
            #[inline(always)]
            |x| value_and_slope(x, Activation::Silu).0,
        ),
        Activation::GeluTanh => forward_with::<T>(
            x,
            gated,
            #[inline(always)]
            |x| value_and_slope(x, Activation::GeluTanh).0,
        ),
        Activation::GeluErf => forward_with::<T>(
            x,
            gated,
            #[inline(always)]
            |x| value_and_slope(x, Activation::GeluErf).0,
        ),
        Activation::Relu => forward_with::<T>(
            x,
            gated,
            #[inline(always)]
            |x| value_and_slope(x, Activation::Relu).0,
        ),
    }
}

fn forward_with<T: Real>(x: &Tensor, gated: bool, act: impl Fn(T) -> T + Sync) -> Result<Tensor> {
    let (t, n) = x.dims2()?;
    let f = if gated { n / 2 } else { n };
    let xs = cpu::slice::<T>(x)?;
    let xs: &[T] = &xs;
    let (out, _) = cpu::over_new_rows(t, f, |first, block| {
        cpu::simd(
            #[inline(always)]
            || {
                for (y, x) in block.chunks_exact_mut(f).zip(xs[first * n..].chunks_exact(n)) {
                    for (y, &gate) in y.iter_mut().zip(x) {
                        *y = act(gate);
                    }
                    if gated {
                        for (y, &value) in y.iter_mut().zip(&x[f..]) {
                            *y *= value;
                        }
                    }
                }
            },
        );
    });
    Ok(Tensor::from_vec(out, (t, f), x.device())?)
}

fn backward_cpu<T: Real>(dy: &Tensor, x: &Tensor, activation: Activation, gated: bool) -> Result<()> {
    match activation {
        Activation::Silu => backward_with::<T>(
            dy,
            x,
            gated,
            #[inline(always)]
            |x| value_and_slope(x, Activation::Silu),
        ),
        Activation::GeluTanh => backward_with::<T>(
            dy,
            x,
            gated,
            #[inline(always)]
            |x| value_and_slope(x, Activation::GeluTanh),
        ),
        Activation::GeluErf => backward_with::<T>(
            dy,
            x,
            gated,
            #[inline(always)]
            |x| value_and_slope(x, Activation::GeluErf),
        ),
        Activation::Relu => backward_with::<T>(
            dy,
            x,
            gated,
            #[inline(always)]
            |x| value_and_slope(x, Activation::Relu),
        ),
    }
}

/// Writes y over dy and dx over x.
fn backward_with<T: Real>(
    dy: &Tensor,
    x: &Tensor,
    gated: bool,
    act: impl Fn(T) -> (T, T) + Sync,
) -> Result<()> {
    use rayon::prelude::*;
    let (t, n) = x.dims2()?;
    let f = if gated { n / 2 } else { n };
    let step = cpu::rows_per_task(t);
    let blocks = |dy: &mut [T], x: &mut [T]| {
        let pairs = dy.par_chunks_mut(step * f).zip(x.par_chunks_mut(step * n));
        pairs.for_each(|(dy, x)| {
            cpu::simd(
                #[inline(always)]
                || {
                    for (dy, x) in dy.chunks_exact_mut(f).zip(x.chunks_exact_mut(n)) {
                        let (gate, value) = x.split_at_mut(f);
                        backward_row(dy, gate, gated.then_some(value), &act);
                    }
                },
            );
        });
    };
    cpu::update::<T>(dy, |dy| {
        cpu::update::<T>(x, |x| {
            blocks(dy, x);
            Ok(())
        })
    })
}

/// Numbers that are loaded, changed and stored at a time: three slices that are all written look to the
/// compiler as if they might overlap, and copies on the stack do not.
const LANES: usize = 16;

#[inline(always)]
fn backward_row<T: Real>(dy: &mut [T], gate: &mut [T], value: Option<&mut [T]>, act: impl Fn(T) -> (T, T)) {
    let Some(value) = value else {
        for (dy, gate) in dy.iter_mut().zip(gate) {
            let (y, slope) = act(*gate);
            *gate = *dy * slope;
            *dy = y;
        }
        return;
    };
    let whole = dy.len() / LANES * LANES;
    for at in (0..whole).step_by(LANES) {
        let (mut d, mut g, mut v) = ([T::ZERO; LANES], [T::ZERO; LANES], [T::ZERO; LANES]);
        d.copy_from_slice(&dy[at..at + LANES]);
        g.copy_from_slice(&gate[at..at + LANES]);
        v.copy_from_slice(&value[at..at + LANES]);
        for i in 0..LANES {
            (d[i], g[i], v[i]) = backward_one(d[i], g[i], v[i], &act);
        }
        dy[at..at + LANES].copy_from_slice(&d);
        gate[at..at + LANES].copy_from_slice(&g);
        value[at..at + LANES].copy_from_slice(&v);
    }
    for at in whole..dy.len() {
        (dy[at], gate[at], value[at]) = backward_one(dy[at], gate[at], value[at], &act);
    }
}

/// (dy, gate, value) → (y, dgate, dvalue)
#[inline(always)]
fn backward_one<T: Real>(dy: T, gate: T, value: T, act: impl Fn(T) -> (T, T)) -> (T, T, T) {
    let (y, slope) = act(gate);
    (y * value, dy * slope * value, dy * y)
}
