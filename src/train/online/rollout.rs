//! Samples of one step: drawn, rewarded, and what is recorded of them.

use std::collections::HashSet;
use std::time::Instant;

use serde::{Deserialize, Serialize};

use super::job::OnlineJob;
use super::phases::{Phase, Phases};
use super::reward::{RewardSource, Sample};
use crate::base::error::{HintExt, Result, anyhow, ensure};
use crate::base::seed;
use crate::data::Sequence;
use crate::model::generate::{Decoding, Finish, Generated, Generation, Request, generate};
use crate::model::{Decoder, Packed};
use crate::plan::{Method, OnlineSpec};
use crate::train::units::{TrainData, Unit};

/// Sequences sampled at once.
const SLOTS: usize = 64;

/// A prompt to sample from.
#[derive(Clone, Debug, PartialEq)]
pub struct Prompt {
    pub id: String,
    pub ids: Vec<u32>,
    pub text: String,
}

/// What is recorded of a rollout: a row of `rollouts.csv`, less the run's name.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct RolloutMetrics {
    /// From 1.
    pub rollout: u64,
    /// The first optimizer step that learns from it; 0 where none does.
    pub step: u64,
    pub prompts: u64,
    pub samples: u64,
    /// Mean reward that is learned from (the proxy, where a reward model gives it), without the KL penalty.
    pub reward: f64,
    pub reward_deviation: f64,
    /// Mean gold reward of the same samples, where the data are the world's; looked at, not learned from, unless it is
    /// the reward.
    pub gold: Option<f64>,
    /// Mean over samples of log π/π_ref, nats; before the updates. For online DPO and KTO over those that are learned
    /// from, which are no draw of the policy.
    pub kl: Option<f64>,
    pub kl_per_token: Option<f64>,
    /// −log π over the tokens of the same samples, nats a token: an estimate of the entropy.
    pub entropy: Option<f64>,
    /// Mean tokens of a sample.
    pub length: f64,
    /// Shares of samples without a word, and cut at their limit.
    pub empty: f64,
    pub unfinished: f64,
    /// Strength of the KL penalty.
    pub beta: f64,
    pub advantage_deviation: Option<f64>,
    /// Share of ratios whose gradient was clipped, over all passes.
    pub clipped: Option<f64>,
    /// Largest |ρ − 1| of the first pass: exactly 0 where the same numbers come out twice.
    pub first_ratio: Option<f64>,
    /// Of the last pass.
    pub value_loss: Option<f64>,
    /// Prompts whose samples all had one reward (online DPO and KTO learn nothing from them).
    pub ties: u64,
    pub sampled_tokens: u64,
    pub seconds: f64,
}

/// n samples, those of a prompt side by side.
pub struct Drawn {
    /// One a prompt, its sequences the samples.
    pub units: Vec<Unit>,
    /// (n,)
    pub rewards: Vec<f64>,
    pub metrics: RolloutMetrics,
    /// Feedback labels that the rewards took.
    pub labels: u64,
}

/// The different prompts of the data, in their order.
///
/// # Errors
/// One that leaves no room for a completion in the model's context: other arms would learn from more prompts.
pub fn prompts(
    data: TrainData<'_>,
    context: usize,
    decode: &dyn Fn(&[u32]) -> Result<String>,
) -> Result<Vec<Prompt>> {
    let of_data: Vec<(&str, &Sequence)> = match data {
        TrainData::Paired(pairs) => pairs.iter().map(|p| (p.id.as_str(), &p.chosen)).collect(),
        TrainData::Unpaired(examples) => examples.iter().map(|e| (e.id.as_str(), &e.sequence)).collect(),
    };
    let (mut seen, mut prompts, mut full) = (HashSet::new(), Vec::new(), 0);
    for (id, sequence) in of_data {
        let ids = sequence.prompt();
        if !seen.insert(ids) {
            continue;
        }
        if ids.len() < context {
            prompts.push(Prompt { id: id.to_owned(), ids: ids.to_vec(), text: decode(ids)? });
        } else {
            full += 1;
        }
    }
    if full > 0 || prompts.is_empty() {
        return Err(anyhow!(
            "{full} of {} prompts leave no room for a completion in the model's context of {context} tokens",
            prompts.len() + full
        ))
        .hint("lower data.max_length to the context, or take a model with a longer one");
    }
    Ok(prompts)
}

/// Draws completions of each prompt from the policy as it stands, as many and as long as `online` says, and rewards
/// them.
///
/// # Errors
/// The policy's logits are NaN, or a forward pass fails.
pub fn draw(
    job: &OnlineJob<'_>,
    online: &OnlineSpec,
    policy: &Decoder,
    source: &RewardSource,
    prompts: &[&Prompt],
    rollout: u64,
    phases: &mut Phases,
) -> Result<Drawn> {
    let of_each = online.samples;
    let (sequences, generated) = sample(job, online, policy, prompts, rollout, phases)?;
    let scoring = Instant::now();
    let generations = generated.generations.iter().zip(&sequences).enumerate();
    let samples: Vec<Sample<'_>> = generations
        .map(|(i, (g, sequence))| Sample { prompt: &prompts[i / of_each].text, text: &g.text, sequence })
        .collect();
    let rewards = source.rewards(&samples)?;
    let (tokens, flops) = source.cost(&samples);
    phases.forward(Phase::Scoring, tokens, flops, scoring.elapsed());

    let n = samples.len() as f64;
    let gold = job.gold.map(|gold| samples.iter().map(|s| gold(s.prompt, s.text)).sum::<f64>() / n);
    let (reward, reward_deviation) = mean_and_deviation(&rewards);
    let metrics = RolloutMetrics {
        rollout,
        prompts: prompts.len() as u64,
        samples: samples.len() as u64,
        reward,
        reward_deviation,
        gold,
        ..RolloutMetrics::of(&generated)
    };
    let labels = match (source.is_gold(), job.method) {
        (false, _) => 0,
        // One answer to "which of these is better, which is worse" a prompt.
        (true, Method::OnlineDpo(_)) => prompts.len() as u64,
        (true, _) => samples.len() as u64,
    };
    let unit = |(prompt, group): (&&Prompt, &[Sequence])| Unit {
        id: prompt.id.clone(),
        sequences: group.to_vec(),
        desirable: true,
    };
    let units = prompts.iter().zip(sequences.chunks(of_each)).map(unit).collect();
    Ok(Drawn { units, rewards, metrics, labels })
}

/// The samples as sequences, those of a prompt side by side, and what generating them took.
fn sample(
    job: &OnlineJob<'_>,
    online: &OnlineSpec,
    policy: &Decoder,
    prompts: &[&Prompt],
    rollout: u64,
    phases: &mut Phases,
) -> Result<(Vec<Sequence>, Generated)> {
    let started = Instant::now();
    let request = |(place, prompt): (usize, &&Prompt)| {
        let ids = prompt.ids.clone();
        let id = move |j| format!("{place}/{}#{j}", prompt.id);
        (0..online.samples).map(move |j| Request { id: id(j), prompt: ids.clone() }).collect::<Vec<_>>()
    };
    let requests: Vec<Request> = prompts.iter().enumerate().flat_map(request).collect();
    let decoding =
        Decoding { max_new_tokens: online.max_new_tokens, temperature: 1.0, ..Decoding::default() };
    let seed = seed::derive(job.seed, &format!("online/rollout/{rollout}"));
    let generated = generate(policy, job.text, &requests, &decoding, seed, SLOTS)?;
    let (asked, came) = (requests.len(), generated.generations.len());
    ensure!(came == asked, "{came} of {asked} samples came back");
    let sequence = |g: &Generation| Sequence {
        ids: g.prompt.iter().chain(&g.tokens).copied().collect(),
        prompt_len: g.prompt.len(),
    };
    let sequences: Vec<Sequence> = generated.generations.iter().map(sequence).collect();
    let mut packed = Packed::default();
    for group in sequences.chunks(online.samples) {
        packed.push_group(&group.iter().collect::<Vec<_>>());
    }
    let computed = generated.prompt_tokens + generated.new_tokens;
    phases.forward(Phase::Sampling, computed, policy.flops(&packed), started.elapsed());
    Ok((sequences, generated))
}

impl RolloutMetrics {
    /// What the samples themselves tell; the rest is not known yet.
    fn of(generated: &Generated) -> Self {
        let all = &generated.generations;
        let share =
            |is: &dyn Fn(&Generation) -> bool| all.iter().filter(|g| is(g)).count() as f64 / all.len() as f64;
        Self {
            length: all.iter().map(|g| g.tokens.len()).sum::<usize>() as f64 / all.len() as f64,
            empty: share(&|g| g.text.trim().is_empty()),
            unfinished: share(&|g| g.finish == Finish::Length),
            sampled_tokens: (generated.prompt_tokens + generated.new_tokens) as u64,
            ..Self::default()
        }
    }
}

/// Given completions as a rollout: rewards ±1 by their labels.
pub fn given(units: Vec<Unit>, rollout: u64) -> Drawn {
    let rewards: Vec<f64> = units.iter().map(|u| if u.desirable { 1.0 } else { -1.0 }).collect();
    let (reward, reward_deviation) = mean_and_deviation(&rewards);
    let tokens: usize = units.iter().flat_map(|u| &u.sequences).map(|s| s.completion_len()).sum();
    let n = units.len() as u64;
    let metrics = RolloutMetrics {
        rollout,
        prompts: n,
        samples: n,
        reward,
        reward_deviation,
        length: tokens as f64 / n as f64,
        ..RolloutMetrics::default()
    };
    Drawn { units, rewards, metrics, labels: n }
}

/// Mean, and deviation with n in its denominator.
pub fn mean_and_deviation(values: &[f64]) -> (f64, f64) {
    let n = values.len().max(1) as f64;
    let mean = values.iter().sum::<f64>() / n;
    (mean, (values.iter().map(|v| (v - mean).powi(2)).sum::<f64>() / n).sqrt())
}
