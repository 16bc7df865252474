//! Attention over packed trees on the CPU: one task is one key/value head of one tree.

use candle_core::Tensor;
use rayon::prelude::*;
use std::ops::Range;

use super::local::{Block, Local, Space, backward_block, blocks, forward_block};
use super::{Shape, Tree};
use crate::base::error::Result;
use crate::kernels::cpu;
use crate::kernels::real::Real;
use crate::kernels::reduce;

/// Output memory that tasks write at places of their own.
#[derive(Clone, Copy)]
pub(super) struct Shared<T>(*mut T, usize);
// SAFETY: the pointer is only used through `at`, whose callers write disjoint places.
unsafe impl<T: Send> Send for Shared<T> {}
// SAFETY: as above.
unsafe impl<T: Send> Sync for Shared<T> {}

impl<T> Shared<T> {
    pub fn new(data: &mut [T]) -> Self {
        Self(data.as_mut_ptr(), data.len())
    }
    /// # Safety
    /// No two live borrows may overlap, and the memory outlives them.
    pub unsafe fn at<'a>(self, start: usize, len: usize) -> &'a mut [T] {
        assert!(start + len <= self.1, "a task writes inside of its output");
        // SAFETY: inside the allocation by the assertion; disjoint by the caller's promise.
        unsafe { std::slice::from_raw_parts_mut(self.0.add(start), len) }
    }
}

/// A tree with its number of rows at most seen at once, and a key/value head.
fn tasks<'a>(trees: &'a [Tree], shape: &Shape) -> Vec<(&'a Tree, usize)> {
    trees.iter().flat_map(|tree| (0..shape.kv_heads).map(move |kv| (tree, kv))).collect()
}

/// The segments of a tree: its keys before, its rows.
fn segments(tree: &Tree) -> impl Iterator<Item = (usize, &Range<usize>)> {
    let past = tree.root.len();
    std::iter::once((0, &tree.root)).chain(tree.branches.iter().map(move |own| (past, own)))
}

fn room(tree: &Tree) -> usize {
    tree.root.len() + tree.branches.iter().map(Range::len).max().unwrap_or(0)
}

pub(super) fn forward_cpu<T: Real>(qkv: &Tensor, trees: &[Tree], shape: &Shape) -> Result<(Tensor, Tensor)> {
    let (t, width) = qkv.dims2()?;
    let Shape { heads, kv_heads, head_dim: d, .. } = *shape;
    let (group, columns, scale) = (heads / kv_heads, shape.columns(), T::of(shape.scale));
    let xs = cpu::slice::<T>(qkv)?;
    let xs: &[T] = &xs;
    let (mut out, mut lse) = (cpu::zeros::<T>(t * heads * d), cpu::zeros::<T>(heads * t));
    let (out_place, lse_place) = (Shared::new(&mut out), Shared::new(&mut lse));
    tasks(trees, shape).into_par_iter().for_each(|(tree, kv)| {
        let mut local = Local::new(room(tree), d);
        let mut space = Space::new(&local, false);
        for (past, own) in segments(tree) {
            local.gather(past, xs, own, &columns, kv, d);
            for head in kv * group..(kv + 1) * group {
                for block in blocks(own.len(), past, shape.window) {
                    let row = own.start + block.first;
                    copy_rows(
                        &mut space.q,
                        local.depth,
                        &xs[row * width + head * d..],
                        width,
                        block,
                        d,
                        scale,
                    );
                    // SAFETY: rows of this segment under this head belong to this task alone.
                    let lse = unsafe { lse_place.at(head * t + row, block.n) };
                    forward_block(&mut space, &local, block, shape, lse);
                    for (i, result) in space.result.chunks_exact(local.depth).take(block.n).enumerate() {
                        // SAFETY: as above.
                        let out = unsafe { out_place.at(((row + i) * heads + head) * d, d) };
                        out.copy_from_slice(&result[..d]);
                    }
                }
            }
        }
    });
    let out = Tensor::from_vec(out, (t, heads * d), qkv.device())?;
    Ok((out, Tensor::from_vec(lse, (heads, t), qkv.device())?))
}

/// Rows of width d, `stride` apart, times `scale`, to rows of padded width.
pub(super) fn copy_rows<T: Real>(
    out: &mut [T],
    depth: usize,
    from: &[T],
    stride: usize,
    block: Block,
    d: usize,
    scale: T,
) {
    for (i, out) in out.chunks_exact_mut(depth).take(block.n).enumerate() {
        for (out, &x) in out.iter_mut().zip(&from[i * stride..i * stride + d]) {
            *out = x * scale;
        }
    }
}

pub(super) fn backward_cpu<T: Real>(
    dout: &Tensor,
    qkv: &Tensor,
    out: &Tensor,
    lse: &Tensor,
    trees: &[Tree],
    shape: &Shape,
) -> Result<Tensor> {
    let (t, width) = qkv.dims2()?;
    let Shape { heads, kv_heads, head_dim: d, .. } = *shape;
    let (group, columns) = (heads / kv_heads, shape.columns());
    let (xs, os) = (cpu::slice::<T>(qkv)?, cpu::slice::<T>(out)?);
    let (dos, lses) = (cpu::slice::<T>(dout)?, cpu::slice::<T>(lse)?);
    let saved = Saved { qkv: &xs, out: &os, dout: &dos, lse: &lses, t };
    let mut dqkv = cpu::zeros::<T>(t * width);
    let place = Shared::new(&mut dqkv);
    tasks(trees, shape).into_par_iter().for_each(|(tree, kv)| {
        let mut local = Local::new(room(tree), d);
        let mut space = Space::new(&local, true);
        let depth = local.depth;
        let (mut dk, mut dv) = (local.keys.clone(), local.values.clone());
        let write = |rows: &Range<usize>, dk: &[T], dv: &[T]| {
            for ((row, dk), dv) in rows.clone().zip(dk.chunks_exact(depth)).zip(dv.chunks_exact(depth)) {
                for (from, x) in [(columns.keys, dk), (columns.values, dv)] {
                    // SAFETY: rows of this tree under this key/value head belong to this task alone.
                    unsafe { place.at(row * width + from + kv * d, d) }.copy_from_slice(&x[..d]);
                }
            }
        };
        for (past, own) in segments(tree) {
            local.gather(past, saved.qkv, own, &columns, kv, d);
            dk[past * depth..].fill(T::ZERO);
            dv[past * depth..].fill(T::ZERO);
            for head in kv * group..(kv + 1) * group {
                for block in blocks(own.len(), past, shape.window) {
                    let row = own.start + block.first;
                    saved.block(&mut space, &local, block, row, head, shape, (&mut dk, &mut dv));
                    for (i, result) in space.result.chunks_exact(depth).take(block.n).enumerate() {
                        // SAFETY: rows of this segment under this head belong to this task alone.
                        let dq = unsafe { place.at((row + i) * width + head * d, d) };
                        for (dq, &x) in dq.iter_mut().zip(result) {
                            *dq = x * T::of(shape.scale);
                        }
                    }
                }
            }
            if !std::ptr::eq(own, &tree.root) {
                write(own, &dk[past * depth..], &dv[past * depth..]);
            }
        }
        write(&tree.root, &dk, &dv);
    });
    Ok(Tensor::from_vec(dqkv, (t, width), qkv.device())?)
}

/// What the forward pass left, and the gradient of its output.
struct Saved<'a, T> {
    qkv: &'a [T],
    out: &'a [T],
    dout: &'a [T],
    lse: &'a [T],
    t: usize,
}

impl<T: Real> Saved<'_, T> {
    #[expect(clippy::too_many_arguments, reason = "a block's place in the batch and in its task")]
    fn block(
        &self,
        space: &mut Space<T>,
        local: &Local<T>,
        block: Block,
        row: usize,
        head: usize,
        shape: &Shape,
        sums: (&mut [T], &mut [T]),
    ) {
        let (d, width, stride) = (shape.head_dim, shape.width(), shape.heads * shape.head_dim);
        let from = row * stride + head * d;
        let q = &self.qkv[row * width + head * d..];
        copy_rows(&mut space.q, local.depth, q, width, block, d, T::of(shape.scale));
        copy_rows(&mut space.dout, local.depth, &self.dout[from..], stride, block, d, T::ONE);
        let along = |i: usize| {
            let at = from + i * stride..from + i * stride + d;
            reduce::dot(&self.out[at.clone()], &self.dout[at])
        };
        let lse = &self.lse[head * self.t + row..];
        let rows: Vec<(T, T)> = cpu::simd(
            #[inline(always)]
            || (0..block.n).map(|i| (lse[i], along(i))).collect(),
        );
        backward_block(space, local, block, shape, &rows, sums);
    }
}
