//! The low-rank side path of a frozen projection: three products, on the columns where they lie.

use candle_core::Tensor;

use super::gpu::{Gpu, Kernel, Matrix, Source, args, int, is_bf16, product, threads_for};
use super::{linear, sums};
use crate::base::error::Result;
use crate::kernels::low_rank::{LowRank, Mask};

pub static SOURCE: Source = Source { name: "dropout", parts: &[include_str!("dropout.cu")] };

pub(super) fn kernel(bf16: bool) -> Kernel {
    Kernel::new(&SOURCE, "dropout_apply", bf16)
}

/// Adds s·x·Aᵀ·Bᵀ to columns of y, in place.
pub fn forward_onto(gpu: &dyn Gpu, y: &Tensor, x: &Tensor, path: LowRank<'_>) -> Result<()> {
    let u = inner(gpu, x, path)?;
    let place = Matrix::columns(y, path.start, path.b.dim(0)?)?;
    product(gpu, place, true, Matrix::new(&u)?, Matrix::new(path.b)?.t())
}

/// Adds du·A, its mask applied, to dx, in place.
pub fn backward_input(
    gpu: &dyn Gpu,
    dx: &Tensor,
    dy: &Tensor,
    path: LowRank<'_>,
    mask: Option<Mask<'_>>,
) -> Result<()> {
    let du = rows_gradient(gpu, dy, path)?;
    match mask {
        None => product(gpu, Matrix::new(dx)?, true, Matrix::new(&du)?, Matrix::new(path.a)?),
        Some(mask) => apply(gpu, &linear::backward_input(gpu, &du, path.a)?, mask, Some(dx), dx),
    }
}

/// dA += duᵀ·x and dB += dyᵀ·u.
pub fn backward_weights(
    gpu: &dyn Gpu,
    dy: &Tensor,
    x: &Tensor,
    path: LowRank<'_>,
    [da, db]: [&Tensor; 2],
) -> Result<()> {
    linear::backward_weight(gpu, &rows_gradient(gpu, dy, path)?, x, da, true)?;
    let (u, columns) = (inner(gpu, x, path)?, Matrix::columns(dy, path.start, path.b.dim(0)?)?);
    product(gpu, Matrix::new(db)?, true, columns.t(), Matrix::new(&u)?)
}

/// x∘m
pub fn dropped(gpu: &dyn Gpu, x: &Tensor, mask: Mask<'_>) -> Result<Tensor> {
    let out = gpu.empty(x.shape().clone(), x.dtype())?;
    apply(gpu, x, mask, None, &out)?;
    Ok(out)
}

fn apply(gpu: &dyn Gpu, x: &Tensor, mask: Mask<'_>, base: Option<&Tensor>, out: &Tensor) -> Result<()> {
    let (t, c) = x.dims2()?;
    if t * c == 0 {
        return Ok(());
    }
    let rows = mask.rows.map(|rows| gpu.upload(rows)).transpose()?;
    let [first, key, below] = [mask.first_row, mask.key, mask.below()].map(u64::cast_signed);
    let given = args![x, base, out, rows.as_ref(), first, key, below, mask.kept(), int(c)?];
    gpu.launch(&kernel(is_bf16(x)), (t, 1), threads_for(c), &given)
}

/// u = s·x·Aᵀ (t, r)
fn inner(gpu: &dyn Gpu, x: &Tensor, path: LowRank<'_>) -> Result<Tensor> {
    let u = linear::forward(gpu, x, path.a, None, None)?;
    sums::scale(gpu, &u, path.scale)?;
    Ok(u)
}

/// du = s·dy\[:, start..start + n\]·B (t, r)
fn rows_gradient(gpu: &dyn Gpu, dy: &Tensor, path: LowRank<'_>) -> Result<Tensor> {
    let (n, r) = path.b.dims2()?;
    let du = gpu.empty((dy.dim(0)?, r).into(), dy.dtype())?;
    product(gpu, Matrix::new(&du)?, false, Matrix::columns(dy, path.start, n)?, Matrix::new(path.b)?)?;
    sums::scale(gpu, &du, path.scale)?;
    Ok(du)
}
