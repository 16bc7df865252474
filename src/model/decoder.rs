//! The decoder: its parameters and how they are wired. What is done with them stands in the folder beside this file.

mod backward;
mod copies;
mod flops;
mod forward;
mod init;

use candle_core::{DType, Device, Tensor};

pub use forward::Tape;

pub(super) use forward::Batch;

use super::adapter::Adapter;
use super::config::DecoderConfig;
use super::params::{Ids, Pair, Param, layout};
use crate::base::error::Result;
use crate::base::hash::Hasher;
use crate::kernels::attention::Shape;
use crate::kernels::head::Head;
use crate::kernels::linear::Weight;
use crate::kernels::norm::Norm;

/// A decoder-only transformer: weights and how they are wired.
pub struct Decoder {
    config: DecoderConfig,
    params: Vec<Param>,
    pub(super) ids: Ids,
    dtype: DType,
    device: Device,
    checkpointing: bool,
    adapter: Option<Adapter>,
}

impl Decoder {
    pub(super) fn assemble(config: DecoderConfig, params: Vec<Param>, dtype: DType, device: Device) -> Self {
        let ids = layout(&config).1;
        Self { config, params, ids, dtype, device, checkpointing: false, adapter: None }
    }

    pub fn config(&self) -> &DecoderConfig {
        &self.config
    }
    /// What is saved of the configuration: the adapter's where there is one.
    pub(super) fn own_config_mut(&mut self) -> &mut serde_json::Map<String, serde_json::Value> {
        self.adapter.as_mut().map_or(&mut self.config.source, |adapter| &mut adapter.config)
    }
    pub fn device(&self) -> &Device {
        &self.device
    }
    pub fn dtype(&self) -> DType {
        self.dtype
    }
    /// The weights' parameters, an adapter's not among them, in an order that depends on the config alone.
    pub fn params(&self) -> &[Param] {
        &self.params
    }
    pub fn params_mut(&mut self) -> &mut [Param] {
        &mut self.params
    }
    /// What training changes: the adapter's parameters where there is one, else all.
    pub fn trained(&self) -> &[Param] {
        self.adapter.as_ref().map_or(&self.params, |adapter| &adapter.params)
    }
    /// For the optimizer, which changes the tensors in place.
    pub fn trained_mut(&mut self) -> &mut [Param] {
        self.adapter.as_mut().map_or(&mut self.params, |adapter| &mut adapter.params)
    }
    pub fn adapter(&self) -> Option<&Adapter> {
        self.adapter.as_ref()
    }
    /// Numbers that training changes.
    pub fn num_trained(&self) -> usize {
        self.trained().iter().map(|p| p.tensor.elem_count()).sum()
    }
    /// Numbers in the weights, an adapter's not among them.
    pub fn num_params(&self) -> usize {
        self.params.iter().map(|p| p.tensor.elem_count()).sum()
    }
    /// Activation checkpointing: keep the input of each layer only, and compute the rest again in backward.
    pub fn set_checkpointing(&mut self, on: bool) {
        self.checkpointing = on;
    }

    /// A hash of the config's numbers and of every weight. An adapter counts as soon as it changes anything:
    /// with B = 0 the decoder hashes as the one that it was made from.
    pub fn weights_hash(&self) -> Result<String> {
        let mut hasher = Hasher::new("kto-eval/weights").part(self.dtype.as_str().as_bytes());
        hasher = hasher.part(serde_json::to_string(&self.config.source)?.as_bytes());
        let adapter = match &self.adapter {
            Some(adapter) if !adapter.is_void()? => Some(adapter),
            _ => None,
        };
        for param in self.params.iter().chain(adapter.iter().flat_map(|a| &a.params)) {
            let name = param.pieces.first().map_or("", |p| p.name.as_str());
            hasher = hasher.part(name.as_bytes());
            hasher = match &param.blocks {
                None => hasher.part(&raw_bytes(&param.tensor)?),
                Some(blocks) => hasher.part(format!("{blocks:?}").as_bytes()).part(&blocks.data()?),
            };
        }
        Ok(adapter.map_or_else(|| hasher.clone(), |a| a.hash_scales(hasher.clone())).hex())
    }

    pub(super) fn weight(&self, index: usize) -> &Tensor {
        &self.params[index].tensor
    }

    /// A projection's weight, for products.
    pub(super) fn matrix(&self, index: usize) -> Weight<'_> {
        self.params[index].matrix()
    }

    pub(super) fn head(&self) -> Head<'_> {
        Head { weight: self.weight(self.ids.head), softcap: self.config.final_softcap }
    }

    pub(super) fn norm(&self, ids: Pair) -> Norm<'_> {
        let bias = ids.bias.map(|b| self.weight(b));
        Norm { kind: self.config.norm, eps: self.config.norm_eps, weight: self.weight(ids.weight), bias }
    }

    pub(super) fn attention_shape(&self, layer: usize) -> Shape {
        let c = &self.config;
        Shape {
            heads: c.heads,
            kv_heads: c.kv_heads,
            head_dim: c.head_dim,
            scale: c.attention_scale,
            window: c.layers[layer].window,
            softcap: c.attention_softcap,
        }
    }
}

/// The tensor's numbers as little-endian bytes.
fn raw_bytes(tensor: &Tensor) -> Result<Vec<u8>> {
    use safetensors::View;
    let tensor = tensor.to_device(&Device::Cpu)?;
    Ok(View::data(&&tensor).into_owned())
}
