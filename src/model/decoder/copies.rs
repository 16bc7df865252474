//! Copies of a decoder: its own weights or shared ones, with a scalar head or without.

use candle_core::{Device, Tensor};

use super::Decoder;
use super::init::normal;
use crate::base::error::{Result, ensure};
use crate::model::adapter::Adapter;
use crate::model::config::{DecoderConfig, ScalarHead};
use crate::model::params::{Param, layout};

impl Decoder {
    /// A copy that shares no memory with what training changes; the weights below an adapter are shared.
    pub fn duplicate(&self) -> Result<Self> {
        let trained = self.trained().iter().map(Param::copied).collect::<Result<_>>()?;
        let mut duplicate = self.sharing(self.adapter.clone());
        match &mut duplicate.adapter {
            Some(adapter) => adapter.params = trained,
            None => duplicate.params = trained,
        }
        Ok(duplicate)
    }

    /// The same weights, not copied: training the one trains the other.
    pub fn shared(&self) -> Self {
        self.sharing(self.adapter.clone())
    }

    /// The same weights, not copied, with another adapter or none. Training the one changes the other, unless
    /// what is trained is the adapter.
    pub(in crate::model) fn sharing(&self, adapter: Option<Adapter>) -> Self {
        let (config, params) = (self.config.clone(), self.params.clone());
        let shared = Self::assemble(config, params, self.dtype, self.device.clone());
        Self { checkpointing: self.checkpointing, adapter, ..shared }
    }

    /// A copy with a scalar head of weights drawn from N(0, `std`²). It shares no memory with what training changes:
    /// below an adapter the weights are shared, and the head is trained beside the adapter.
    ///
    /// # Errors
    /// The model has a scalar head already.
    pub(in crate::model) fn with_scalar(
        &self,
        head: ScalarHead,
        source: serde_json::Map<String, serde_json::Value>,
        seed: u64,
        std: f64,
    ) -> Result<Self> {
        ensure!(self.config.scalar.is_none(), "the model has a scalar head already");
        let tied = self.config.tied || head == ScalarHead::Score;
        let config = DecoderConfig { scalar: Some(head), tied, source, ..self.config.clone() };
        let (mut params, mut new) = (Vec::new(), None);
        for spec in layout(&config).0 {
            if let Some(param) = self.params.iter().find(|p| p.pieces == spec.pieces) {
                params.push(self.kept(param)?);
                continue;
            }
            let numbers = normal(seed, &format!("init {}", head.tensor()), config.hidden, std);
            let tensor = Tensor::from_vec(numbers, spec.shape, &Device::Cpu)?;
            let tensor = tensor.to_dtype(self.dtype)?.to_device(&self.device)?;
            let param = Param::new(spec.pieces, spec.role, tensor);
            if param.is(head.tensor()) {
                new = Some(param.copied()?);
            }
            params.push(param);
        }
        let copy = Self::assemble(config, params, self.dtype, self.device.clone());
        let mut adapter = self.adapter_copy()?;
        if let (Some(adapter), Some(new)) = (&mut adapter, new) {
            adapter.push_scalar(new);
        }
        Ok(Self { checkpointing: self.checkpointing, adapter, ..copy })
    }

    /// A copy without its scalar head: the policy that stood beside a critic.
    ///
    /// # Errors
    /// The weights cannot be copied.
    pub fn without_scalar(&self) -> Result<Self> {
        let mut config = self.config.clone();
        let name = config.scalar.take().map_or("", ScalarHead::tensor);
        let kept = self.params.iter().filter(|p| !p.is(name));
        let params = kept.map(|p| self.kept(p)).collect::<Result<_>>()?;
        let mut adapter = self.adapter_copy()?;
        if let Some(adapter) = &mut adapter {
            adapter.pop_scalar();
        }
        let copy = Self::assemble(config, params, self.dtype, self.device.clone());
        Ok(Self { checkpointing: self.checkpointing, adapter, ..copy })
    }

    /// A weight for a copy: shared where an adapter keeps it from changing.
    fn kept(&self, param: &Param) -> Result<Param> {
        if self.adapter.is_some() { Ok(param.clone()) } else { param.copied() }
    }

    fn adapter_copy(&self) -> Result<Option<Adapter>> {
        let mut adapter = self.adapter.clone();
        for param in adapter.iter_mut().flat_map(|a| &mut a.params) {
            param.tensor = param.tensor.copy()?;
        }
        Ok(adapter)
    }
}
