//! The decoder: parameters, and log-probs of a packed batch forward and backward.

use candle_core::{DType, Device, Tensor};
use std::collections::BTreeMap;

use super::adapter::{Adapter, Dropout};
use super::config::{DecoderConfig, LayerKind, NormKind, Rope, ScalarHead};
use super::gradients::{Gradients, zeros_for};
use super::layer::{self, LayerTape};
use super::packed::Packed;
use super::params::{Ids, Pair, Param, Role, layout};
use crate::base::error::{Result, bail, ensure};
use crate::base::hash::Hasher;
use crate::base::seed;
use crate::kernels::attention::{Shape, Tree};
use crate::kernels::head::{self, Head, Target};
use crate::kernels::linear::Products;
use crate::kernels::norm::{self, Norm, NormGrads};
use crate::kernels::rope::{self, Angles};
use crate::kernels::{embedding, linear, plain};

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

/// What [`Decoder::backward`] needs of a forward pass; a layer's part is freed as its backward ends.
pub struct Tape {
    ids: Vec<u32>,
    positions: Vec<u32>,
    batch: Batch,
    layers: Vec<LayerTape>,
    /// (m, c) input of the last normalisation, at the rows that are read.
    last: Tensor,
    /// Absent where no log-prob was computed.
    saved: Option<head::Saved>,
}

/// A packed batch in the terms of the kernels.
pub(super) struct Batch {
    pub trees: Vec<Tree>,
    /// Angles by layer kind, in the order of `Decoder::ropes`.
    pub angles: Vec<(Rope, Angles)>,
    /// The rows of hidden states that any log-prob is read from, ascending.
    pub rows: Vec<u32>,
    /// Per read: index into `rows`, and the target.
    pub targets: Vec<Target>,
    /// Of the adapter's inputs, in training.
    pub dropout: Option<Dropout>,
    pub products: Products,
}

impl Batch {
    pub fn angles_of(&self, kind: &LayerKind) -> Option<&Angles> {
        let rope = kind.rope?;
        self.angles.iter().find(|(r, _)| *r == rope).map(|(_, angles)| angles)
    }
}

impl Decoder {
    /// A model with weights drawn from N(0, `init_std`²), norms at one and biases at zero.
    pub fn random(config: DecoderConfig, seed: u64, dtype: DType, device: &Device) -> Result<Self> {
        let mut params = Vec::new();
        for spec in layout(&config).0 {
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
            params.push(Param { pieces: spec.pieces, role: spec.role, tensor: tensor.to_device(device)? });
        }
        Ok(Self::assemble(config, params, dtype, device.clone()))
    }

    pub(super) fn assemble(config: DecoderConfig, params: Vec<Param>, dtype: DType, device: Device) -> Self {
        let ids = layout(&config).1;
        Self { config, params, ids, dtype, device, checkpointing: false, adapter: None }
    }

    pub fn config(&self) -> &DecoderConfig {
        &self.config
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
            hasher = hasher.part(name.as_bytes()).part(&raw_bytes(&param.tensor)?);
        }
        Ok(adapter.map_or_else(|| hasher.clone(), |a| a.hash_scales(hasher.clone())).hex())
    }

    /// A copy that shares no memory with what training changes; the weights below an adapter are shared.
    pub fn duplicate(&self) -> Result<Self> {
        let copy = |p: &Param| Ok(Param { tensor: p.tensor.copy()?, ..p.clone() });
        let trained = self.trained().iter().map(copy).collect::<Result<_>>()?;
        let mut duplicate = self.sharing(self.adapter.clone());
        match &mut duplicate.adapter {
            Some(adapter) => adapter.params = trained,
            None => duplicate.params = trained,
        }
        Ok(duplicate)
    }

    /// The same weights, not copied, with another adapter or none. Training the one changes the other, unless
    /// what is trained is the adapter.
    pub(super) fn sharing(&self, adapter: Option<Adapter>) -> Self {
        let (config, params) = (self.config.clone(), self.params.clone());
        let shared = Self::assemble(config, params, self.dtype, self.device.clone());
        Self { checkpointing: self.checkpointing, adapter, ..shared }
    }

    /// A copy that shares no memory, with a scalar head of weights drawn from N(0, `std`²).
    ///
    /// # Errors
    /// The model has a scalar head already.
    pub(super) fn with_scalar(
        &self,
        head: ScalarHead,
        source: serde_json::Map<String, serde_json::Value>,
        seed: u64,
        std: f64,
    ) -> Result<Self> {
        ensure!(self.config.scalar.is_none(), "the model has a scalar head already");
        let tied = self.config.tied || head == ScalarHead::Score;
        let config = DecoderConfig { scalar: Some(head), tied, source, ..self.config.clone() };
        let mut params = Vec::new();
        for spec in layout(&config).0 {
            let of_spec = |p: &&Param| p.pieces == spec.pieces;
            let tensor = match self.params.iter().find(of_spec) {
                Some(param) => param.tensor.copy()?,
                None => {
                    let numbers = normal(seed, &format!("init {}", head.tensor()), config.hidden, std);
                    let tensor = Tensor::from_vec(numbers, spec.shape, &Device::Cpu)?;
                    tensor.to_dtype(self.dtype)?.to_device(&self.device)?
                }
            };
            params.push(Param { pieces: spec.pieces, role: spec.role, tensor });
        }
        let mut copy = Self::assemble(config, params, self.dtype, self.device.clone());
        copy.checkpointing = self.checkpointing;
        Ok(copy)
    }

    /// A copy without its scalar head: the policy that stood beside a critic.
    ///
    /// # Errors
    /// The weights cannot be copied.
    pub fn without_scalar(&self) -> Result<Self> {
        let mut config = self.config.clone();
        let name = config.scalar.take().map(ScalarHead::tensor);
        let kept = self.params.iter().filter(|p| p.pieces.first().map(|p| p.name.as_str()) != name);
        let params =
            kept.map(|p| Ok(Param { tensor: p.tensor.copy()?, ..p.clone() })).collect::<Result<_>>()?;
        let mut copy = Self::assemble(config, params, self.dtype, self.device.clone());
        copy.checkpointing = self.checkpointing;
        Ok(copy)
    }

    /// Log-probs (r,) of the batch's reads; nothing is kept.
    pub fn logps(&self, batch: &Packed) -> Result<Vec<f64>> {
        let parts = self.batch(batch)?;
        let mut x = self.embed(&batch.ids, &batch.positions)?;
        for index in 0..self.config.layers.len() {
            x = layer::forward(self, index, x, &parts, false)?.0;
        }
        let normed = norm::forward(&x, self.norm(self.ids.last_norm))?;
        Ok(head::forward(&normed, self.head(), &parts.targets, false)?.0)
    }

    /// Log-probs (r,) of the batch's reads, and what backward needs.
    pub fn forward(&self, batch: &Packed) -> Result<(Vec<f64>, Tape)> {
        self.forward_training(batch, None)
    }

    /// As [`Self::forward`], with the adapter's dropout as drawn for the step.
    pub fn forward_training(&self, batch: &Packed, dropout: Option<Dropout>) -> Result<(Vec<f64>, Tape)> {
        let parts = Batch { dropout, ..self.batch(batch)? };
        let (x, layers) = self.run_layers(batch, &parts)?;
        let normed = norm::forward(&x, self.norm(self.ids.last_norm))?;
        let (logps, saved) = head::forward(&normed, self.head(), &parts.targets, true)?;
        let (ids, positions) = (batch.ids.clone(), batch.positions.clone());
        Ok((logps, Tape { ids, positions, batch: parts, layers, last: x, saved: Some(saved) }))
    }

    /// [`Decoder::forward`] with the scalar head's number at each read: (r,) log-probs, empty unless asked for,
    /// (r,) scalars, and what backward needs.
    ///
    /// # Errors
    /// The model has no scalar head.
    pub fn forward_scalars(&self, batch: &Packed, logps: bool) -> Result<(Vec<f64>, Vec<f64>, Tape)> {
        let parts = self.batch(batch)?;
        let (x, layers) = self.run_layers(batch, &parts)?;
        let normed = norm::forward(&x, self.norm(self.ids.last_norm))?;
        let scalars = self.scalars_of(&normed, &parts)?;
        let (logps, saved) = match logps {
            true => head::forward(&normed, self.head(), &parts.targets, true).map(|(l, s)| (l, Some(s)))?,
            false => (Vec::new(), None),
        };
        let (ids, positions) = (batch.ids.clone(), batch.positions.clone());
        Ok((logps, scalars, Tape { ids, positions, batch: parts, layers, last: x, saved }))
    }

    /// (r,) the scalar head's number at each read; nothing is kept.
    ///
    /// # Errors
    /// The model has no scalar head.
    pub fn scalars(&self, batch: &Packed) -> Result<Vec<f64>> {
        let parts = self.batch(batch)?;
        let mut x = self.embed(&batch.ids, &batch.positions)?;
        for index in 0..self.config.layers.len() {
            x = layer::forward(self, index, x, &parts, false)?.0;
        }
        self.scalars_of(&norm::forward(&x, self.norm(self.ids.last_norm))?, &parts)
    }

    /// Every layer with its tape: (m, c) before the last normalisation.
    fn run_layers(&self, batch: &Packed, parts: &Batch) -> Result<(Tensor, Vec<LayerTape>)> {
        let mut x = self.embed(&batch.ids, &batch.positions)?;
        let mut layers = Vec::with_capacity(self.config.layers.len());
        for index in 0..self.config.layers.len() {
            let input = x.clone();
            let (out, tape) = layer::forward(self, index, x, parts, !self.checkpointing)?;
            layers.push(tape.unwrap_or(LayerTape::Input(input)));
            x = out;
        }
        Ok((x, layers))
    }

    fn scalar_weight(&self) -> Result<(usize, &Tensor)> {
        match self.ids.scalar {
            Some(index) => Ok((index, self.weight(index))),
            None => bail!("the model has no scalar head: it is no reward model and has no critic"),
        }
    }

    /// normed (m, c) → (r,)
    fn scalars_of(&self, normed: &Tensor, parts: &Batch) -> Result<Vec<f64>> {
        let by_row = linear::forward(normed, self.scalar_weight()?.1, None)?; // (m, 1)
        let by_row: Vec<f64> = by_row.flatten_all()?.to_dtype(DType::F64)?.to_vec1()?;
        Ok(parts.targets.iter().map(|&(row, _)| by_row[row as usize]).collect())
    }

    /// Adds the gradients of Σ `dlogps`·log-probs.
    ///
    /// # Errors
    /// If `dlogps` does not have one number for each read, or `grads` is another model's.
    pub fn backward(&self, tape: Tape, dlogps: &[f64], grads: &mut Gradients) -> Result<()> {
        self.backward_scalars(tape, dlogps, &[], grads)
    }

    /// Adds the gradients of Σ `dlogps`·log-probs + Σ `dscalars`·scalars; either may be empty where it was not
    /// computed.
    ///
    /// # Errors
    /// As [`Decoder::backward`].
    pub fn backward_scalars(
        &self,
        tape: Tape,
        dlogps: &[f64],
        dscalars: &[f64],
        grads: &mut Gradients,
    ) -> Result<()> {
        let Tape { ids, positions, batch, layers, last, saved } = tape;
        for (what, given, wanted) in
            [("log-probs", dlogps, saved.is_some()), ("scalars", dscalars, !dscalars.is_empty())]
        {
            let reads = if wanted { batch.targets.len() } else { 0 };
            ensure!(given.len() == reads, "{} gradients for {reads} {what}", given.len());
        }
        ensure!(
            grads.tensors.len() == self.trained().len() && grads.frozen == self.adapter.is_some(),
            "gradients of another model"
        );
        let normed = norm::forward(&last, self.norm(self.ids.last_norm))?;
        let mut dx = None;
        if let Some(saved) = saved {
            let dweight = grads.weight(self.ids.head);
            dx = Some(head::backward(dlogps, &normed, self.head(), &batch.targets, saved, dweight)?);
        }
        if !dscalars.is_empty() {
            let (index, weight) = self.scalar_weight()?;
            let mut by_row = vec![0.0; batch.rows.len()];
            for (&(row, _), d) in batch.targets.iter().zip(dscalars) {
                by_row[row as usize] += d;
            }
            let dy = Tensor::from_vec(by_row, (batch.rows.len(), 1), &self.device)?.to_dtype(self.dtype)?;
            if let Some(dweight) = grads.weight(index) {
                linear::backward_weight(&dy, &normed, dweight)?;
            }
            let dscalar = linear::backward_input(&dy, weight)?;
            dx = Some(match dx {
                Some(dx) => plain::add(dx, &dscalar)?,
                None => dscalar,
            });
        }
        let Some(dx) = dx else { bail!("a backward pass without any gradient") };
        drop(normed);
        let mut dx = self.norm_backward(&dx, &last, self.ids.last_norm, None, grads)?;
        drop(last);
        for (index, tape) in layers.into_iter().enumerate().rev() {
            dx = layer::backward(self, index, tape, dx, &batch, grads)?;
        }
        if let Some(dtable) = grads.weight(self.ids.embedding) {
            embedding::backward(&dx, &ids, self.config.embedding_scale, dtable)?;
        }
        if let Some(dtable) = self.ids.positions.and_then(|table| grads.weight(table)) {
            embedding::backward(&dx, &positions, 1.0, dtable)?;
        }
        Ok(())
    }

    /// FLOPs of a forward pass as computed here (two per multiply-add): products with weights, scores and
    /// weighted values of visible pairs, the vocabulary projection at the rows that are read. The last layer
    /// computes what follows attention at those rows only. The adapter's side paths are among them.
    pub fn flops(&self, batch: &Packed) -> f64 {
        self.work(batch).into_iter().sum()
    }

    /// As [`Self::flops`], with the adapter off.
    pub fn base_flops(&self, batch: &Packed) -> f64 {
        let [products, attention, _] = self.work(batch);
        products + attention
    }

    /// FLOPs of forward and backward: three forwards, but for the products with frozen weights, which need
    /// the gradient of their input alone.
    pub fn training_flops(&self, batch: &Packed) -> f64 {
        let [products, attention, side] = self.work(batch);
        let weights = if self.adapter.is_some() { 2.0 } else { 3.0 };
        weights * products + 3.0 * (attention + side)
    }

    /// FLOPs of a forward pass: products with weights, attention, side paths.
    fn work(&self, batch: &Packed) -> [f64; 3] {
        let c = &self.config;
        let mut read: Vec<u32> = batch.reads.iter().map(|r| r.row).collect();
        read.sort_unstable();
        read.dedup();
        let (all, read) = (batch.ids.len() as f64, read.len() as f64);
        let outputs = match c.scalar {
            None => c.vocab,
            Some(ScalarHead::Score) => 1,
            Some(ScalarHead::Value) => c.vocab + 1,
        };
        let (mut products, mut attention, mut side) = (2.0 * read * (outputs * c.hidden) as f64, 0.0, 0.0);
        for (index, kind) in c.layers.iter().enumerate() {
            let rows = if index + 1 == c.layers.len() { read } else { all };
            let ids = &self.ids.layers[index];
            let size = |pair: Pair| self.params[pair.weight].tensor.elem_count() as f64;
            products += 2.0 * (all * size(ids.qkv) + rows * (size(ids.out) + size(ids.up) + size(ids.down)));
            if let Some(adapter) = &self.adapter {
                let size = |pair: Pair| adapter.work(pair.weight);
                side += 2.0 * (all * size(ids.qkv) + rows * (size(ids.out) + size(ids.up) + size(ids.down)));
            }
            let visible: f64 = batch
                .segments
                .iter()
                .map(|s| {
                    let past = s.continues.map_or(0, |p| batch.segments[p].len);
                    (past..past + s.len)
                        .map(|at| (at + 1).min(kind.window.unwrap_or(usize::MAX)) as f64)
                        .sum::<f64>()
                })
                .sum();
            attention += 4.0 * visible * (c.heads * c.head_dim) as f64;
        }
        [products, attention, side]
    }

    pub(super) fn batch(&self, packed: &Packed) -> Result<Batch> {
        let mut rows: Vec<u32> = packed.reads.iter().map(|r| r.row).collect();
        rows.sort_unstable();
        rows.dedup();
        let mut targets = Vec::with_capacity(packed.reads.len());
        for read in &packed.reads {
            ensure!(
                (read.target as usize) < self.config.vocab,
                "token id {} is beyond the vocabulary of {}",
                read.target,
                self.config.vocab
            );
            let Ok(at) = rows.binary_search(&read.row) else { bail!("a read without a row") };
            targets.push((at as u32, read.target));
        }
        Ok(Batch {
            trees: trees(packed)?,
            angles: self.angles(&packed.positions)?,
            rows,
            targets,
            dropout: None,
            products: Products::Blocked,
        })
    }

    pub(super) fn angles(&self, positions: &[u32]) -> Result<Vec<(Rope, Angles)>> {
        let mut angles: Vec<(Rope, Angles)> = Vec::new();
        let like = &self.params[self.ids.embedding].tensor;
        for rope in self.config.layers.iter().filter_map(|l| l.rope) {
            if !angles.iter().any(|(known, _)| *known == rope) {
                angles.push((rope, rope::angles(positions, &rope.inverse_frequencies(), 1.0, like)?));
            }
        }
        Ok(angles)
    }

    pub(super) fn embed(&self, ids: &[u32], positions: &[u32]) -> Result<Tensor> {
        let x =
            embedding::forward(&self.params[self.ids.embedding].tensor, ids, self.config.embedding_scale)?;
        let Some(table) = self.ids.positions else { return Ok(x) };
        if let Some(last) = positions.iter().max().filter(|p| **p as usize >= self.config.max_positions) {
            bail!("position {last} is beyond the {} that the model has learned", self.config.max_positions);
        }
        plain::add(x, &embedding::forward(&self.params[table].tensor, positions, 1.0)?)
    }

    pub(super) fn weight(&self, index: usize) -> &Tensor {
        &self.params[index].tensor
    }

    pub(super) fn head(&self) -> Head<'_> {
        Head { weight: self.weight(self.ids.head), softcap: self.config.final_softcap }
    }

    pub(super) fn norm(&self, ids: Pair) -> Norm<'_> {
        let bias = ids.bias.map(|b| self.weight(b));
        Norm { kind: self.config.norm, eps: self.config.norm_eps, weight: self.weight(ids.weight), bias }
    }

    /// base + dx of a normalisation.
    pub(super) fn norm_backward(
        &self,
        dy: &Tensor,
        x: &Tensor,
        ids: Pair,
        base: Option<Tensor>,
        grads: &mut Gradients,
    ) -> Result<Tensor> {
        if grads.frozen {
            let norm = self.norm(ids);
            let mut weight = zeros_for(norm.weight)?;
            let mut bias = norm.bias.map(zeros_for).transpose()?;
            let unused = NormGrads { weight: &mut weight, bias: bias.as_mut() };
            return norm::backward(dy, x, norm, unused, base);
        }
        let targets = match ids.bias {
            None => NormGrads { weight: &mut grads.tensors[ids.weight], bias: None },
            Some(bias) => {
                let [weight, bias] = grads.tensors.get_disjoint_mut([ids.weight, bias])?;
                NormGrads { weight, bias: Some(bias) }
            }
        };
        norm::backward(dy, x, self.norm(ids), targets, base)
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

/// Segments as trees: a root with those that continue it.
fn trees(packed: &Packed) -> Result<Vec<Tree>> {
    let mut trees: BTreeMap<usize, Tree> = BTreeMap::new();
    for (index, segment) in packed.segments.iter().enumerate() {
        let own = segment.start..segment.start + segment.len;
        ensure!(own.end <= packed.ids.len(), "segment {index} ends beyond the batch");
        match segment.continues {
            None => drop(trees.insert(index, Tree { root: own, branches: Vec::new() })),
            Some(root) => match trees.get_mut(&root) {
                Some(tree) => tree.branches.push(own),
                None => bail!("segment {index} continues {root}, which is no root before it"),
            },
        }
    }
    Ok(trees.into_values().collect())
}

/// `count` draws from N(0, std²), by Box and Muller.
fn normal(seed: u64, name: &str, count: usize, std: f64) -> Vec<f64> {
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

/// The tensor's numbers as little-endian bytes.
fn raw_bytes(tensor: &Tensor) -> Result<Vec<u8>> {
    use safetensors::View;
    let tensor = tensor.to_device(&Device::Cpu)?;
    Ok(View::data(&&tensor).into_owned())
}
