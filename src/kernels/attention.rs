//! Causal attention over packed sequences of different lengths, with grouped key/value heads
//! (Ainslie et al. 2023), sliding windows, softcapped scores (Gemma 2) and shared prompts.
//!
//! Queries go in blocks of rows: a block's scores against all keys it may see exist at one time, a t×t matrix
//! never does. Forward keeps the log Σ exp of each row; backward computes the probabilities again from it
//! (Dao et al. 2022). One task is one key/value head of one tree of segments, so no two tasks write the same
//! gradient.

use candle_core::{D, DType, Tensor};
use gemm::Parallelism;
use rayon::prelude::*;
use std::ops::Range;

use super::cpu::{self, dispatch};
use super::plain;
use super::real::{Real, View, matmul};
use crate::base::error::Result;

/// Query rows whose scores exist at a time.
const BLOCK: usize = 64;

/// Segments that see each other: each of `branches` sees all of `root`, then itself up to its own row.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tree {
    pub root: Range<usize>,
    pub branches: Vec<Range<usize>>,
}

/// Heads and scores. The fused projection holds h query heads, then k key heads, then k value heads.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Shape {
    pub heads: usize,
    pub kv_heads: usize,
    pub head_dim: usize,
    /// Factor on q·k.
    pub scale: f64,
    /// A query sees at most this many positions, its own included.
    pub window: Option<usize>,
    /// scores → cap·tanh(scores / cap)
    pub softcap: Option<f64>,
}

impl Shape {
    /// Width of a row of the fused projection.
    pub fn width(&self) -> usize {
        (self.heads + 2 * self.kv_heads) * self.head_dim
    }
    fn columns(&self) -> Columns {
        let Self { heads, kv_heads, head_dim: d, .. } = *self;
        Columns { width: self.width(), keys: heads * d, values: (heads + kv_heads) * d }
    }
}

struct Columns {
    width: usize,
    keys: usize,
    values: usize,
}

/// qkv (t, (h + 2k)·d) → output (t, h·d) and log Σ exp (h, t).
pub fn forward(qkv: &Tensor, trees: &[Tree], shape: &Shape) -> Result<(Tensor, Tensor)> {
    if cpu::applies(qkv) {
        return dispatch!(qkv.dtype(), forward_cpu(qkv, trees, shape));
    }
    let out = plain_forward(qkv, trees, shape)?;
    // The plain version computes everything again in backward.
    Ok((out, Tensor::zeros(1, DType::F32, qkv.device())?))
}

/// dout (t, h·d), with qkv, output and log Σ exp of the forward pass → dqkv (t, (h + 2k)·d).
pub fn backward(
    dout: &Tensor,
    qkv: &Tensor,
    out: &Tensor,
    lse: &Tensor,
    trees: &[Tree],
    shape: &Shape,
) -> Result<Tensor> {
    if cpu::applies(qkv) {
        return dispatch!(qkv.dtype(), backward_cpu(dout, qkv, out, lse, trees, shape));
    }
    Ok(plain::backward(&[qkv], dout, |v| plain_forward(&v[0], trees, shape))?.swap_remove(0))
}

/// The same out of candle ops, one tree at a time with a dense mask.
pub fn plain_forward(qkv: &Tensor, trees: &[Tree], shape: &Shape) -> Result<Tensor> {
    let mut pieces = Vec::new();
    for tree in trees {
        for (i, own) in std::iter::once(&tree.root).chain(&tree.branches).enumerate() {
            let past = if i == 0 { 0..0 } else { tree.root.clone() };
            pieces.push((own.start, plain_segment(qkv, past, own.clone(), shape)?));
        }
    }
    pieces.sort_by_key(|(start, _)| *start);
    let outs: Vec<Tensor> = pieces.into_iter().map(|(_, out)| out).collect();
    Ok(Tensor::cat(&outs, 0)?)
}

fn plain_segment(qkv: &Tensor, past: Range<usize>, own: Range<usize>, shape: &Shape) -> Result<Tensor> {
    let Shape { heads, kv_heads, head_dim: d, .. } = *shape;
    let Columns { keys, values, .. } = shape.columns();
    let (n, p, group) = (own.len(), past.len(), heads / kv_heads);
    let inner = if qkv.dtype() == DType::F64 { DType::F64 } else { DType::F32 };
    let mine = qkv.narrow(0, own.start, n)?;
    let seen = if p == 0 { mine.clone() } else { Tensor::cat(&[&qkv.narrow(0, past.start, p)?, &mine], 0)? };
    let split = |x: &Tensor, from: usize, count: usize| -> Result<Tensor> {
        let rows = x.dim(0)?;
        Ok(x.narrow(1, from, count * d)?.reshape((rows, count, d))?.transpose(0, 1)?.contiguous()?)
    };
    let q = split(&mine, 0, heads)?.reshape((kv_heads, group * n, d))?;
    let (k, v) = (split(&seen, keys, kv_heads)?, split(&seen, values, kv_heads)?);
    let scores = (q.matmul(&k.t()?)?.to_dtype(inner)? * shape.scale)?;
    let scores = match shape.softcap {
        Some(cap) => ((scores / cap)?.tanh()? * cap)?,
        None => scores,
    };
    let window = shape.window.unwrap_or(usize::MAX);
    let hidden = (0..n).flat_map(|i| (0..n + p).map(move |j| (i, j)));
    let mask: Vec<f32> =
        hidden.map(|(i, j)| if j > p + i || p + i - j >= window { f32::NEG_INFINITY } else { 0.0 }).collect();
    let mask = Tensor::from_vec(mask, (1, 1, n, n + p), qkv.device())?.to_dtype(inner)?;
    let scores = scores.reshape((kv_heads, group, n, n + p))?.broadcast_add(&mask)?;
    let weights = (scores.broadcast_sub(&scores.max_keepdim(D::Minus1)?.detach())?).exp()?;
    let weights = weights.broadcast_div(&weights.sum_keepdim(D::Minus1)?)?.to_dtype(qkv.dtype())?;
    let out = weights.reshape((kv_heads, group * n, n + p))?.matmul(&v)?;
    Ok(out.reshape((heads, n, d))?.transpose(0, 1)?.reshape((n, heads * d))?)
}

/// Output memory that tasks write at places of their own.
#[derive(Clone, Copy)]
struct Shared<T>(*mut T, usize);
// SAFETY: the pointer is only used through `row`, whose callers write disjoint places.
unsafe impl<T: Send> Send for Shared<T> {}
// SAFETY: as above.
unsafe impl<T: Send> Sync for Shared<T> {}

impl<T> Shared<T> {
    fn new(data: &mut [T]) -> Self {
        Self(data.as_mut_ptr(), data.len())
    }
    /// # Safety
    /// No two live borrows may overlap, and the memory outlives them.
    unsafe fn at<'a>(self, start: usize, len: usize) -> &'a mut [T] {
        assert!(start + len <= self.1, "a task writes inside of its output");
        // SAFETY: inside the allocation by the assertion; disjoint by the caller's promise.
        unsafe { std::slice::from_raw_parts_mut(self.0.add(start), len) }
    }
}

/// One key/value head of one tree: its keys and values side by side, the root's first.
struct Keys<T> {
    keys: Vec<T>,
    values: Vec<T>,
    root: usize,
}

impl<T: Real> Keys<T> {
    fn of_root(qkv: &[T], root: &Range<usize>, columns: &Columns, kv: usize, d: usize) -> Self {
        let mut me = Self { keys: Vec::new(), values: Vec::new(), root: 0 };
        me.extend(qkv, root, columns, kv, d);
        me.root = root.len();
        me
    }
    /// Forgets the branch before and appends this one.
    fn branch(&mut self, qkv: &[T], own: &Range<usize>, columns: &Columns, kv: usize, d: usize) {
        self.keys.truncate(self.root * d);
        self.values.truncate(self.root * d);
        self.extend(qkv, own, columns, kv, d);
    }
    fn extend(&mut self, qkv: &[T], rows: &Range<usize>, columns: &Columns, kv: usize, d: usize) {
        for row in rows.clone() {
            let row = &qkv[row * columns.width..][..columns.width];
            self.keys.extend_from_slice(&row[columns.keys + kv * d..][..d]);
            self.values.extend_from_slice(&row[columns.values + kv * d..][..d]);
        }
    }
}

/// A block of query rows and the keys it may see: rows `first..first + n` of a segment with `past` keys
/// before it, local keys `lo..hi`.
struct Block {
    first: usize,
    n: usize,
    past: usize,
    lo: usize,
    hi: usize,
}

fn blocks(len: usize, past: usize, window: Option<usize>) -> impl Iterator<Item = Block> {
    (0..len).step_by(BLOCK).map(move |first| {
        let n = BLOCK.min(len - first);
        let lo = window.map_or(0, |w| (past + first + 1).saturating_sub(w));
        Block { first, n, past, lo, hi: past + first + n }
    })
}

impl Block {
    /// The columns of row i that it sees, relative to `lo`.
    fn seen(&self, i: usize, window: Option<usize>) -> Range<usize> {
        let at = self.past + self.first + i;
        let from = window.map_or(0, |w| (at + 1).saturating_sub(w));
        from.max(self.lo) - self.lo..at + 1 - self.lo
    }
}

#[inline(always)]
fn cap_scores<T: Real>(row: &mut [T], scale: T, cap: Option<T>) {
    match cap {
        Some(cap) => row.iter_mut().for_each(|x| *x = cap * (*x * scale / cap).tanh()),
        None => row.iter_mut().for_each(|x| *x *= scale),
    }
}

/// Scores to probabilities over the columns seen, 0 elsewhere; returns log Σ exp.
#[inline(always)]
fn softmax<T: Real>(row: &mut [T], seen: Range<usize>, scale: T, cap: Option<T>) -> T {
    row[..seen.start].fill(T::ZERO);
    row[seen.end..].fill(T::ZERO);
    let row = &mut row[seen];
    cap_scores(row, scale, cap);
    let max = row.iter().fold(T::NEG_INF, |m, &x| x.max_of(m));
    let mut total = T::ZERO;
    for x in row.iter_mut() {
        *x = (*x - max).exp();
    }
    for &x in row.iter() {
        total += x;
    }
    let scale = T::ONE / total;
    for x in row.iter_mut() {
        *x *= scale;
    }
    max + total.ln()
}

fn tasks<'a>(trees: &'a [Tree], shape: &Shape) -> Vec<(&'a Tree, usize)> {
    trees.iter().flat_map(|tree| (0..shape.kv_heads).map(move |kv| (tree, kv))).collect()
}

fn forward_cpu<T: Real>(qkv: &Tensor, trees: &[Tree], shape: &Shape) -> Result<(Tensor, Tensor)> {
    let (t, _) = qkv.dims2()?;
    let Shape { heads, kv_heads, head_dim: d, .. } = *shape;
    let xs = cpu::slice::<T>(qkv)?;
    let xs: &[T] = &xs;
    let (mut out, mut lse) = (vec![T::ZERO; t * heads * d], vec![T::ZERO; heads * t]);
    let (out_place, lse_place) = (Shared::new(&mut out), Shared::new(&mut lse));
    let columns = shape.columns();
    tasks(trees, shape).into_par_iter().for_each(|(tree, kv)| {
        let mut local = Keys::of_root(xs, &tree.root, &columns, kv, d);
        for (i, own) in std::iter::once(&tree.root).chain(&tree.branches).enumerate() {
            let past = if i == 0 { 0 } else { local.root };
            if i > 0 {
                local.branch(xs, own, &columns, kv, d);
            }
            let group = heads / kv_heads;
            for head in kv * group..(kv + 1) * group {
                forward_segment(
                    xs,
                    own,
                    past,
                    head,
                    (&local.keys, &local.values),
                    shape,
                    out_place,
                    lse_place,
                    t,
                );
            }
        }
    });
    let out = Tensor::from_vec(out, (t, heads * d), qkv.device())?;
    Ok((out, Tensor::from_vec(lse, (heads, t), qkv.device())?))
}

#[expect(clippy::too_many_arguments, reason = "one task's places")]
fn forward_segment<T: Real>(
    qkv: &[T],
    own: &Range<usize>,
    past: usize,
    head: usize,
    (keys, values): (&[T], &[T]),
    shape: &Shape,
    out: Shared<T>,
    lse: Shared<T>,
    t: usize,
) {
    let (d, width, h) = (shape.head_dim, shape.width(), shape.heads);
    let (scale, cap) = (T::of(shape.scale), shape.softcap.map(T::of));
    let mut scores = Vec::new();
    let mut result = vec![T::ZERO; BLOCK * d];
    for block in blocks(own.len(), past, shape.window) {
        let (row, n, seen) = (own.start + block.first, block.n, block.hi - block.lo);
        scores.resize(n * seen, T::ZERO);
        let q = View::new(&qkv[row * width + head * d..], n, d, width);
        let k = View::new(&keys[block.lo * d..], seen, d, d);
        matmul(&mut scores, seen, false, q, k.transposed(), Parallelism::None);
        // SAFETY: rows of this segment under this head belong to this task alone.
        let lse = unsafe { lse.at(head * t + row, n) };
        cpu::simd(
            #[inline(always)]
            || {
                for (i, (row, lse)) in scores.chunks_exact_mut(seen).zip(lse).enumerate() {
                    *lse = softmax(row, block.seen(i, shape.window), scale, cap);
                }
            },
        );
        let v = View::new(&values[block.lo * d..], seen, d, d);
        matmul(&mut result[..n * d], d, false, View::new(&scores, n, seen, seen), v, Parallelism::None);
        for (i, result) in result[..n * d].chunks_exact(d).enumerate() {
            // SAFETY: as above.
            unsafe { out.at((row + i) * h * d + head * d, d) }.copy_from_slice(result);
        }
    }
}

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
    let mut outs = Vec::new();
    for entry in entries {
        let (k, v) = match &slots[entry.slot] {
            Some((k, v)) => (k.clone(), v.clone()),
            None => {
                let empty = || Tensor::zeros((kv_heads, capacity, d), qkv.dtype(), qkv.device());
                let pair = (empty()?, empty()?);
                slots[entry.slot] = Some(pair.clone());
                pair
            }
        };
        let mine = qkv.narrow(0, entry.row, entry.len)?;
        for (cache, from) in [(&k, keys), (&v, values)] {
            let new = mine.narrow(1, from, kv_heads * d)?.reshape((entry.len, kv_heads, d))?;
            cache.slice_set(&new.transpose(0, 1)?.contiguous()?, 1, entry.past)?;
        }
        outs.push(if cpu::applies(qkv) {
            dispatch!(qkv.dtype(), cached_cpu(&mine.contiguous()?, &k, &v, entry, shape))?
        } else {
            plain_cached(&mine, &k, &v, entry, shape)?
        });
    }
    Ok(Tensor::cat(&outs, 0)?)
}

fn plain_cached(mine: &Tensor, k: &Tensor, v: &Tensor, entry: &Cached, shape: &Shape) -> Result<Tensor> {
    let past = |x: &Tensor| -> Result<Tensor> {
        Ok(x.narrow(1, 0, entry.past)?.transpose(0, 1)?.contiguous()?.flatten_from(1)?)
    };
    let no_queries = Tensor::zeros((entry.past, shape.heads * shape.head_dim), mine.dtype(), mine.device())?;
    let before = Tensor::cat(&[no_queries, past(k)?, past(v)?], 1)?;
    let all = Tensor::cat(&[&before, mine], 0)?;
    plain_segment(&all, 0..entry.past, entry.past..entry.past + entry.len, shape)
}

fn cached_cpu<T: Real>(
    mine: &Tensor,
    k: &Tensor,
    v: &Tensor,
    entry: &Cached,
    shape: &Shape,
) -> Result<Tensor> {
    let Shape { heads, kv_heads, head_dim: d, .. } = *shape;
    let (xs, ks, vs) = (cpu::slice::<T>(mine)?, cpu::slice::<T>(k)?, cpu::slice::<T>(v)?);
    let (xs, ks, vs): (&[T], &[T], &[T]) = (&xs, &ks, &vs);
    let mut out = vec![T::ZERO; entry.len * heads * d];
    let mut lse = vec![T::ZERO; heads * entry.len];
    let (out_place, lse_place) = (Shared::new(&mut out), Shared::new(&mut lse));
    let capacity = k.dim(1)?;
    for head in 0..heads {
        let kv = head / (heads / kv_heads);
        let local = (&ks[kv * capacity * d..][..capacity * d], &vs[kv * capacity * d..][..capacity * d]);
        forward_segment(xs, &(0..entry.len), entry.past, head, local, shape, out_place, lse_place, entry.len);
    }
    Ok(Tensor::from_vec(out, (entry.len, heads * d), mine.device())?)
}

fn backward_cpu<T: Real>(
    dout: &Tensor,
    qkv: &Tensor,
    out: &Tensor,
    lse: &Tensor,
    trees: &[Tree],
    shape: &Shape,
) -> Result<Tensor> {
    let (t, width) = qkv.dims2()?;
    let d = shape.head_dim;
    let (xs, os) = (cpu::slice::<T>(qkv)?, cpu::slice::<T>(out)?);
    let (dos, lses) = (cpu::slice::<T>(dout)?, cpu::slice::<T>(lse)?);
    let saved = SavedSlices { qkv: &xs, out: &os, dout: &dos, lse: &lses, t };
    let mut dqkv = vec![T::ZERO; t * width];
    let place = Shared::new(&mut dqkv);
    let columns = shape.columns();
    tasks(trees, shape).into_par_iter().for_each(|(tree, kv)| {
        let mut local = Keys::of_root(saved.qkv, &tree.root, &columns, kv, d);
        let longest = tree.branches.iter().map(Range::len).max().unwrap_or(0);
        let mut dk = vec![T::ZERO; (local.root + longest) * d];
        let mut dv = dk.clone();
        let write = |rows: &Range<usize>, dk: &[T], dv: &[T]| {
            for ((row, dk), dv) in rows.clone().zip(dk.chunks_exact(d)).zip(dv.chunks_exact(d)) {
                // SAFETY: rows of this tree under this key/value head belong to this task alone.
                unsafe { place.at(row * width + columns.keys + kv * d, d) }.copy_from_slice(dk);
                // SAFETY: as above.
                unsafe { place.at(row * width + columns.values + kv * d, d) }.copy_from_slice(dv);
            }
        };
        let group = shape.heads / shape.kv_heads;
        for (i, own) in std::iter::once(&tree.root).chain(&tree.branches).enumerate() {
            let past = if i == 0 { 0 } else { local.root };
            if i > 0 {
                local.branch(saved.qkv, own, &columns, kv, d);
                dk[past * d..].fill(T::ZERO);
                dv[past * d..].fill(T::ZERO);
            }
            for head in kv * group..(kv + 1) * group {
                backward_segment(&saved, own, past, head, &local, shape, &mut dk, &mut dv, place);
            }
            if i > 0 {
                write(own, &dk[past * d..], &dv[past * d..]);
            }
        }
        write(&tree.root, &dk, &dv);
    });
    Ok(Tensor::from_vec(dqkv, (t, width), qkv.device())?)
}

struct SavedSlices<'a, T> {
    qkv: &'a [T],
    out: &'a [T],
    dout: &'a [T],
    lse: &'a [T],
    t: usize,
}

#[expect(clippy::too_many_arguments, reason = "one task's places")]
fn backward_segment<T: Real>(
    saved: &SavedSlices<'_, T>,
    own: &Range<usize>,
    past: usize,
    head: usize,
    local: &Keys<T>,
    shape: &Shape,
    dk: &mut [T],
    dv: &mut [T],
    dqkv: Shared<T>,
) {
    let (d, width, h) = (shape.head_dim, shape.width(), shape.heads);
    let (scale, cap) = (T::of(shape.scale), shape.softcap.map(T::of));
    let (mut p, mut dp) = (Vec::new(), Vec::new());
    let mut dq = vec![T::ZERO; BLOCK * d];
    for block in blocks(own.len(), past, shape.window) {
        let (row, n, seen) = (own.start + block.first, block.n, block.hi - block.lo);
        p.resize(n * seen, T::ZERO);
        dp.resize(n * seen, T::ZERO);
        let q = View::new(&saved.qkv[row * width + head * d..], n, d, width);
        let k = View::new(&local.keys[block.lo * d..], seen, d, d);
        let v = View::new(&local.values[block.lo * d..], seen, d, d);
        let dout = View::new(&saved.dout[row * h * d + head * d..], n, d, h * d);
        matmul(&mut p, seen, false, q, k.transposed(), Parallelism::None);
        matmul(&mut dp, seen, false, dout, v.transposed(), Parallelism::None);
        cpu::simd(
            #[inline(always)]
            || {
                for (i, (p, dp)) in p.chunks_exact_mut(seen).zip(dp.chunks_exact_mut(seen)).enumerate() {
                    let at = (row + i) * h * d + head * d;
                    let mut along = T::ZERO;
                    for (&o, &g) in saved.out[at..at + d].iter().zip(&saved.dout[at..at + d]) {
                        along += o * g;
                    }
                    let lse = saved.lse[head * saved.t + row + i];
                    score_gradient(p, dp, block.seen(i, shape.window), lse, along, scale, cap);
                }
            },
        );
        let (p, dp) = (View::new(&p, n, seen, seen), View::new(&dp, n, seen, seen));
        matmul(&mut dv[block.lo * d..block.hi * d], d, true, p.transposed(), dout, Parallelism::None);
        matmul(&mut dk[block.lo * d..block.hi * d], d, true, dp.transposed(), q, Parallelism::None);
        matmul(&mut dq[..n * d], d, false, dp, k, Parallelism::None);
        for (i, dq) in dq[..n * d].chunks_exact(d).enumerate() {
            // SAFETY: rows of this segment under this head belong to this task alone.
            unsafe { dqkv.at((row + i) * width + head * d, d) }.copy_from_slice(dq);
        }
    }
}

/// Raw scores to probabilities in `p`, and in `dp` d score = p·(dp − Σ p·dp), with Σ p·dp = `along`.
#[inline(always)]
fn score_gradient<T: Real>(
    p: &mut [T],
    dp: &mut [T],
    seen: Range<usize>,
    lse: T,
    along: T,
    scale: T,
    cap: Option<T>,
) {
    for x in [&mut *p, &mut *dp] {
        x[..seen.start].fill(T::ZERO);
        x[seen.end..].fill(T::ZERO);
    }
    let (p, dp) = (&mut p[seen.clone()], &mut dp[seen]);
    match cap {
        None => {
            for (p, dp) in p.iter_mut().zip(dp) {
                *p = (*p * scale - lse).exp();
                *dp = *p * (*dp - along) * scale;
            }
        }
        Some(cap) => {
            for (p, dp) in p.iter_mut().zip(dp) {
                let y = (*p * scale / cap).tanh();
                *p = (cap * y - lse).exp();
                *dp = *p * (*dp - along) * scale * (T::ONE - y * y);
            }
        }
    }
}
