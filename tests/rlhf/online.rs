//! The online loop on a planted reward: it rises, the same seed gives the same bits, the ledger adds up, and what
//! goes wrong is named.

use std::sync::atomic::AtomicBool;

use candle_core::{DType, Device};
use kto_eval::base::error::{Result, render};
use kto_eval::base::seed;
use kto_eval::data::{Sequence, TokenizedPair};
use kto_eval::model::generate::Text;
use kto_eval::model::{Decoder, DecoderConfig, Param, Size};
use kto_eval::plan::*;
use kto_eval::train::online::{
    GoldReward, KEEP_BYTES, OnlineHooks, OnlineJob, OnlineOutcome, Phase, RolloutMetrics, train_online,
};
use kto_eval::train::{Ended, Outcome, StepMetrics, TrainData};
use rand::RngExt;

const EOS: u32 = 0;

fn start() -> Decoder {
    let size =
        Size { vocab: 12, hidden: 16, layers: 1, heads: 2, kv_heads: 2, intermediate: 32, context: 32 };
    Decoder::random(DecoderConfig::llama(size).unwrap(), 1, DType::F32, &Device::Cpu).unwrap()
}

/// `3 7 7 `: the ids, EOS left out.
fn decode(ids: &[u32]) -> Result<String> {
    Ok(ids.iter().filter(|&&id| id != EOS).map(|id| format!("{id} ")).collect())
}

/// The share of sevens.
fn sevens(_prompt: &str, text: &str) -> f64 {
    let words: Vec<&str> = text.split_whitespace().collect();
    words.iter().filter(|w| **w == "7").count() as f64 / words.len().max(1) as f64
}

/// Pairs whose chosen completion has more sevens.
fn pairs() -> Vec<TokenizedPair> {
    let mut rng = seed::rng(9, "test/online-pairs");
    (0..64)
        .map(|i| {
            let prompt: Vec<u32> = vec![1 + i % 11, 1 + i / 11];
            let mut side = |often: f64| {
                let word = |_| if rng.random_bool(often) { 7 } else { rng.random_range(1..12) };
                let ids = prompt.iter().copied().chain((0..5).map(word)).chain([EOS]).collect();
                Sequence { ids, prompt_len: 2 }
            };
            let (chosen, rejected) = (side(0.6), side(0.1));
            TokenizedPair { id: format!("p{i}"), subset: String::new(), chosen, rejected }
        })
        .collect()
}

fn online() -> OnlineSpec {
    OnlineSpec {
        beta: 0.0,
        reward: RewardFrom::Gold,
        samples: 4,
        max_new_tokens: 6,
        reward_learning_rate: 3e-3,
        ..OnlineSpec::default()
    }
}

fn spec() -> TrainSpec {
    TrainSpec { batch_size: 16, micro_tokens: 64, learning_rate: 5e-3, ..TrainSpec::default() }
}

/// Multiplies the states that the head reads.
fn sharpen(decoder: &mut Decoder, by: f64) -> Result<()> {
    let norm = |p: &&mut Param| p.pieces[0].name == "model.norm.weight";
    let norm = decoder.params_mut().iter_mut().find(norm).unwrap();
    norm.tensor = (&norm.tensor * by)?;
    Ok(())
}

struct Ran {
    outcome: OnlineOutcome,
    rollouts: Vec<RolloutMetrics>,
    steps: Vec<StepMetrics>,
}

struct Setup {
    method: Method,
    spec: TrainSpec,
    budget: Budget,
    seed: u64,
    gold: Option<GoldReward>,
    /// What the log-probs of the reference's normed states are multiplied by: far from 1 it is another model.
    sharpness: f64,
    keep_bytes: usize,
}

impl Setup {
    fn new(method: Method, steps: u64) -> Self {
        Self {
            method,
            spec: spec(),
            budget: Budget::Steps(steps),
            seed: 5,
            gold: Some(sevens),
            sharpness: 1.0,
            keep_bytes: KEEP_BYTES,
        }
    }

    fn run(&self) -> Result<Ran> {
        let (mut reference, pairs) = (start(), pairs());
        if self.spec.lora.is_on() {
            // A frozen head of small weights says nearly the same of every state.
            sharpen(&mut reference, 8.0)?;
        }
        let mut policy = match self.spec.lora.is_on() {
            true => reference.with_adapter(&self.spec.lora, self.seed)?,
            false => start(),
        };
        let before = reference.weights_hash()?;
        if self.sharpness != 1.0 {
            sharpen(&mut reference, self.sharpness)?;
        }
        let job = OnlineJob {
            method: &self.method,
            spec: &self.spec,
            budget: self.budget,
            seed: self.seed,
            max_length: 32,
            data: TrainData::Paired(&pairs),
            reference: &reference,
            text: Text { decode: &decode, eos: &[EOS] },
            pad: EOS,
            gold: self.gold,
            keep_bytes: self.keep_bytes,
        };
        let (mut rollouts, mut steps) = (vec![], vec![]);
        let mut hooks = OnlineHooks {
            step: &mut |s| {
                steps.push(StepMetrics { seconds: 0.0, ..s.clone() });
                Ok(())
            },
            rollout: &mut |r| {
                rollouts.push(RolloutMetrics { seconds: 0.0, ..r.clone() });
                Ok(())
            },
            progress: &mut |p| assert!((0.0..=1.0).contains(&p.fraction)),
            abort: &AtomicBool::new(false),
        };
        let outcome = train_online(&mut policy, &job, &mut hooks)?;
        assert!(policy.config().scalar.is_none(), "the critic does not stay");
        if self.spec.lora.is_on() {
            assert_eq!(reference.weights_hash()?, before, "the weights below an adapter stay");
            let b = |p: &Param| p.pieces[0].name.contains("lora_");
            assert!(policy.trained().iter().all(b), "what is trained is the adapter");
        }
        Ok(Ran { outcome, rollouts, steps })
    }
}

fn methods() -> Vec<Method> {
    let ppo = OnlineSpec { samples: 1, epochs: 2, ..online() };
    vec![
        Method::Rloo(online()),
        Method::Grpo(online()),
        Method::Ppo(ppo),
        Method::OnlineDpo(OnlineSpec { beta: 0.1, ..online() }),
        Method::OnlineKto(OnlineSpec { beta: 0.1, ..online() }),
    ]
}

/// Mean reward of the first and of the last n rollouts.
fn ends(rollouts: &[RolloutMetrics], n: usize) -> (f64, f64) {
    let mean = |r: &[RolloutMetrics]| r.iter().map(|r| r.reward).sum::<f64>() / r.len() as f64;
    (mean(&rollouts[..n]), mean(&rollouts[rollouts.len() - n..]))
}

#[test]
fn every_method_raises_the_reward_under_five_seeds_and_repeats_itself_to_the_bit() {
    for method in methods() {
        let mut gains = vec![];
        for seed in 1..=5 {
            let run = || Setup { seed, ..Setup::new(method.clone(), 60) }.run().unwrap();
            let ran = run();
            assert_eq!(ran.outcome.train.ended, Ended::Done, "{}", method.name());
            let (first, last) = ends(&ran.rollouts, 5);
            gains.push(last - first);
            if seed == 1 {
                let again = run();
                assert_eq!(ran.rollouts, again.rollouts, "{}", method.name());
                assert_eq!(ran.steps, again.steps);
                assert_eq!(ran.outcome.train.weights, again.outcome.train.weights);
            }
        }
        let n = gains.len() as f64;
        let mean = gains.iter().sum::<f64>() / n;
        let deviation = (gains.iter().map(|g| (g - mean).powi(2)).sum::<f64>() / (n - 1.0)).sqrt();
        let t = mean / (deviation / n.sqrt());
        println!("{}: gains {gains:.3?}, t = {t:.1}", method.name());
        // One-sided, 4 degrees of freedom: 3.75 is the 99 % point.
        assert!(t > 3.75 && mean > 0.1, "{}: gains {gains:?}, t = {t}", method.name());
    }
}

#[test]
fn the_first_pass_finds_ratios_of_exactly_one_and_policy_and_reference_equal() {
    for method in methods().into_iter().take(3) {
        // Nothing is kept: each first pass computes anew what was recorded.
        let ran = Setup { keep_bytes: 0, ..Setup::new(method, 12) }.run().unwrap();
        assert!(ran.rollouts.iter().all(|r| r.first_ratio == Some(0.0)), "{:?}", ran.rollouts);
        assert_eq!(ran.rollouts[0].kl, Some(0.0));
        for check in &ran.outcome.train.checks {
            assert_eq!(check.outcome, Outcome::Passed, "{check:?}");
        }
    }
}

#[test]
fn forward_passes_that_are_kept_all_in_part_or_not_at_all_give_the_same_bits() {
    for method in methods().into_iter().take(3) {
        let run = |keep_bytes| Setup { keep_bytes, ..Setup::new(method.clone(), 12) }.run().unwrap();
        let all = run(usize::MAX);
        for bytes in [0, 60_000] {
            let other = run(bytes);
            assert_eq!(all.outcome.train.weights, other.outcome.train.weights, "{} {bytes}", method.name());
            assert_eq!((&all.rollouts, &all.steps), (&other.rollouts, &other.steps));
            assert_eq!(all.outcome.train.ledger.flops, other.outcome.train.ledger.flops);
        }
    }
}

#[test]
fn an_adapter_learns_too_and_its_reference_is_the_same_weights_without_it() {
    let lora = LoraSpec { rank: 4, alpha: 16.0, ..LoraSpec::default() };
    for method in methods() {
        let mut setup = Setup::new(method.clone(), 60);
        setup.spec = TrainSpec { lora: lora.clone(), learning_rate: 1e-2, ..spec() };
        let ran = setup.run().unwrap();
        assert_eq!(ran.outcome.train.ended, Ended::Done, "{}", method.name());
        for check in &ran.outcome.train.checks {
            assert_eq!(check.outcome, Outcome::Passed, "{} {check:?}", method.name());
        }
        assert!(ran.rollouts.iter().all(|r| r.first_ratio.unwrap_or(0.0) == 0.0));
        assert!(ran.rollouts[0].kl.unwrap().abs() < 1e-5, "{:?}", ran.rollouts[0].kl);
        let (first, last) = ends(&ran.rollouts, 5);
        // Were the adapter on in the reference too, the policy would never leave it.
        let kl = ran.rollouts.last().unwrap().kl.unwrap();
        println!("{} with an adapter: {first:.3} → {last:.3}, KL {kl:.3} nats", method.name());
        assert!(kl > 0.1, "{}: KL {kl}", method.name());
        assert!(last > first + 0.1, "{}: {first} → {last}", method.name());
        // Frozen weights are multiplied with twice, not three times.
        let full = Setup::new(method.clone(), 1).run().unwrap().outcome.phases.get(Phase::Optimisation);
        let mut one = Setup::new(method, 1);
        one.spec = TrainSpec { lora: LoraSpec { rank: 1, ..lora.clone() }, ..setup.spec.clone() };
        let adapted = one.run().unwrap().outcome.phases.get(Phase::Optimisation);
        let [adapted, full] = [adapted, full].map(|cost| cost.flops / cost.trained_tokens as f64);
        assert!(adapted < full, "{adapted} and {full} FLOPs a token");
    }
}

#[test]
fn a_very_strong_penalty_keeps_the_policy_at_the_reference() {
    let kl = |beta: f64| -> Vec<f64> {
        let with = |s: OnlineSpec| OnlineSpec { beta, ..s };
        let ppo = OnlineSpec { samples: 1, epochs: 2, ..online() };
        [Method::Rloo(with(online())), Method::Grpo(with(online())), Method::Ppo(with(ppo))]
            .into_iter()
            .map(|method| {
                let ran = Setup::new(method, 60).run().unwrap();
                ran.rollouts.iter().rev().take(5).map(|r| r.kl.unwrap()).sum::<f64>() / 5.0
            })
            .collect()
    };
    let (free, held) = (kl(0.0), kl(1000.0));
    println!("KL in nats a sample, rloo, grpo, ppo: free {free:.3?}, held {held:.4?}");
    for (free, held) in free.iter().zip(&held) {
        assert!(held.abs() < 0.1 * free && held.abs() < 0.1, "{held} against {free}");
    }
}

#[test]
fn the_ledger_is_the_sum_of_its_phases_and_every_currency_ends_near_its_budget() {
    let budgets = [
        Budget::Tokens(9_000),
        Budget::Flops(2.5e8),
        Budget::Examples(1500),
        Budget::Labels(900),
        Budget::Steps(40),
    ];
    for reward in [RewardFrom::Model, RewardFrom::Gold] {
        for budget in budgets {
            if (reward, budget) == (RewardFrom::Model, Budget::Labels(900)) {
                // Scores are no labels: a command refuses it.
                continue;
            }
            for method in [
                Method::Rloo(OnlineSpec { reward, ..online() }),
                Method::OnlineKto(OnlineSpec { reward, beta: 0.1, ..online() }),
            ] {
                let ran = Setup { budget, ..Setup::new(method.clone(), 0) }.run().unwrap();
                let (ledger, phases) = (ran.outcome.train.ledger, ran.outcome.phases);
                let spent = ledger.spent(budget) / budget.amount();
                let ended = &ran.outcome.train.ended;
                println!("{} {reward:?} {budget}: spent {spent:.4}", method.name());
                assert_eq!(*ended, Ended::Done, "{} {reward:?} {budget}", method.name());
                assert!((0.99..1.01).contains(&spent), "{} {reward:?} {budget}: {spent}", method.name());
                let last = ran.steps.last().unwrap().learning_rate;
                let asked = matches!(budget, Budget::Labels(_));
                assert!(
                    last > 0.0 || !asked,
                    "{} {reward:?} {budget}: the last update learns nothing",
                    method.name()
                );
                let sum: f64 = phases.spent().map(|(_, c)| c.flops).sum();
                assert!((sum / ledger.flops - 1.0).abs() < 1e-9, "{sum} of {}", ledger.flops);
                let trained: u64 = phases.spent().map(|(_, c)| c.trained_tokens).sum();
                assert_eq!(trained, ledger.policy_tokens);
                let sampled: u64 = ran.rollouts.iter().map(|r| r.sampled_tokens).sum();
                assert_eq!(phases.get(Phase::Sampling).forward_tokens, sampled);
                assert_eq!(ledger.steps, ran.steps.len() as u64);
                assert_eq!(ran.steps.last().unwrap().step, ledger.steps);
                assert_eq!(ran.steps.last().unwrap().total_policy_tokens, ledger.policy_tokens);
                let samples: u64 = ran.rollouts.iter().map(|r| r.samples).sum();
                let model = phases.get(Phase::RewardModel).trained_tokens;
                match reward {
                    RewardFrom::Gold => assert_eq!((ledger.labels, model), (samples, 0)),
                    RewardFrom::Model => {
                        assert!(model > 0 && phases.get(Phase::Scoring).forward_tokens > 0);
                        let labelled = ran.steps.iter().filter(|s| s.accuracy.is_some());
                        assert_eq!(ledger.labels, labelled.map(|s| s.desirable).sum::<u64>());
                        assert!(ran.outcome.reward_model.is_some());
                    }
                }
            }
        }
    }
}

#[test]
fn a_learned_reward_raises_the_gold_one_too() {
    let method = Method::Rloo(OnlineSpec { reward: RewardFrom::Model, ..online() });
    let ran = Setup::new(method, 100).run().unwrap();
    let gold = |r: &[RolloutMetrics]| r.iter().map(|r| r.gold.unwrap()).sum::<f64>() / r.len() as f64;
    let n = ran.rollouts.len();
    let (first, last) = (gold(&ran.rollouts[..5]), gold(&ran.rollouts[n - 5..]));
    println!("gold reward {first:.3} → {last:.3}");
    assert!(last > first + 0.1, "{first} → {last}");
}

#[test]
fn offline_ppo_learns_from_given_completions_and_draws_none() {
    let method = Method::PpoOffline(OnlineSpec { epochs: 2, ..online() });
    let ran = Setup::new(method, 60).run().unwrap();
    assert_eq!(ran.outcome.train.ended, Ended::Done);
    assert_eq!(ran.outcome.phases.get(Phase::Sampling).forward_tokens, 0);
    let labels: u64 = ran.rollouts.iter().map(|r| r.samples).sum();
    assert_eq!(ran.outcome.train.ledger.labels, labels);
    assert!(ran.rollouts.iter().all(|r| r.first_ratio == Some(0.0) && r.reward.abs() <= 1.0));
    let critic = |r: &[RolloutMetrics]| r.iter().map(|r| r.value_loss.unwrap()).sum::<f64>() / r.len() as f64;
    let n = ran.rollouts.len();
    let (first, last) = (critic(&ran.rollouts[..5]), critic(&ran.rollouts[n - 5..]));
    assert!(last < first, "the critic learns: {first} → {last}");
}

#[test]
fn what_goes_wrong_is_named_and_ends_the_run() {
    let ended = |setup: Setup| match setup.run().unwrap().outcome.train.ended {
        Ended::Diverged(why) => why,
        other => panic!("{other:?}"),
    };
    let rloo = || Method::Rloo(online());
    let nan: GoldReward = |_, text| if text.contains('7') { f64::NAN } else { 0.0 };
    let why = ended(Setup { gold: Some(nan), ..Setup::new(rloo(), 30) });
    assert!(why.starts_with("rollout ") && why.contains("is NaN"), "{why}");
    let flat: GoldReward = |_, _| 0.25;
    let why = ended(Setup { gold: Some(flat), ..Setup::new(rloo(), 30) });
    assert!(why.contains("the reward was 0.25 for every sample"), "{why}");
    let silent: GoldReward = |_, text| -(text.split_whitespace().count() as f64);
    let why = ended(Setup {
        gold: Some(silent),
        ..Setup::new(Method::Rloo(OnlineSpec { max_new_tokens: 3, ..online() }), 400)
    });
    assert!(why.contains("is empty"), "{why}");
    let endless: GoldReward = |_, text| text.split_whitespace().count() as f64;
    let why = ended(Setup { gold: Some(endless), ..Setup::new(rloo(), 400) });
    assert!(why.contains("ended before its limit"), "{why}");
    let why = ended(Setup { sharpness: 300.0, ..Setup::new(rloo(), 30) });
    assert!(why.starts_with("rollout 1: the KL divergence from the reference exploded"), "{why}");
    let wild = OnlineSpec { reward: RewardFrom::Model, reward_learning_rate: 1e30, ..online() };
    let ran = Setup::new(Method::Rloo(wild), 400).run().unwrap().outcome;
    let Ended::Diverged(why) = &ran.train.ended else { panic!("{:?}", ran.train.ended) };
    assert!(why.starts_with("the reward model diverged: step "), "{why}");
    assert!(ran.train.ledger.steps > 0 && ran.phases.get(Phase::RewardModel).flops > 0.0);
    // No gold reward outside the world.
    let error = render(&Setup { gold: None, ..Setup::new(rloo(), 5) }.run().err().unwrap());
    assert!(error.contains("hint: set reward = \"model\""), "{error}");
}
