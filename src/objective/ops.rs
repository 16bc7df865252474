//! Elementwise functions of a real variable with exact derivatives, stable at ±1e4 and beyond.
//!
//! Objectives work on a handful of f64 numbers on the CPU, so that an operation is two plain functions,
//! and candle's graph does the chain rule.

use candle_core::{CpuStorage, CustomOp1, Layout, Result, Shape, Tensor};

/// f and f′, applied to each element of an f64 CPU tensor.
struct Elementwise {
    name: &'static str,
    f: fn(f64) -> f64,
    df: fn(f64) -> f64,
}

impl CustomOp1 for Elementwise {
    fn name(&self) -> &'static str {
        self.name
    }

    fn cpu_fwd(&self, storage: &CpuStorage, layout: &Layout) -> Result<(CpuStorage, Shape)> {
        let CpuStorage::F64(values) = storage else {
            candle_core::bail!("{}: objectives work in f64, got {:?}", self.name, storage)
        };
        let Some((start, end)) = layout.contiguous_offsets() else {
            candle_core::bail!("{}: needs a contiguous tensor, got {layout:?}", self.name)
        };
        let out = values[start..end].iter().map(|&x| (self.f)(x)).collect();
        Ok((CpuStorage::F64(out), layout.shape().clone()))
    }

    fn bwd(&self, arg: &Tensor, _res: &Tensor, grad_res: &Tensor) -> Result<Option<Tensor>> {
        let slope: Vec<f64> = arg.flatten_all()?.to_vec1::<f64>()?.into_iter().map(self.df).collect();
        Ok(Some((Tensor::from_vec(slope, arg.shape(), arg.device())? * grad_res)?))
    }
}

fn apply(x: &Tensor, name: &'static str, f: fn(f64) -> f64, df: fn(f64) -> f64) -> Result<Tensor> {
    x.contiguous()?.apply_op1(Elementwise { name, f, df })
}

/// σ(x) = 1/(1 + e⁻ˣ).
pub fn sigmoid(x: &Tensor) -> Result<Tensor> {
    apply(x, "sigmoid", sigmoid_at, |x| sigmoid_at(x) * sigmoid_at(-x))
}

/// log σ(x) = min(x, 0) − log(1 + e^−|x|), which neither overflows nor rounds to log 0.
pub fn log_sigmoid(x: &Tensor) -> Result<Tensor> {
    apply(x, "log_sigmoid", |x| x.min(0.0) - (-x.abs()).exp().ln_1p(), |x| sigmoid_at(-x))
}

/// max(0, x); slope 0 at the kink.
pub fn relu(x: &Tensor) -> Result<Tensor> {
    apply(x, "relu", |x| x.max(0.0), |x| f64::from(x > 0.0))
}

/// log(1 − eˣ) for x < 0; from −ε on, beyond which the value and the slope would be infinite, along the tangent there.
pub fn log1m_exp(x: &Tensor) -> Result<Tensor> {
    const EDGE: f64 = -f64::EPSILON;
    apply(x, "log1m_exp", |x| log1m_exp_at(x, EDGE).0, |x| log1m_exp_at(x, EDGE).1)
}

/// log(1 − eˣ) and its derivative (Mächler 2012: each form where the other loses digits), both finite: from `edge` < 0
/// on, along the tangent there.
pub fn log1m_exp_at(x: f64, edge: f64) -> (f64, f64) {
    let at = x.min(edge);
    let value = if at > -std::f64::consts::LN_2 { (-at.exp_m1()).ln() } else { (-at.exp()).ln_1p() };
    let slope = -1.0 / (-at).exp_m1();
    (value + slope * (x - at), slope)
}

fn sigmoid_at(x: f64) -> f64 {
    // e^x of a large positive x overflows; this form only ever takes e^−|x|.
    let e = (-x.abs()).exp();
    if x >= 0.0 { 1.0 / (1.0 + e) } else { e / (1.0 + e) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use candle_core::{Device, Var};

    type Op = fn(&Tensor) -> Result<Tensor>;

    fn value_and_slope(op: Op, x: f64) -> (f64, f64) {
        let var = Var::new(&[x], &Device::Cpu).unwrap();
        let y = op(&var).unwrap();
        let slope = y.backward().unwrap().get(&var).unwrap().to_vec1::<f64>().unwrap()[0];
        (y.to_vec1::<f64>().unwrap()[0], slope)
    }

    #[test]
    fn slopes_are_finite_differences() {
        let ops: [(Op, &[f64]); 4] = [
            (sigmoid, &[-3.0, -0.1, 0.0, 0.7, 4.0]),
            (log_sigmoid, &[-3.0, -0.1, 0.0, 0.7, 4.0]),
            (relu, &[-1.0, 0.5]),
            (log1m_exp, &[-5.0, -0.7, -0.6, -0.01]),
        ];
        for (op, xs) in ops {
            for &x in xs {
                let step = 1e-6;
                let central =
                    (value_and_slope(op, x + step).0 - value_and_slope(op, x - step).0) / (2.0 * step);
                let slope = value_and_slope(op, x).1;
                assert!(
                    (slope - central).abs() < 1e-6 * (1.0 + slope.abs()),
                    "{x}: {slope} against {central}"
                );
            }
        }
    }

    #[test]
    fn extremes_stay_finite_and_keep_their_sign() {
        assert_eq!(value_and_slope(log_sigmoid, -1e4), (-1e4, 1.0));
        assert_eq!(value_and_slope(log_sigmoid, 1e4), (0.0, 0.0));
        assert_eq!(value_and_slope(sigmoid, 1e4).0, 1.0);
        assert_eq!(value_and_slope(sigmoid, -1e4), (0.0, 0.0));
        // log σ(−30) has nine digits that log(sigmoid(x)) in this precision would also have; at −40 the
        // complement 1 − σ(40) is already 0, and this one is not.
        assert!((value_and_slope(log_sigmoid, 40.0).0 + (-40f64).exp()).abs() < 1e-30);
        for x in [-1e4, -40.0, 0.0] {
            let (value, slope) = value_and_slope(log1m_exp, x);
            assert!(value.is_finite() && slope.is_finite() && slope <= 0.0, "{x}: {value}, {slope}");
        }
    }
}
