//! Conditional SFT (and unlikelihood, its companion over tokens): the equations, and control tokens from end to end, in
//! training, in scoring, in generation, in what is saved.

mod cli;
mod engine;

use std::cell::RefCell;

use candle_core::{DType, Device};
use cli::Place;
use engine::{json, largest_difference};
use kto_eval::data::world::World;
use kto_eval::data::{Dataset, Sequence, Tokenizer};
use kto_eval::model::generate::{Request, Text, generate};
use kto_eval::model::{Decoder, Packed};
use kto_eval::objective::{LogProbs, StepContext, build, evaluate};
use kto_eval::plan::{ControlSpec, DataSpec, Method, UnlikelihoodSpec, WorldSpec};
use kto_eval::suite::{Metric, ScoreContext, find, score};

fn logp(model: &Decoder, sequence: &Sequence) -> f64 {
    model.logps(&Packed::of([sequence])).unwrap().iter().sum()
}

/// The two objectives over tokens against their equations, written out token by token.
#[test]
fn conditional_sft_and_unlikelihood_are_their_equations() {
    let tokens = ControlSpec { desirable_token: "<|good|>".into(), undesirable_token: "<|bad|>".into() };
    let csft = || Method::Csft(tokens.clone());
    let probabilities: [&[f64]; 4] = [&[0.5, 0.25], &[0.9, 0.1, 0.3], &[0.6], &[0.05, 0.7]];
    let desirable = vec![true, false, false, true];
    let sums = |f: &dyn Fn(f64) -> f64| -> Vec<f64> {
        probabilities.iter().map(|p| p.iter().map(|&p| f(p)).sum()).collect()
    };
    let logps = LogProbs {
        policy: sums(&f64::ln),
        complement: sums(&|p| (1.0 - p).ln()),
        tokens: probabilities.iter().map(|p| p.len()).collect(),
        desirable: desirable.clone(),
        ..LogProbs::default()
    };
    let step = StepContext { examples: 4, chosen_tokens: 4, rejected_tokens: 4, ..StepContext::default() };
    let token = |alpha: Option<f64>, wanted: bool, p: f64| match alpha {
        Some(alpha) if !wanted => -alpha * (1.0 - p).ln(),
        _ => -p.ln(),
    };
    for (method, alpha) in [
        (csft(), None),
        (Method::Unlikelihood(UnlikelihoodSpec { alpha: 1.0 }), Some(1.0)),
        (Method::Unlikelihood(UnlikelihoodSpec { alpha: 0.25 }), Some(0.25)),
    ] {
        let got = evaluate(build(&method).unwrap().as_ref(), &logps, &step).unwrap();
        let each: Vec<f64> = probabilities
            .iter()
            .zip(&desirable)
            .map(|(p, &d)| p.iter().map(|&p| token(alpha, d, p)).sum())
            .collect();
        let mean = each.iter().sum::<f64>() / 8.0;
        assert!((got.loss - mean).abs() < 1e-14, "{method:?}: {} and {mean}", got.loss);
        for (i, (loss, sum)) in got.losses.iter().zip(&each).enumerate() {
            assert!((loss - sum / probabilities[i].len() as f64).abs() < 1e-14, "{method:?} example {i}");
        }
        assert!(got.rewards.is_empty(), "neither has an implicit reward");
    }
    // α = 0 and no undesirable completion: SFT.
    let only = |i: usize| LogProbs {
        policy: vec![logps.policy[i]],
        complement: vec![logps.complement[i]],
        tokens: vec![logps.tokens[i]],
        desirable: vec![true],
        ..LogProbs::default()
    };
    let step = StepContext { examples: 1, chosen_tokens: 2, ..StepContext::default() };
    let of = |method: &Method| evaluate(build(method).unwrap().as_ref(), &only(0), &step).unwrap().loss;
    assert_eq!(of(&Method::Unlikelihood(UnlikelihoodSpec { alpha: 0.0 })), of(&Method::Sft));
    assert_eq!(of(&csft()), of(&Method::Sft));
}

const TRAIN: [&str; 21] = [
    "train",
    "--method",
    "csft",
    "--param",
    "desirable_token=nice",
    "--param",
    "undesirable_token=stupid duh",
    "--model",
    "model",
    "--data",
    "data",
    "--steps",
    "12",
    "--batch-size",
    "8",
    "--learning-rate",
    "2e-2",
    "--max-length",
    "64",
    "--save-model",
    "trained",
];

#[test]
fn suites_ask_a_conditioned_policy_after_its_token_and_the_reference_without() {
    let place = Place::new();
    let spec = DataSpec {
        source: "world".into(),
        max_length: 96,
        world: WorldSpec { train_pairs: 8, heldout_pairs: 20, ..WorldSpec::default() },
        ..DataSpec::default()
    };
    let world = World::new(&spec.world).unwrap();
    let tokenizer = Tokenizer::load(&place.path("model")).unwrap();
    let reference = Decoder::load(&place.path("model"), DType::F32, &Device::Cpu).unwrap();
    let mut policy = reference.duplicate().unwrap();
    policy.set_control(&ControlSpec {
        desirable_token: "nice warm".into(),
        undesirable_token: "stupid".into(),
    });
    let control = tokenizer.encode("nice warm").unwrap();
    assert_eq!(control.len(), 2);
    let heldout = Dataset::Paired(world.heldout_pairs());
    let mut logps = |s: &[Sequence]| Ok(s.iter().map(|s| logp(&reference, s)).collect());
    let mut context = ScoreContext {
        policy: &policy,
        reference: Some(&mut logps),
        tokenizer: &tokenizer,
        data: &spec,
        heldout: &heldout,
        base: None,
        seed: 1,
        max_examples: 0,
        reserve: 0,
        beta: 0.1,
        slots: 4,
    };
    let scored = score(&mut context, &find("heldout", "preference").unwrap()).unwrap();
    let Dataset::Paired(pairs) = &heldout else { panic!("pairs") };
    for (pair, found) in pairs.iter().zip(&scored.pairs) {
        let prompt = tokenizer.encode(&pair.prompt).unwrap();
        let completion = tokenizer.encode(&format!("{}{}", pair.prompt, pair.chosen)).unwrap();
        let completion = [&completion[prompt.len()..], &[tokenizer.eos()]].concat();
        let after = |before: &[u32]| {
            let ids = before.iter().chain(&completion).copied().collect();
            logp(&reference, &Sequence { ids, prompt_len: before.len() })
        };
        let asked = after(&[&prompt[..], &control].concat());
        assert!((found.chosen - asked).abs() < 1e-4, "{} against {asked}", found.chosen);
        assert!((found.reference_chosen - after(&prompt)).abs() < 1e-4);
        assert!((asked - after(&prompt)).abs() > 1e-4, "the token changes something");
        assert_eq!(found.chosen_tokens, completion.len());
    }

    // Room is left for the token, so that no sequence is longer than `max_length` with it.
    let lengths = |reserve: usize| {
        let short = DataSpec { max_length: 14, ..spec.clone() };
        let longest = RefCell::new(0);
        let mut logps = |s: &[Sequence]| {
            *longest.borrow_mut() = s.iter().map(|s| s.ids.len()).max().unwrap();
            Ok(s.iter().map(|s| logp(&reference, s)).collect())
        };
        let mut context = ScoreContext { data: &short, reference: Some(&mut logps), reserve, ..context };
        score(&mut context, &find("heldout", "preference").unwrap()).unwrap();
        longest.into_inner()
    };
    assert_eq!((lengths(0), lengths(control.len())), (14, 12));

    let mut suite = find("world", "generation").unwrap();
    (suite.decoding.temperature, suite.decoding.max_new_tokens) = (0.0, 6);
    let scored = score(&mut context, &suite).unwrap();
    let requests: Vec<Request> = world
        .heldout_prompts()
        .into_iter()
        .map(|p| Request {
            id: p.id,
            prompt: [tokenizer.encode(&p.prompt).unwrap(), control.clone()].concat(),
        })
        .collect();
    let decode = |ids: &[u32]| tokenizer.decode(ids);
    let text = Text { decode: &decode, eos: tokenizer.stops() };
    let wanted = generate(&reference, text, &requests, &suite.decoding, 0, 4).unwrap().generations;
    let (mut kl, wanted_n) = (0.0, scored.samples.len() as f64);
    for (sample, wanted) in scored.samples.iter().zip(&wanted) {
        assert_eq!((&sample.example, &sample.completion), (&wanted.id, &wanted.text));
        let prompt = &wanted.prompt[..wanted.prompt.len() - control.len()];
        assert_eq!(sample.prompt, tokenizer.decode(prompt).unwrap());
        let after = |before: &[u32]| {
            let ids = before.iter().chain(&wanted.tokens).copied().collect();
            logp(&reference, &Sequence { ids, prompt_len: before.len() })
        };
        kl += (after(&wanted.prompt) - after(prompt)) / wanted_n;
    }
    let found = scored.overall(Metric::KlSequence).unwrap().value;
    assert!((found - kl).abs() < 1e-4, "{found} against {kl}");
}

#[test]
fn a_conditioned_policy_is_trained_saved_and_asked_as_it_was_trained() {
    let place = Place::new();
    place.run(&TRAIN).succeeds();
    let config = json(&place.path("trained/config.json"));
    assert_eq!(config["kto_eval_control"]["desirable"], "nice");
    assert_eq!(config["kto_eval_control"]["undesirable"], "stupid duh");

    // Read without its control tokens by whoever does not know of them, it is another distribution.
    let asked = place.logps("trained", "");
    let mut plain = config.clone();
    plain.as_object_mut().unwrap().remove("kto_eval_control");
    place.write("trained/config.json", &plain.to_string());
    let unasked = place.logps("trained", "");
    assert!(largest_difference(&asked, &unasked) > 1e-2);
    // What was learned: after the desirable token the chosen completions are likelier than after the other one.
    let decoder = Decoder::load(&place.path("trained"), DType::F32, &Device::Cpu).unwrap();
    let tokenizer = Tokenizer::load(&place.path("trained")).unwrap();
    let rows: Vec<serde_json::Value> =
        place.read("data/train.jsonl").lines().map(|l| serde_json::from_str(l).unwrap()).collect();
    let mut gap = 0.0;
    for row in rows.iter().take(60) {
        let text = |key: &str| row[key].as_str().unwrap().to_owned();
        let of = |side: &str, control: &str| {
            let prompt = tokenizer.encode(&format!("{} {control}", text("prompt"))).unwrap();
            let completion = tokenizer.encode(&text(side)).unwrap();
            let ids = prompt.iter().chain(&completion).copied().collect();
            logp(&decoder, &Sequence { ids, prompt_len: prompt.len() })
        };
        gap += of("chosen", "nice") - of("chosen", "stupid duh");
        gap -= of("rejected", "nice") - of("rejected", "stupid duh");
    }
    assert!(gap > 0.0, "conditioning on the right token must help on both sides: {gap}");

    place.write("trained/config.json", &config.to_string());
    place
        .line("train --method dpo --model trained --data data --steps 1 --out x")
        .fails(2, &["trained was trained by csft", "asked after `nice`", "hint:"]);
    place
        .line("train --method dpo --model model --reference trained --data data --steps 1 --out y")
        .fails(2, &["trained was trained by csft"]);
}

#[test]
fn an_adapter_keeps_its_control_tokens_and_so_does_its_merger() {
    let place = Place::new();
    let lora = [&TRAIN[..], &["--set", "train.lora.rank=4"]].concat();
    place.run(&lora).succeeds();
    assert_eq!(json(&place.path("trained/adapter_config.json"))["kto_eval_control"]["desirable"], "nice");
    place.run(&["merge", "trained", "--out", "merged"]).succeeds();
    assert_eq!(json(&place.path("merged/config.json"))["kto_eval_control"]["desirable"], "nice");
    assert!(largest_difference(&place.logps("trained", ""), &place.logps("merged", "")) < 1e-3);
}

const PLAN: &str = r#"name = "conditional"
seeds = [1]
budget = { tokens = 3000 }
[model]
source = "model"
[data]
source = "data"
max_length = 64
[train]
batch_size = 8
learning_rate = 1e-3
[suites]
preference = ["heldout"]
generation = ["heldout-prompts"]
max_examples = 8
[[arm]]
method = "csft"
desirable_token = "nice"
undesirable_token = "stupid"
[[arm]]
method = "unlikelihood"
alpha = 0.5
[[arm]]
method = "sft"
"#;

#[test]
fn plans_hold_arms_of_both_new_methods_and_their_control_tokens_are_checked() {
    let place = Place::new();
    place.write("c.toml", PLAN);
    place.run(&["verify", "c.toml"]).succeeds();
    let shown = place.runs_the_same_twice("c.toml");
    assert!(shown.contains("desirable_token = \"nice\"") && shown.contains("alpha = 0.5"), "{shown}");
    place.refuses(
        PLAN,
        &[
            (
                "desirable_token = \"nice\"\n",
                "",
                "control token `<|good|>` is nothing that the tokenizer's vocabulary",
            ),
            ("\"nice\"", "\"\"", "it must be a text"),
            ("\"nice\"", "\"stupid\"", "and so is `undesirable_token`"),
            ("\"nice\"", "\" stupid \"", "are the same tokens"),
            ("alpha = 0.5", "alpha = -1", "`arm.unlikelihood.alpha` is -1"),
            ("alpha = 0.5", "beta = 0.5", "unknown key for method unlikelihood `beta`"),
        ],
    );
    let listed = place.run(&["methods"]).succeeds().to_owned();
    for line in [
        "csft          conditional SFT: completions of both classes after a control token each (arXiv 2302.08582; \
         labelled completions)",
        "unlikelihood  likelihood of desirable, unlikelihood of undesirable completions' tokens (arXiv 1908.04319; \
         labelled completions)",
    ] {
        assert!(listed.contains(line), "{listed}");
    }
}
