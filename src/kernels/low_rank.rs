//! The low-rank side path of a frozen projection: LoRA (Hu et al. 2021, arXiv 2106.09685, equation 3),
//!
//! y\[:, start..start + n\] += s·(x∘m)·Aᵀ·Bᵀ,  A (r, k), B (n, r), m a dropout mask or nothing.
//!
//! u = s·(x∘m)·Aᵀ is computed again in backward: it costs r/n of the projection and would take (t, r) a layer.

use candle_core::{DType, Device, Tensor};

use super::cpu::{self, dispatch};
use super::cuda;
use super::linear::{self, Products, rows_product};
use super::real::Real;
use super::{plain, rowwise};
use crate::base::error::Result;

/// One adapted block of columns of a projection's output.
#[derive(Clone, Copy)]
pub struct LowRank<'a> {
    /// (r, k)
    pub a: &'a Tensor,
    /// (n, r)
    pub b: &'a Tensor,
    /// First column of y that it adds to.
    pub start: usize,
    /// s
    pub scale: f64,
}

/// x (t, k), y (t, ≥ start + n) → y with the side path added, in y's memory.
pub fn forward_onto(y: Tensor, x: &Tensor, path: LowRank<'_>, products: Products) -> Result<Tensor> {
    if let Some(gpu) = cuda::of(&y) {
        cuda::low_rank::forward_onto(&*gpu, &y, x, path)?;
        return Ok(y);
    }
    if cpu::applies(&y) {
        dispatch!(y.dtype(), forward_cpu(&y, x, path, products))?;
        return Ok(y);
    }
    let u = (linear::forward(x, path.a, None)? * path.scale)?;
    add_columns(y, &linear::forward(&u, path.b, None)?, path.start)
}

/// dx (t, k) with the side path's part of the gradient added, in dx's memory; dy as y.
pub fn backward_input(dx: Tensor, dy: &Tensor, path: LowRank<'_>, mask: Option<Mask<'_>>) -> Result<Tensor> {
    if let Some(gpu) = cuda::of(&dx) {
        cuda::low_rank::backward_input(&*gpu, &dx, dy, path, mask)?;
        return Ok(dx);
    }
    let side = rows_gradient(dy, path)?.matmul(path.a)?;
    plain::add(dx, &dropped(&side, mask)?)
}

/// dA += duᵀ·x and dB += dyᵀ·u; `x` is what the forward pass was given, its mask applied.
pub fn backward_weights(
    dy: &Tensor,
    x: &Tensor,
    path: LowRank<'_>,
    da: &mut Tensor,
    db: &mut Tensor,
) -> Result<()> {
    if let Some(gpu) = cuda::of(dy) {
        return cuda::low_rank::backward_weights(&*gpu, dy, x, path, [da, db]);
    }
    let du = rows_gradient(dy, path)?;
    linear::backward_weight(&du, x, da)?;
    let u = (linear::forward(x, path.a, None)? * path.scale)?;
    linear::backward_weight(&columns(dy, path)?, &u, db)
}

/// s·dy\[:, start..start + n\]·B (t, r).
fn rows_gradient(dy: &Tensor, path: LowRank<'_>) -> Result<Tensor> {
    Ok((linear::backward_input(&columns(dy, path)?, path.b)? * path.scale)?)
}

/// The columns of dy that the path adds to, (t, n).
fn columns(dy: &Tensor, path: LowRank<'_>) -> Result<Tensor> {
    let n = path.b.dim(0)?;
    if dy.dim(1)? == n {
        return Ok(dy.clone());
    }
    Ok(dy.narrow(1, path.start, n)?.contiguous()?)
}

fn add_columns(y: Tensor, more: &Tensor, start: usize) -> Result<Tensor> {
    let (width, n) = (y.dim(1)?, more.dim(1)?);
    if width == n {
        return Ok((y + more)?);
    }
    let end = start + n;
    let parts = [y.narrow(1, 0, start)?, (y.narrow(1, start, n)? + more)?, y.narrow(1, end, width - end)?];
    let parts: Vec<Tensor> = parts.into_iter().filter(|p| p.elem_count() > 0).collect();
    Ok(Tensor::cat(&parts, 1)?.contiguous()?)
}

fn forward_cpu<T: Real>(y: &Tensor, x: &Tensor, path: LowRank<'_>, products: Products) -> Result<()> {
    let ((t, k), (_, width)) = (x.dims2()?, y.dims2()?);
    let ((r, _), (n, _)) = (path.a.dims2()?, path.b.dims2()?);
    let (xs, a, b) = (cpu::slice::<T>(x)?, cpu::slice::<T>(path.a)?, cpu::slice::<T>(path.b)?);
    let times = |out: &mut [T], stride, accumulate, x: &[T], w: &[T], k| match products {
        Products::Rowwise => rowwise::product(out, stride, accumulate, x, w, k),
        Products::Blocked => rows_product(out, stride, accumulate, x, w, k),
    };
    let mut u = vec![T::ZERO; t * r];
    times(&mut u, r, false, &xs, &a, k);
    let scale = T::of(path.scale);
    u.iter_mut().for_each(|u| *u *= scale);
    cpu::update::<T>(y, |y| {
        times(&mut y[path.start..path.start + (t.max(1) - 1) * width + n], width, true, &u, &b, r);
        Ok(())
    })
}

/// A dropout mask: 0 with probability p, else 1/(1 − p).
///
/// An element depends on the key, its row's number and its column alone, so that a step's masks are the same however
/// the step is cut into micro-batches, but for prompts that neighbours of one micro-batch share.
#[derive(Clone, Copy)]
pub struct Mask<'a> {
    pub key: u64,
    /// p
    pub p: f64,
    /// Number of row 0 of those that `rows` counts.
    pub first_row: u64,
    /// Which rows these are; `None`: all, in order.
    pub rows: Option<&'a [u32]>,
}

impl Mask<'_> {
    /// 1/(1 − p)
    pub(super) fn kept(&self) -> f32 {
        (1.0 / (1.0 - self.p)) as f32
    }

    /// u64 fraction of the range below which an element is dropped.
    pub(super) fn below(&self) -> u64 {
        (self.p * 2f64.powi(64)) as u64
    }

    /// (count, width)
    fn tensor(&self, count: usize, width: usize, dtype: DType, device: &Device) -> Result<Tensor> {
        let (kept, below) = (self.kept(), self.below());
        let mut mask = Vec::with_capacity(count * width);
        for i in 0..count {
            let row = self.first_row + self.rows.map_or(i as u64, |rows| u64::from(rows[i]));
            let first = row.wrapping_mul(width as u64);
            let drawn = |c| if mixed(self.key, first + c) < below { 0.0 } else { kept };
            mask.extend((0..width as u64).map(drawn));
        }
        Ok(Tensor::from_vec(mask, (count, width), &Device::Cpu)?.to_dtype(dtype)?.to_device(device)?)
    }
}

/// x∘m (t, k), or x.
pub fn dropped(x: &Tensor, mask: Option<Mask<'_>>) -> Result<Tensor> {
    let Some(mask) = mask else { return Ok(x.clone()) };
    if let Some(gpu) = cuda::of(x) {
        return cuda::low_rank::dropped(&*gpu, x, mask);
    }
    let (count, width) = x.dims2()?;
    Ok((x * mask.tensor(count, width, x.dtype(), x.device())?)?)
}

/// SplitMix64's output function at a counter (Steele, Lea and Flood 2014).
fn mixed(key: u64, counter: u64) -> u64 {
    let mut z = key.wrapping_add(counter.wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15));
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn random(shape: (usize, usize), seed: u64) -> Tensor {
        let n = shape.0 * shape.1;
        let numbers: Vec<f64> = (0..n as u64).map(|i| mixed(seed, i) as f64 / 2f64.powi(63) - 1.0).collect();
        Tensor::from_vec(numbers, shape, &Device::Cpu).unwrap()
    }

    fn flat(t: &Tensor) -> Vec<f64> {
        t.flatten_all().unwrap().to_vec1().unwrap()
    }

    fn close(a: &Tensor, b: &Tensor) {
        assert_eq!(a.dims(), b.dims());
        for (x, y) in flat(a).into_iter().zip(flat(b)) {
            assert!((x - y).abs() < 1e-12, "{x} against {y}");
        }
    }

    /// The kernels against candle's autograd on the equation written out.
    #[test]
    fn forward_and_gradients_are_those_of_the_equation() {
        let (t, k, r, n, width, start) = (5, 6, 2, 3, 7, 2);
        let (x, y, dy) = (random((t, k), 1), random((t, width), 2), random((t, width), 3));
        let (a, b) = (random((r, k), 4), random((n, r), 5));
        let mask = Mask { key: 6, p: 0.4, first_row: 3, rows: None };
        let m = mask.tensor(t, k, DType::F64, &Device::Cpu).unwrap();
        let path = LowRank { a: &a, b: &b, start, scale: 1.7 };
        let equation = |v: &[Tensor]| -> Result<Tensor> {
            let side = ((&v[0] * &m)?.matmul(&v[1].t()?)?.matmul(&v[2].t()?)? * 1.7)?;
            add_columns(y.clone(), &side, start)
        };
        let inputs = [x.clone(), a.clone(), b.clone()];
        let thinned = dropped(&x, Some(mask)).unwrap();
        let got = forward_onto(y.copy().unwrap(), &thinned, path, Products::Blocked).unwrap();
        close(&got, &equation(&inputs).unwrap());

        let want = plain::backward(&[&x, &a, &b], &dy, equation).unwrap();
        let base = random((t, k), 7);
        let dx = backward_input(base.copy().unwrap(), &dy, path, Some(mask)).unwrap();
        close(&(dx - base).unwrap(), &want[0]);
        let (mut da, mut db) = (a.zeros_like().unwrap(), b.zeros_like().unwrap());
        backward_weights(&dy, &thinned, path, &mut da, &mut db).unwrap();
        close(&da, &want[1]);
        close(&db, &want[2]);
    }

    #[test]
    fn a_mask_keeps_its_share_and_does_not_depend_on_the_cut() {
        let draw = |first_row: u64, count: usize, rows: Option<&[u32]>| {
            let mask = Mask { key: 9, p: 0.25, first_row, rows };
            mask.tensor(count, 100, DType::F64, &Device::Cpu).unwrap()
        };
        let whole = draw(0, 200, None);
        let parts = Tensor::cat(&[draw(0, 70, None), draw(70, 130, None)], 0).unwrap();
        close(&whole, &parts);
        close(&whole.narrow(0, 75, 2).unwrap(), &draw(70, 2, Some(&[5, 6])));
        let values = flat(&whole);
        let dropped = values.iter().filter(|&&x| x == 0.0).count() as f64 / values.len() as f64;
        // Three standard errors of a share of 20,000 draws.
        assert!((dropped - 0.25).abs() < 0.0092, "{dropped}");
        assert!(values.iter().all(|&x| x == 0.0 || (x - 4.0 / 3.0).abs() < 1e-6));
    }
}
