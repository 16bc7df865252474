//! A frozen base in blocks (QLoRA: Dettmers et al. 2023, arXiv 2305.14314): the layers' projections are kept in one of
//! candle's quantised types; embeddings, norms, biases and the vocabulary projection stay as they are.
//!
//! Adapters are trained on it as on any base; the reference is the same quantised base with the adapter off.

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;

use candle_core::quantized::GgmlDType;
use candle_core::{DType, Device, Tensor};

use super::decoder::Decoder;
use super::params::{Ids, Param};
use crate::base::error::{Context, Result, ensure};
use crate::kernels::linear::Weight;
use crate::kernels::quantized::Quantized;
use crate::plan::Quantize;

/// candle's type of a plan's word; `None`: not quantised.
fn kind(quantize: Quantize) -> Option<GgmlDType> {
    match quantize {
        Quantize::None => None,
        Quantize::Q8_0 => Some(GgmlDType::Q8_0),
        Quantize::Q6k => Some(GgmlDType::Q6K),
        Quantize::Q5k => Some(GgmlDType::Q5K),
        Quantize::Q4k => Some(GgmlDType::Q4K),
        Quantize::Q4_0 => Some(GgmlDType::Q4_0),
    }
}

/// Which parameters a quantised base keeps in blocks.
pub(super) fn projections(ids: &Ids) -> BTreeSet<usize> {
    let of_layer = |l: &super::params::LayerIds| [l.qkv, l.out, l.up, l.down].map(|pair| pair.weight);
    ids.layers.iter().flat_map(of_layer).collect()
}

impl Param {
    /// The parameter in blocks.
    ///
    /// # Errors
    /// Rows that are no whole number of blocks; the tensor is named.
    pub(super) fn in_blocks(self, quantize: Quantize) -> Result<Self> {
        let Some(kind) = kind(quantize) else { return Ok(self) };
        let name = self.pieces.first().map_or("", |p| p.name.as_str());
        let blocks = Quantized::new(&self.tensor.to_device(&Device::Cpu)?, kind)
            .with_context(|| format!("model.quantize: tensor {name} {:?}", self.tensor.dims()))?;
        // Keeps the shape in a few bytes; whoever took it for the weight would have NaN everywhere.
        let shape = self.tensor.shape();
        let place = Tensor::full(f32::NAN, (1, 1), self.tensor.device())?
            .to_dtype(self.tensor.dtype())?
            .broadcast_as(shape)?;
        Ok(Self { tensor: place, blocks: Some(Arc::new(blocks)), ..self })
    }

    /// The numbers, whichever way they are kept.
    pub fn numbers(&self) -> Result<Tensor> {
        Ok(match &self.blocks {
            None => self.tensor.clone(),
            Some(blocks) => blocks.dequantized(self.tensor.device())?.to_dtype(self.tensor.dtype())?,
        })
    }

    /// Bytes of the numbers in memory.
    pub fn bytes(&self) -> usize {
        let plain = self.tensor.elem_count() * self.tensor.dtype().size_in_bytes();
        self.blocks.as_ref().map_or(plain, |blocks| blocks.bytes())
    }

    /// For a product.
    pub(super) fn matrix(&self) -> Weight<'_> {
        match &self.blocks {
            None => Weight::Plain(&self.tensor),
            Some(blocks) => Weight::Quantized(blocks),
        }
    }
}

impl Decoder {
    /// [`Decoder::load`] with the projections in blocks: each is packed as it is read, so that the whole model is never
    /// in memory as numbers.
    ///
    /// # Errors
    /// As [`Decoder::load`]; a device other than the CPU; rows that are no whole number of blocks.
    pub fn load_quantized(dir: &Path, dtype: DType, device: &Device, quantize: Quantize) -> Result<Self> {
        ensure!(
            device.is_cpu() || quantize == Quantize::None,
            "model.quantize = \"{}\": a quantised base is computed on the CPU so far, not on {device:?}",
            quantize.name()
        );
        Self::load_with(dir, dtype, device, quantize)
    }

    /// This decoder with its projections in blocks. The rest of the weights is shared.
    ///
    /// # Errors
    /// An adapter; rows that are no whole number of blocks.
    pub fn quantized(&self, quantize: Quantize) -> Result<Self> {
        ensure!(self.adapter().is_none(), "a model is quantised before it gets an adapter, not with one");
        let mut quantized = self.sharing(None);
        for index in projections(&quantized.ids) {
            let param = &mut quantized.params_mut()[index];
            *param = param.clone().in_blocks(quantize)?;
        }
        Ok(quantized)
    }

    /// Whether its projections are in blocks.
    pub fn is_quantized(&self) -> bool {
        self.params().iter().any(|p| p.blocks.is_some())
    }

    /// Bytes of all weights in memory, an adapter's not among them.
    pub fn weight_bytes(&self) -> usize {
        self.params().iter().map(Param::bytes).sum()
    }
}
