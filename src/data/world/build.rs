//! Prompts, pairs and corpora of a world, all drawn from its seed.

use std::cmp::Ordering;
use std::collections::HashSet;
use std::path::Path;

use rand::{Rng, RngExt};

use crate::base::error::{HintExt, Result, anyhow, bail};
use crate::base::hash::Hasher;
use crate::base::seed;
use crate::data::types::{PreferencePair, UnpairedExample};
use crate::plan::WorldSpec;

use super::pool::{Level, answer};
use super::reward::gold_reward;
use super::task::{Kind, Task};
use super::{tokenizer, words};

/// One prompt in this many is held out, by a hash of its text: no training pair and no text of the base
/// model's corpus has it.
const HELD_OUT: u64 = 5;
/// Draws before it is concluded that a kind has no further held-out prompt.
const ATTEMPTS: usize = 20_000;
/// A completion with a desirable label in [`World::pretrain_corpus`] has at least this reward.
const DESIRABLE: f64 = 0.5;

pub(super) const MAX_POSITIONS: usize = 64;

/// A seeded world: see the module's documentation.
#[derive(Clone, Debug)]
pub struct World {
    spec: WorldSpec,
    heldout: Vec<Comparison>,
}

/// A held-out prompt for generation.
#[derive(Clone, Debug, PartialEq)]
pub struct WorldPrompt {
    pub id: String,
    /// Name of the [`Kind`].
    pub kind: String,
    pub prompt: String,
    /// The better of two of the pool's answers, by the gold reward: what a generation is compared with.
    pub chosen: String,
}

/// Dimensions of the world's base model: a small Llama.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WorldModel {
    pub vocab_size: usize,
    pub hidden_size: usize,
    pub layers: usize,
    pub heads: usize,
    pub kv_heads: usize,
    pub intermediate_size: usize,
    pub max_positions: usize,
}

/// A prompt with two different answers of the pool; `preferred` is the noisy label.
#[derive(Clone, Debug)]
struct Comparison {
    task: Task,
    first: String,
    second: String,
    preferred_first: bool,
}

impl World {
    /// # Errors
    /// If an option is out of range, or if there are fewer held-out prompts than asked for.
    pub fn new(spec: &WorldSpec) -> Result<Self> {
        if spec.train_pairs == 0 || spec.heldout_pairs == 0 {
            bail!(
                "a world needs training pairs and held-out pairs, not {} and {}",
                spec.train_pairs,
                spec.heldout_pairs
            );
        }
        if !(spec.temperature.is_finite() && spec.temperature > 0.0) {
            bail!("the world's temperature is {}; it must be above 0", spec.temperature);
        }
        if !(0.0..0.5).contains(&spec.flip) {
            bail!("the world's flip rate is {}; it must be in [0, 0.5)", spec.flip);
        }
        let heldout = heldout(spec)?;
        Ok(Self { spec: spec.clone(), heldout })
    }

    /// Training pairs; the first n are the same whatever their number is.
    pub fn train_pairs(&self) -> Vec<PreferencePair> {
        let pair = |i: usize| {
            let mut rng = seed::rng_at(self.spec.seed, "world/train", i as u64);
            let task = train_task(kind(i), &mut rng);
            Comparison::draw(task, &self.spec, &mut rng).pair(format!("world-train:{i}"))
        };
        (0..self.spec.train_pairs).map(pair).collect()
    }

    /// Held-out pairs, labelled with the same noise; the subset is the kind of task.
    pub fn heldout_pairs(&self) -> Vec<PreferencePair> {
        let pair = |(i, c): (usize, &Comparison)| c.clone().pair(format!("world-test:{i}"));
        self.heldout.iter().enumerate().map(pair).collect()
    }

    /// The prompts of [`World::heldout_pairs`], with the same ids and in the same order, each with the
    /// answer that the gold reward (not the noisy label) prefers.
    pub fn heldout_prompts(&self) -> Vec<WorldPrompt> {
        let prompt = |(i, c): (usize, &Comparison)| {
            let prompt = c.task.prompt();
            let better = gold_reward(&prompt, &c.first) >= gold_reward(&prompt, &c.second);
            let chosen = if better { &c.first } else { &c.second }.clone();
            WorldPrompt {
                id: format!("world-test:{i}"),
                kind: c.task.kind().name().to_owned(),
                prompt,
                chosen,
            }
        };
        self.heldout.iter().enumerate().map(prompt).collect()
    }

    /// The accuracy that the gold reward itself reaches on the noisy labels of [`World::heldout_pairs`] (ties
    /// count one half): what a preference accuracy on them is to be read against.
    pub fn ceiling(&self) -> f64 {
        let agreement = |c: &Comparison| {
            let prompt = c.task.prompt();
            match gold_reward(&prompt, &c.first).total_cmp(&gold_reward(&prompt, &c.second)) {
                Ordering::Equal => 0.5,
                order => f64::from((order == Ordering::Greater) == c.preferred_first),
            }
        };
        self.heldout.iter().map(agreement).sum::<f64>() / self.heldout.len() as f64
    }

    /// The gold reward, in [`super::MIN_REWARD`], [`super::MAX_REWARD`]; NaN where the prompt is not of this world.
    pub fn gold_reward(&self, prompt: &str, completion: &str) -> f64 {
        gold_reward(prompt, completion)
    }

    /// Answers of the whole pool to prompts that are not held out: what the base model is trained on. An
    /// answer is labelled desirable where its gold reward is at least 0.5.
    pub fn pretrain_corpus(&self, n: usize, corpus_seed: u64) -> Vec<UnpairedExample> {
        let stream = seed::derive(self.spec.seed, "world/corpus").wrapping_add(corpus_seed);
        let example = |i: usize| {
            let mut rng = seed::rng_at(stream, "world/corpus", i as u64);
            let task = train_task(kind(i), &mut rng);
            let completion = answer(&task, Level::draw(&mut rng), &mut rng);
            let (prompt, subset) = (task.prompt(), task.kind().name().to_owned());
            let desirable = gold_reward(&prompt, &completion) >= DESIRABLE;
            UnpairedExample { id: format!("world-corpus:{i}"), prompt, completion, desirable, subset }
        };
        (0..n).map(example).collect()
    }

    pub fn vocab_size(&self) -> usize {
        words::vocabulary().len()
    }

    /// The world's `tokenizer.json`.
    pub fn tokenizer_json(&self) -> serde_json::Value {
        tokenizer::tokenizer_json()
    }

    /// Writes the tokenizer's files into a model's directory.
    ///
    /// # Errors
    /// If a file cannot be written.
    pub fn write_tokenizer(&self, dir: &Path) -> Result<()> {
        tokenizer::write_tokenizer(dir)
    }

    pub fn config(&self) -> WorldModel {
        WorldModel {
            vocab_size: self.vocab_size(),
            hidden_size: 128,
            layers: 2,
            heads: 4,
            kv_heads: 4,
            intermediate_size: 344,
            max_positions: MAX_POSITIONS,
        }
    }

    /// One line for a reader of results.
    pub fn describe(&self) -> String {
        let WorldSpec { seed, train_pairs, heldout_pairs, temperature, flip } = self.spec;
        format!(
            "planted-truth world, seed {seed}: {train_pairs} training and {heldout_pairs} held-out pairs without a \
             common prompt; labels are Bradley-Terry on the gold reward at temperature {temperature}, {} % flipped",
            100.0 * flip
        )
    }
}

impl Comparison {
    /// Two different answers of the pool, and the label: Bradley-Terry, then flipped at the stated rate.
    fn draw(task: Task, spec: &WorldSpec, rng: &mut impl Rng) -> Self {
        let first = answer(&task, Level::draw(rng), rng);
        let mut second = answer(&task, Level::draw(rng), rng);
        while second == first {
            second = answer(&task, Level::draw(rng), rng);
        }
        let prompt = task.prompt();
        let difference = gold_reward(&prompt, &first) - gold_reward(&prompt, &second);
        let p_first = 1.0 / (1.0 + (-difference / spec.temperature).exp());
        let preferred_first = (rng.random::<f64>() < p_first) != rng.random_bool(spec.flip);
        Self { task, first, second, preferred_first }
    }

    fn pair(self, id: String) -> PreferencePair {
        let Self { task, first, second, preferred_first } = self;
        let (chosen, rejected) = if preferred_first { (first, second) } else { (second, first) };
        PreferencePair { id, prompt: task.prompt(), chosen, rejected, subset: task.kind().name().to_owned() }
    }
}

/// Kinds take turns, so that each has its share in any number of examples.
fn kind(i: usize) -> Kind {
    Kind::ALL[i % Kind::ALL.len()]
}

/// The same in every world, so that a base model trained in one holds out what another does.
fn is_held_out(prompt: &str) -> bool {
    Hasher::new("kto-eval/world/held-out").part(prompt.as_bytes()).u64().is_multiple_of(HELD_OUT)
}

fn train_task(kind: Kind, rng: &mut impl Rng) -> Task {
    loop {
        let task = Task::draw(kind, rng);
        if !is_held_out(&task.prompt()) {
            return task;
        }
    }
}

/// Held-out prompts are all different.
fn heldout(spec: &WorldSpec) -> Result<Vec<Comparison>> {
    let mut seen = HashSet::new();
    let mut drawn = Vec::new();
    for i in 0..spec.heldout_pairs {
        let mut rng = seed::rng_at(spec.seed, "world/heldout", i as u64);
        let fresh = (0..ATTEMPTS).map(|_| Task::draw(kind(i), &mut rng)).find(|task| {
            let prompt = task.prompt();
            is_held_out(&prompt) && !seen.contains(&prompt)
        });
        let Some(task) = fresh else {
            return Err(anyhow!("the world has no {} different held-out prompts", spec.heldout_pairs))
                .hint(format!("ask for at most {i} held-out pairs"));
        };
        seen.insert(task.prompt());
        drawn.push(Comparison::draw(task, spec, &mut rng));
    }
    Ok(drawn)
}
