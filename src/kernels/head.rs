//! Log-probs of chosen tokens from hidden states: vocabulary projection and log-softmax in one, in chunks of
//! rows, so that the logits of all positions never exist.

use candle_core::{D, DType, Tensor};

use super::cpu::{self, dispatch};
use super::cuda;
use super::linear::{self, Products};
use super::matrix::{View, matmul};
use super::plain;
use super::real::Real;
use super::reduce;
use crate::base::error::{Result, bail};

/// Logits of at most this many bytes are kept from forward to backward; beyond, they are computed again.
const KEEP_BYTES: usize = 64 << 20;
/// Logits of at most this many bytes exist at a time where they are not kept.
const CHUNK_BYTES: usize = 8 << 20;

/// The projection.
#[derive(Clone, Copy)]
pub struct Head<'a> {
    /// (v, c)
    pub weight: &'a Tensor,
    /// logits → cap·tanh(logits / cap)
    pub softcap: Option<f64>,
}

/// log p(target | row of the hidden states), row 0..m.
pub type Target = (u32, u32);

/// What the backward pass needs.
pub struct Saved {
    /// (m,) log Σ exp of each row's logits
    lse: Vec<f64>,
    /// exp(logit − lse) of every row, if they fit.
    probs: Option<Tensor>,
    /// On a GPU, instead of the above.
    gpu: Option<cuda::head::Saved>,
}

impl Saved {
    /// Bytes kept.
    pub fn bytes(&self) -> usize {
        let probs = self.probs.as_ref().map_or(0, |p| p.elem_count() * p.dtype().size_in_bytes());
        self.lse.len() * size_of::<f64>() + probs
    }
}

/// hidden (m, c), targets (r,) → log-probs (r,).
pub fn forward(hidden: &Tensor, head: Head<'_>, targets: &[Target], keep: bool) -> Result<(Vec<f64>, Saved)> {
    if let Some(gpu) = cuda::of(hidden) {
        let (logps, saved) = cuda::head::forward(&*gpu, hidden, head, targets, keep)?;
        return Ok((logps, Saved { lse: Vec::new(), probs: None, gpu: Some(saved) }));
    }
    if cpu::applies(hidden) {
        return dispatch!(hidden.dtype(), forward_cpu(hidden, head, targets, keep));
    }
    let logps = plain_forward(hidden, head, targets)?.to_dtype(DType::F64)?.to_vec1()?;
    Ok((logps, Saved { lse: Vec::new(), probs: None, gpu: None }))
}

/// dlogps (r,) → dhidden (m, c); adds to dweight (v, c) where the projection is trained.
pub fn backward(
    dlogps: &[f64],
    hidden: &Tensor,
    head: Head<'_>,
    targets: &[Target],
    saved: Saved,
    dweight: Option<&mut Tensor>,
) -> Result<Tensor> {
    if let Some(gpu) = cuda::of(hidden) {
        let Some(saved) = saved.gpu else { bail!("a GPU's backward pass without its forward pass") };
        return cuda::head::backward(&*gpu, dlogps, hidden, head, saved, dweight.as_deref());
    }
    if cpu::applies(hidden) {
        return dispatch!(
            hidden.dtype(),
            backward_cpu(dlogps, hidden, head, targets, saved, dweight.as_deref())
        );
    }
    let dy = Tensor::new(dlogps, hidden.device())?.to_dtype(DType::F32)?;
    let f = |v: &[Tensor]| plain_forward(&v[0], Head { weight: &v[1], ..head }, targets);
    let mut d = plain::backward(&[hidden, head.weight], &dy, f)?;
    if let Some(dweight) = dweight {
        plain::accumulate(dweight, &d[1])?;
    }
    Ok(d.swap_remove(0))
}

/// All logits of hidden (m, c) → (m, v), on a GPU in f32; for decoding, where every row is one that is read.
pub fn logits(hidden: &Tensor, head: Head<'_>) -> Result<Tensor> {
    let logits = match cuda::of(hidden) {
        Some(gpu) => cuda::head::logits(&*gpu, hidden, head, &(0..hidden.dim(0)?))?,
        None => linear::forward_as(Products::Rowwise, None, hidden, head.weight, None)?,
    };
    Ok(match head.softcap {
        Some(cap) => ((logits / cap)?.tanh()? * cap)?,
        None => logits,
    })
}

/// The same out of candle ops, (r,) in f32 at least.
pub fn plain_forward(hidden: &Tensor, head: Head<'_>, targets: &[Target]) -> Result<Tensor> {
    let inner = if hidden.dtype() == DType::F64 { DType::F64 } else { DType::F32 };
    let logits = hidden.matmul(&head.weight.t()?)?.to_dtype(inner)?;
    let logits = match head.softcap {
        Some(cap) => ((logits / cap)?.tanh()? * cap)?,
        None => logits,
    };
    let max = logits.max_keepdim(D::Minus1)?.detach();
    let shifted = logits.broadcast_sub(&max)?;
    let logps = shifted.broadcast_sub(&shifted.exp()?.sum_keepdim(D::Minus1)?.log()?)?;
    let (_, v) = logps.dims2()?;
    let index: Vec<u32> = targets.iter().map(|&(row, id)| row * v as u32 + id).collect();
    Ok(logps.flatten_all()?.index_select(&Tensor::new(index, hidden.device())?, 0)?)
}

/// The row ranges that are projected at a time.
fn chunks(rows: usize, row_bytes: usize) -> impl Iterator<Item = std::ops::Range<usize>> {
    let step = (CHUNK_BYTES / row_bytes).max(16);
    (0..rows).step_by(step).map(move |start| start..(start + step).min(rows))
}

/// The targets of each row, as a list per row.
fn by_row(targets: &[Target], rows: usize) -> Vec<Vec<(usize, usize)>> {
    let mut lists = vec![Vec::new(); rows];
    for (i, &(row, id)) in targets.iter().enumerate() {
        lists[row as usize].push((i, id as usize));
    }
    lists
}

/// Logits to exp(logit − max); returns (max, Σ).
#[inline(always)]
fn exp_row<T: Real>(row: &mut [T], cap: Option<T>) -> (T, T) {
    if let Some(cap) = cap {
        for x in row.iter_mut() {
            *x = cap * (*x / cap).tanh();
        }
    }
    let max = reduce::max(row);
    let total = reduce::exp_sum(row, max);
    (max, total)
}

fn forward_cpu<T: Real>(
    hidden: &Tensor,
    head: Head<'_>,
    targets: &[Target],
    keep: bool,
) -> Result<(Vec<f64>, Saved)> {
    let ((m, c), (v, _)) = (hidden.dims2()?, head.weight.dims2()?);
    let row_bytes = v * size_of::<T>();
    // With a softcap the slope needs the logits themselves, so they are always computed again.
    let keep = keep && head.softcap.is_none() && m * row_bytes <= KEEP_BYTES;
    let (hs, ws) = (cpu::slice::<T>(hidden)?, cpu::slice::<T>(head.weight)?);
    let lists = by_row(targets, m);
    let cap = head.softcap.map(T::of);
    let (mut logps, mut lse) = (vec![0.0; targets.len()], vec![0.0; m]);
    let mut buffer = cpu::zeros::<T>(if keep { m * v } else { (CHUNK_BYTES / row_bytes).max(16).min(m) * v });
    for rows in chunks(m, row_bytes) {
        let place =
            if keep { &mut buffer[rows.start * v..rows.end * v] } else { &mut buffer[..rows.len() * v] };
        linear::rows_product(place, v, false, &hs[rows.start * c..rows.end * c], &ws, c);
        let found = cpu::over_rows(place, v, |first, block| {
            let mut found = Vec::new();
            for (i, row) in block.chunks_exact_mut(v).enumerate() {
                let wanted = &lists[rows.start + first + i];
                let raw: Vec<T> = wanted.iter().map(|&(_, id)| row[id]).collect();
                let (max, total) = cpu::simd(
                    #[inline(always)]
                    || exp_row(row, cap),
                );
                let log_total = max.to_f64() + total.to_f64().ln();
                let capped =
                    raw.into_iter().map(|x| cap.map_or(x, |c| c * (x / c).tanh()).to_f64() - log_total);
                found.push((log_total, capped.collect::<Vec<f64>>()));
                if keep {
                    let scale = T::ONE / total;
                    cpu::simd(
                        #[inline(always)]
                        || row.iter_mut().for_each(|x| *x *= scale),
                    );
                }
            }
            found
        });
        for (row, (log_total, found)) in rows.zip(found.into_iter().flatten()) {
            lse[row] = log_total;
            for (&(i, _), logp) in lists[row].iter().zip(found) {
                logps[i] = logp;
            }
        }
    }
    let probs = if keep { Some(Tensor::from_vec(buffer, (m, v), hidden.device())?) } else { None };
    Ok((logps, Saved { lse, probs, gpu: None }))
}

fn backward_cpu<T: Real>(
    dlogps: &[f64],
    hidden: &Tensor,
    head: Head<'_>,
    targets: &[Target],
    saved: Saved,
    dweight: Option<&Tensor>,
) -> Result<Tensor> {
    let ((m, c), (v, _)) = (hidden.dims2()?, head.weight.dims2()?);
    let (hs, ws) = (cpu::slice::<T>(hidden)?, cpu::slice::<T>(head.weight)?);
    let lists = by_row(targets, m);
    let cap = head.softcap.map(T::of);
    let mut dhidden = cpu::zeros::<T>(m * c);
    let mut pass = |rows: std::ops::Range<usize>, place: &mut [T], are_probs: bool| -> Result<()> {
        let h = View::new(&hs[rows.start * c..rows.end * c], rows.len(), c, c);
        let w = View::new(&ws, v, c, c);
        if !are_probs {
            matmul(place, v, false, h, w.transposed(), cpu::all_threads());
        }
        cpu::over_rows(place, v, |first, block| {
            for (i, row) in block.chunks_exact_mut(v).enumerate() {
                let at = rows.start + first + i;
                let lse = (!are_probs).then(|| T::of(saved.lse[at]));
                to_dlogits(row, &lists[at], dlogps, lse, cap);
            }
        });
        let d = View::new(place, rows.len(), v, v);
        matmul(&mut dhidden[rows.start * c..rows.end * c], c, false, d, w, cpu::all_threads());
        let Some(dweight) = dweight else { return Ok(()) };
        cpu::update::<T>(dweight, |dw| {
            matmul(dw, c, true, d.transposed(), h, cpu::all_threads());
            Ok(())
        })
    };
    match &saved.probs {
        Some(probs) => cpu::update::<T>(probs, |p| pass(0..m, p, true))?,
        None => {
            let row_bytes = v * size_of::<T>();
            let mut buffer = cpu::zeros::<T>((CHUNK_BYTES / row_bytes).max(16).min(m) * v);
            for rows in chunks(m, row_bytes) {
                let n = rows.len() * v;
                pass(rows, &mut buffer[..n], false)?;
            }
        }
    }
    Ok(Tensor::from_vec(dhidden, (m, c), hidden.device())?)
}

/// d logit = Σ over the row's targets of dlogp·(1[target] − p), times the softcap's slope. The row comes as
/// probabilities, or as raw logits with their log Σ exp.
fn to_dlogits<T: Real>(
    row: &mut [T],
    wanted: &[(usize, usize)],
    dlogps: &[f64],
    lse: Option<T>,
    cap: Option<T>,
) {
    let total = T::of(-wanted.iter().map(|&(i, _)| dlogps[i]).sum::<f64>());
    let slope = |x: T| {
        cap.map_or(T::ONE, |cap| {
            let y = (x / cap).tanh();
            T::ONE - y * y
        })
    };
    let hits: Vec<(usize, T)> = wanted
        .iter()
        .map(|&(i, id)| (id, T::of(dlogps[i]) * if lse.is_some() { slope(row[id]) } else { T::ONE }))
        .collect();
    cpu::simd(
        #[inline(always)]
        || match (lse, cap) {
            (None, _) => row.iter_mut().for_each(|x| *x *= total),
            (Some(lse), None) => row.iter_mut().for_each(|x| *x = total * (*x - lse).exp()),
            (Some(lse), Some(cap)) => row.iter_mut().for_each(|x| {
                let y = (*x / cap).tanh();
                *x = total * (cap * y - lse).exp() * (T::ONE - y * y);
            }),
        },
    );
    for (id, d) in hits {
        row[id] += d;
    }
}
