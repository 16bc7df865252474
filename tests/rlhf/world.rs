//! On the planted-truth world: a reward model learns what its labels say, and a policy that learns from its own
//! samples answers better on prompts that it has never seen.

use std::sync::OnceLock;
use std::sync::atomic::AtomicBool;

use candle_core::{DType, Device};
use kto_eval::base::seed;
use kto_eval::data::world::{World, WorldPrompt, gold_reward};
use kto_eval::data::{TokenizedPair, Tokenizer, tokenize_pairs, tokenize_unpaired};
use kto_eval::launch::reward_quality;
use kto_eval::model::generate::{Decoding, Request, Text, generate};
use kto_eval::model::{Decoder, DecoderConfig, Size};
use kto_eval::plan::*;
use kto_eval::train::online::{
    KEEP_BYTES, OnlineHooks, OnlineJob, RolloutMetrics, heldout_margins, train_online, train_reward_model,
};
use kto_eval::train::{Ended, Hooks, Job, TrainData, train};

/// A world with a checkpoint that has read a part of the pool's answers.
struct Ground {
    world: World,
    tokenizer: Tokenizer,
    base: Decoder,
    pairs: Vec<TokenizedPair>,
    heldout: Vec<TokenizedPair>,
    prompts: Vec<WorldPrompt>,
}

fn spec() -> TrainSpec {
    TrainSpec { batch_size: 32, micro_tokens: 1024, learning_rate: 5e-4, warmup: 0.1, ..TrainSpec::default() }
}

fn ground() -> &'static Ground {
    static GROUND: OnceLock<Ground> = OnceLock::new();
    GROUND.get_or_init(|| {
        let world =
            World::new(&WorldSpec { train_pairs: 2000, heldout_pairs: 400, ..WorldSpec::default() }).unwrap();
        let dir = tempfile::tempdir().unwrap();
        world.write_tokenizer(dir.path()).unwrap();
        let tokenizer = Tokenizer::load(dir.path()).unwrap();
        let c = world.config();
        let size = Size {
            vocab: c.vocab_size,
            hidden: 64,
            layers: c.layers,
            heads: c.heads,
            kv_heads: c.kv_heads,
            intermediate: 172,
            context: c.max_positions,
        };
        let mut base =
            Decoder::random(DecoderConfig::llama(size).unwrap(), 1, DType::F32, &Device::Cpu).unwrap();
        let mut corpus = world.pretrain_corpus(12_000, 0);
        corpus.iter_mut().for_each(|e| e.desirable = true);
        let (examples, _) = tokenize_unpaired(&corpus, &tokenizer, 64).unwrap();
        let job = Job {
            method: &Method::Sft,
            spec: &TrainSpec { batch_size: 64, learning_rate: 4e-3, ..spec() },
            budget: Budget::Tokens(400_000),
            seed: 1,
            max_length: 64,
            data: TrainData::Unpaired(&examples),
            reference: None,
        };
        let outcome = train(&mut base, &job, &mut quiet(&AtomicBool::new(false))).unwrap();
        assert_eq!(outcome.ended, Ended::Done);
        let tokenize = |pairs| tokenize_pairs(pairs, &tokenizer, 64).unwrap().0;
        let (pairs, heldout) = (tokenize(&world.train_pairs()), tokenize(&world.heldout_pairs()));
        let prompts = world.heldout_prompts();
        Ground { world, tokenizer, base, pairs, heldout, prompts }
    })
}

fn quiet(abort: &AtomicBool) -> Hooks<'_> {
    // Nothing is captured, so that the closures may live as long as the program.
    Hooks { step: Box::leak(Box::new(|_: &_| Ok(()))), progress: Box::leak(Box::new(|_| ())), abort }
}

impl Ground {
    /// Mean gold reward of samples on held-out prompts.
    fn gold(&self, policy: &Decoder, seed: u64) -> f64 {
        let prompts = &self.prompts[..200];
        let request =
            |p: &WorldPrompt| Request { id: p.id.clone(), prompt: self.tokenizer.encode(&p.prompt).unwrap() };
        let requests: Vec<Request> = prompts.iter().map(request).collect();
        let decoding = Decoding { max_new_tokens: 16, temperature: 1.0, ..Decoding::default() };
        let decode = |ids: &[u32]| self.tokenizer.decode(ids);
        let text = Text { decode: &decode, eos: self.tokenizer.stops() };
        let generated =
            generate(policy, text, &requests, &decoding, seed::derive(seed, "test/world"), 64).unwrap();
        let rewards =
            prompts.iter().zip(&generated.generations).map(|(p, g)| gold_reward(&p.prompt, &g.text));
        rewards.sum::<f64>() / prompts.len() as f64
    }

    /// Trains from the base; the policy and its rollouts.
    fn online(&self, method: &Method, budget: Budget, seed: u64) -> (Decoder, Vec<RolloutMetrics>) {
        let mut policy = self.base.duplicate().unwrap();
        let decode = |ids: &[u32]| self.tokenizer.decode(ids);
        let job = OnlineJob {
            method,
            spec: &spec(),
            budget,
            seed,
            max_length: 64,
            data: TrainData::Paired(&self.pairs),
            reference: &self.base,
            text: Text { decode: &decode, eos: self.tokenizer.stops() },
            pad: self.tokenizer.pad(),
            gold: Some(gold_reward),
            keep_bytes: KEEP_BYTES,
        };
        let mut rollouts = vec![];
        let mut hooks = OnlineHooks {
            step: &mut |_| Ok(()),
            rollout: &mut |r| {
                rollouts.push(RolloutMetrics { seconds: 0.0, ..r.clone() });
                Ok(())
            },
            progress: &mut |_| (),
            abort: &AtomicBool::new(false),
        };
        let outcome = train_online(&mut policy, &job, &mut hooks).unwrap();
        assert_eq!(outcome.train.ended, Ended::Done, "{} under seed {seed}", method.name());
        (policy, rollouts)
    }
}

/// t of the mean against 0.
fn t(values: &[f64]) -> f64 {
    let n = values.len() as f64;
    let mean = values.iter().sum::<f64>() / n;
    let variance = values.iter().map(|v| (v - mean).powi(2)).sum::<f64>() / (n - 1.0);
    mean / (variance / n).sqrt()
}

#[test]
fn ppo_and_rloo_raise_the_gold_reward_of_unseen_prompts_under_five_seeds_in_any_order() {
    let ground = ground();
    let online = OnlineSpec { reward: RewardFrom::Gold, max_new_tokens: 16, ..OnlineSpec::default() };
    let ppo = OnlineSpec { samples: 1, epochs: 2, ..online.clone() };
    for (method, steps) in [(Method::Rloo(online), 24), (Method::Ppo(ppo), 48)] {
        let mut gains = vec![];
        let mut first = None;
        for seed in [4, 2, 5, 1, 3] {
            let (policy, rollouts) = ground.online(&method, Budget::Steps(steps), seed);
            gains.push(ground.gold(&policy, seed) - ground.gold(&ground.base, seed));
            first.get_or_insert((seed, rollouts));
        }
        println!(
            "{}: gold reward of unseen prompts raised by {gains:.3?}, t = {:.1}",
            method.name(),
            t(&gains)
        );
        // One-sided, 4 degrees of freedom: 3.75 is the 99 % point.
        assert!(t(&gains) > 3.75, "{}: {gains:?}", method.name());
        // What other seeds did before or between changes nothing.
        let (seed, rollouts) = first.unwrap();
        let (_, again) = ground.online(&method, Budget::Steps(3), seed);
        let same = |a: &RolloutMetrics, b: &RolloutMetrics| {
            (a.reward, a.gold, a.length) == (b.reward, b.gold, b.length)
        };
        assert!(same(&again[0], &rollouts[0]), "{:?} {:?}", again[0], rollouts[0]);
    }
}

#[test]
fn a_reward_model_ranks_unseen_pairs_nearly_as_well_as_their_noise_allows() {
    let ground = ground();
    let job = Job {
        method: &Method::Reward,
        spec: &TrainSpec { learning_rate: 1e-3, ..spec() },
        budget: Budget::Examples(8_000),
        seed: 1,
        max_length: 64,
        data: TrainData::Paired(&ground.pairs),
        reference: None,
    };
    let abort = AtomicBool::new(false);
    let (model, outcome) =
        train_reward_model(&ground.base, ground.tokenizer.pad(), &job, &mut quiet(&abort)).unwrap();
    assert_eq!(outcome.ended, Ended::Done);
    let quality = reward_quality(&heldout_margins(&model, &ground.heldout).unwrap()).unwrap();
    println!("{quality}; the gold reward itself: {:.3}", ground.world.ceiling());
    let above_chance = (quality.accuracy - 0.5) / quality.accuracy_standard_error;
    assert!(above_chance > 5.0, "{quality}");
    assert!(quality.accuracy < ground.world.ceiling() + 3.0 * quality.accuracy_standard_error, "{quality}");
    // Better than knowing nothing (log 2, and a quarter), and honest about it.
    assert!(quality.loss < 0.95 * 2f64.ln() && quality.brier < 0.24, "{quality}");
    assert!(quality.expected_calibration_error < 0.12, "{quality}");
}
