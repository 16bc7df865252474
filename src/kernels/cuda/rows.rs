//! Rows of a table by index, and their gradient.

use candle_core::Tensor;

use super::gpu::{Gpu, Kernel, Source, args, common_vector, int, is_bf16, threads_for, vector};
use crate::base::error::Result;

pub static SOURCE: Source = Source { name: "rows", parts: &[include_str!("rows.cu")] };

fn kernel(function: &'static str, bf16: bool, total_bf16: bool, vec: usize) -> Kernel {
    Kernel::new(&SOURCE, function, bf16).with("OUT16", total_bf16.into()).with("VEC", vec)
}

pub(super) fn variants(bf16: bool) -> impl Iterator<Item = Kernel> {
    let all = [1, 2, 4, 8].into_iter().flat_map(|vec| [(vec, false), (vec, true)]);
    all.map(move |(vec, wide)| kernel("rows_scatter", bf16, wide, vec))
}

/// table (v, c), ids (t,) → scale·table[ids] (t, c).
pub fn gather(gpu: &dyn Gpu, table: &Tensor, ids: &[u32], scale: f64) -> Result<Tensor> {
    let (_, c) = table.dims2()?;
    let out = gpu.empty((ids.len(), c).into(), table.dtype())?;
    if !ids.is_empty() {
        let ids_there = gpu.upload(ids)?;
        let given = args![table, &ids_there, &out, int(c)?, scale as f32];
        let vec = vector(table.dtype(), &[c], &[table, &out])?;
        let kernel = kernel("rows_gather", is_bf16(table), false, vec);
        gpu.launch(&kernel, (ids.len(), 1), threads_for(c / vec), &given)?;
    }
    Ok(out)
}

/// sums[ids] += scale·dy; rows of one id are added in their order.
pub fn scatter(gpu: &dyn Gpu, dy: &Tensor, ids: &[u32], scale: f64, sums: &Tensor) -> Result<()> {
    let (_, c) = dy.dims2()?;
    if ids.is_empty() {
        return Ok(());
    }
    let mut members: Vec<u32> = (0..ids.len() as u32).collect();
    members.sort_by_key(|&m| ids[m as usize]);
    let (mut unique, mut starts) = (Vec::new(), Vec::new());
    for (at, &m) in members.iter().enumerate() {
        let id = ids[m as usize];
        if unique.last() != Some(&id) {
            unique.push(id);
            starts.push(at as u32);
        }
    }
    starts.push(members.len() as u32);
    let blocks = unique.len();
    let (unique, starts, members) = (gpu.upload(&unique)?, gpu.upload(&starts)?, gpu.upload(&members)?);
    let given = args![dy, &unique, &starts, &members, sums, int(c)?, scale as f32];
    let vec = common_vector(&[c], &[dy, sums])?;
    let kernel = kernel("rows_scatter", is_bf16(dy), is_bf16(sums), vec);
    gpu.launch(&kernel, (blocks, 1), threads_for(c / vec), &given)
}
