//! Rows of a table by index, and their gradient.

use candle_core::Tensor;

use super::cpu::{self, dispatch};
use super::cuda;
use super::real::Real;
use crate::base::error::{Result, ensure};

/// table (v, c), ids (t,) → scale·table[ids] (t, c).
pub fn forward(table: &Tensor, ids: &[u32], scale: f64) -> Result<Tensor> {
    let (rows, _) = table.dims2()?;
    if let Some(id) = ids.iter().find(|id| **id as usize >= rows) {
        ensure!(false, "token id {id} is beyond the {rows} rows of the embedding table");
    }
    if let Some(gpu) = cuda::of(table) {
        return cuda::rows::gather(&*gpu, table, ids, scale);
    }
    if cpu::applies(table) {
        return dispatch!(table.dtype(), forward_cpu(table, ids, scale));
    }
    let ids = Tensor::new(ids, table.device())?;
    let y = table.index_select(&ids, 0)?;
    Ok(if scale == 1.0 { y } else { (y * scale)? })
}

/// dtable[ids] += scale·dy, dy (t, c).
pub fn backward(dy: &Tensor, ids: &[u32], scale: f64, dtable: &mut Tensor) -> Result<()> {
    if let Some(gpu) = cuda::of(dy) {
        return cuda::rows::scatter(&*gpu, dy, ids, scale, dtable);
    }
    if cpu::applies(dy) {
        return dispatch!(dy.dtype(), backward_cpu(dy, ids, scale, dtable));
    }
    let ids = Tensor::new(ids, dy.device())?;
    let scaled = if scale == 1.0 { dy.clone() } else { (dy * scale)? };
    *dtable = dtable.index_add(&ids, &scaled.to_dtype(dtable.dtype())?, 0)?;
    Ok(())
}

/// The rows of x (t, c) named by `rows`, (m, c).
pub fn gather(x: &Tensor, rows: &[u32]) -> Result<Tensor> {
    forward(x, rows, 1.0)
}

/// Adds dy (m, c) to the rows of dx (t, c) named by `rows`.
pub fn scatter(dy: &Tensor, rows: &[u32], dx: &mut Tensor) -> Result<()> {
    backward(dy, rows, 1.0, dx)
}

fn forward_cpu<T: Real>(table: &Tensor, ids: &[u32], scale: f64) -> Result<Tensor> {
    let (_, c) = table.dims2()?;
    let rows = cpu::slice::<T>(table)?;
    let scale = T::of(scale);
    let mut out = Vec::with_capacity(ids.len() * c);
    for &id in ids {
        out.extend(rows[id as usize * c..][..c].iter().map(|&x| x * scale));
    }
    Ok(Tensor::from_vec(out, (ids.len(), c), table.device())?)
}

fn backward_cpu<T: Real>(dy: &Tensor, ids: &[u32], scale: f64, dtable: &Tensor) -> Result<()> {
    let (_, c) = dy.dims2()?;
    let dys = cpu::slice::<T>(dy)?;
    let scale = T::of(scale);
    cpu::update::<T>(dtable, |table| {
        for (&id, dy) in ids.iter().zip(dys.chunks_exact(c)) {
            for (sum, &d) in table[id as usize * c..][..c].iter_mut().zip(dy) {
                *sum += d * scale;
            }
        }
        Ok(())
    })
}
