//! Sums, in place and over rows.

use candle_core::{DType, Tensor};

use super::gpu::{Gpu, Kernel, Source, args, common_vector, int, is_bf16, vector};
use crate::base::error::{Result, ensure};

pub static SOURCE: Source = Source { name: "sums", parts: &[include_str!("sums.cu")] };

/// Threads of a block that has one column a thread.
pub(super) const COLUMN_THREADS: usize = 128;
/// Blocks that keep a large card busy.
const MANY_BLOCKS: usize = 1024;
const THREADS: usize = 256;
/// Partial sums of [`sums_of_squares`] a tensor, at most.
const PARTIALS: usize = 1024;

fn kernel(function: &'static str, bf16: bool, total_bf16: bool, vec: usize) -> Kernel {
    Kernel::new(&SOURCE, function, bf16).with("OUT16", total_bf16.into()).with("VEC", vec)
}

pub(super) fn variants(bf16: bool) -> impl Iterator<Item = Kernel> {
    let all = [1, 2, 4, 8].into_iter().flat_map(|vec| [(vec, false), (vec, true)]);
    all.map(move |(vec, wide)| kernel("sums_add", bf16, wide, vec))
}

fn blocks(n: usize) -> usize {
    n.div_ceil(THREADS).clamp(1, 4 * MANY_BLOCKS)
}

/// Rows a chunk and chunks, for sums over `rows` of each of `c` columns.
pub(super) fn chunks(rows: usize, c: usize) -> (usize, usize) {
    let wanted = (MANY_BLOCKS / c.div_ceil(COLUMN_THREADS)).clamp(1, 256);
    let chunk = rows.div_ceil(wanted).max(16);
    (chunk, rows.div_ceil(chunk))
}

/// total += value, of one number of elements.
pub fn add(gpu: &dyn Gpu, total: &Tensor, value: &Tensor) -> Result<()> {
    let n = total.elem_count();
    ensure!(n == value.elem_count(), "{:?} cannot be added to {:?}", value.shape(), total.shape());
    if n == 0 {
        return Ok(());
    }
    let vec = common_vector(&[n], &[total, value])?;
    let (kernel, count) = (kernel("sums_add", is_bf16(value), is_bf16(total), vec), n / vec);
    gpu.launch(&kernel, (blocks(count), 1), THREADS, &args![total, value, count as i64])
}

/// x *= factor; a factor of 0 also clears NaN.
pub fn scale(gpu: &dyn Gpu, x: &Tensor, factor: f64) -> Result<()> {
    let n = x.elem_count();
    let vec = vector(x.dtype(), &[n], &[x])?;
    let (kernel, count) = (kernel("sums_scale", is_bf16(x), false, vec), n / vec);
    gpu.launch(&kernel, (blocks(count), 1), THREADS, &args![x, count as i64, factor as f32])
}

/// base (rows, c) + bias (c,), of which one may be missing: what a product is added to.
pub fn base(
    gpu: &dyn Gpu,
    rows: usize,
    c: usize,
    base: Option<&Tensor>,
    bias: Option<&Tensor>,
    dtype: DType,
) -> Result<Tensor> {
    let out = gpu.empty((rows, c).into(), dtype)?;
    if rows * c > 0 {
        let tensors: Vec<&Tensor> = [base, bias, Some(&out)].into_iter().flatten().collect();
        let vec = vector(dtype, &[c], &tensors)?;
        let (kernel, count) = (kernel("sums_base", dtype == DType::BF16, false, vec), rows * c / vec);
        let given = args![base, bias, &out, count as i64, int(c / vec)?];
        gpu.launch(&kernel, (blocks(count), 1), THREADS, &given)?;
    }
    Ok(out)
}

/// total (c,) += Σ over rows of x (rows, c).
pub fn columns(gpu: &dyn Gpu, x: &Tensor, total: &Tensor) -> Result<()> {
    let (rows, c) = x.dims2()?;
    if rows == 0 {
        return Ok(());
    }
    let (chunk, chunks) = chunks(rows, c);
    let partials = gpu.empty((chunks, c).into(), DType::F32)?;
    let kernel = kernel("sums_columns", is_bf16(x), false, 1);
    let given = args![x, &partials, int(rows)?, int(c)?, int(chunk)?];
    gpu.launch(&kernel, (c.div_ceil(COLUMN_THREADS), chunks), COLUMN_THREADS, &given)?;
    fold(gpu, &partials, total)
}

/// total (c,) += Σ over chunks of partials (chunks, c).
pub(super) fn fold(gpu: &dyn Gpu, partials: &Tensor, total: &Tensor) -> Result<()> {
    let (chunks, c) = partials.dims2()?;
    let kernel = kernel("sums_fold", false, is_bf16(total), 1);
    let given = args![partials, total, int(chunks)?, int(c)?];
    gpu.launch(&kernel, (c.div_ceil(COLUMN_THREADS), 1), COLUMN_THREADS, &given)
}

/// Σ x² of each tensor; one transfer for all.
pub fn sums_of_squares(gpu: &dyn Gpu, tensors: &[Tensor]) -> Result<Vec<f64>> {
    if tensors.is_empty() {
        return Ok(Vec::new());
    }
    let partials = gpu.empty((tensors.len(), PARTIALS).into(), DType::F32)?;
    let mut blocks = vec![0; tensors.len()];
    for (i, x) in tensors.iter().enumerate().filter(|(_, x)| x.elem_count() > 0) {
        let vec = vector(x.dtype(), &[x.elem_count()], &[x])?;
        let (kernel, count) = (kernel("sums_squares", is_bf16(x), false, vec), x.elem_count() / vec);
        blocks[i] = count.div_ceil(THREADS).min(PARTIALS);
        let place = partials.narrow(0, i, 1)?;
        gpu.launch(&kernel, (blocks[i], 1), THREADS, &args![x, &place, count as i64])?;
    }
    // What lies beyond a small tensor's blocks was never written.
    let rows: Vec<Vec<f32>> = partials.to_vec2()?;
    let sum = |(row, blocks): (&Vec<f32>, usize)| row[..blocks].iter().map(|&x| f64::from(x)).sum();
    Ok(rows.iter().zip(blocks).map(sum).collect())
}
