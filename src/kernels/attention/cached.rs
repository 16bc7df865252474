//! Attention of new tokens to a cache of what came before, for generation.

use candle_core::Tensor;
use rayon::prelude::*;

use super::local::{Local, Space, blocks, forward_block};
use super::packed::{Shared, copy_rows};
use super::{Columns, Shape, dense};
use crate::base::error::Result;
use crate::kernels::cpu::{self, dispatch};
use crate::kernels::cuda;
use crate::kernels::real::Real;
use crate::kernels::{reduce, rowwise};

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
    let Shape { heads, kv_heads, head_dim: d, .. } = *shape;
    let xs = cpu::slice::<T>(qkv)?;
    let xs: &[T] = &xs;
    let borrowed = caches.iter().map(|(k, v)| Ok((cpu::slice::<T>(k)?, cpu::slice::<T>(v)?)));
    let borrowed = borrowed.collect::<Result<Vec<_>>>()?;
    let slices: Vec<(&[T], &[T])> = borrowed.iter().map(|(k, v)| (&**k, &**v)).collect();
    let (rows, width) = qkv.dims2()?;
    let mut out = vec![T::ZERO; rows * heads * d];
    let (place, group) = (Shared::new(&mut out), heads / kv_heads);
    (0..entries.len() * kv_heads).into_par_iter().for_each(|task| {
        let (entry, kv) = (&entries[task / kv_heads], task % kv_heads);
        let (keys, values) = slices[task / kv_heads];
        let per_head = keys.len() / kv_heads;
        let seen = (&keys[kv * per_head..][..per_head], &values[kv * per_head..][..per_head]);
        // SAFETY: rows of this entry and columns of this head: no other task's.
        let place = |row: usize, head: usize, n: usize| unsafe {
            place.at(((entry.row + row) * heads + head) * d, n * d)
        };
        if entry.len == 1 {
            let queries = &xs[entry.row * width + kv * group * d..][..group * d];
            return one_token(place(0, kv * group, group), queries, seen, entry.past + 1, shape);
        }
        for head in kv * group..(kv + 1) * group {
            let results = one_head(xs, seen, entry, head, shape);
            for (i, result) in results.chunks_exact(d).enumerate() {
                place(i, head, 1).copy_from_slice(result);
            }
        }
    });
    Ok(Tensor::from_vec(out, (rows, heads * d), qkv.device())?)
}

/// (len, d) output of one head of one sequence; keys and values (capacity, d).
fn one_head<T: Real>(
    qkv: &[T],
    (keys, values): (&[T], &[T]),
    entry: &Cached,
    head: usize,
    shape: &Shape,
) -> Vec<T> {
    let (d, width, n) = (shape.head_dim, shape.width(), entry.past + entry.len);
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

/// One token's queries of the heads that share keys and values, (g, d) → `out` (g, d); nothing is gathered.
fn one_token<T: Real>(out: &mut [T], queries: &[T], (keys, values): (&[T], &[T]), n: usize, shape: &Shape) {
    let d = shape.head_dim;
    let from = shape.window.map_or(0, |w| n.saturating_sub(w));
    let (keys, values, n) = (&keys[from * d..n * d], &values[from * d..n * d], n - from);
    let (scale, cap) = (T::of(shape.scale), shape.softcap.map(T::of));
    let mut weights = vec![T::ZERO; queries.len() / d * n]; // (g, n)
    rowwise::scores(&mut weights, queries, keys, d);
    cpu::simd(
        #[inline(always)]
        || {
            for row in weights.chunks_exact_mut(n) {
                row.iter_mut().for_each(|x| *x *= scale);
                if let Some(cap) = cap {
                    row.iter_mut().for_each(|x| *x = cap * (*x / cap).tanh());
                }
                let max = reduce::max(row);
                let share = T::ONE / reduce::exp_sum(row, max);
                row.iter_mut().for_each(|x| *x *= share);
            }
        },
    );
    rowwise::mixture(out, &weights, values, d);
}
