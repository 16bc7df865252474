//! Fused operations with hand-written backward passes, each with a plain version out of candle ops.
//!
//! A kernel is a pair of functions, `forward` and `backward`, over tensors as containers: no graph is kept,
//! gradients of weights accumulate in place, and what a backward pass needs is named by its arguments.
//! Candle's own autograd was measured against this and left aside: it keeps every intermediate alive until
//! the end, adds gradients by allocating, and its fused operations have no backward.
//!
//! On the CPU (f32, f64) a kernel reads slices; on an NVIDIA GPU (f32, bf16) it launches its kernels of [`cuda`]; on
//! any other device or dtype it runs the plain version, whose gradient comes from candle's autograd. Tests compare
//! the three, and the first and the last with finite differences.

pub mod activation;
pub mod attention;
pub mod cpu;
pub mod cuda;
pub mod draw;
pub mod embedding;
pub mod head;
pub mod linear;
pub mod low_rank;
pub mod matrix;
pub mod norm;
pub mod plain;
pub mod quantized;
pub mod real;
mod reduce;
pub mod rope;
mod rowwise;
mod tile;
