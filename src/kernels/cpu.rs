//! Slices of CPU tensors, rows in parallel, and vector instructions.

use candle_core::{CpuStorage, InplaceOp1, Layout, Storage, StorageRef, Tensor};
use rayon::prelude::*;
use std::cell::RefCell;
use std::mem::MaybeUninit;
use std::ops::{Deref, Range};

use super::cuda;
use super::real::Real;
use crate::base::error::{Result, bail};

/// A contiguous CPU tensor, borrowed as a slice.
pub struct Slice<'a, T> {
    storage: StorageRef<'a>,
    range: Range<usize>,
    kind: std::marker::PhantomData<T>,
}

/// Borrows a tensor's numbers; an error where it is not contiguous, not on the CPU or of another dtype.
pub fn slice<T: Real>(tensor: &Tensor) -> Result<Slice<'_, T>> {
    let (storage, layout) = tensor.storage_and_layout();
    let Some((start, end)) = layout.contiguous_offsets() else {
        bail!("a kernel needs a contiguous tensor, not strides {:?}", layout.stride());
    };
    match &*storage {
        Storage::Cpu(cpu) => drop(T::cpu_storage_as_slice(cpu)?),
        _ => bail!("a CPU kernel was given a tensor on another device"),
    }
    Ok(Slice { storage, range: start..end, kind: std::marker::PhantomData })
}

impl<T: Real> Deref for Slice<'_, T> {
    type Target = [T];
    fn deref(&self) -> &[T] {
        match &*self.storage {
            Storage::Cpu(cpu) => T::cpu_storage_as_slice(cpu).map_or(&[], |s| &s[self.range.clone()]),
            _ => &[],
        }
    }
}

struct Update<F>(RefCell<Option<F>>);

/// Changes a tensor's numbers in place. Every tensor that shares the storage sees the change, so the caller
/// must be the only one who reads it; no borrow of the same storage may be alive.
pub fn update<T: Real>(tensor: &Tensor, f: impl FnOnce(&mut [T]) -> Result<()>) -> Result<()> {
    struct Op<F, T>(Update<F>, std::marker::PhantomData<T>);
    impl<T: Real, F: FnOnce(&mut [T]) -> Result<()>> InplaceOp1 for Op<F, T> {
        fn name(&self) -> &'static str {
            "update"
        }
        fn cpu_fwd(&self, storage: &mut CpuStorage, layout: &Layout) -> candle_core::Result<()> {
            let Some((start, end)) = layout.contiguous_offsets() else {
                candle_core::bail!("an update in place needs a contiguous tensor");
            };
            let Some(data) = T::slice_mut(storage) else {
                candle_core::bail!("an update in place was given another dtype");
            };
            let Some(f) = self.0.0.borrow_mut().take() else { return Ok(()) };
            f(&mut data[start..end]).map_err(|e| candle_core::Error::Msg(format!("{e:#}")))
        }
    }
    Ok(tensor.inplace_op1(&Op(Update(RefCell::new(Some(f))), std::marker::PhantomData))?)
}

/// Whether the CPU kernels apply: f32 or f64 on the CPU.
pub fn applies(tensor: &Tensor) -> bool {
    tensor.device().is_cpu() && matches!(tensor.dtype(), candle_core::DType::F32 | candle_core::DType::F64)
}

/// Calls a generic function for the dtype of a CPU tensor: `dispatch!(x.dtype(), f(x, y))` calls
/// `f::<f32>(x, y)` or `f::<f64>(x, y)`.
macro_rules! dispatch {
    ($dtype:expr, $f:ident ( $($arg:expr),* $(,)? )) => {
        match $dtype {
            candle_core::DType::F64 => $f::<f64>($($arg),*),
            _ => $f::<f32>($($arg),*),
        }
    };
}
pub(crate) use dispatch;

/// Runs `f` compiled for the widest vector instructions of this machine. What `f` calls must be
/// `#[inline(always)]`, and so must `f` where it is more than one call.
#[inline(always)]
pub fn simd<R>(f: impl FnOnce() -> R) -> R {
    pulp::Arch::new().dispatch(f)
}

/// Numbers that one task clears or copies: 64 KiB in f32.
const PIECE: usize = 16 * 1024;

/// Rows of one task: few enough that every thread gets some, many enough that a task is worth its start.
/// Depends on the thread count only, so that sums over tasks are the same from run to run.
pub fn rows_per_task(rows: usize) -> usize {
    rows.div_ceil(4 * rayon::current_num_threads()).max(8)
}

/// Numbers that one thread has changed before another would have woken.
const SERIAL: usize = 1 << 13;

/// Runs `f(first row, rows of out)` over blocks of rows, in parallel; results in order of the rows.
pub fn over_rows<T: Real, R: Send>(
    out: &mut [T],
    width: usize,
    f: impl Fn(usize, &mut [T]) -> R + Sync,
) -> Vec<R> {
    let step = rows_per_task(out.len() / width.max(1));
    let size = (step * width).max(1);
    if out.len() < SERIAL {
        return out.chunks_mut(size).enumerate().map(|(i, block)| f(i * step, block)).collect();
    }
    let blocks = out.par_chunks_mut(size).enumerate();
    blocks.map(|(i, block)| f(i * step, block)).collect()
}

/// [`over_rows`] over memory of its own, `rows` of `width`, which begins at zero; each block is cleared by the
/// task that fills it, while it is in its cache.
pub fn over_new_rows<T: Real, R: Send>(
    rows: usize,
    width: usize,
    f: impl Fn(usize, &mut [T]) -> R + Sync,
) -> (Vec<T>, Vec<R>) {
    let n = rows * width;
    if n < SERIAL {
        let mut out = vec![T::ZERO; n];
        let found = over_rows(&mut out, width, f);
        return (out, found);
    }
    let mut out: Vec<T> = Vec::with_capacity(n);
    let step = rows_per_task(rows);
    let blocks = out.spare_capacity_mut()[..n].par_chunks_mut((step * width).max(1)).enumerate();
    let found = blocks.map(|(i, block)| f(i * step, cleared(block))).collect();
    // SAFETY: the blocks are all of the first n numbers, and each was cleared.
    unsafe { out.set_len(n) };
    (out, found)
}

/// n zeros, cleared in parallel: the pages of a large vector are new to the process more often than not.
pub fn zeros<T: Real>(n: usize) -> Vec<T> {
    if n <= PIECE {
        return vec![T::ZERO; n];
    }
    let mut out: Vec<T> = Vec::with_capacity(n);
    let pieces = out.spare_capacity_mut()[..n].par_chunks_mut(PIECE);
    pieces.for_each(|piece| _ = cleared(piece));
    // SAFETY: the pieces are all of the first n numbers, and each was cleared.
    unsafe { out.set_len(n) };
    out
}

/// A copy, in parallel.
pub fn copied<T: Real>(from: &[T]) -> Vec<T> {
    if from.len() <= PIECE {
        return from.to_vec();
    }
    let mut out: Vec<T> = Vec::with_capacity(from.len());
    let pieces = out.spare_capacity_mut()[..from.len()].par_chunks_mut(PIECE).zip(from.par_chunks(PIECE));
    pieces.for_each(|(to, from)| cleared(to).copy_from_slice(from));
    // SAFETY: the pieces are all of the first `from.len()` numbers, and each was written.
    unsafe { out.set_len(from.len()) };
    out
}

fn cleared<T: Real>(block: &mut [MaybeUninit<T>]) -> &mut [T] {
    block.fill(MaybeUninit::new(T::ZERO));
    // SAFETY: every element was written just now, and `MaybeUninit<T>` lies in memory as T does.
    unsafe { &mut *(std::ptr::from_mut(block) as *mut [T]) }
}

/// Adds the task sums of a reduction to `total`, in order.
pub fn add_partials<T: Real>(total: &mut [T], partials: &[Vec<T>]) {
    for partial in partials {
        for (sum, &x) in total.iter_mut().zip(partial) {
            *sum += x;
        }
    }
}

/// Runs `f` on a thread of the pool, where it is not on one already.
///
/// A parallel loop that another thread starts wakes the pool and sleeps until it is done, hundreds of times in a
/// pass; one that a thread of the pool starts is shared with the others and joined without sleeping.
pub fn on_pool<R: Send>(f: impl FnOnce() -> R + Send) -> R {
    // An emulated GPU belongs to the thread that began it.
    if cuda::is_emulated() {
        return f();
    }
    rayon::scope(|_| f())
}

/// As many threads as the pool has, for a product on all of them.
pub fn all_threads() -> usize {
    rayon::current_num_threads()
}
