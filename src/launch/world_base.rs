//! The planted-truth world's own base checkpoint: a small decoder trained on the whole pool of answers, good
//! and bad, so that it answers well sometimes and badly sometimes.

use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;

use candle_core::{DType, Device};

use super::observer::Observer;
use crate::base::cache;
use crate::base::error::{Context, HintExt, Result, ensure};
use crate::base::hash::Hasher;
use crate::data::world::World;
use crate::data::{Tokenizer, tokenize_unpaired};
use crate::model::{Decoder, DecoderConfig, Size};
use crate::plan::{Budget, LoraSpec, Method, Order, Schedule, TrainSpec, WorldSpec};
use crate::train::{Ended, Hooks, Job, TrainData, train};

/// Raised when the recipe below changes, so that no older checkpoint is taken for its result.
const RECIPE: u32 = 1;
const CORPUS: usize = 24_000;
const TOKENS: u64 = 900_000;

fn recipe() -> TrainSpec {
    TrainSpec {
        batch_size: 64,
        micro_tokens: 2048,
        gradient_checkpointing: false,
        order: Order::Shuffled,
        learning_rate: 2e-3,
        schedule: Schedule::Cosine,
        warmup: 0.05,
        adam_beta1: 0.9,
        adam_beta2: 0.99,
        adam_epsilon: 1e-8,
        weight_decay: 0.01,
        max_grad_norm: 1.0,
        lora: LoraSpec::default(),
    }
}

/// A Hugging Face directory with the world's base checkpoint: from the user's cache, or trained now.
///
/// The bits depend on the machine and its number of threads (rounding), so these are part of the address.
pub(super) fn checkpoint(spec: &WorldSpec, observer: &mut dyn Observer) -> Result<PathBuf> {
    let world = World::new(spec)?;
    let address = Hasher::new("kto-eval/world-base")
        .part(&RECIPE.to_le_bytes())
        .part(&spec.seed.to_le_bytes())
        .part(format!("{:?} {:?}", world.config(), recipe()).as_bytes())
        .part(serde_json::to_string(&world.tokenizer_json())?.as_bytes())
        .part(&(CORPUS as u64).to_le_bytes())
        .part(&TOKENS.to_le_bytes())
        .part(env!("CARGO_PKG_VERSION").as_bytes())
        .part(&(rayon::current_num_threads() as u64).to_le_bytes())
        .short();
    let folder = cache::user_folder().unwrap_or_else(std::env::temp_dir).join("world");
    let ready = folder.join(address);
    if ready.join("config.json").exists() {
        return Ok(ready);
    }
    observer.stage("training the world's base checkpoint (once; kept in the cache)");
    let aside =
        folder.join(format!(".{}-{}", ready.file_name().unwrap_or_default().display(), std::process::id()));
    std::fs::create_dir_all(&aside)
        .with_context(|| format!("creating {}", aside.display()))
        .hint(cache::ELSEWHERE)?;
    make(&world, spec.seed, &aside, observer)?;
    // Another process may have been quicker; its checkpoint has the same address and so the same content.
    if std::fs::rename(&aside, &ready).is_err() {
        std::fs::remove_dir_all(&aside).ok();
        ensure!(ready.exists(), "cannot write the world's base checkpoint to {}", ready.display());
    }
    Ok(ready)
}

/// The base model's shape.
pub(super) fn config(world: &World) -> Result<DecoderConfig> {
    let c = world.config();
    DecoderConfig::llama(Size {
        vocab: c.vocab_size,
        hidden: c.hidden_size,
        layers: c.layers,
        heads: c.heads,
        kv_heads: c.kv_heads,
        intermediate: c.intermediate_size,
        context: c.max_positions,
    })
}

fn make(world: &World, seed: u64, dir: &Path, observer: &mut dyn Observer) -> Result<()> {
    world.write_tokenizer(dir)?;
    let tokenizer = Tokenizer::load(dir)?;
    let (c, config) = (world.config(), config(world)?);
    let mut policy = Decoder::random(config, seed, DType::F32, &Device::Cpu)?;
    let mut corpus = world.pretrain_corpus(CORPUS, 0);
    // The base imitates the whole pool: nothing is left out for being bad.
    corpus.iter_mut().for_each(|e| e.desirable = true);
    let (examples, _) = tokenize_unpaired(&corpus, &tokenizer, c.max_positions)?;
    let job = Job {
        method: &Method::Sft,
        spec: &recipe(),
        budget: Budget::Tokens(TOKENS),
        seed,
        max_length: c.max_positions,
        data: TrainData::Unpaired(&examples),
        reference: None,
    };
    let outcome = train(
        &mut policy,
        &job,
        &mut Hooks {
            step: &mut |_| Ok(()),
            progress: &mut |p| observer.training(p),
            abort: &AtomicBool::new(false),
        },
    )?;
    if let Ended::Diverged(why) = outcome.ended {
        return Err(crate::base::error::anyhow!("the world's base checkpoint diverged: {why}"));
    }
    policy.save(dir)
}
