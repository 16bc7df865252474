//! Products with weights, through cuBLAS.

use candle_core::Tensor;

use super::gpu::{Gpu, Matrix, product};
use super::sums;
use crate::base::error::Result;

/// base + x·Wᵀ + b: the product adds to memory that base and bias were written to before.
pub fn forward(
    gpu: &dyn Gpu,
    x: &Tensor,
    weight: &Tensor,
    bias: Option<&Tensor>,
    base: Option<&Tensor>,
) -> Result<Tensor> {
    let ((t, _), (n, _)) = (x.dims2()?, weight.dims2()?);
    let onto = base.is_some() || bias.is_some();
    let out = match onto {
        true => sums::base(gpu, t, n, base, bias, x.dtype())?,
        false => gpu.empty((t, n).into(), x.dtype())?,
    };
    product(gpu, Matrix::new(&out)?, onto, Matrix::new(x)?, Matrix::new(weight)?.t())?;
    Ok(out)
}

/// dy (t, n) → dx (t, k).
pub fn backward_input(gpu: &dyn Gpu, dy: &Tensor, weight: &Tensor) -> Result<Tensor> {
    let ((t, _), (_, k)) = (dy.dims2()?, weight.dims2()?);
    let dx = gpu.empty((t, k).into(), dy.dtype())?;
    product(gpu, Matrix::new(&dx)?, false, Matrix::new(dy)?, Matrix::new(weight)?)?;
    Ok(dx)
}

/// dW = dyᵀ·x, or dW += dyᵀ·x; dW may be of a wider type than dy and x.
pub fn backward_weight(gpu: &dyn Gpu, dy: &Tensor, x: &Tensor, dweight: &Tensor, adds: bool) -> Result<()> {
    if dy.dim(0)? == 0 {
        return if adds { Ok(()) } else { sums::scale(gpu, dweight, 0.0) };
    }
    product(gpu, Matrix::new(dweight)?, adds, Matrix::new(dy)?.t(), Matrix::new(x)?)
}
