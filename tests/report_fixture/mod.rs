//! A synthetic comparison as `compare` would record it, seeded: base, sft, dpo and kto × 3 seeds, a
//! preference suite and a generation suite, with scores that follow from the example rows and comparisons
//! that follow from the scores. Numbers are invented; nothing here is a result.
#![allow(dead_code, reason = "each test file uses a part")]

mod judged;

use judged::{comparisons, scores};
use kto_eval::base::seed;
use kto_eval::record::*;
use kto_eval::report::Input;
use rand::RngExt;
use rand_chacha::ChaCha8Rng;
use serde_json::json;

const SUBSETS: [&str; 4] = ["arithmetic", "copying", "ordering", "small-talk"];
const ARMS: [Profile; 4] = [
    Profile { name: "base", skill: 0.0, reward: 0.0, length: 18.0, cost: 0.0, labels: 0.0 },
    Profile { name: "sft", skill: 0.42, reward: 0.25, length: 17.0, cost: 1.0, labels: 1.0 },
    Profile { name: "dpo", skill: 0.74, reward: 1.1, length: 23.0, cost: 1.36, labels: 0.5 },
    Profile { name: "kto", skill: 0.80, reward: 0.9, length: 19.5, cost: 1.52, labels: 1.0 },
];

struct Profile {
    name: &'static str,
    skill: f64,
    reward: f64,
    length: f64,
    cost: f64,
    labels: f64,
}

/// (metric, unit, direction) of each suite.
const PREFERENCE: [(&str, &str, Direction); 4] = [
    ("reward_accuracy", "share", Direction::Higher),
    ("logp_accuracy", "share", Direction::Higher),
    ("normalised_logp_accuracy", "share", Direction::Higher),
    ("margin", "reward", Direction::Higher),
];
const GENERATION: [(&str, &str, Direction); 7] = [
    ("win_rate_base", "share", Direction::Higher),
    ("win_rate_chosen", "share", Direction::Higher),
    ("gold_reward", "reward", Direction::Higher),
    ("completion_tokens", "tokens", Direction::Neutral),
    ("distinct_2", "share", Direction::Neutral),
    ("unfinished", "share", Direction::Lower),
    ("kl_sequence", "nats", Direction::Neutral),
];

/// The whole record. The same seed gives the same rows.
pub fn input(seed: u64) -> Input {
    let mut made = Input::from_rows(plan(), environment(), vec![], vec![], vec![], vec![], vec![], vec![]);
    for arm in &ARMS {
        let seeds: &[u64] = if arm.name == "base" { &[0] } else { &[1, 2, 3] };
        for &s in seeds {
            run(&mut made, seed, arm, s);
        }
    }
    made.scores = scores(&made.examples);
    made.comparisons = comparisons(&made.scores);
    made
}

/// The same with copies of the trained arms under other names: eight trained arms, some with long names.
pub fn eight_arms(seed: u64) -> Input {
    let mut made = input(seed);
    let names = [
        ("sft", "sft-packed"),
        ("dpo", "dpo-beta-0.05"),
        ("dpo", "dpo_conservative_label_smoothing"),
        ("kto", "kto-with-a-name-much-longer-than-a-margin-is-wide"),
        ("kto", "kto-z0-zero"),
    ];
    for (from, name) in names {
        let id = |run: &str| run.replacen(from, name, 1);
        macro_rules! copy {
            ($($rows:ident),*) => { $(
                let copies: Vec<_> = made.$rows.iter().filter(|r| r.arm == from).cloned().collect();
                made.$rows.extend(copies.into_iter().map(|mut r| {
                    (r.run, r.arm) = (id(&r.run), name.to_owned());
                    r
                }));
            )* };
        }
        copy!(runs, steps, scores, examples, samples);
    }
    let pairs: Vec<_> =
        made.comparisons.iter().filter(|c| c.arm_a == "kto" && c.arm_b == "sft").cloned().collect();
    for (_, name) in names.iter().filter(|(from, _)| *from == "kto") {
        made.comparisons.extend(pairs.iter().cloned().map(|mut c| {
            c.arm_a = (*name).to_owned();
            c.words = c.words.replacen("kto", name, 1);
            c
        }));
    }
    made
}

/// The same with each of the two suites three times, under other names.
pub fn six_suites(seed: u64) -> Input {
    let mut made = input(seed);
    macro_rules! spread {
        ($($rows:ident),*) => { $(
            made.$rows = (1..=3)
                .flat_map(|i| made.$rows.iter().cloned().map(move |mut r| {
                    r.suite = format!("{}-{i}", r.suite);
                    r
                }))
                .collect();
        )* };
    }
    spread!(scores, examples, samples, comparisons);
    made
}

fn normal(rng: &mut ChaCha8Rng) -> f64 {
    let (a, b): (f64, f64) = (rng.random(), rng.random());
    (-2.0 * (1.0 - a).ln()).sqrt() * (std::f64::consts::TAU * b).cos()
}

fn sigmoid(x: f64) -> f64 {
    1.0 / (1.0 + (-x).exp())
}

fn run(made: &mut Input, seed: u64, arm: &Profile, s: u64) {
    let id =
        if arm.name == "base" { "base".to_owned() } else { format!("{}-s{s}-{:06x}", arm.name, s * 7919) };
    let mut rng = seed::rng_at(seed, &format!("fixture/{}", arm.name), s);
    let luck = 0.06 * normal(&mut rng);
    if arm.name != "base" {
        training(made, arm, s, &id, &mut rng);
    }
    preference(made, seed, arm, s, &id, luck, &mut rng);
    generation(made, seed, arm, s, &id, luck, &mut rng);
}

fn training(made: &mut Input, arm: &Profile, s: u64, id: &str, rng: &mut ChaCha8Rng) {
    let steps = 240;
    let (mut total, mut completions) = (0, 0);
    let mut last = 0.0;
    for step in 1..=steps {
        let t = step as f64 / steps as f64;
        let tokens = 3300 + (400.0 * rng.random::<f64>()) as u64;
        total += tokens;
        completions += tokens / 2;
        let rise = 1.0 - (-3.0 * t).exp();
        let margin = 1.4 * arm.reward * rise + 0.12 * normal(rng);
        let loss = match arm.name {
            "sft" => 1.15 + 0.9 * (-4.0 * t).exp() + 0.05 * normal(rng),
            "dpo" => 0.693 - 0.24 * rise + 0.03 * normal(rng),
            _ => 0.5 - 0.13 * rise + 0.02 * normal(rng),
        };
        last = loss;
        let paired = arm.name != "sft";
        let kl = (arm.name == "kto").then_some(0.9 * rise * t + 0.06 * normal(rng));
        made.steps.push(StepRow {
            run: id.to_owned(),
            arm: arm.name.to_owned(),
            seed: s,
            step,
            loss,
            grad_norm: 1.0 + rng.random::<f64>(),
            learning_rate: 5e-4 * (1.0 - t),
            reward_chosen: paired.then_some(0.3 * margin),
            reward_rejected: paired.then_some(-0.7 * margin),
            margin: paired.then_some(margin),
            accuracy: paired.then_some((0.5 + 0.26 * rise + 0.05 * normal(rng)).clamp(0.0, 1.0)),
            kl_unclamped: kl,
            kl: kl.map(|k| k.max(0.0)),
            saturation: kl.map(|k| (0.05 * k).tanh().powi(2)),
            desirable: 16,
            undesirable: if paired { 16 } else { 0 },
            logp_chosen: Some(-1.2),
            logp_rejected: paired.then_some(-1.6),
            policy_tokens: tokens,
            completion_tokens: tokens / 2,
            kl_tokens: if arm.name == "kto" { tokens } else { 0 },
            total_policy_tokens: total,
            seconds: 0.09,
        });
    }
    let seconds = 21.0 * arm.cost * (1.0 + 0.03 * normal(rng));
    made.runs.push(RunRow {
        run: id.to_owned(),
        arm: arm.name.to_owned(),
        method: arm.name.to_owned(),
        seed: s,
        status: Status::Done,
        note: String::new(),
        steps,
        examples: steps * 32,
        labels: (steps as f64 * 32.0 * arm.labels) as u64,
        policy_tokens: total,
        completion_tokens: completions,
        computed_tokens: total * 4 / 5,
        kl_tokens: if arm.name == "kto" { total } else { 0 },
        reference_tokens: if arm.name == "sft" { 0 } else { total },
        flops: 6.0 * total as f64 * 1.1e6 * arm.cost,
        epochs: 3.2,
        trained_parameters: 1000,
        final_loss: last,
        weights: format!("{:012x}", s * 1_000_003),
        train_seconds: seconds,
        tokens_per_second: total as f64 / seconds,
        reference_seconds: if arm.name == "sft" { 0.0 } else { 2.4 },
        score_seconds: 6.0,
        start_host_mib: 300.0,
        peak_host_mib: 410.0 + 90.0 * arm.cost + 4.0 * normal(rng),
        peak_device_mib: 0.0,
    });
}

fn preference(made: &mut Input, seed: u64, arm: &Profile, s: u64, id: &str, luck: f64, rng: &mut ChaCha8Rng) {
    for i in 0..320u64 {
        let subset = SUBSETS[(i % 4) as usize];
        let mut shared = seed::rng_at(seed, "fixture/pair", i);
        let (ease, gap) = (normal(&mut shared), 0.25 * (i % 4) as f64);
        let pull = arm.reward * (0.55 + gap + 0.8 * ease + 0.5 * normal(rng) + luck);
        let (chosen, rejected) = (0.35 * pull + 0.2 * arm.reward * normal(rng), -0.65 * pull);
        let margin = chosen - rejected;
        let reward = if arm.name == "base" { 0.5 } else { f64::from(u8::from(margin > 0.0)) };
        let logp = f64::from(u8::from(0.4 * ease + 0.5 * arm.skill + 0.6 * normal(rng) > 0.0));
        let normalised = f64::from(u8::from(0.5 * ease + 0.6 * arm.skill + 0.2 + 0.5 * normal(rng) > 0.0));
        let values = [
            ("reward_accuracy", reward),
            ("logp_accuracy", logp),
            ("normalised_logp_accuracy", normalised),
            ("margin", margin),
            ("reward_chosen", chosen),
            ("reward_rejected", rejected),
        ];
        for (metric, value) in values {
            made.examples.push(example(id, arm, s, "heldout", subset, i, metric, value));
        }
    }
}

#[expect(clippy::too_many_arguments, reason = "one argument a column")]
fn example(
    run: &str,
    arm: &Profile,
    s: u64,
    suite: &str,
    subset: &str,
    i: u64,
    metric: &str,
    value: f64,
) -> ExampleRow {
    ExampleRow {
        run: run.to_owned(),
        arm: arm.name.to_owned(),
        seed: s,
        suite: suite.to_owned(),
        subset: subset.to_owned(),
        example: format!("{suite}-{i}"),
        cluster: format!("{suite}-{i}"),
        metric: metric.to_owned(),
        value,
    }
}

fn generation(made: &mut Input, seed: u64, arm: &Profile, s: u64, id: &str, luck: f64, rng: &mut ChaCha8Rng) {
    for i in 0..240u64 {
        let subset = SUBSETS[(i % 4) as usize];
        let mut shared = seed::rng_at(seed, "fixture/prompt", i);
        let hard = 0.8 * normal(&mut shared);
        let tokens = (arm.length + 5.0 * normal(rng)).clamp(2.0, 48.0).round();
        let reward =
            arm.skill + luck + 0.25 * (i % 4) as f64 - hard + 0.03 * (tokens - 20.0) + 0.7 * normal(rng);
        let (base, chosen) =
            (-hard + 0.3 * (i % 4) as f64 + 0.7 * normal(rng), 0.9 - hard + 0.5 * normal(rng));
        let beats = |other: f64| f64::from(u8::from(reward > other));
        let finished = tokens < 27.0;
        let values = [
            ("win_rate_base", beats(base)),
            ("win_rate_chosen", beats(chosen)),
            ("gold_reward", reward),
            ("completion_tokens", tokens),
            ("distinct_2", sigmoid(1.5 + 0.4 * normal(rng))),
            ("unfinished", f64::from(u8::from(!finished))),
            ("kl_sequence", 3.0 * arm.reward * (1.0 + 0.5 * normal(rng)).max(0.1)),
        ];
        for (metric, value) in values {
            made.examples.push(example(id, arm, s, "world", subset, i, metric, value));
        }
        made.samples.push(SampleRow {
            run: id.to_owned(),
            arm: arm.name.to_owned(),
            seed: s,
            suite: "world".to_owned(),
            subset: subset.to_owned(),
            example: format!("world-{i}"),
            prompt: prompt(i, subset),
            completion: format!("{} answers “{}” ({tokens} tokens)", arm.name, answer(i)),
            tokens: tokens as u64,
            finished,
            reward: Some(reward),
            opponents: vec![
                Opponent {
                    name: "base".into(),
                    completion: "I am not sure.".into(),
                    reward: Some(base),
                    preference: beats(base),
                },
                Opponent {
                    name: "chosen".into(),
                    completion: answer(i),
                    reward: Some(chosen),
                    preference: beats(chosen),
                },
            ],
        });
    }
}

/// Some prompts are hostile: they must come out as text.
fn prompt(i: u64, subset: &str) -> String {
    match i {
        0 => {
            "<script>document.title='owned'</script> & \"quotes\" 'single' </textarea> {{ 7 * 7 }}".to_owned()
        }
        1 => "| a | b |\n|---|---|\n`code` **bold** [link](javascript:alert(1)) <img src=x onerror=alert(1)>"
            .to_owned(),
        _ => format!("Task {i} ({subset}): write the numbers {} to {} in falling order.", i % 9, i % 9 + 5),
    }
}

fn answer(i: u64) -> String {
    (i % 9..=i % 9 + 5).rev().map(|n| n.to_string()).collect::<Vec<_>>().join(" ")
}

pub fn plan() -> serde_json::Value {
    let arm = |name: &str| json!({ "name": name, "method": { "name": name, "beta": 0.1 }, "train": { "batch_size": 32, "learning_rate": 5e-4 } });
    json!({
        "name": "fixture",
        "analysis": "A made-up comparison: three methods from one checkpoint under one budget of policy tokens. Numbers are invented and say nothing about any method.",
        "seeds": [1, 2, 3],
        "budget": { "tokens": 840_000 },
        "model": { "source": "world", "dtype": "f32" },
        "data": { "source": "world", "max_length": 128 },
        "suites": { "preference": ["heldout"], "generation": ["world"] },
        "verdict": { "alpha": 0.05, "equivalence_margin": 0.04, "resamples": 2000, "seed": 0 },
        "arms": [arm("sft"), arm("dpo"), arm("kto")],
    })
}

pub fn environment() -> serde_json::Value {
    json!({
        "version": "0.1.0",
        "schema": SCHEMA_VERSION,
        "git_commit": "0123456789ab",
        "device": "cpu",
        "threads": 2,
        "hashes": { "plan": "0f0f0f0f0f0f", "data": "1e1e1e1e1e1e", "model": "2d2d2d2d2d2d" },
    })
}
