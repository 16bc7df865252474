//! The number types that CPU kernels are generic over, with functions that compile to vector code.
//!
//! f32 is what models compute in; f64 exists for finite differences and for references, and goes through
//! the standard library. The f32 versions are polynomials without branches, so that a loop over a slice
//! inside [`super::cpu::simd`] becomes vector instructions.

use candle_core::{CpuStorage, WithDType};

/// f32 or f64.
pub trait Real: WithDType + std::ops::Neg<Output = Self> + std::iter::Sum {
    const ZERO: Self;
    const ONE: Self;
    const NEG_INF: Self;
    fn of(value: f64) -> Self;
    fn slice_mut(storage: &mut CpuStorage) -> Option<&mut [Self]>;
    fn mul_add(self, a: Self, b: Self) -> Self;
    fn sqrt(self) -> Self;
    fn ln(self) -> Self;
    /// eˣ; saturates at the ends of the range, keeps NaN. Relative error in f32: 2 ulp.
    fn exp(self) -> Self;
    /// Absolute error in f32, measured on [-6, 6]: 2e-7.
    fn tanh(self) -> Self;
    /// Absolute error in f32, measured on [-6, 6]: 6e-7 (1.5e-7 by the approximation, the rest by rounding).
    fn erf(self) -> Self;

    #[inline(always)]
    fn sigmoid(self) -> Self {
        Self::ONE / (Self::ONE + (-self).exp())
    }
    #[inline(always)]
    fn max_of(self, other: Self) -> Self {
        if self > other { self } else { other }
    }
}

impl Real for f64 {
    const ZERO: f64 = 0.0;
    const ONE: f64 = 1.0;
    const NEG_INF: f64 = f64::NEG_INFINITY;
    fn of(value: f64) -> f64 {
        value
    }
    fn slice_mut(storage: &mut CpuStorage) -> Option<&mut [f64]> {
        if let CpuStorage::F64(data) = storage { Some(data) } else { None }
    }
    fn mul_add(self, a: f64, b: f64) -> f64 {
        self * a + b
    }
    fn sqrt(self) -> f64 {
        f64::sqrt(self)
    }
    fn ln(self) -> f64 {
        f64::ln(self)
    }
    fn exp(self) -> f64 {
        f64::exp(self)
    }
    fn tanh(self) -> f64 {
        f64::tanh(self)
    }
    fn erf(self) -> f64 {
        candle_core::cpu::erf::erf_f64(self)
    }
}

impl Real for f32 {
    const ZERO: f32 = 0.0;
    const ONE: f32 = 1.0;
    const NEG_INF: f32 = f32::NEG_INFINITY;
    #[inline(always)]
    fn of(value: f64) -> f32 {
        value as f32
    }
    fn slice_mut(storage: &mut CpuStorage) -> Option<&mut [f32]> {
        if let CpuStorage::F32(data) = storage { Some(data) } else { None }
    }
    #[inline(always)]
    fn mul_add(self, a: f32, b: f32) -> f32 {
        f32::mul_add(self, a, b)
    }
    #[inline(always)]
    fn sqrt(self) -> f32 {
        f32::sqrt(self)
    }
    fn ln(self) -> f32 {
        f32::ln(self)
    }

    /// eˣ = 2ⁿ·eʳ with n = round(x·log₂e), |r| ≤ ln 2 / 2, and a polynomial of degree 6 for eʳ.
    #[inline(always)]
    fn exp(self) -> f32 {
        // Adding 1.5·2²³ rounds to an integer, which then stands in the low bits of the sum.
        const ROUND: f32 = 12_582_912.0;
        // ln 2 in two parts: the first has few bits, so that n·LN2_HIGH is exact.
        const LN2_HIGH: f32 = 0.693_359_4;
        const LN2_LOW: f32 = -2.121_944_4e-4;
        // Comparisons, not `clamp`: those would turn NaN into a number.
        let x = if self < -87.3 { -87.3 } else { self };
        let x = if x > 88.3 { 88.3 } else { x };
        let shifted = f32::mul_add(x, std::f32::consts::LOG2_E, ROUND);
        let n = shifted - ROUND;
        let r = f32::mul_add(n, -LN2_LOW, f32::mul_add(n, -LN2_HIGH, x));
        let p = f32::mul_add(r, 1.0 / 720.0, 1.0 / 120.0);
        let p = f32::mul_add(p, r, 1.0 / 24.0);
        let p = f32::mul_add(p, r, 1.0 / 6.0);
        let p = f32::mul_add(p, r, 0.5);
        let p = f32::mul_add(p, r, 1.0);
        let p = f32::mul_add(p, r, 1.0);
        let power = shifted.to_bits().wrapping_sub(ROUND.to_bits()).wrapping_add(127) << 23;
        p * f32::from_bits(power)
    }

    #[inline(always)]
    fn tanh(self) -> f32 {
        let x2 = self * self;
        // The quotient below loses all digits near 0, where the series has them.
        let series = f32::mul_add(x2, 62.0 / 2835.0, -17.0 / 315.0);
        let series = f32::mul_add(series, x2, 2.0 / 15.0);
        let series = f32::mul_add(series, x2, -1.0 / 3.0);
        let near = self * f32::mul_add(series, x2, 1.0);
        let far = 1.0 - 2.0 / (Real::exp(2.0 * self) + 1.0);
        if x2 < 0.09 { near } else { far }
    }

    /// Abramowitz and Stegun, Handbook of Mathematical Functions, 7.1.26.
    #[inline(always)]
    fn erf(self) -> f32 {
        let x = self.abs();
        let t = 1.0 / f32::mul_add(x, 0.327_591_1, 1.0);
        let p = f32::mul_add(t, 1.061_405_4, -1.453_152_1);
        let p = f32::mul_add(p, t, 1.421_413_7);
        let p = f32::mul_add(p, t, -0.284_496_74);
        let p = f32::mul_add(p, t, 0.254_829_6);
        let y = 1.0 - p * t * Real::exp(-x * x);
        y.copysign(self)
    }
}
