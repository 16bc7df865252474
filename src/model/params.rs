//! Parameter tensors, fused where one product serves several of a checkpoint's tensors, and which part of
//! them goes by which name in a checkpoint.

use candle_core::Tensor;
use std::ops::Range;
use std::sync::Arc;

use super::config::{DecoderConfig, Family, NormKind, NormPlacement, QkNorm};
use crate::base::error::Result;
use crate::kernels::quantized::Quantized;

/// How a piece lies in the checkpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stored {
    AsIs,
    /// (in, out), as GPT-2's Conv1D keeps its weights.
    Transposed,
    /// Rows in the order (head, q|k|v, d), as GPT-NeoX keeps them; here they are (q|k|v, head, d).
    HeadByHead {
        heads: usize,
    },
}

/// Rows of a parameter that a checkpoint keeps as one tensor.
#[derive(Clone, Debug, PartialEq)]
pub struct Piece {
    /// Hugging Face name.
    pub name: String,
    pub rows: Range<usize>,
    pub stored: Stored,
}

/// What a parameter is, for initialisation and weight decay.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    Weight,
    Norm,
    Bias,
}

/// One parameter tensor: (n, k) or (n,).
#[derive(Clone, Debug)]
pub struct Param {
    pub pieces: Vec<Piece>,
    pub role: Role,
    /// The numbers; where `blocks` has them, only their shape (and NaN).
    pub tensor: Tensor,
    /// A frozen projection, quantised.
    pub(super) blocks: Option<Arc<Quantized>>,
}

impl Param {
    pub(super) fn new(pieces: Vec<Piece>, role: Role, tensor: Tensor) -> Self {
        Self { pieces, role, tensor, blocks: None }
    }

    /// A copy that shares no memory with what may be trained: quantised blocks never are.
    pub(super) fn copied(&self) -> Result<Self> {
        let tensor = if self.blocks.is_some() { self.tensor.clone() } else { self.tensor.copy()? };
        Ok(Self { tensor, ..self.clone() })
    }

    /// Whether weight decay applies, as in transformers' trainer: not to biases and normalisations.
    pub fn decays(&self) -> bool {
        self.role == Role::Weight
    }

    /// Whether the checkpoint's tensor of this name is (the first part of) it.
    pub(super) fn is(&self, name: &str) -> bool {
        self.pieces.first().is_some_and(|piece| piece.name == name)
    }
}

/// A parameter before it has numbers.
pub(super) struct Spec {
    pub pieces: Vec<Piece>,
    pub role: Role,
    pub shape: Vec<usize>,
}

/// Indices into the parameters.
#[derive(Clone, Copy, Debug)]
pub(super) struct Pair {
    pub weight: usize,
    pub bias: Option<usize>,
}

#[derive(Clone, Debug)]
pub(super) struct LayerIds {
    pub before_attention: Option<Pair>,
    pub qkv: Pair,
    pub q_norm: Option<Pair>,
    pub k_norm: Option<Pair>,
    pub out: Pair,
    pub after_attention: Option<Pair>,
    pub before_mlp: Option<Pair>,
    pub up: Pair,
    pub down: Pair,
    pub after_mlp: Option<Pair>,
}

#[derive(Clone, Debug)]
pub(super) struct Ids {
    pub embedding: usize,
    pub positions: Option<usize>,
    pub layers: Vec<LayerIds>,
    pub last_norm: Pair,
    /// Index of the vocabulary projection; the embedding's where they are tied.
    pub head: usize,
    /// (1, c)
    pub scalar: Option<usize>,
}

/// The names of a family's tensors; those of a layer without the layer's prefix.
struct Names {
    embedding: &'static str,
    positions: &'static str,
    layer: &'static str,
    last_norm: &'static str,
    head: &'static str,
    qkv: &'static [&'static str],
    stored_qkv: Stored,
    out: &'static str,
    up: &'static [&'static str],
    down: &'static str,
    before_attention: &'static str,
    after_attention: &'static str,
    before_mlp: &'static str,
    after_mlp: &'static str,
    stored: Stored,
}

const LLAMA: Names = Names {
    embedding: "model.embed_tokens.weight",
    positions: "",
    layer: "model.layers.",
    last_norm: "model.norm",
    head: "lm_head.weight",
    qkv: &["self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"],
    stored_qkv: Stored::AsIs,
    out: "self_attn.o_proj",
    up: &["mlp.gate_proj", "mlp.up_proj"],
    down: "mlp.down_proj",
    before_attention: "input_layernorm",
    after_attention: "post_attention_layernorm",
    before_mlp: "post_attention_layernorm",
    after_mlp: "post_feedforward_layernorm",
    stored: Stored::AsIs,
};

fn names(config: &DecoderConfig) -> Names {
    match config.family {
        Family::Gemma2 | Family::Gemma3 => Names { before_mlp: "pre_feedforward_layernorm", ..LLAMA },
        Family::GptNeox => Names {
            embedding: "gpt_neox.embed_in.weight",
            layer: "gpt_neox.layers.",
            last_norm: "gpt_neox.final_layer_norm",
            head: "embed_out.weight",
            qkv: &["attention.query_key_value"],
            stored_qkv: Stored::HeadByHead { heads: config.heads },
            out: "attention.dense",
            up: &["mlp.dense_h_to_4h"],
            down: "mlp.dense_4h_to_h",
            ..LLAMA
        },
        Family::Gpt2 => Names {
            embedding: "transformer.wte.weight",
            positions: "transformer.wpe.weight",
            layer: "transformer.h.",
            last_norm: "transformer.ln_f",
            qkv: &["attn.c_attn"],
            stored_qkv: Stored::Transposed,
            out: "attn.c_proj",
            up: &["mlp.c_fc"],
            down: "mlp.c_proj",
            before_attention: "ln_1",
            before_mlp: "ln_2",
            stored: Stored::Transposed,
            ..LLAMA
        },
        _ => LLAMA,
    }
}

/// What the names of a layer's tensors begin with, before its number.
pub(super) fn layer_prefix(config: &DecoderConfig) -> &'static str {
    names(config).layer
}

/// Every parameter of a decoder in a stable order, and who is who.
pub(super) fn layout(config: &DecoderConfig) -> (Vec<Spec>, Ids) {
    let names = names(config);
    let mut specs = Specs { list: Vec::new(), layer_norm: config.norm == NormKind::Layer };
    let embedding = specs.table(names.embedding, config.vocab, config.hidden);
    let positions =
        config.learned_positions.then(|| specs.table(names.positions, config.max_positions, config.hidden));
    let layers = (0..config.layers.len()).map(|i| specs.layer(config, &names, i)).collect();
    let last_norm = specs.norm(names.last_norm.to_owned(), config.hidden);
    let head = if config.tied { embedding } else { specs.table(names.head, config.vocab, config.hidden) };
    let scalar = config.scalar.map(|head| specs.table(head.tensor(), 1, config.hidden));
    (specs.list, Ids { embedding, positions, layers, last_norm, head, scalar })
}

struct Specs {
    list: Vec<Spec>,
    layer_norm: bool,
}

impl Specs {
    fn push(&mut self, pieces: Vec<Piece>, role: Role, shape: Vec<usize>) -> usize {
        self.list.push(Spec { pieces, role, shape });
        self.list.len() - 1
    }

    fn table(&mut self, name: &str, rows: usize, width: usize) -> usize {
        let piece = Piece { name: name.to_owned(), rows: 0..rows, stored: Stored::AsIs };
        self.push(vec![piece], Role::Weight, vec![rows, width])
    }

    fn norm(&mut self, name: String, width: usize) -> Pair {
        let piece =
            |part: &str| Piece { name: format!("{name}.{part}"), rows: 0..width, stored: Stored::AsIs };
        let weight = self.push(vec![piece("weight")], Role::Norm, vec![width]);
        let bias = self.layer_norm.then(|| self.push(vec![piece("bias")], Role::Bias, vec![width]));
        Pair { weight, bias }
    }

    /// One product for the tensors `parts` = (name, output rows).
    fn linear(&mut self, parts: &[(String, usize)], width: usize, bias: bool, stored: Stored) -> Pair {
        let pieces = |suffix: &str, stored: Stored| {
            let mut start = 0;
            let piece = |(name, rows): &(String, usize)| {
                start += rows;
                Piece { name: format!("{name}.{suffix}"), rows: start - rows..start, stored }
            };
            parts.iter().map(piece).collect::<Vec<_>>()
        };
        let rows = parts.iter().map(|(_, rows)| rows).sum();
        let weight = self.push(pieces("weight", stored), Role::Weight, vec![rows, width]);
        let stored_bias = if stored == Stored::Transposed { Stored::AsIs } else { stored };
        let bias = bias.then(|| self.push(pieces("bias", stored_bias), Role::Bias, vec![rows]));
        Pair { weight, bias }
    }

    fn layer(&mut self, config: &DecoderConfig, names: &Names, index: usize) -> LayerIds {
        let DecoderConfig { hidden, heads, kv_heads, head_dim: d, intermediate, placement, .. } = *config;
        let full = |name: &str| format!("{}{index}.{name}", names.layer);
        let before = placement != NormPlacement::After;
        let after = placement != NormPlacement::Before;
        let sizes = [heads * d, kv_heads * d, kv_heads * d];
        let qkv: Vec<_> = match names.qkv {
            [fused] => vec![(full(fused), sizes.iter().sum())],
            parts => parts.iter().zip(sizes).map(|(name, rows)| (full(name), rows)).collect(),
        };
        let up: Vec<_> = names.up.iter().map(|name| (full(name), intermediate)).collect();
        let (q_width, k_width) = match config.qk_norm {
            Some(QkNorm::WholeRow) => (heads * d, kv_heads * d),
            _ => (d, d),
        };
        let out = [(full(names.out), hidden)];
        let down = [(full(names.down), hidden)];
        LayerIds {
            before_attention: before.then(|| self.norm(full(names.before_attention), hidden)),
            qkv: self.linear(&qkv, hidden, config.qkv_bias, names.stored_qkv),
            q_norm: config.qk_norm.map(|_| self.norm(full("self_attn.q_norm"), q_width)),
            k_norm: config.qk_norm.map(|_| self.norm(full("self_attn.k_norm"), k_width)),
            out: self.linear(&out, heads * d, config.out_bias, names.stored),
            after_attention: after.then(|| self.norm(full(names.after_attention), hidden)),
            before_mlp: before.then(|| self.norm(full(names.before_mlp), hidden)),
            up: self.linear(&up, hidden, config.mlp_bias, names.stored),
            down: self.linear(&down, intermediate, config.mlp_bias, names.stored),
            after_mlp: after.then(|| self.norm(full(names.after_mlp), hidden)),
        }
    }
}

impl Stored {
    /// From the checkpoint's arrangement to ours: (n, k) or (n,).
    pub(super) fn read(self, tensor: &Tensor) -> candle_core::Result<Tensor> {
        match self {
            Self::AsIs => Ok(tensor.clone()),
            Self::Transposed => tensor.t()?.contiguous(),
            Self::HeadByHead { heads } => rearrange(tensor, heads, 3),
        }
    }
    /// The way back.
    pub(super) fn write(self, tensor: &Tensor) -> candle_core::Result<Tensor> {
        match self {
            Self::AsIs => Ok(tensor.clone()),
            Self::Transposed => tensor.t()?.contiguous(),
            Self::HeadByHead { heads } => rearrange(tensor, 3, heads),
        }
    }
    /// The checkpoint's shape of a piece that is (n, k) or (n,) here.
    pub(super) fn shape(self, ours: &[usize]) -> Vec<usize> {
        let mut shape = ours.to_vec();
        if self == Self::Transposed {
            shape.reverse();
        }
        shape
    }
}

/// Rows (a, b, d) → (b, a, d).
fn rearrange(tensor: &Tensor, a: usize, b: usize) -> candle_core::Result<Tensor> {
    let rows = tensor.dim(0)?;
    let rest = tensor.elem_count() / rows.max(1);
    let split = tensor.reshape((a, b, rows / (a * b), rest))?;
    split.transpose(0, 1)?.contiguous()?.reshape(tensor.shape())
}
