//! One head's operands, gathered and padded for [`super::super::tile`].

use std::ops::Range;

use super::{Columns, Shape};
use crate::kernels::cpu;
use crate::kernels::real::Real;
use crate::kernels::reduce;
use crate::kernels::tile::{Left, Right, WIDTH, padded, product};

/// Query rows whose scores exist at a time.
pub const BLOCK: usize = 64;

/// Keys and values of one key/value head: those that several segments share first, then one segment's own.
pub struct Local<T> {
    /// (n, d) each, rows padded.
    pub keys: Vec<T>,
    pub values: Vec<T>,
    /// (d, n) each, rows `stride` apart.
    pub keys_across: Vec<T>,
    pub values_across: Vec<T>,
    /// Padded number of rows that fit.
    pub stride: usize,
    /// Head width, padded.
    pub depth: usize,
}

impl<T: Real> Local<T> {
    /// Room for `rows` keys and values of width `d`.
    pub fn new(rows: usize, d: usize) -> Self {
        let (stride, depth) = (padded(rows), padded(d));
        let tall = vec![T::ZERO; rows * depth];
        let across = vec![T::ZERO; d * stride];
        Self {
            values: tall.clone(),
            keys: tall,
            values_across: across.clone(),
            keys_across: across,
            stride,
            depth,
        }
    }

    /// Sets row `at` to a key and a value of width d.
    #[inline(always)]
    pub fn set(&mut self, at: usize, key: &[T], value: &[T]) {
        let d = key.len();
        self.keys[at * self.depth..][..d].copy_from_slice(key);
        self.values[at * self.depth..][..d].copy_from_slice(value);
        for (l, (&k, &v)) in key.iter().zip(value).enumerate() {
            self.keys_across[l * self.stride + at] = k;
            self.values_across[l * self.stride + at] = v;
        }
    }

    /// Sets rows from `at` on to rows of a fused projection.
    pub fn gather(
        &mut self,
        at: usize,
        qkv: &[T],
        rows: &Range<usize>,
        columns: &Columns,
        kv: usize,
        d: usize,
    ) {
        for (i, row) in rows.clone().enumerate() {
            let row = &qkv[row * columns.width..][..columns.width];
            self.set(at + i, &row[columns.keys + kv * d..][..d], &row[columns.values + kv * d..][..d]);
        }
    }
}

/// Query rows `first..first + n` of a segment with `past` keys before it.
#[derive(Clone, Copy)]
pub struct Block {
    pub first: usize,
    pub n: usize,
    pub past: usize,
    pub window: Option<usize>,
}

/// The blocks of a segment of `len` rows.
pub fn blocks(len: usize, past: usize, window: Option<usize>) -> impl Iterator<Item = Block> {
    let block = move |first| Block { first, n: BLOCK.min(len - first), past, window };
    (0..len).step_by(BLOCK).map(block)
}

impl Block {
    /// The keys that row i of the block sees.
    #[inline(always)]
    pub fn seen(&self, i: usize) -> Range<usize> {
        let at = self.past + self.first + i;
        self.window.map_or(0, |w| (at + 1).saturating_sub(w))..at + 1
    }
    /// The keys that any of the rows sees.
    #[inline(always)]
    pub fn seen_by(&self, rows: &Range<usize>) -> Range<usize> {
        self.seen(rows.start).start..self.seen(rows.end - 1).end
    }
    /// The rows of the block that see any of the keys.
    #[inline(always)]
    pub fn seeing(&self, keys: &Range<usize>) -> Range<usize> {
        let origin = self.past + self.first;
        let end = self
            .window
            .map_or(self.n, |w| (w.saturating_add(keys.end) - 1).saturating_sub(origin).min(self.n));
        keys.start.saturating_sub(origin).min(end)..end
    }
    /// The keys that any row of the block sees.
    pub fn all(&self) -> Range<usize> {
        self.seen_by(&(0..self.n))
    }
}

/// Space for one task, used again for every block.
pub struct Space<T> {
    /// (BLOCK, d) padded, queries times the scale.
    pub q: Vec<T>,
    /// (BLOCK, d) padded, gradient of the output.
    pub dout: Vec<T>,
    /// (BLOCK, keys) scores, then probabilities.
    pub p: Vec<T>,
    /// (BLOCK, keys) gradient of the probabilities, then of the scores.
    pub dp: Vec<T>,
    /// (BLOCK, d) padded, what goes out.
    pub result: Vec<T>,
}

impl<T: Real> Space<T> {
    pub fn new(local: &Local<T>, backward: bool) -> Self {
        let wide = |wanted: bool, n: usize| if wanted { vec![T::ZERO; BLOCK * n] } else { Vec::new() };
        Self {
            q: wide(true, local.depth),
            dout: wide(backward, local.depth),
            p: wide(true, local.stride),
            dp: wide(backward, local.stride),
            result: wide(true, local.depth),
        }
    }
}

/// Scores, softmax and weighted values of one block whose queries stand in `space.q`. Leaves the output in
/// `space.result` and log Σ exp in `lse`.
pub fn forward_block<T: Real>(
    space: &mut Space<T>,
    local: &Local<T>,
    block: Block,
    shape: &Shape,
    lse: &mut [T],
) {
    let (d, stride, depth) = (shape.head_dim, local.stride, local.depth);
    let cap = shape.softcap.map(T::of);
    let Space { q, p, result, .. } = space;
    cpu::simd(
        #[inline(always)]
        || {
            let left = Left { data: q, row: depth, col: 1 };
            let right = Right { data: &local.keys_across, row: stride };
            product(p, stride, false, block.n, left, right, |rows| (block.seen_by(&rows), 0..d));
            let all = block.all();
            let mut totals = [T::ZERO; BLOCK];
            for (i, (row, lse)) in p.chunks_exact_mut(stride).zip(lse.iter_mut()).enumerate() {
                let seen = block.seen(i);
                row[all.start..seen.start].fill(T::ZERO);
                row[seen.end..all.end].fill(T::ZERO);
                let row = &mut row[seen];
                if let Some(cap) = cap {
                    row.iter_mut().for_each(|x| *x = cap * (*x / cap).tanh());
                }
                let max = reduce::max(row);
                totals[i] = reduce::exp_sum(row, max);
                *lse = max + totals[i].ln();
            }
            let (left, right) =
                (Left { data: p, row: stride, col: 1 }, Right { data: &local.values, row: depth });
            product(result, depth, false, block.n, left, right, |rows| (0..d, block.seen_by(&rows)));
            for (row, &total) in result.chunks_exact_mut(depth).zip(&totals[..block.n]) {
                let scale = T::ONE / total;
                row.iter_mut().for_each(|x| *x *= scale);
            }
        },
    );
}

/// Gradients of one block whose queries and output gradients stand in `space`. `rows` gives log Σ exp and
/// Σ out·dout of each row. Adds to dk and dv (rows of padded width), leaves dq in `space.result`.
pub fn backward_block<T: Real>(
    space: &mut Space<T>,
    local: &Local<T>,
    block: Block,
    shape: &Shape,
    rows: &[(T, T)],
    (dk, dv): (&mut [T], &mut [T]),
) {
    let (d, stride, depth) = (shape.head_dim, local.stride, local.depth);
    let cap = shape.softcap.map(T::of);
    let Space { q, dout, p, dp, result } = space;
    cpu::simd(
        #[inline(always)]
        || {
            for (out, left, right) in
                [(&mut *p, &*q, &local.keys_across), (&mut *dp, &*dout, &local.values_across)]
            {
                let (left, right) =
                    (Left { data: left, row: depth, col: 1 }, Right { data: right, row: stride });
                product(out, stride, false, block.n, left, right, |rows| (block.seen_by(&rows), 0..d));
            }
            let all = block.all();
            let pairs = p.chunks_exact_mut(stride).zip(dp.chunks_exact_mut(stride));
            for (i, ((p, dp), &(lse, along))) in pairs.zip(rows).enumerate() {
                let seen = block.seen(i);
                for x in [&mut *p, &mut *dp] {
                    x[all.start..seen.start].fill(T::ZERO);
                    x[seen.end..all.end].fill(T::ZERO);
                }
                score_gradient(&mut p[seen.clone()], &mut dp[seen], lse, along, cap);
            }
            let keys = |rows: Range<usize>| rows.start + all.start..rows.end + all.start;
            for (out, left, right) in [(dv, &*p, &*dout), (dk, &*dp, &*q)] {
                let left = Left { data: &left[all.start..], row: 1, col: stride };
                let right = Right { data: right, row: depth };
                let out = &mut out[all.start * depth..];
                product(out, depth, true, all.len(), left, right, |rows| (0..d, block.seeing(&keys(rows))));
            }
            let (left, right) =
                (Left { data: dp, row: stride, col: 1 }, Right { data: &local.keys, row: depth });
            product(result, depth, false, block.n, left, right, |rows| (0..d, block.seen_by(&rows)));
        },
    );
}

/// Scores to probabilities in `p`, and in `dp` d score = p·(dp − Σ p·dp), with Σ p·dp = `along`.
#[inline(always)]
fn score_gradient<T: Real>(p: &mut [T], dp: &mut [T], lse: T, along: T, cap: Option<T>) {
    // Copies on the stack: two slices that are both written look as if they might overlap.
    let whole = p.len() / WIDTH * WIDTH;
    for at in (0..whole).step_by(WIDTH) {
        let (mut a, mut b) = ([T::ZERO; WIDTH], [T::ZERO; WIDTH]);
        a.copy_from_slice(&p[at..at + WIDTH]);
        b.copy_from_slice(&dp[at..at + WIDTH]);
        for i in 0..WIDTH {
            (a[i], b[i]) = one_score(a[i], b[i], lse, along, cap);
        }
        p[at..at + WIDTH].copy_from_slice(&a);
        dp[at..at + WIDTH].copy_from_slice(&b);
    }
    for at in whole..p.len() {
        (p[at], dp[at]) = one_score(p[at], dp[at], lse, along, cap);
    }
}

#[inline(always)]
fn one_score<T: Real>(score: T, dp: T, lse: T, along: T, cap: Option<T>) -> (T, T) {
    match cap {
        None => {
            let p = (score - lse).exp();
            (p, p * (dp - along))
        }
        Some(cap) => {
            let y = (score / cap).tanh();
            let p = (cap * y - lse).exp();
            (p, p * (dp - along) * (T::ONE - y * y))
        }
    }
}
