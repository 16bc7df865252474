//! Log-probs of chosen tokens: the vocabulary projection through cuBLAS into f32 logits, a chunk of rows at a time.

use candle_core::{DType, Tensor};
use std::ops::Range;

use super::gpu::{Gpu, Kernel, Matrix, Source, args, common_vector, int, is_bf16, product};
use crate::base::error::Result;
use crate::kernels::head::{Head, Target};

pub static SOURCE: Source = Source { name: "head", parts: &[include_str!("head.cu")] };

/// f32 logits of at most this many bytes exist at a time.
const CHUNK_BYTES: usize = 512 << 20;
/// Probabilities of at most this many bytes are kept from forward to backward; beyond, they are computed again.
const KEEP_BYTES: usize = 4 << 30;
const THREADS: usize = 512;

/// What the backward pass needs, on the device.
pub struct Saved {
    /// (r,) in the order of `sorted`
    logps: Tensor,
    /// (m,)
    lse: Tensor,
    /// (m, v), where they are kept.
    probs: Option<Tensor>,
    sorted: Sorted,
}

/// Targets in the order of their rows: row r has ids[starts[r]..starts[r + 1]].
struct Sorted {
    /// Which target stands at each place.
    order: Vec<usize>,
    starts: Tensor,
    ids: Tensor,
}

impl Sorted {
    fn new(gpu: &dyn Gpu, targets: &[Target], rows: usize) -> Result<Self> {
        let mut order: Vec<usize> = (0..targets.len()).collect();
        order.sort_by_key(|&i| targets[i].0);
        let mut starts = vec![0u32; rows + 1];
        targets.iter().for_each(|&(row, _)| starts[row as usize + 1] += 1);
        (0..rows).for_each(|r| starts[r + 1] += starts[r]);
        let ids: Vec<u32> = order.iter().map(|&i| targets[i].1).collect();
        Ok(Self { order, starts: gpu.upload(&starts)?, ids: gpu.upload(&ids)? })
    }
}

/// `v` numbers a row, `vec` at a time.
fn kernel(function: &'static str, bf16: bool, vec: usize, softcap: Option<f64>) -> Kernel {
    Kernel::new(&SOURCE, function, bf16).with("VEC", vec).with("CAP", softcap.is_some().into())
}

pub(super) fn variants(bf16: bool) -> impl Iterator<Item = Kernel> {
    let both = [1, 2, 4].into_iter().flat_map(|vec| [(vec, None), (vec, Some(1.0))]);
    both.map(move |(vec, softcap)| kernel("head_forward", bf16, vec, softcap))
}

fn chunks(rows: usize, v: usize) -> impl Iterator<Item = Range<usize>> {
    let most = (CHUNK_BYTES / (4 * v)).max(16);
    // Whole tiles of cuBLAS's products.
    let step = if most >= 256 { most / 256 * 256 } else { most };
    (0..rows).step_by(step).map(move |start| start..(start + step).min(rows))
}

fn cap(head: Head<'_>) -> f32 {
    head.softcap.map_or(0.0, |cap| cap as f32)
}

/// hidden (m, c) → logits of some rows (rows, v) in f32, without the softcap.
pub fn logits(gpu: &dyn Gpu, hidden: &Tensor, head: Head<'_>, rows: &Range<usize>) -> Result<Tensor> {
    let out = gpu.empty((rows.len(), head.weight.dim(0)?).into(), DType::F32)?;
    let chunk = hidden.narrow(0, rows.start, rows.len())?;
    product(gpu, Matrix::new(&out)?, false, Matrix::new(&chunk)?, Matrix::new(head.weight)?.t())?;
    Ok(out)
}

/// hidden (m, c), targets (r,) → log-probs (r,).
pub fn forward(
    gpu: &dyn Gpu,
    hidden: &Tensor,
    head: Head<'_>,
    targets: &[Target],
    keep: bool,
) -> Result<(Vec<f64>, Saved)> {
    let ((m, _), (v, _)) = (hidden.dims2()?, head.weight.dims2()?);
    let sorted = Sorted::new(gpu, targets, m)?;
    // With a softcap the slope needs the logits themselves.
    let keep = keep && head.softcap.is_none() && m * v * hidden.dtype().size_in_bytes() <= KEEP_BYTES;
    let probs = keep.then(|| gpu.empty((m, v).into(), hidden.dtype())).transpose()?;
    let lse = gpu.empty(m.max(1).into(), DType::F32)?;
    let logps = gpu.empty(targets.len().max(1).into(), DType::F32)?;
    for rows in chunks(m, v) {
        let logits = logits(gpu, hidden, head, &rows)?;
        let given = args![
            &logits,
            &sorted.starts,
            &sorted.ids,
            &logps,
            &lse,
            probs.as_ref(),
            int(v)?,
            int(rows.start)?,
            cap(head)
        ];
        let vec =
            common_vector(&[v], &[Some(&logits), probs.as_ref()].into_iter().flatten().collect::<Vec<_>>())?;
        let kernel = kernel("head_forward", is_bf16(hidden), vec, head.softcap);
        gpu.launch(&kernel, (rows.len(), 1), THREADS, &given)?;
    }
    let mut found = vec![0.0; targets.len()];
    let on_host: Vec<f32> = logps.to_vec1()?;
    sorted.order.iter().zip(on_host).for_each(|(&i, logp)| found[i] = f64::from(logp));
    Ok((found, Saved { logps, lse, probs, sorted }))
}

/// dlogps (r,) → dhidden (m, c); adds to dweight (v, c, f32) where the projection is trained.
pub fn backward(
    gpu: &dyn Gpu,
    dlogps: &[f64],
    hidden: &Tensor,
    head: Head<'_>,
    saved: Saved,
    dweight: Option<&Tensor>,
) -> Result<Tensor> {
    let ((m, c), (v, _)) = (hidden.dims2()?, head.weight.dims2()?);
    let Saved { logps, lse, probs, sorted } = saved;
    let dlogps = gpu.upload_f32(sorted.order.iter().map(|&i| dlogps[i] as f32).collect())?;
    let dhidden = gpu.empty((m, c).into(), hidden.dtype())?;
    // Kept probabilities are there as a whole: one product, as large as can be.
    let ranges: Vec<Range<usize>> = match probs {
        Some(_) if m > 0 => std::iter::once(0..m).collect(),
        _ => chunks(m, v).collect(),
    };
    for rows in ranges {
        let (logits, dlogits) = match &probs {
            Some(probs) => (None, probs.narrow(0, rows.start, rows.len())?),
            None => {
                let dlogits = gpu.empty((rows.len(), v).into(), hidden.dtype())?;
                (Some(logits(gpu, hidden, head, &rows)?), dlogits)
            }
        };
        let given = args![
            logits.as_ref(),
            &sorted.starts,
            &sorted.ids,
            &dlogps,
            &logps,
            &lse,
            &dlogits,
            int(v)?,
            int(rows.start)?,
            cap(head)
        ];
        let vec = common_vector(
            &[v],
            &[logits.as_ref(), Some(&dlogits)].into_iter().flatten().collect::<Vec<_>>(),
        )?;
        let kernel = kernel("head_backward", is_bf16(hidden), vec, head.softcap);
        gpu.launch(&kernel, (rows.len(), 1), THREADS, &given)?;
        drop(logits);
        let d = Matrix::new(&dlogits)?;
        let place = dhidden.narrow(0, rows.start, rows.len())?;
        product(gpu, Matrix::new(&place)?, false, d, Matrix::new(head.weight)?)?;
        if let Some(dweight) = dweight {
            let chunk = hidden.narrow(0, rows.start, rows.len())?;
            product(gpu, Matrix::new(dweight)?, true, d.t(), Matrix::new(&chunk)?)?;
        }
    }
    Ok(dhidden)
}
