//! Small models of each way that a projection lies in a checkpoint, and adapters on them.

use candle_core::{DType, Device, Tensor};
use kto_eval::base::seed;
use kto_eval::model::{Decoder, DecoderConfig, Packed};
use kto_eval::plan::LoraSpec;
use rand_chacha::rand_core::Rng;
use serde_json::json;

use super::{numbers, sequence};

/// Apart, fused by head (GPT-NeoX), transposed (GPT-2), and with a tied head (Gemma 2).
pub const FAMILIES: [&str; 4] = ["llama", "gpt_neox", "gpt2", "gemma2"];

/// Two layers of `width`, its projections drawn with the deviation `range`.
pub fn decoder(family: &str, width: usize, heads: usize, range: f64, dtype: DType) -> Decoder {
    let config = json!({
        "model_type": family, "vocab_size": 29, "hidden_size": width, "num_hidden_layers": 2,
        "num_attention_heads": heads, "num_key_value_heads": heads, "head_dim": width / heads,
        "intermediate_size": 2 * width, "max_position_embeddings": 64, "initializer_range": range,
        "tie_word_embeddings": false, "n_embd": width, "n_head": heads, "n_layer": 2, "n_positions": 64,
        "query_pre_attn_scalar": width / heads,
    });
    Decoder::random(DecoderConfig::from_json(&config).unwrap(), 7, dtype, &Device::Cpu).unwrap()
}

/// `base` with an adapter whose every A and B is `by` times a number between -1 and 1 away from where it begins.
pub fn moved(base: &Decoder, spec: &LoraSpec, by: f64) -> Decoder {
    let mut decoder = base.with_adapter(spec, 3).unwrap();
    for param in decoder.trained_mut() {
        let noise = numbers(&param.pieces[0].name, param.tensor.elem_count());
        let noise = Tensor::from_vec(noise, param.tensor.shape(), &Device::Cpu).unwrap();
        let noise = (noise * by).unwrap().to_dtype(param.tensor.dtype()).unwrap();
        param.tensor = (&param.tensor + noise).unwrap();
    }
    decoder
}

/// Two sequences that share their prompt, and one on its own.
pub fn batch() -> Packed {
    let row = |name: &str, n: usize| {
        let mut rng = seed::rng(19, name);
        (0..n).map(|_| rng.next_u32() % 29).collect::<Vec<u32>>()
    };
    let prompt = row("prompt", 4);
    let whole = |name: &str, n: usize| sequence(&[prompt.clone(), row(name, n)].concat(), 4);
    let mut packed = Packed::default();
    packed.push_group(&[&whole("a", 5), &whole("b", 3)]);
    packed.push_group(&[&sequence(&row("c", 9), 2)]);
    packed
}

/// A token's log-prob by a step through the cache is within `tolerance` of the one by a forward pass.
pub fn assert_cached_step(decoder: &Decoder, tolerance: f64) {
    let row = [3u32, 7, 1, 20, 5, 9];
    let mut cache = decoder.new_cache(1, 8).unwrap();
    decoder.step(&mut cache, &[(0, &row[..4])]).unwrap();
    let logits = decoder.step(&mut cache, &[(0, &row[4..5])]).unwrap();
    let logits: Vec<f64> =
        logits.get(0).unwrap().to_vec1::<f32>().unwrap().iter().map(|x| f64::from(*x)).collect();
    let total = logits.iter().map(|x| x.exp()).sum::<f64>().ln();
    let wanted = decoder.logps(&Packed::of([&sequence(&row, 5)])).unwrap()[0];
    assert!((logits[row[5] as usize] - total - wanted).abs() < tolerance);
}
