//! AdamW (Loshchilov and Hutter 2017, arXiv 1711.05101), as PyTorch computes it, with f32 moments and f32
//! master weights whatever the parameters' dtype.
//!
//! m ← β₁ m + (1 − β₁) g,  v ← β₂ v + (1 − β₂) g²
//! θ ← θ (1 − η λ) − η (m/(1 − β₁ᵗ)) / (√(v/(1 − β₂ᵗ)) + ε)
//!
//! Weight decay λ leaves out biases and normalisation weights, as transformers' trainer does.

use crate::base::error::{Context, Result, bail, ensure};
use crate::kernels::cpu;
use crate::kernels::cuda::{self, adamw::Update};
use crate::model::{Decoder, Gradients, Param};
use crate::plan::TrainSpec;
use candle_core::{DType, Tensor};
use rayon::prelude::*;

/// The optimizer of one policy.
pub struct AdamW {
    beta1: f64,
    beta2: f64,
    epsilon: f64,
    weight_decay: f64,
    state: AdamWState,
}

/// What must be kept to go on: one entry a parameter, on the parameter's device, f32.
#[derive(Clone, Debug, Default)]
pub struct AdamWState {
    /// Updates made.
    pub updates: u64,
    pub first: Vec<Tensor>,
    pub second: Vec<Tensor>,
    /// f32 copies of parameters of another dtype; empty where all are f32.
    pub master: Vec<Tensor>,
}

impl AdamW {
    /// Moments of 0 for every parameter of `policy` that is trained.
    ///
    /// # Errors
    /// No memory on the device.
    pub fn new(spec: &TrainSpec, policy: &Decoder) -> Result<Self> {
        let (mut first, mut second, mut master) = (vec![], vec![], vec![]);
        let wide = policy.trained().iter().all(|p| p.tensor.dtype() == DType::F32);
        for Param { tensor, .. } in policy.trained() {
            first.push(Tensor::zeros(tensor.shape(), DType::F32, tensor.device())?);
            second.push(Tensor::zeros(tensor.shape(), DType::F32, tensor.device())?);
            if !wide {
                master.push(tensor.to_dtype(DType::F32)?.copy()?);
            }
        }
        let state = AdamWState { updates: 0, first, second, master };
        Ok(Self {
            beta1: spec.adam_beta1,
            beta2: spec.adam_beta2,
            epsilon: spec.adam_epsilon,
            weight_decay: spec.weight_decay,
            state,
        })
    }

    pub fn state(&self) -> &AdamWState {
        &self.state
    }

    /// Goes on from a saved state.
    ///
    /// # Errors
    /// The state is of another model.
    pub fn restore(&mut self, state: AdamWState) -> Result<()> {
        let AdamWState { updates, first, second, master } = state;
        for (what, ours, theirs) in [
            ("first moments", &mut self.state.first, first),
            ("second moments", &mut self.state.second, second),
            ("master weights", &mut self.state.master, master),
        ] {
            ensure!(
                ours.len() == theirs.len(),
                "optimizer state: {} {what}, want {}",
                theirs.len(),
                ours.len()
            );
            for (i, (a, b)) in ours.iter_mut().zip(theirs).enumerate() {
                ensure!(
                    a.shape() == b.shape(),
                    "optimizer state: {what} {i} are {:?}, want {:?}",
                    b.shape(),
                    a.shape()
                );
                *a = b.to_device(a.device())?;
            }
        }
        self.state.updates = updates;
        Ok(())
    }

    /// One update of every trained parameter, its gradient multiplied by `scale` first.
    ///
    /// # Errors
    /// A gradient of another shape, a failing device.
    pub fn step(
        &mut self,
        policy: &mut Decoder,
        gradients: &Gradients,
        learning_rate: f64,
        scale: f64,
    ) -> Result<()> {
        cpu::on_pool(|| self.step_on_pool(policy, gradients, learning_rate, scale))
    }

    fn step_on_pool(
        &mut self,
        policy: &mut Decoder,
        gradients: &Gradients,
        learning_rate: f64,
        scale: f64,
    ) -> Result<()> {
        self.state.updates += 1;
        let t = self.state.updates as f64;
        let update = Update {
            keep: 1.0,
            beta1: self.beta1 as f32,
            beta2: self.beta2 as f32,
            epsilon: self.epsilon as f32,
            step_size: (learning_rate / (1.0 - self.beta1.powf(t))) as f32,
            correction: (1.0 - self.beta2.powf(t)).sqrt() as f32,
            scale: scale as f32,
        };
        let decayed = Update { keep: (1.0 - learning_rate * self.weight_decay) as f32, ..update };
        for (i, param) in policy.trained_mut().iter_mut().enumerate() {
            let gradient = &gradients.tensors()[i];
            ensure!(
                gradient.shape() == param.tensor.shape(),
                "gradient {:?} of a parameter {:?}",
                gradient.shape(),
                param.tensor.shape()
            );
            let (m, v) = (&self.state.first[i], &self.state.second[i]);
            let update = if param.decays() { decayed } else { update };
            match self.state.master.get(i) {
                None => apply(&param.tensor, m, v, gradient, update),
                Some(master) if cuda::of(master).is_some() && cuda::of(&param.tensor).is_some() => {
                    on_gpu([master, m, v, gradient], Some(&param.tensor), update)
                }
                Some(master) => {
                    apply(master, m, v, &gradient.to_dtype(DType::F32)?, update)?;
                    Ok(param.tensor.slice_set(&master.to_dtype(param.tensor.dtype())?, 0, 0)?)
                }
            }
            .with_context(|| format!("updating {}", param.pieces[0].name))?;
        }
        Ok(())
    }

    /// Has a GPU load what [`Self::step`] launches.
    pub fn prepare(&self, policy: &Decoder) -> Result<()> {
        let (masters, params) = (&self.state.master, policy.trained());
        for (i, param) in params.iter().enumerate() {
            let (p, m, v) = (masters.get(i), &self.state.first[i], &self.state.second[i]);
            let copy = p.map(|_| &param.tensor).filter(|c| c.dtype() == DType::BF16);
            let p = p.unwrap_or(&param.tensor);
            if let Some(gpu) = cuda::of(p) {
                cuda::adamw::prepare(&*gpu, [p, m, v], copy)?;
            }
        }
        Ok(())
    }
}

/// Changes `p`, `m` and `v` (all f32, of one shape) in place.
fn apply(p: &Tensor, m: &Tensor, v: &Tensor, gradient: &Tensor, u: Update) -> Result<()> {
    if cuda::of(p).is_some() {
        return on_gpu([p, m, v, gradient], None, u);
    }
    if !p.device().is_cpu() {
        return apply_by_parts(p, m, v, gradient, u);
    }
    let gradient = cpu::slice::<f32>(gradient)?;
    cpu::update(p, |p: &mut [f32]| {
        cpu::update(m, |m: &mut [f32]| {
            cpu::update(v, |v: &mut [f32]| {
                fused(p, m, v, &gradient, u);
                Ok(())
            })
        })
    })
}

/// p, m, v and the gradient, and bf16 parameters that follow p.
fn on_gpu([p, m, v, gradient]: [&Tensor; 4], copy: Option<&Tensor>, u: Update) -> Result<()> {
    let Some(gpu) = cuda::of(p) else { bail!("parameters on another device than the optimizer's state") };
    let copy = copy.filter(|c| c.dtype() == DType::BF16);
    cuda::adamw::step(&*gpu, [p, m, v, gradient], copy, u)
}

/// Elements that one task takes: 4 arrays of 64 KiB.
const CHUNK: usize = 16 * 1024;

/// One pass over memory, in parallel.
fn fused(p: &mut [f32], m: &mut [f32], v: &mut [f32], g: &[f32], u: Update) {
    let chunks = p
        .par_chunks_mut(CHUNK)
        .zip(m.par_chunks_mut(CHUNK))
        .zip(v.par_chunks_mut(CHUNK))
        .zip(g.par_chunks(CHUNK));
    let arch = pulp::Arch::new();
    chunks.for_each(|(((p, m), v), g)| {
        arch.dispatch(
            #[inline(always)]
            || {
                for (((p, m), v), &g) in p.iter_mut().zip(m).zip(v).zip(g) {
                    let g = g * u.scale;
                    *m += (g - *m) * (1.0 - u.beta1);
                    *v = *v * u.beta2 + g * g * (1.0 - u.beta2);
                    let root = v.sqrt() / u.correction + u.epsilon;
                    *p = *p * u.keep - u.step_size * (*m / root);
                }
            },
        );
    });
}

/// The same out of candle's operations, for other devices.
fn apply_by_parts(p: &Tensor, m: &Tensor, v: &Tensor, gradient: &Tensor, u: Update) -> Result<()> {
    let f = f64::from;
    let g = (gradient * f(u.scale))?;
    m.slice_set(&((m * f(u.beta1))? + (&g * (1.0 - f(u.beta1)))?)?, 0, 0)?;
    v.slice_set(&((v * f(u.beta2))? + (g.sqr()? * (1.0 - f(u.beta2)))?)?, 0, 0)?;
    let root = ((v.sqrt()? / f(u.correction))? + f(u.epsilon))?;
    p.slice_set(&((p * f(u.keep))? - ((m / root)? * f(u.step_size))?)?, 0, 0)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use candle_core::Device;

    #[test]
    fn updates_are_the_equations_in_f64() {
        let gradients = [[0.2, -0.4, 0.0], [-1.0, 0.3, 1e-3], [0.01, 2.0, -5.0]];
        let (lr, b1, b2, eps, decay, scale) = (0.1f64, 0.9f64, 0.999f64, 1e-8, 0.01, 0.5);
        let (mut p, mut m, mut v) = ([0.5, -1.25, 3.0f64], [0.0f64; 3], [0.0f64; 3]);
        let tensor = |x: &[f64]| Tensor::new(x, &Device::Cpu).unwrap().to_dtype(DType::F32).unwrap();
        let (tp, tm, tv) = (tensor(&p), tensor(&m), tensor(&v));
        let (qp, qm, qv) = (tensor(&p), tensor(&m), tensor(&v));
        for (t, g) in gradients.iter().enumerate() {
            let t = t as f64 + 1.0;
            for i in 0..3 {
                let g = g[i] * scale;
                m[i] = b1 * m[i] + (1.0 - b1) * g;
                v[i] = b2 * v[i] + (1.0 - b2) * g * g;
                let (mh, vh) = (m[i] / (1.0 - b1.powf(t)), v[i] / (1.0 - b2.powf(t)));
                p[i] = p[i] * (1.0 - lr * decay) - lr * mh / (vh.sqrt() + eps);
            }
            let u = Update {
                keep: (1.0 - lr * decay) as f32,
                beta1: b1 as f32,
                beta2: b2 as f32,
                epsilon: eps as f32,
                step_size: (lr / (1.0 - b1.powf(t))) as f32,
                correction: (1.0 - b2.powf(t)).sqrt() as f32,
                scale: scale as f32,
            };
            apply(&tp, &tm, &tv, &tensor(g), u).unwrap();
            apply_by_parts(&qp, &qm, &qv, &tensor(g), u).unwrap();
        }
        for got in [tp, qp] {
            for (got, want) in got.to_vec1::<f32>().unwrap().into_iter().zip(p) {
                assert!((f64::from(got) - want).abs() < 2e-6, "{got} against {want}");
            }
        }
    }
}
