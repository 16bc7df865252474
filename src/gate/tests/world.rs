//! Two sides as a measurement would leave them, without files and without training: what is simulated is noise.

use rand::{Rng, RngExt};
use rand_chacha::ChaCha8Rng;

use crate::base::seed::rng_at;
use crate::gate::{Repeat, Session, Side};
use crate::plan::{Overrides, Plan};
use crate::record::*;

/// A law of noise, on the log scale for times and memory.
#[derive(Clone, Copy, Debug)]
pub enum Law {
    /// Bit for bit the same.
    None,
    Normal(f64),
    /// Student's t on 2 degrees of freedom, times this: no variance.
    Heavy(f64),
    /// A normal law, and one run in twenty takes twice as long.
    Hiccups(f64),
    /// One of two states, this far apart, by a coin: a neighbour, an allocator, a race.
    TwoStates(f64),
}

impl Law {
    pub fn draw(self, rng: &mut impl Rng) -> f64 {
        match self {
            Law::None => 0.0,
            Law::Normal(sd) => sd * normal(rng),
            Law::Heavy(scale) => scale * normal(rng) / (-rng.random::<f64>().ln()).sqrt(),
            Law::Hiccups(sd) => sd * normal(rng) + if rng.random::<f64>() < 0.05 { 2f64.ln() } else { 0.0 },
            Law::TwoStates(apart) => {
                1e-4 * apart * normal(rng) + if rng.random::<bool>() { apart } else { 0.0 }
            }
        }
    }
}

/// How the examples of a preference suite are answered.
#[derive(Clone, Copy, Debug)]
pub enum Answers {
    /// Right or wrong: prompts that are hard for both sides, an effect of the seed on each side, noise.
    Right,
    /// The same on a continuous scale, with heavy-tailed noise.
    Margin,
    /// Fixed but for one answer in a hundred, as rounding turns them over.
    Rare,
}

/// What the trainers of the two sides do, and how noisy everything is.
#[derive(Clone, Copy, Debug)]
pub struct World {
    pub seeds: u64,
    pub arms: usize,
    pub rounds: usize,
    /// Candidate's speed as a share of the baseline's.
    pub speed: f64,
    /// Of the log of a time.
    pub machine: Law,
    /// Of the log of a peak of memory.
    pub memory: Law,
    /// Run-to-run noise of the losses, as a share of their spread over the steps.
    pub trainer: Law,
    /// Examples of a preference suite; 0: none is scored.
    pub prompts: usize,
    pub answers: Answers,
    /// What the candidate's accuracy loses, on the latent scale.
    pub worse: f64,
}

pub const QUIET: World = World {
    seeds: 5,
    arms: 2,
    rounds: 20,
    speed: 1.0,
    machine: Law::Normal(0.03),
    memory: Law::Normal(0.005),
    trainer: Law::Normal(0.01),
    prompts: 0,
    answers: Answers::Right,
    worse: 0.0,
};

const STEPS: u64 = 20;

pub fn normal(rng: &mut impl Rng) -> f64 {
    let (u, v): (f64, f64) = (rng.random(), rng.random());
    (-2.0 * (1.0 - u).ln()).sqrt() * (std::f64::consts::TAU * v).cos()
}

/// Arms `kto`, `other-1`, … of external trainers, whose runs need not be the same twice.
fn plan(world: World) -> Plan {
    let seeds: Vec<String> = (1..=world.seeds).map(|s| s.to_string()).collect();
    let mut text = format!(
        "seeds = [{}]\nbudget = {{ tokens = 1000 }}\n[model]\nsource = \"m\"\n[data]\nsource = \"d\"\n",
        seeds.join(", ")
    );
    for arm in 0..world.arms {
        let name = if arm == 0 { "kto".to_owned() } else { format!("other-{arm}") };
        text += &format!(
            "[[arm]]\nname = \"{name}\"\nmethod = \"kto\"\n[arm.trainer]\ncommand = [\"t\", \"{{out}}\"]\n"
        );
    }
    Plan::parse(&text, "sim", &Overrides::default()).unwrap()
}

/// Baseline and candidate with everything in place but the noise.
pub struct Sides {
    pub baseline: Side,
    pub candidate: Side,
    world: World,
    /// How hard each prompt is, for everybody.
    hard: Vec<f64>,
}

impl Sides {
    pub fn new(world: World) -> Self {
        let plan = plan(world);
        let hard = (0..world.prompts).map(|p| normal(&mut rng_at(13, "prompt", p as u64))).collect();
        Self { baseline: empty_side(&plan, world), candidate: empty_side(&plan, world), world, hard }
    }

    /// The trial's measurement.
    pub fn fill(&mut self, trial: u64) -> &mut Self {
        let world = self.world;
        let names = ["sim/baseline", "sim/candidate"];
        let sides = [(&mut self.baseline, 1.0, 0.0), (&mut self.candidate, world.speed, world.worse)];
        for (i, (side, speed, worse)) in sides.into_iter().enumerate() {
            let rng = &mut rng_at(5, names[i], trial);
            for run in &mut side.records.runs {
                run.final_loss = 0.4 + 0.01 * (run.seed as f64).sin() + 0.02 * world.trainer.draw(rng);
            }
            wobble(&mut side.records.steps, world, rng);
            if world.prompts > 0 {
                answer(&mut side.records, world, &self.hard, worse, rng);
            }
            for (round, repeat) in side.repeats.iter_mut().enumerate() {
                // The machine slows down; the sides stand in the order A B, B A, …
                let drift = 0.01 * (2 * round + (round % 2 != i) as usize) as f64;
                for run in &mut repeat.runs {
                    run.train_seconds = (drift + world.machine.draw(rng)).exp() / speed;
                    run.tokens_per_second = 1000.0 / run.train_seconds;
                    run.peak_host_mib = 200.0 * world.memory.draw(rng).exp();
                    run.final_loss = 0.4 + 0.02 * world.trainer.draw(rng);
                }
                wobble(&mut repeat.steps, world, rng);
            }
        }
        self
    }
}

fn wobble(steps: &mut [StepRow], world: World, rng: &mut ChaCha8Rng) {
    for step in steps {
        // What the data's order (the seed) shapes is the same on both sides.
        let order = (1.7 * (step.seed * 1000 + step.step) as f64).sin();
        step.loss = 0.5 - 0.004 * step.step as f64 + 0.05 * (order + world.trainer.draw(rng));
        step.grad_norm = 1.0 + 0.2 * (order + world.trainer.draw(rng));
    }
}

fn answer(records: &mut Records, world: World, hard: &[f64], worse: f64, rng: &mut ChaCha8Rng) {
    // Rows stand by run: an effect of the seed on this side for each.
    let mut effect = 0.0;
    for (i, row) in records.examples.iter_mut().enumerate() {
        let prompt = i % hard.len();
        if prompt == 0 {
            effect = 0.1 * normal(rng);
        }
        let latent = 0.7 * hard[prompt] + effect - worse;
        row.value = match world.answers {
            Answers::Right => f64::from(u8::from(latent + 0.5 * normal(rng) > -0.5)),
            Answers::Margin => latent + Law::Heavy(0.5).draw(rng),
            Answers::Rare => f64::from(u8::from((hard[prompt] > -0.5) != (rng.random::<f64>() < 0.01))),
        };
    }
}

fn empty_side(plan: &Plan, world: World) -> Side {
    let mut records = Records {
        plan: plan.clone(),
        environment: Environment { device: "cpu".to_owned(), ..Environment::default() },
        runs: vec![],
        steps: vec![],
        scores: vec![],
        examples: vec![],
        samples: vec![],
        judgments: vec![],
        trials: vec![],
        rollouts: vec![],
        phases: vec![],
        comparisons: vec![],
    };
    for spec in plan.runs() {
        let (arm, seed) = (spec.arm.name.as_str(), spec.seed);
        records.runs.push(run(&spec.id, arm, seed));
        records.steps.extend((1..=STEPS).map(|t| step(&spec.id, arm, seed, t)));
        records.examples.extend((0..world.prompts).map(|p| example(&spec.id, arm, seed, p)));
        if world.prompts > 0 {
            records.scores.push(score(&spec.id, arm, seed));
        }
    }
    let rows = |arm: &String| {
        let id = format!("{arm}-repeat");
        (run(&id, arm, 1), (1..=STEPS).map(|t| step(&id, arm, 1, t)).collect::<Vec<_>>())
    };
    let arms: Vec<String> = plan.arms.iter().map(|a| a.name.clone()).collect();
    let repeat = |_| {
        let (runs, steps): (Vec<_>, Vec<_>) = arms.iter().map(rows).unzip();
        Repeat { runs, steps: steps.concat() }
    };
    let session = Some(Session { id: "sim".to_owned(), rounds: world.rounds });
    Side { records, session, repeats: (0..world.rounds).map(repeat).collect() }
}

fn run(id: &str, arm: &str, seed: u64) -> RunRow {
    // By name, so that a column that a gate does not read can be added without a word here.
    let row = serde_json::json!({
        "run": id, "arm": arm, "method": "kto", "seed": seed, "status": "done", "note": "", "steps": STEPS,
        "examples": 100, "labels": 100, "policy_tokens": 1000, "completion_tokens": 500, "computed_tokens": 1000,
        "kl_tokens": 0, "reference_tokens": 1000, "flops": 1e9, "epochs": 1.0, "final_loss": 0.4, "weights": "",
        "train_seconds": 1.0, "tokens_per_second": 1000.0, "reference_seconds": 0.0,
        "score_seconds": 0.0, "start_host_mib": 100.0, "peak_host_mib": 200.0, "peak_device_mib": 0.0
    });
    serde_json::from_value(row).unwrap()
}

fn step(run: &str, arm: &str, seed: u64, step: u64) -> StepRow {
    StepRow {
        run: run.to_owned(),
        arm: arm.to_owned(),
        seed,
        step,
        learning_rate: 1e-4,
        policy_tokens: 33,
        ..StepRow::default()
    }
}

fn example(run: &str, arm: &str, seed: u64, prompt: usize) -> ExampleRow {
    ExampleRow {
        run: run.to_owned(),
        arm: arm.to_owned(),
        seed,
        suite: "heldout".to_owned(),
        subset: String::new(),
        example: prompt.to_string(),
        cluster: prompt.to_string(),
        metric: "reward_accuracy".to_owned(),
        value: 0.0,
    }
}

fn score(run: &str, arm: &str, seed: u64) -> ScoreRow {
    ScoreRow {
        run: run.to_owned(),
        arm: arm.to_owned(),
        seed,
        suite: "heldout".to_owned(),
        subset: "all".to_owned(),
        metric: "reward_accuracy".to_owned(),
        value: 0.5,
        n: 60,
        standard_error: 0.05,
        unit: "share".to_owned(),
        direction: Direction::Higher,
    }
}
