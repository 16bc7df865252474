//! Attention of new tokens to cached keys and values.

use candle_core::Tensor;

use super::attention;
use super::gpu::{Args, Gpu, Kernel, Source, address, args, int, is_bf16};
use crate::base::error::Result;
use crate::kernels::attention::{Cached, Shape, Tree};

pub(super) static SOURCE: Source = Source { name: "cached", parts: &[include_str!("cached.cu")] };

pub(super) fn kernel(function: &'static str, bf16: bool, d: usize) -> Kernel {
    Kernel::new(&SOURCE, function, bf16).with("D", d)
}

/// Appends the keys and values of qkv (t, (h + 2k)·d) to `caches`, one pair an entry, (k, capacity, d) each, and
/// attends → (t, h·d). The entries' rows follow each other and are all rows of qkv.
pub fn cached(
    gpu: &dyn Gpu,
    qkv: &Tensor,
    caches: &[&(Tensor, Tensor)],
    capacity: usize,
    entries: &[Cached],
    shape: &Shape,
) -> Result<Tensor> {
    let (t, width) = qkv.dims2()?;
    let Shape { heads, kv_heads, head_dim: d, .. } = *shape;
    // One transfer for a place a row, its entry in the lower half, and the caches' addresses after them.
    let mut table = vec![0i64; t];
    for (index, entry) in entries.iter().enumerate() {
        for i in 0..entry.len {
            table[entry.row + i] = ((entry.past + i) as i64) << 32 | index as i64;
        }
    }
    for cache in caches.iter().flat_map(|(k, v)| [k, v]) {
        table.push(address(cache)?.cast_signed());
    }
    let table = Tensor::from_vec(table, t + 2 * caches.len(), gpu.device())?;
    let (places, addresses) = (table.narrow(0, 0, t)?, table.narrow(0, t, 2 * caches.len())?);
    let sizes =
        || -> Result<Args<'_>> { Ok(args![int(width)?, int(heads)?, int(kv_heads)?, int(capacity)?]) };
    let kernel = |function| kernel(function, is_bf16(qkv), d);
    let mut given = args![qkv, &places, &addresses];
    given.extend(sizes()?);
    gpu.launch(&kernel("cached_append"), (t, 1), 128, &given)?;

    // Prompts that nothing stands before are a packed batch.
    if entries.iter().all(|e| e.past == 0 && e.len > 1) {
        let tree = |e: &Cached| Tree { root: e.row..e.row + e.len, branches: Vec::new() };
        let trees: Vec<Tree> = entries.iter().map(tree).collect();
        return Ok(attention::forward(gpu, qkv, &trees, shape)?.0);
    }
    let out = gpu.empty((t, heads * d).into(), qkv.dtype())?;
    let mut given = args![qkv, &places, &addresses, &out];
    given.extend(sizes()?);
    let cap = shape.softcap.map_or(0.0, |c| c as f32);
    let window = shape.window.map_or(0, |w| w.min(i32::MAX as usize));
    given.extend(args![shape.scale as f32, cap, int(window)?]);
    gpu.launch(&kernel("cached_attend"), (t, heads), 128, &given)?;
    Ok(out)
}
