//! A frozen matrix in one of candle's block-quantised types (llama.cpp's), and products with it: y = x·Wᵀ and
//! dx = dy·W.
//!
//! Blocks of rows are taken back to numbers right before their product, a few MiB at a time, so that W itself never
//! exists: what QLoRA does (Dettmers et al. 2023, arXiv 2305.14314, eq. 5). Candle's own quantised product is left
//! aside, because it rounds x to 8 bits too, and has no backward.

use std::ops::Range;

use candle_core::quantized::{GgmlDType, QTensor};
use candle_core::{Device, Tensor};
use rayon::prelude::*;

use super::cpu;
use super::linear::{Products, rows_product};
use super::matrix::{View, matmul};
use super::real::Real;
use super::rowwise;
use crate::base::error::{HintExt, Result, anyhow};

/// Numbers that exist at a time for a product of many rows of x: small enough for a cache, large enough for a product.
const BLOCK: usize = 1 << 20;
/// Rows of W that one task takes back.
const STRIPE: usize = 32;

/// W (n, k): every row is a whole number of blocks.
pub struct Quantized {
    blocks: QTensor,
    rows: usize,
    width: usize,
}

impl std::fmt::Debug for Quantized {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Quantized({:?}, {} × {})", self.blocks.dtype(), self.rows, self.width)
    }
}

impl Quantized {
    /// `weight` (n, k), rounded.
    ///
    /// # Errors
    /// Rows that are no whole number of the type's blocks.
    pub fn new(weight: &Tensor, kind: GgmlDType) -> Result<Self> {
        let (rows, width) = weight.dims2()?;
        let block = kind.block_size();
        if !width.is_multiple_of(block) {
            return Err(anyhow!("{kind:?} packs {block} numbers in a block, and the rows have {width}"))
                .hint("q8_0 and q4_0 have blocks of 32, the k-types of 256");
        }
        Ok(Self { blocks: QTensor::quantize(weight, kind)?, rows, width })
    }

    /// (n, k)
    pub fn dims(&self) -> (usize, usize) {
        (self.rows, self.width)
    }

    /// Memory that it takes.
    pub fn bytes(&self) -> usize {
        self.blocks.storage_size_in_bytes()
    }

    /// The blocks as they lie in memory, for hashes.
    pub fn data(&self) -> Result<std::borrow::Cow<'_, [u8]>> {
        Ok(self.blocks.data()?)
    }

    /// W as numbers (n, k), in f32.
    pub fn dequantized(&self, device: &Device) -> Result<Tensor> {
        Ok(self.blocks.dequantize(device)?)
    }

    /// Rows as numbers, (rows, k).
    fn rows<T: Real>(&self, rows: Range<usize>) -> Result<Vec<T>> {
        let mut out = vec![T::ZERO; rows.len() * self.width];
        let stripes = out.par_chunks_mut(STRIPE * self.width).enumerate();
        stripes.try_for_each(|(i, out)| {
            let first = rows.start + i * STRIPE;
            self.stripe_into(first..(first + STRIPE).min(rows.end), out)
        })?;
        Ok(out)
    }

    /// As [`Self::rows`], on this thread.
    fn stripe_into<T: Real>(&self, rows: Range<usize>, out: &mut [T]) -> Result<()> {
        let ids = Tensor::from_iter(rows.start as u32..rows.end as u32, &Device::Cpu)?;
        let numbers = self.blocks.embedding(&ids)?;
        let numbers = cpu::slice::<f32>(&numbers)?;
        let numbers: &[f32] = &numbers;
        cpu::simd(
            #[inline(always)]
            || {
                for (out, &x) in out.iter_mut().zip(numbers) {
                    *out = T::of(f64::from(x));
                }
            },
        );
        Ok(())
    }

    /// Blocks of rows for a product.
    fn parts(&self) -> impl Iterator<Item = Range<usize>> + use<> {
        let (step, rows) = ((BLOCK / self.width.max(1)).next_multiple_of(STRIPE).max(STRIPE), self.rows);
        (0..rows).step_by(step).map(move |start| start..(start + step).min(rows))
    }

    /// x (t, k) → `out` (t, n) = x·Wᵀ, or with `accumulate` `out` += x·Wᵀ.
    pub(super) fn forward<T: Real>(
        &self,
        out: &mut [T],
        accumulate: bool,
        x: &[T],
        products: Products,
    ) -> Result<()> {
        let (n, k) = (self.rows, self.width);
        for rows in self.parts().filter(|_| !x.is_empty()) {
            let w = self.rows::<T>(rows.clone())?;
            let out = &mut out[rows.start..];
            match products {
                Products::Rowwise => rowwise::product(out, n, accumulate, x, &w, k),
                Products::Blocked => rows_product(out, n, accumulate, x, &w, k),
            }
        }
        Ok(())
    }

    /// dy (t, n) → dx (t, k) = dy·W.
    pub(super) fn backward_input<T: Real>(&self, dy: &[T]) -> Result<Vec<T>> {
        let (n, k) = (self.rows, self.width);
        let t = dy.len() / n.max(1);
        let mut dx = vec![T::ZERO; t * k];
        for rows in self.parts().filter(|_| t > 0) {
            let w = self.rows::<T>(rows.clone())?;
            let dy = View::new(&dy[rows.start..], t, rows.len(), n);
            matmul(&mut dx, k, true, dy, View::new(&w, rows.len(), k, k), cpu::all_threads());
        }
        Ok(dx)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernels::linear;

    fn numbers(n: usize, by: usize) -> Vec<f64> {
        (0..n).map(|i| ((i * by + i * i) % 37) as f64 / 7.0 - 2.0).collect()
    }

    fn tensor(shape: (usize, usize), by: usize) -> Tensor {
        Tensor::from_vec(numbers(shape.0 * shape.1, by), shape, &Device::Cpu).unwrap()
    }

    fn furthest(a: &Tensor, b: &Tensor) -> f64 {
        assert_eq!(a.dims(), b.dims());
        (a - b).unwrap().abs().unwrap().max_all().unwrap().to_scalar::<f64>().unwrap()
    }

    /// The products against plain ones with the numbers that the blocks stand for, exactly (in f64).
    #[test]
    fn products_are_those_of_the_numbers_that_the_blocks_stand_for() {
        for (kind, k) in
            [(GgmlDType::Q8_0, 64), (GgmlDType::Q4_0, 96), (GgmlDType::Q4K, 256), (GgmlDType::Q6K, 512)]
        {
            for (t, n) in [(1, 1), (5, 33), (40, 130)] {
                let blocks = Quantized::new(&tensor((n, k), 11), kind).unwrap();
                let weight =
                    blocks.dequantized(&Device::Cpu).unwrap().to_dtype(candle_core::DType::F64).unwrap();
                let (x, base, dy) = (tensor((t, k), 5), tensor((t, n), 3), tensor((t, n), 7));
                let bias = tensor((1, n), 2).flatten_all().unwrap();
                let w = linear::Weight::Quantized(&blocks);
                let pairs = [
                    (linear::forward(&x, w, None), linear::forward(&x, &weight, None)),
                    (linear::forward(&x, w, Some(&bias)), linear::forward(&x, &weight, Some(&bias))),
                    (
                        linear::forward_as(Products::Blocked, Some(&base), &x, w, None),
                        linear::forward_as(Products::Blocked, Some(&base), &x, &weight, None),
                    ),
                    (linear::backward_input(&dy, w), linear::backward_input(&dy, &weight)),
                    (
                        linear::forward_as(Products::Rowwise, Some(&base), &x, w, None),
                        linear::forward_as(Products::Rowwise, Some(&base), &x, &weight, None),
                    ),
                ];
                for (i, (got, want)) in pairs.into_iter().enumerate() {
                    let off = furthest(&got.unwrap(), &want.unwrap());
                    assert!(off < 1e-10, "{kind:?} {t}×{n}×{k}, product {i}: {off:e}");
                }
                assert_eq!(blocks.bytes(), n * k / kind.block_size() * kind.type_size());
                assert!(furthest(&weight, &tensor((n, k), 11)) < 0.5, "rounding, not another matrix");
            }
        }
    }

    #[test]
    fn a_product_of_several_parts_is_one_product() {
        let (t, n, k) = (3, 5000, 512);
        let blocks = Quantized::new(&tensor((n, k), 11), GgmlDType::Q8_0).unwrap();
        assert!(blocks.parts().count() > 2, "the test crosses the borders of parts");
        assert_eq!(blocks.parts().map(|p| p.len()).sum::<usize>(), n);
        let weight = blocks.dequantized(&Device::Cpu).unwrap().to_dtype(candle_core::DType::F64).unwrap();
        let (x, dy) = (tensor((t, k), 5), tensor((t, n), 7));
        let w = linear::Weight::Quantized(&blocks);
        let (y, dx) = (linear::forward(&x, w, None).unwrap(), linear::backward_input(&dy, w).unwrap());
        assert!(furthest(&y, &linear::forward(&x, &weight, None).unwrap()) < 1e-9);
        assert!(furthest(&dx, &linear::backward_input(&dy, &weight).unwrap()) < 1e-9);
    }

    #[test]
    fn a_decoding_row_has_the_same_bits_whoever_stands_beside_it() {
        let blocks = Quantized::new(&tensor((70, 64), 11), GgmlDType::Q8_0).unwrap();
        let x = tensor((9, 64), 5);
        let few = |x: &Tensor| {
            linear::forward_as(Products::Rowwise, None, x, linear::Weight::Quantized(&blocks), None).unwrap()
        };
        let all = few(&x);
        for row in [0, 4, 8] {
            assert_eq!(furthest(&few(&x.narrow(0, row, 1).unwrap()), &all.narrow(0, row, 1).unwrap()), 0.0);
        }
    }

    #[test]
    fn rows_that_are_no_whole_number_of_blocks_are_refused() {
        let text =
            crate::base::error::render(&Quantized::new(&tensor((2, 48), 1), GgmlDType::Q4K).unwrap_err());
        assert!(text.contains("packs 256 numbers") && text.contains("the rows have 48"), "{text}");
    }
}
