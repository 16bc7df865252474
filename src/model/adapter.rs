//! LoRA (Hu et al. 2021, arXiv 2106.09685): a frozen decoder with low-rank side paths, which alone are trained.
//!
//! W x becomes W x + s·B A x̃ with A (r, k) drawn at random, B (n, r) zero at first, x̃ = x with dropout in
//! training, and s = α/r, or α/√r (rsLoRA, Kalajdzievski 2023, arXiv 2312.03732). The decoder with its adapter
//! off is the decoder that it was made from: the weights are shared, not copied.

use candle_core::{DType, Device, Tensor};
use std::collections::{BTreeMap, BTreeSet};

use super::decoder::{Batch, Decoder};
use super::gradients::Gradients;
use super::params::{Param, Piece, Role, Stored};
use crate::base::error::{HintExt, Result, anyhow, ensure, unknown};
use crate::base::hash::Hasher;
use crate::base::seed;
use crate::kernels::low_rank::{self, LowRank, Mask};
use crate::plan::{ALL_LINEAR, LoraSpec};

/// Side paths, with what `adapter_config.json` says of them.
#[derive(Clone)]
pub struct Adapter {
    /// A and B of every side path, named as PEFT names them.
    pub(super) params: Vec<Param>,
    /// Index among them of a scalar head that is trained with the adapter.
    scalar: Option<usize>,
    /// By index of the weight that they stand beside.
    sites: BTreeMap<usize, Vec<Site>>,
    dropout: f64,
    /// `adapter_config.json`, as read or made.
    pub(super) config: serde_json::Map<String, serde_json::Value>,
}

/// A side path: where A and B lie among the adapter's parameters, and where it adds.
#[derive(Clone, Debug)]
struct Site {
    a: usize,
    b: usize,
    start: usize,
    scale: f64,
}

/// Draws of one step's dropout.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Dropout {
    /// Of the step.
    pub seed: u64,
    /// Number of the batch's first token within the step, so that masks do not depend on micro-batches.
    pub first_row: u64,
}

/// A tensor of the checkpoint that a side path can stand beside.
pub(super) struct Target {
    /// Module name as in the checkpoint, without `.weight`.
    pub module: String,
    /// Index of the parameter that holds it.
    pub weight: usize,
    pub piece: Piece,
    /// k
    pub inputs: usize,
}

impl Target {
    /// PEFT's name of one of its tensors: `A` or `B`.
    pub fn tensor_name(&self, which: &str) -> String {
        format!("base_model.model.{}.lora_{which}.weight", self.module)
    }

    /// How B's rows lie in the file: as the weight's outputs do there.
    pub fn stored_b(&self) -> Stored {
        if self.piece.stored == Stored::Transposed { Stored::AsIs } else { self.piece.stored }
    }

    /// Whether PEFT's `target_modules` entry names this module.
    fn is_named(&self, name: &str) -> bool {
        self.module == name || self.module.ends_with(&format!(".{name}"))
    }
}

/// A side path with its numbers.
pub(super) struct Path {
    /// (r, k)
    pub a: Tensor,
    /// (n, r), rows in this crate's order
    pub b: Tensor,
    pub scale: f64,
}

impl Decoder {
    /// Every projection of every layer, in order.
    pub(super) fn targets(&self) -> Vec<Target> {
        let mut targets = Vec::new();
        for layer in &self.ids.layers {
            for weight in [layer.qkv, layer.out, layer.up, layer.down].map(|pair| pair.weight) {
                let param = &self.params()[weight];
                let inputs = param.tensor.dims().last().copied().unwrap_or(0);
                for piece in &param.pieces {
                    let module = piece.name.strip_suffix(".weight").unwrap_or(&piece.name).to_owned();
                    targets.push(Target { module, weight, piece: piece.clone(), inputs });
                }
            }
        }
        targets
    }

    /// This decoder, frozen, with a new adapter that changes nothing yet (B = 0). The weights are shared with
    /// `self`; A is drawn as PEFT draws it, uniform on ±1/√k, from the stream `lora <name>` under `seed`.
    ///
    /// # Errors
    /// A target module that the decoder does not have (those that it has are listed); an adapter on an adapter.
    pub fn with_adapter(&self, spec: &LoraSpec, seed: u64) -> Result<Self> {
        let all = self.targets();
        let whole = spec.target_modules.iter().any(|name| name == ALL_LINEAR);
        let known = last_names(&all);
        for name in spec.target_modules.iter().filter(|name| *name != ALL_LINEAR) {
            if !all.iter().any(|t| t.is_named(name)) {
                let known: Vec<&str> = known.iter().map(String::as_str).chain([ALL_LINEAR]).collect();
                return Err(unknown("target module", name, &known).context("lora.target_modules"));
            }
        }
        let named = |t: &&Target| whole || spec.target_modules.iter().any(|name| t.is_named(name));
        let chosen: Vec<&Target> = all.iter().filter(named).collect();
        let modules = if whole { known.into_iter().collect() } else { spec.target_modules.clone() };
        let transposed = chosen.iter().any(|t| t.piece.stored == Stored::Transposed);
        let config = super::peft::new_config(spec, &modules, transposed);
        let path = |target| Ok((target, self.new_path(target, spec, seed)?));
        let paths = chosen.into_iter().map(path).collect::<Result<_>>()?;
        self.adapted(paths, spec.dropout, config)
    }

    fn new_path(&self, target: &Target, spec: &LoraSpec, seed: u64) -> Result<Path> {
        let (r, k, n) = (spec.rank, target.inputs, target.piece.rows.len());
        let name = format!("lora {}", target.tensor_name("A"));
        let a = Tensor::from_vec(uniform(seed, &name, r * k, (k as f64).powf(-0.5)), (r, k), &Device::Cpu)?;
        let a = a.to_dtype(self.dtype())?.to_device(self.device())?;
        Ok(Path { a, b: Tensor::zeros((n, r), self.dtype(), self.device())?, scale: spec.scale() })
    }

    /// This decoder, its weights shared, with these side paths.
    pub(super) fn adapted(
        &self,
        paths: Vec<(&Target, Path)>,
        dropout: f64,
        config: serde_json::Map<String, serde_json::Value>,
    ) -> Result<Self> {
        if self.adapter().is_some() {
            return Err(anyhow!("the model has an adapter already")).hint("merge it first: kto-eval merge");
        }
        ensure!(!paths.is_empty(), "an adapter needs at least one module");
        let mut adapter = Adapter { params: vec![], scalar: None, sites: BTreeMap::new(), dropout, config };
        for (target, Path { a, b, scale }) in paths {
            let piece = |which: &str, rows: usize, stored| Piece {
                name: target.tensor_name(which),
                rows: 0..rows,
                stored,
            };
            let at = adapter.params.len();
            let pieces = vec![piece("A", a.dim(0)?, Stored::AsIs)];
            adapter.params.push(Param::new(pieces, Role::Weight, a.contiguous()?));
            let pieces = vec![piece("B", b.dim(0)?, target.stored_b())];
            adapter.params.push(Param::new(pieces, Role::Weight, b.contiguous()?));
            let site = Site { a: at, b: at + 1, start: target.piece.rows.start, scale };
            adapter.sites.entry(target.weight).or_default().push(site);
        }
        Ok(self.sharing(Some(adapter)))
    }

    /// A copy of the weights with the adapter added to them: W + s·B A. Without an adapter: a copy. A quantised base
    /// becomes numbers again.
    pub fn merged(&self) -> Result<Self> {
        let mut merged = self.sharing(None).duplicate()?;
        for param in merged.params_mut().iter_mut().filter(|p| p.blocks.is_some()) {
            (param.tensor, param.blocks) = (param.numbers()?.contiguous()?, None);
        }
        let Some(adapter) = self.adapter() else { return Ok(merged) };
        if let Some(control) = adapter.config.get(super::control::KEY) {
            merged.own_config_mut().insert(super::control::KEY.to_owned(), control.clone());
        }
        for (&weight, sites) in &adapter.sites {
            for site in sites {
                let (a, b) = (&adapter.params[site.a].tensor, &adapter.params[site.b].tensor);
                let tensor = &mut merged.params_mut()[weight].tensor;
                let (start, n, all) = (site.start, b.dim(0)?, tensor.dim(0)?);
                let rows = (tensor.narrow(0, start, n)? + (b.matmul(a)? * site.scale)?)?;
                let parts =
                    [tensor.narrow(0, 0, start)?, rows, tensor.narrow(0, start + n, all - start - n)?];
                let parts: Vec<Tensor> = parts.into_iter().filter(|p| p.elem_count() > 0).collect();
                *tensor = Tensor::cat(&parts, 0)?.contiguous()?;
            }
        }
        Ok(merged)
    }

    /// y + the side paths beside `weight`, given its input x; `rows` names x's rows of the batch, `None`: all.
    pub(super) fn with_side_paths(
        &self,
        mut y: Tensor,
        x: &Tensor,
        weight: usize,
        batch: &Batch,
        rows: Option<&[u32]>,
    ) -> Result<Tensor> {
        for (adapter, site) in self.sites(weight) {
            let x = low_rank::dropped(x, adapter.mask(site, batch, rows))?;
            y = low_rank::forward_onto(y, &x, adapter.path(site), batch.products)?;
        }
        Ok(y)
    }

    /// dx + the gradient that flows back through the side paths.
    pub(super) fn side_paths_backward_input(
        &self,
        mut dx: Tensor,
        dy: &Tensor,
        weight: usize,
        batch: &Batch,
        rows: Option<&[u32]>,
    ) -> Result<Tensor> {
        for (adapter, site) in self.sites(weight) {
            dx = low_rank::backward_input(dx, dy, adapter.path(site), adapter.mask(site, batch, rows))?;
        }
        Ok(dx)
    }

    /// Adds the gradients of A and B.
    pub(super) fn side_paths_backward_weights(
        &self,
        dy: &Tensor,
        x: &Tensor,
        weight: usize,
        batch: &Batch,
        rows: Option<&[u32]>,
        grads: &mut Gradients,
    ) -> Result<()> {
        for (adapter, site) in self.sites(weight) {
            let x = low_rank::dropped(x, adapter.mask(site, batch, rows))?;
            let [da, db] = grads.tensors.get_disjoint_mut([site.a, site.b])?;
            low_rank::backward_weights(dy, &x, adapter.path(site), da, db)?;
        }
        Ok(())
    }

    fn sites(&self, weight: usize) -> impl Iterator<Item = (&Adapter, &Site)> {
        let adapter = self.adapter();
        let sites = adapter.and_then(|a| Some((a, a.sites.get(&weight)?)));
        sites.into_iter().flat_map(|(adapter, sites)| sites.iter().map(move |site| (adapter, site)))
    }
}

impl Adapter {
    /// Takes a scalar head among what is trained.
    pub(super) fn push_scalar(&mut self, head: Param) {
        self.scalar = Some(self.params.len());
        self.params.push(head);
    }

    /// Gives up its scalar head, which is its last parameter.
    pub(super) fn pop_scalar(&mut self) {
        if let Some(at) = self.scalar.take() {
            self.params.truncate(at);
        }
    }

    /// The scalar head that is trained with it: its place among [`Decoder::trained`], and its weights.
    pub(super) fn scalar(&self) -> Option<(usize, &Tensor)> {
        self.scalar.map(|at| (at, &self.params[at].tensor))
    }

    /// Whether it changes nothing: every B is 0.
    pub(super) fn is_void(&self) -> Result<bool> {
        for site in self.sites.values().flatten() {
            let b = &self.params[site.b].tensor;
            let largest: f64 = b.abs()?.max_all()?.to_dtype(DType::F64)?.to_scalar()?;
            if largest != 0.0 {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Adds to a hash what the weights alone do not say.
    pub(super) fn hash_scales(&self, mut hasher: Hasher) -> Hasher {
        for site in self.sites.values().flatten() {
            hasher = hasher.part(&site.scale.to_le_bytes());
        }
        hasher
    }

    /// Multiply-adds of the side paths for one row of the input of `weight`.
    pub(super) fn work(&self, weight: usize) -> f64 {
        let sites = self.sites.get(&weight).into_iter().flatten();
        let size = |index: usize| self.params[index].tensor.elem_count() as f64;
        sites.map(|site| size(site.a) + size(site.b)).sum()
    }

    fn path(&self, site: &Site) -> LowRank<'_> {
        let tensor = |index: usize| &self.params[index].tensor;
        LowRank { a: tensor(site.a), b: tensor(site.b), start: site.start, scale: site.scale }
    }

    /// The site's dropout, where there is any.
    fn mask<'a>(&self, site: &Site, batch: &Batch, rows: Option<&'a [u32]>) -> Option<Mask<'a>> {
        let draws = batch.dropout.filter(|_| self.dropout > 0.0)?;
        let name = format!("lora dropout {}", self.params[site.a].pieces[0].name);
        let key = seed::derive(draws.seed, &name);
        Some(Mask { key, p: self.dropout, first_row: draws.first_row, rows })
    }
}

/// The last part of every module's name: what people write in `target_modules`.
pub(super) fn last_names(targets: &[Target]) -> BTreeSet<String> {
    targets.iter().filter_map(|t| t.module.rsplit('.').next()).map(str::to_owned).collect()
}

/// `count` draws uniform on ±bound.
fn uniform(seed: u64, name: &str, count: usize, bound: f64) -> Vec<f64> {
    use rand_chacha::rand_core::Rng;
    let mut rng = seed::rng(seed, name);
    let mut draw = || (rng.next_u64() >> 11) as f64 / (1u64 << 53) as f64;
    (0..count).map(|_| bound * (2.0 * draw() - 1.0)).collect()
}
