//! Tokens per second of the generation engine: `cargo bench --bench generate -- [MODEL_DIR]`.
//!
//! Prints one JSON object a line: slots, tokens per second (generated tokens over wall time, prompts
//! included), memory of the KV cache. Every sample runs to the limit, so that runs are comparable;
//! `benches/vs_hf_generate.py` runs this in turns with Hugging Face `generate`.

use std::path::Path;
use std::time::Instant;

use candle_core::{DType, Device};
use kto_eval::base::error::Result;
use kto_eval::model::generate::{Decoding, Request, Text, generate};
use kto_eval::model::{Decoder, DecoderConfig, Size};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const PROMPTS: usize = 16;
const NEW_TOKENS: usize = 128;

fn main() -> Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).filter(|a| !a.starts_with("--")).collect();
    let model = match arguments.first() {
        Some(dir) => Decoder::load(Path::new(dir), DType::F32, &Device::Cpu)?,
        None => {
            let size = Size {
                vocab: 6144,
                hidden: 256,
                layers: 6,
                heads: 4,
                kv_heads: 2,
                intermediate: 704,
                context: 1024,
            };
            Decoder::random(DecoderConfig::llama(size)?, 0, DType::F32, &Device::Cpu)?
        }
    };
    let vocab = model.config().vocab;
    // Prompts of 32 to 92 tokens, as in the comparison with Hugging Face.
    let prompt = |i: usize| (0..32 + 4 * i).map(|j| (2 + (i * 131 + j * 17) % (vocab - 2)) as u32).collect();
    let requests: Vec<Request> =
        (0..PROMPTS).map(|i| Request { id: i.to_string(), prompt: prompt(i) }).collect();
    let nothing = |_: &[u32]| Ok(String::new());
    let text = Text { decode: &nothing, eos: &[] };
    for (name, temperature) in [("greedy", 0.0), ("sampled", 1.0)] {
        let decoding = Decoding { max_new_tokens: NEW_TOKENS, temperature, ..Decoding::default() };
        for slots in [1, 4, 16] {
            let start = Instant::now();
            let done = generate(&model, text, &requests, &decoding, 0, slots)?;
            let seconds = start.elapsed().as_secs_f64();
            println!(
                "{{\"decoding\": \"{name}\", \"slots\": {slots}, \"tokens\": {}, \"seconds\": {seconds:.3}, \
                 \"tokens_per_second\": {:.1}, \"cache_mib\": {:.2}}}",
                done.new_tokens,
                done.new_tokens as f64 / seconds,
                done.cache_bytes as f64 / (1 << 20) as f64
            );
        }
    }
    Ok(())
}
