//! Weights drawn at random.

use candle_core::{DType, Device, Tensor};

use super::Decoder;
use crate::base::error::Result;
use crate::base::seed;
use crate::model::config::{DecoderConfig, NormKind};
use crate::model::params::{Param, Role, Spec, layout};
use rayon::prelude::*;

impl Decoder {
    /// A model with weights drawn from N(0, `init_std`²), norms at one and biases at zero.
    pub fn random(config: DecoderConfig, seed: u64, dtype: DType, device: &Device) -> Result<Self> {
        let drawn = |spec: Spec| -> Result<Param> {
            let count: usize = spec.shape.iter().product();
            let numbers = match spec.role {
                Role::Weight => {
                    let name = spec.pieces.first().map_or("", |p| p.name.as_str());
                    normal(seed, &format!("init {name}"), count, config.init_std)
                }
                Role::Norm if config.norm != NormKind::RmsPlusOne => vec![1.0; count],
                Role::Norm | Role::Bias => vec![0.0; count],
            };
            let tensor = Tensor::from_vec(numbers, spec.shape, &Device::Cpu)?.to_dtype(dtype)?;
            Ok(Param::new(spec.pieces, spec.role, tensor))
        };
        // Each has a stream of draws of its own.
        let mut params: Vec<Param> = layout(&config).0.into_par_iter().map(drawn).collect::<Result<_>>()?;
        for param in &mut params {
            param.tensor = param.tensor.to_device(device)?;
        }
        Ok(Self::assemble(config, params, dtype, device.clone()))
    }
}

/// `count` draws from N(0, std²), by Box and Muller.
pub(super) fn normal(seed: u64, name: &str, count: usize, std: f64) -> Vec<f64> {
    use rand_chacha::rand_core::Rng;
    let mut rng = seed::rng(seed, name);
    let mut uniform = move || (rng.next_u64() >> 11) as f64 / (1u64 << 53) as f64;
    let mut numbers = Vec::with_capacity(count + 1);
    while numbers.len() < count {
        let radius = (-2.0 * (1.0 - uniform()).ln()).sqrt() * std;
        let (sin, cos) = (std::f64::consts::TAU * uniform()).sin_cos();
        numbers.extend([radius * cos, radius * sin]);
    }
    numbers.truncate(count);
    numbers
}
