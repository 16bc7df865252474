//! Attention of new tokens to a cache of what came before, for generation.

use candle_core::Tensor;
use rayon::prelude::*;

use super::local::{Local, Space, blocks, forward_block};
use super::packed::copy_rows;
use super::{Columns, Shape, dense};
use crate::base::error::Result;
use crate::kernels::cpu::{self, dispatch};
use crate::kernels::cuda;
use crate::kernels::real::Real;
use crate::kernels::reduce;

/// New tokens of one sequence whose past is cached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cached {
    pub slot: usize,
    /// The new tokens are rows `row..row + len` of the projection.
    pub row: usize,
    pub len: usize,
    /// Tokens already in the slot.
    pub past: usize,
}

/// Keys and values of one slot, (k, capacity, d) each; `None` before the first token.
pub type Slot = Option<(Tensor, Tensor)>;

/// Appends the keys and values in qkv (t, (h + 2k)·d) to their slots and attends → (t, h·d).
pub fn cached(
    qkv: &Tensor,
    slots: &mut [Slot],
    capacity: usize,
    entries: &[Cached],
    shape: &Shape,
) -> Result<Tensor> {
    let Shape { kv_heads, head_dim: d, .. } = *shape;
    let Columns { keys, values, .. } = shape.columns();
    for entry in entries {
        if slots[entry.slot].is_none() {
            let empty = || Tensor::zeros((kv_heads, capacity, d), qkv.dtype(), qkv.device());
            slots[entry.slot] = Some((empty()?, empty()?));
        }
    }
    let caches: Vec<&(Tensor, Tensor)> = entries.iter().filter_map(|e| slots[e.slot].as_ref()).collect();
    if let Some(gpu) = cuda::of(qkv).filter(|_| cuda::attention::applies(shape)) {
        return cuda::cached::cached(&*gpu, qkv, &caches, capacity, entries, shape);
    }
    if cpu::applies(qkv) {
        dispatch!(qkv.dtype(), append_cpu(qkv, &caches, entries, capacity, shape))?;
        return dispatch!(qkv.dtype(), cached_cpu(qkv, &caches, entries, shape));
    }
    for (entry, (k, v)) in entries.iter().zip(&caches) {
        let mine = qkv.narrow(0, entry.row, entry.len)?;
        for (cache, from) in [(k, keys), (v, values)] {
            let new = mine.narrow(1, from, kv_heads * d)?.reshape((entry.len, kv_heads, d))?;
            cache.slice_set(&new.transpose(0, 1)?.contiguous()?, 1, entry.past)?;
        }
    }
    let one = |(entry, (k, v)): (&Cached, &&(Tensor, Tensor))| {
        dense::cached(&qkv.narrow(0, entry.row, entry.len)?, k, v, entry, shape)
    };
    let outs = entries.iter().zip(&caches).map(one).collect::<Result<Vec<_>>>()?;
    Ok(Tensor::cat(&outs, 0)?)
}

/// Writes the new keys and values into their slots, in place.
fn append_cpu<T: Real>(
    qkv: &Tensor,
    caches: &[&(Tensor, Tensor)],
    entries: &[Cached],
    capacity: usize,
    shape: &Shape,
) -> Result<()> {
    let (d, width) = (shape.head_dim, shape.width());
    let Columns { keys, values, .. } = shape.columns();
    let xs = cpu::slice::<T>(qkv)?;
    let xs: &[T] = &xs;
    for (entry, (k, v)) in entries.iter().zip(caches) {
        for (cache, from) in [(k, keys), (v, values)] {
            cpu::update::<T>(cache, |cache| {
                for (head, place) in cache.chunks_exact_mut(capacity * d).enumerate() {
                    for i in 0..entry.len {
                        let new = &xs[(entry.row + i) * width + from + head * d..][..d];
                        place[(entry.past + i) * d..][..d].copy_from_slice(new);
                    }
                }
                Ok(())
            })?;
        }
    }
    Ok(())
}

fn cached_cpu<T: Real>(
    qkv: &Tensor,
    caches: &[&(Tensor, Tensor)],
    entries: &[Cached],
    shape: &Shape,
) -> Result<Tensor> {
    let Shape { heads, head_dim: d, .. } = *shape;
    let xs = cpu::slice::<T>(qkv)?;
    let xs: &[T] = &xs;
    let borrowed = caches.iter().map(|(k, v)| Ok((cpu::slice::<T>(k)?, cpu::slice::<T>(v)?)));
    let borrowed = borrowed.collect::<Result<Vec<_>>>()?;
    let slices: Vec<(&[T], &[T])> = borrowed.iter().map(|(k, v)| (&**k, &**v)).collect();
    let tasks: Vec<(usize, usize)> =
        (0..entries.len()).flat_map(|e| (0..heads).map(move |h| (e, h))).collect();
    let results: Vec<Vec<T>> =
        tasks.par_iter().map(|&(e, head)| one_head(xs, slices[e], &entries[e], head, shape)).collect();
    let (_, width) = qkv.dims2()?;
    let rows = xs.len() / width;
    let mut out = vec![T::ZERO; rows * heads * d];
    for (&(e, head), result) in tasks.iter().zip(&results) {
        for (i, result) in result.chunks_exact(d).enumerate() {
            out[((entries[e].row + i) * heads + head) * d..][..d].copy_from_slice(result);
        }
    }
    Ok(Tensor::from_vec(out, (rows, heads * d), qkv.device())?)
}

/// (len, d) output of one head of one sequence.
fn one_head<T: Real>(
    qkv: &[T],
    (keys, values): (&[T], &[T]),
    entry: &Cached,
    head: usize,
    shape: &Shape,
) -> Vec<T> {
    let Shape { heads, kv_heads, head_dim: d, .. } = *shape;
    let (width, kv) = (shape.width(), head / (heads / kv_heads));
    let per_head = keys.len() / kv_heads;
    let (keys, values) = (&keys[kv * per_head..][..per_head], &values[kv * per_head..][..per_head]);
    let n = entry.past + entry.len;
    if entry.len == 1 {
        let q = &qkv[entry.row * width + head * d..][..d];
        return cpu::simd(
            #[inline(always)]
            || one_query(q, &keys[..n * d], &values[..n * d], shape),
        );
    }
    let mut local = Local::new(n, d);
    for (at, (key, value)) in keys.chunks_exact(d).zip(values.chunks_exact(d)).take(n).enumerate() {
        local.set(at, key, value);
    }
    let mut space = Space::new(&local, false);
    let (mut out, mut lse) = (Vec::with_capacity(entry.len * d), vec![T::ZERO; entry.len]);
    for block in blocks(entry.len, entry.past, shape.window) {
        let from = &qkv[(entry.row + block.first) * width + head * d..];
        copy_rows(&mut space.q, local.depth, from, width, block, d, T::of(shape.scale));
        forward_block(&mut space, &local, block, shape, &mut lse[..block.n]);
        for row in space.result.chunks_exact(local.depth).take(block.n) {
            out.extend_from_slice(&row[..d]);
        }
    }
    out
}

/// One token's query: dot products in place, nothing gathered.
#[inline(always)]
fn one_query<T: Real>(q: &[T], keys: &[T], values: &[T], shape: &Shape) -> Vec<T> {
    let (d, n) = (q.len(), keys.len() / q.len());
    let from = shape.window.map_or(0, |w| n.saturating_sub(w));
    let scale = T::of(shape.scale);
    let mut scores: Vec<T> = keys.chunks_exact(d).skip(from).map(|key| reduce::dot(q, key) * scale).collect();
    if let Some(cap) = shape.softcap.map(T::of) {
        scores.iter_mut().for_each(|x| *x = cap * (*x / cap).tanh());
    }
    let max = reduce::max(&scores);
    let total = reduce::exp_sum(&mut scores, max);
    scores.iter_mut().for_each(|p| *p /= total);
    let mut out = vec![T::ZERO; d];
    // A cache line of columns at a time, whose sums stay in registers.
    let mut column = 0;
    while column < d {
        let wide = COLUMNS.min(d - column);
        let mut sums = [T::ZERO; COLUMNS];
        for (&p, value) in scores.iter().zip(values.chunks_exact(d).skip(from)) {
            let value = &value[column..column + wide];
            if wide == COLUMNS {
                for (sum, &v) in sums.iter_mut().zip(value) {
                    *sum = p.mul_add(v, *sum);
                }
            } else {
                for (sum, &v) in sums[..wide].iter_mut().zip(value) {
                    *sum = p.mul_add(v, *sum);
                }
            }
        }
        out[column..column + wide].copy_from_slice(&sums[..wide]);
        column += wide;
    }
    out
}

const COLUMNS: usize = 32;
