//! `config.json` of each family, as transformers 4 and 5 write it, to a [`DecoderConfig`].

use serde_json::{Map, Value};

use super::config::{
    Activation, DecoderConfig, Family, LayerKind, NormKind, NormPlacement, QkNorm, Rope, RopeScaling,
    layers_within_reason,
};
use crate::base::error::{HintExt, Result, anyhow, bail};

/// (`model_type`, family)
pub const FAMILIES: [(&str, Family); 9] = [
    ("llama", Family::Llama),
    ("mistral", Family::Mistral),
    ("qwen2", Family::Qwen2),
    ("qwen3", Family::Qwen3),
    ("gpt_neox", Family::GptNeox),
    ("gpt2", Family::Gpt2),
    ("gemma2", Family::Gemma2),
    ("gemma3_text", Family::Gemma3),
    ("olmo2", Family::Olmo2),
];

/// Typed access to one JSON object, null being absent.
struct Keys<'a>(&'a Map<String, Value>);

impl<'a> Keys<'a> {
    fn get(&self, key: &str) -> Option<&'a Value> {
        self.0.get(key).filter(|v| !v.is_null())
    }
    fn wrong(key: &str, value: &Value, wanted: &str) -> anyhow::Error {
        anyhow!("config.json: {key} is {value}, expected {wanted}")
    }
    fn size(&self, key: &str) -> Result<Option<usize>> {
        let value = self.get(key);
        value
            .map(|v| v.as_u64().map(|n| n as usize).ok_or_else(|| Self::wrong(key, v, "a whole number")))
            .transpose()
    }
    fn need(&self, key: &str) -> Result<usize> {
        self.size(key)?.ok_or_else(|| anyhow!("config.json: {key} is missing"))
    }
    fn number(&self, key: &str) -> Result<Option<f64>> {
        self.get(key).map(|v| v.as_f64().ok_or_else(|| Self::wrong(key, v, "a number"))).transpose()
    }
    fn flag(&self, key: &str, default: bool) -> Result<bool> {
        let value = self.get(key);
        Ok(value
            .map(|v| v.as_bool().ok_or_else(|| Self::wrong(key, v, "true or false")))
            .transpose()?
            .unwrap_or(default))
    }
    fn text(&self, key: &str) -> Option<&'a str> {
        self.get(key).and_then(Value::as_str)
    }
    fn object(&self, key: &str) -> Option<Keys<'a>> {
        self.get(key).and_then(Value::as_object).map(Keys)
    }
}

fn activation(name: &str) -> Result<Activation> {
    Ok(match name {
        "silu" | "swish" => Activation::Silu,
        "gelu" => Activation::GeluErf,
        "gelu_new" | "gelu_pytorch_tanh" | "gelu_fast" => Activation::GeluTanh,
        "relu" => Activation::Relu,
        _ => bail!(
            "config.json: unsupported activation `{name}` (known: silu, swish, gelu, gelu_new, gelu_pytorch_tanh, gelu_fast, relu)"
        ),
    })
}

impl DecoderConfig {
    /// Reads the object in `config.json`.
    ///
    /// # Errors
    /// An unsupported family (the supported ones are listed), a missing or mistyped key, sizes that do not fit.
    pub fn from_json(config: &Value) -> Result<Self> {
        let source = config.as_object().ok_or_else(|| anyhow!("config.json: not a JSON object"))?;
        let keys = Keys(source);
        let known: Vec<&str> = FAMILIES.iter().map(|(name, _)| *name).collect();
        let name = keys.text("model_type").unwrap_or("");
        let Some((_, family)) = FAMILIES.iter().find(|(n, _)| *n == name) else {
            return Err(anyhow!("unsupported model family `{name}` (supported: {})", known.join(", ")))
                .hint("model_type in config.json names the family");
        };
        let config = match family {
            Family::Gpt2 => gpt2(&keys)?,
            Family::GptNeox => gpt_neox(&keys)?,
            _ => llama_like(&keys, *family)?,
        };
        let scalar = super::reward::scalar_head(source)?;
        // A scored sequence needs no vocabulary projection, and its checkpoint has none.
        let tied = config.tied || scalar.is_some();
        DecoderConfig { source: source.clone(), scalar, tied, ..config }.checked()
    }
}

/// Everything that shares Llama's key names.
fn llama_like(keys: &Keys<'_>, family: Family) -> Result<DecoderConfig> {
    let gemma = matches!(family, Family::Gemma2 | Family::Gemma3);
    let (hidden, heads) = (keys.need("hidden_size")?, keys.need("num_attention_heads")?);
    let default_head = match family {
        Family::Gemma2 | Family::Gemma3 => 256,
        Family::Qwen3 => 128,
        _ => hidden / heads.max(1),
    };
    let head_dim = keys.size("head_dim")?.unwrap_or(default_head);
    let act = keys.text("hidden_activation").or(keys.text("hidden_act"));
    let attention_bias = keys.flag("attention_bias", false)?;
    let scale = match keys.number("query_pre_attn_scalar")? {
        Some(scalar) if gemma => scalar.powf(-0.5),
        _ if gemma => 256f64.powf(-0.5),
        _ => (head_dim as f64).powf(-0.5),
    };
    let softcap = |key: &str| if family == Family::Gemma2 { keys.number(key) } else { Ok(None) };
    let default_eps = if matches!(family, Family::Olmo2) { 1e-5 } else { 1e-6 };
    Ok(DecoderConfig {
        family,
        vocab: keys.need("vocab_size")?,
        hidden,
        heads,
        kv_heads: keys.size("num_key_value_heads")?.unwrap_or(heads),
        head_dim,
        intermediate: keys.need("intermediate_size")?,
        max_positions: keys.size("max_position_embeddings")?.unwrap_or(2048),
        layers: layer_kinds(keys, family, head_dim)?,
        norm: if gemma { NormKind::RmsPlusOne } else { NormKind::Rms },
        norm_eps: keys.number("rms_norm_eps")?.unwrap_or(default_eps),
        placement: match family {
            Family::Gemma2 | Family::Gemma3 => NormPlacement::Around,
            Family::Olmo2 => NormPlacement::After,
            _ => NormPlacement::Before,
        },
        qk_norm: match family {
            Family::Qwen3 | Family::Gemma3 => Some(QkNorm::PerHead),
            Family::Olmo2 => Some(QkNorm::WholeRow),
            _ => None,
        },
        parallel_residual: false,
        learned_positions: false,
        qkv_bias: family == Family::Qwen2 || attention_bias,
        out_bias: family != Family::Qwen2 && attention_bias,
        mlp_bias: family == Family::Llama && keys.flag("mlp_bias", false)?,
        activation: activation(act.unwrap_or(if gemma { "gelu_pytorch_tanh" } else { "silu" }))?,
        gated: true,
        attention_scale: scale,
        attention_softcap: softcap("attn_logit_softcapping")?,
        final_softcap: softcap("final_logit_softcapping")?,
        embedding_scale: if gemma { (hidden as f64).sqrt() } else { 1.0 },
        tied: keys.flag("tie_word_embeddings", gemma)?,
        scalar: None,
        init_std: keys.number("initializer_range")?.unwrap_or(0.02),
        source: Map::new(),
    })
}

fn gpt_neox(keys: &Keys<'_>) -> Result<DecoderConfig> {
    let (hidden, heads) = (keys.need("hidden_size")?, keys.need("num_attention_heads")?);
    let head_dim = hidden / heads.max(1);
    let bias = keys.flag("attention_bias", true)?;
    Ok(DecoderConfig {
        family: Family::GptNeox,
        vocab: keys.need("vocab_size")?,
        hidden,
        heads,
        kv_heads: heads,
        head_dim,
        intermediate: keys.size("intermediate_size")?.unwrap_or(hidden.saturating_mul(4)),
        max_positions: keys.size("max_position_embeddings")?.unwrap_or(2048),
        layers: layer_kinds(keys, Family::GptNeox, head_dim)?,
        norm: NormKind::Layer,
        norm_eps: keys.number("layer_norm_eps")?.unwrap_or(1e-5),
        placement: NormPlacement::Before,
        qk_norm: None,
        parallel_residual: keys.flag("use_parallel_residual", true)?,
        learned_positions: false,
        qkv_bias: bias,
        out_bias: bias,
        mlp_bias: true,
        activation: activation(keys.text("hidden_act").unwrap_or("gelu"))?,
        gated: false,
        attention_scale: (head_dim as f64).powf(-0.5),
        attention_softcap: None,
        final_softcap: None,
        embedding_scale: 1.0,
        tied: keys.flag("tie_word_embeddings", false)?,
        scalar: None,
        init_std: keys.number("initializer_range")?.unwrap_or(0.02),
        source: Map::new(),
    })
}

fn gpt2(keys: &Keys<'_>) -> Result<DecoderConfig> {
    for (key, usual) in [("scale_attn_weights", true), ("scale_attn_by_inverse_layer_idx", false)] {
        if keys.flag(key, usual)? != usual {
            bail!("config.json: {key} = {} is not supported (known: {usual})", !usual);
        }
    }
    let (hidden, heads) = (keys.need("n_embd")?, keys.need("n_head")?);
    let head_dim = hidden / heads.max(1);
    Ok(DecoderConfig {
        family: Family::Gpt2,
        vocab: keys.need("vocab_size")?,
        hidden,
        heads,
        kv_heads: heads,
        head_dim,
        intermediate: keys.size("n_inner")?.unwrap_or(hidden.saturating_mul(4)),
        max_positions: keys.size("n_positions")?.unwrap_or(1024),
        layers: vec![
            LayerKind { window: None, rope: None };
            layers_within_reason("n_layer", keys.need("n_layer")?)?
        ],
        norm: NormKind::Layer,
        norm_eps: keys.number("layer_norm_epsilon")?.unwrap_or(1e-5),
        placement: NormPlacement::Before,
        qk_norm: None,
        parallel_residual: false,
        learned_positions: true,
        qkv_bias: true,
        out_bias: true,
        mlp_bias: true,
        activation: activation(keys.text("activation_function").unwrap_or("gelu_new"))?,
        gated: false,
        attention_scale: (head_dim as f64).powf(-0.5),
        attention_softcap: None,
        final_softcap: None,
        embedding_scale: 1.0,
        tied: keys.flag("tie_word_embeddings", true)?,
        scalar: None,
        init_std: keys.number("initializer_range")?.unwrap_or(0.02),
        source: Map::new(),
    })
}

/// Window and rotary embedding of each layer.
fn layer_kinds(keys: &Keys<'_>, family: Family, head_dim: usize) -> Result<Vec<LayerKind>> {
    let count = layers_within_reason("num_hidden_layers", keys.need("num_hidden_layers")?)?;
    let sliding = sliding_layers(keys, family, count)?;
    let window = keys.size("sliding_window")?;
    let global = rope(keys, family, head_dim, "full_attention")?;
    let local =
        if family == Family::Gemma3 { rope(keys, family, head_dim, "sliding_attention")? } else { global };
    let kind = |&slides: &bool| LayerKind {
        window: if slides { window } else { None },
        rope: Some(if slides { local } else { global }),
    };
    Ok(sliding.iter().map(kind).collect())
}

/// Which layers attend within a window: as listed in `layer_types`, or by the family's older rule.
fn sliding_layers(keys: &Keys<'_>, family: Family, count: usize) -> Result<Vec<bool>> {
    if let Some(types) = keys.get("layer_types").and_then(Value::as_array) {
        if types.len() != count {
            bail!("config.json: {} layer_types for {count} layers", types.len());
        }
        let slides = |t: &Value| match t.as_str() {
            Some("sliding_attention") => Ok(true),
            Some("full_attention") => Ok(false),
            _ => Err(anyhow!(
                "config.json: unsupported layer type {t} (known: full_attention, sliding_attention)"
            )),
        };
        return types.iter().map(slides).collect();
    }
    let by_rule: Box<dyn Fn(usize) -> bool> = match family {
        Family::Mistral => Box::new(|_| true),
        Family::Qwen2 | Family::Qwen3 => {
            let used = keys.flag("use_sliding_window", false)?;
            let from = keys.size("max_window_layers")?.unwrap_or(28);
            Box::new(move |i| used && i >= from)
        }
        Family::Gemma2 => Box::new(|i| i % 2 == 0),
        Family::Gemma3 => {
            let old = keys.size("sliding_window_pattern")?;
            let pattern = old.or(keys.size("_sliding_window_pattern")?).unwrap_or(6).max(1);
            Box::new(move |i| (i + 1) % pattern != 0)
        }
        _ => Box::new(|_| false),
    };
    Ok((0..count).map(by_rule).collect())
}

/// Rotary parameters: `rope_parameters` (transformers 5, per layer type for Gemma 3), or `rope_theta` and
/// `rope_scaling` (transformers 4).
fn rope(keys: &Keys<'_>, family: Family, head_dim: usize, layer_type: &str) -> Result<Rope> {
    let new = keys.object("rope_parameters").map(|p| p.object(layer_type).unwrap_or(p));
    let local = family == Family::Gemma3 && layer_type == "sliding_attention";
    let default_base = if family == Family::Gemma3 && !local { 1e6 } else { 1e4 };
    let old_key = match family {
        Family::GptNeox if keys.get("rope_theta").is_none() => "rotary_emb_base",
        Family::Gemma3 if local => "rope_local_base_freq",
        _ => "rope_theta",
    };
    let given = new.as_ref().map(|p| p.number("rope_theta")).transpose()?.flatten();
    let base = given.or(keys.number(old_key)?).unwrap_or(default_base);
    let part = new.as_ref().map(|p| p.number("partial_rotary_factor")).transpose()?.flatten();
    let default_part = if family == Family::GptNeox { 0.25 } else { 1.0 };
    let old_part = if family == Family::GptNeox {
        keys.number("rotary_pct")?
    } else {
        keys.number("partial_rotary_factor")?
    };
    let width = (head_dim as f64 * part.or(old_part).unwrap_or(default_part)) as usize;
    // Gemma 3 scales its global layers only.
    let old_scaling = if local { None } else { keys.object("rope_scaling") };
    let scaling = match new.or(old_scaling) {
        Some(parameters) => rope_scaling(&parameters)?,
        None => RopeScaling::None,
    };
    Ok(Rope { base, width, scaling })
}

fn rope_scaling(keys: &Keys<'_>) -> Result<RopeScaling> {
    let need =
        |key: &str| keys.number(key)?.ok_or_else(|| anyhow!("config.json: rotary scaling without {key}"));
    match keys.text("rope_type").or(keys.text("type")).unwrap_or("default") {
        "default" => Ok(RopeScaling::None),
        "linear" => Ok(RopeScaling::Linear(need("factor")?)),
        "llama3" => Ok(RopeScaling::Llama3 {
            factor: need("factor")?,
            low: need("low_freq_factor")?,
            high: need("high_freq_factor")?,
            original_context: need("original_max_position_embeddings")?,
        }),
        other => bail!("config.json: unsupported rotary scaling `{other}` (known: default, linear, llama3)"),
    }
}
