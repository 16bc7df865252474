//! What a decoder is made of, independent of the family that it came from.

use serde_json::{Map, Value, json};

use crate::base::error::{Result, ensure};
pub use crate::kernels::activation::Activation;
pub use crate::kernels::norm::Kind as NormKind;

/// The families that can be read, by `model_type` of `config.json`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Family {
    Llama,
    Mistral,
    Qwen2,
    Qwen3,
    GptNeox,
    Gpt2,
    Gemma2,
    Gemma3,
    Olmo2,
}

/// Which normalisations stand around a block of a layer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NormPlacement {
    /// x + f(norm(x))
    Before,
    /// x + norm(f(x))
    After,
    /// x + norm(f(norm(x)))
    Around,
}

/// Normalisation of queries and keys before the rotation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum QkNorm {
    PerHead,
    /// One row is all heads of a token together.
    WholeRow,
}

/// Frequencies of a rotary embedding.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Rope {
    pub base: f64,
    /// r, the share of a head that turns. Where it is odd, r + 1 components do, with frequencies for r.
    pub width: usize,
    pub scaling: RopeScaling,
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub enum RopeScaling {
    None,
    /// Positions divided by a factor (Chen et al. 2023).
    Linear(f64),
    /// Llama 3.1: low frequencies divided by a factor, high ones kept, a ramp between.
    Llama3 {
        factor: f64,
        low: f64,
        high: f64,
        original_context: f64,
    },
}

/// What differs between layers.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct LayerKind {
    /// A token sees this many positions, its own included; `None`: all.
    pub window: Option<usize>,
    pub rope: Option<Rope>,
}

/// A decoder-only transformer. Widths: c hidden, v vocabulary, h heads of width d, k key/value heads.
#[derive(Clone, Debug, PartialEq)]
pub struct DecoderConfig {
    pub family: Family,
    pub vocab: usize,
    pub hidden: usize,
    pub heads: usize,
    pub kv_heads: usize,
    pub head_dim: usize,
    pub intermediate: usize,
    /// The context that the model was made for; a bound only with learned positions.
    pub max_positions: usize,
    pub layers: Vec<LayerKind>,
    pub norm: NormKind,
    pub norm_eps: f64,
    pub placement: NormPlacement,
    pub qk_norm: Option<QkNorm>,
    /// Attention and feed-forward both read the layer's input: x + f(x) + g(x).
    pub parallel_residual: bool,
    pub learned_positions: bool,
    pub qkv_bias: bool,
    pub out_bias: bool,
    pub mlp_bias: bool,
    pub activation: Activation,
    pub gated: bool,
    /// Factor on q·k.
    pub attention_scale: f64,
    pub attention_softcap: Option<f64>,
    pub final_softcap: Option<f64>,
    /// Factor on token embeddings.
    pub embedding_scale: f64,
    /// The vocabulary projection is the embedding table.
    pub tied: bool,
    /// A projection of the last hidden states to one number: a reward model's or a critic's.
    pub scalar: Option<ScalarHead>,
    pub init_std: f64,
    /// `config.json` as read or made; written back on saving.
    pub source: Map<String, Value>,
}

/// What a scalar head is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ScalarHead {
    /// The score of a sequence, in place of the vocabulary projection: Hugging Face's sequence classification
    /// with one label.
    Score,
    /// The value of a state, beside the vocabulary projection; never saved.
    Value,
}

impl ScalarHead {
    /// The tensor's name in a checkpoint.
    pub fn tensor(self) -> &'static str {
        match self {
            Self::Score => "score.weight",
            Self::Value => "value.weight",
        }
    }
}

/// Size of a Llama-shaped model to be made at random.
#[derive(Clone, Copy, Debug)]
pub struct Size {
    pub vocab: usize,
    pub hidden: usize,
    pub layers: usize,
    pub heads: usize,
    pub kv_heads: usize,
    pub intermediate: usize,
    pub context: usize,
}

/// Largest size that a configuration may state: products of two fit a machine word.
const MOST: usize = 1 << 30;
/// Most layers: what is made per layer before a weight is read stays small.
const MOST_LAYERS: usize = 100_000;

/// The number of layers, within reason: each gets its description before a weight is read.
///
/// # Errors
/// More than [`MOST_LAYERS`].
pub(super) fn layers_within_reason(key: &str, count: usize) -> Result<usize> {
    ensure!(count <= MOST_LAYERS, "config.json: {key} is {count}; at most {MOST_LAYERS}");
    Ok(count)
}

impl DecoderConfig {
    /// A Llama of that size with tied embeddings.
    ///
    /// # Errors
    /// If heads do not divide the width or key/value heads do not divide the heads.
    pub fn llama(size: Size) -> Result<Self> {
        let Size { vocab, hidden, layers, heads, kv_heads, intermediate, context } = size;
        let source = json!({
            "architectures": ["LlamaForCausalLM"], "model_type": "llama", "vocab_size": vocab,
            "hidden_size": hidden, "num_hidden_layers": layers, "num_attention_heads": heads,
            "num_key_value_heads": kv_heads, "intermediate_size": intermediate, "hidden_act": "silu",
            "max_position_embeddings": context, "rms_norm_eps": 1e-5, "initializer_range": 0.02,
            "rope_theta": 10000.0, "tie_word_embeddings": true, "attention_bias": false, "mlp_bias": false,
            "bos_token_id": null, "eos_token_id": 0,
        });
        Self::from_json(&source)
    }

    /// Sizes that fit together, or an error that names both.
    pub(super) fn checked(self) -> Result<Self> {
        let Self { heads, kv_heads, hidden, vocab, head_dim, intermediate, .. } = self;
        for (name, value) in [
            ("num_attention_heads", heads),
            ("num_key_value_heads", kv_heads),
            ("hidden_size", hidden),
            ("vocab_size", vocab),
            ("head_dim", head_dim),
            ("intermediate_size", intermediate),
            ("num_hidden_layers", self.layers.len()),
        ] {
            ensure!(value > 0, "config.json: {name} is 0");
            ensure!(value <= MOST, "config.json: {name} is {value}; at most {MOST}");
        }
        let rows = heads.max(kv_heads) * head_dim;
        ensure!(rows <= MOST, "config.json: {heads} heads of width {head_dim} are more than {MOST} numbers");
        ensure!(
            heads.is_multiple_of(kv_heads),
            "config.json: num_key_value_heads {kv_heads} does not divide num_attention_heads {heads}"
        );
        for layer in &self.layers {
            ensure!(layer.window != Some(0), "config.json: sliding_window is 0");
            if let Some(rope) = layer.rope {
                ensure!(
                    rope.width > 0 && rope.width.next_multiple_of(2) <= head_dim,
                    "config.json: {} rotated components do not fit a head of width {head_dim}",
                    rope.width
                );
            }
        }
        Ok(self)
    }
}

impl Rope {
    /// θᵢ = base^(−2i/r), scaled; (⌈r/2⌉,).
    pub fn inverse_frequencies(&self) -> Vec<f64> {
        let plain = (0..self.width.div_ceil(2)).map(|i| self.base.powf(-2.0 * i as f64 / self.width as f64));
        plain.map(|f| self.scaling.apply(f)).collect()
    }
}

impl RopeScaling {
    fn apply(self, frequency: f64) -> f64 {
        match self {
            Self::None => frequency,
            Self::Linear(factor) => frequency / factor,
            Self::Llama3 { factor, low, high, original_context } => {
                let turns = original_context * frequency / std::f64::consts::TAU;
                let ramp = ((turns - low) / (high - low)).clamp(0.0, 1.0);
                (1.0 - ramp) * frequency / factor + ramp * frequency
            }
        }
    }
}
