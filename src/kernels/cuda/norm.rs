//! RMSNorm and LayerNorm.

use candle_core::{DType, Tensor};

use super::gpu::{Gpu, Kernel, Source, args, int, is_bf16, threads_for, vector};
use super::sums;
use crate::base::error::Result;
use crate::kernels::norm::{Kind, Norm, NormGrads};

pub static SOURCE: Source = Source { name: "norm", parts: &[include_str!("norm.cu")] };

fn kernel(function: &'static str, bf16: bool, vec: usize) -> Kernel {
    Kernel::new(&SOURCE, function, bf16).with("VEC", vec)
}

pub(super) fn variants(bf16: bool) -> impl Iterator<Item = Kernel> {
    [1, 2, 4, 8].into_iter().filter(move |v| bf16 || *v < 8).map(move |v| kernel("norm_forward", bf16, v))
}

/// (offset of the weight, whether the mean is subtracted)
fn flags(kind: Kind) -> (f32, i32) {
    (if kind == Kind::RmsPlusOne { 1.0 } else { 0.0 }, i32::from(kind == Kind::Layer))
}

pub fn forward(gpu: &dyn Gpu, x: &Tensor, norm: Norm<'_>) -> Result<Tensor> {
    let c = norm.weight.elem_count();
    let rows = x.elem_count() / c;
    let y = gpu.empty(x.shape().clone(), x.dtype())?;
    if rows == 0 {
        return Ok(y);
    }
    let mut tensors = vec![x, norm.weight, &y];
    tensors.extend(norm.bias);
    let vec = vector(x.dtype(), &[c], &tensors)?;
    let (offset, layer) = flags(norm.kind);
    let args = args![x, norm.weight, norm.bias, &y, int(c)?, norm.eps as f32, offset, layer];
    gpu.launch(&kernel("norm_forward", is_bf16(x), vec), (rows, 1), threads_for(c / vec), &args)?;
    Ok(y)
}

/// Returns base + dx in base's memory.
pub fn backward(
    gpu: &dyn Gpu,
    dy: &Tensor,
    x: &Tensor,
    norm: Norm<'_>,
    grads: NormGrads<'_>,
    base: Option<Tensor>,
) -> Result<Tensor> {
    let c = norm.weight.elem_count();
    let rows = x.elem_count() / c;
    let dx = match &base {
        Some(base) => base.clone(),
        None => gpu.empty(x.shape().clone(), x.dtype())?,
    };
    if rows == 0 {
        return Ok(dx);
    }
    let vec = vector(x.dtype(), &[c], &[dy, x, norm.weight, &dx])?;
    let (offset, layer) = flags(norm.kind);
    let stats = gpu.empty((rows, 2).into(), DType::F32)?;
    let given =
        args![dy, x, norm.weight, base.as_ref(), &dx, &stats, int(c)?, norm.eps as f32, offset, layer];
    let kernel = |function| kernel(function, is_bf16(x), vec);
    gpu.launch(&kernel("norm_backward"), (rows, 1), threads_for(c / vec), &given)?;

    let (chunk, chunks) = sums::chunks(rows, c);
    let dw = gpu.empty((chunks, c).into(), DType::F32)?;
    let db = grads.bias.as_ref().map(|_| gpu.empty((chunks, c).into(), DType::F32)).transpose()?;
    let given = args![dy, x, &stats, &dw, db.as_ref(), int(rows)?, int(c)?, int(chunk)?];
    gpu.launch(
        &kernel("norm_columns"),
        (c.div_ceil(sums::COLUMN_THREADS), chunks),
        sums::COLUMN_THREADS,
        &given,
    )?;
    sums::fold(gpu, &dw, grads.weight)?;
    if let (Some(db), Some(total)) = (&db, grads.bias) {
        sums::fold(gpu, db, total)?;
    }
    Ok(dx)
}
