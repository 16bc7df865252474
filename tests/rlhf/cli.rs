//! Through the command line: a comparison with arms that learn from samples, and a reward model of one's own.

use candle_core::{DType, Device};
use kto_eval::data::PreferencePair;
use kto_eval::data::world::World;
use kto_eval::model::{Decoder, DecoderConfig, Size};
use kto_eval::plan::WorldSpec;
use kto_eval::record::{Records, Status};
use serde_json::{Value, json};

use crate::place::Place;
use crate::reward_model::python;

/// About two and a half passes over the pairs: after twice as many the model is surer of the labels' noise than it may be.
const REWARD_MODEL: [&str; 13] = [
    "train",
    "--method",
    "reward",
    "--model",
    "larger",
    "--data",
    "pairs",
    "--out",
    "rm",
    "--tokens",
    "100000",
    "--learning-rate",
    "2e-3",
];

const ARMS: &str = r#"
[[arm]]
method = "rloo"
max_new_tokens = 8

[[arm]]
method = "ppo"
max_new_tokens = 8

[[arm]]
method = "online-kto"
max_new_tokens = 8

[[arm]]
name = "needs-the-world"
method = "grpo"
reward = "gold"
"#;

fn plan(place: &Place) -> String {
    let text = place.read("plan.toml");
    let head = text.split("[[arm]]").next().unwrap().replace("tokens = 6000", "flops = 1.5e9");
    head.replace("seeds = [1, 2]", "seeds = [1]") + "[[arm]]\nmethod = \"kto\"\n" + ARMS
}

#[test]
fn a_comparison_counts_the_whole_of_rlhf_and_repeats_itself() {
    let place = Place::new();
    place.write("bad.toml", &plan(&place));
    place
        .run(&["compare", "bad.toml", "--out", "x", "--quiet"])
        .fails(2, &["arm needs-the-world", "reward = \"gold\" needs the planted-truth world", "hint:"]);
    let good = plan(&place).split("\n[[arm]]\nname = \"needs").next().unwrap().to_owned();
    place.write("good.toml", &good);
    for out in ["a", "b"] {
        place.run(&["compare", "good.toml", "--out", out, "--quiet"]).succeeds();
    }
    let records = Records::read(&place.path("a")).unwrap();
    assert_eq!(records.runs.len(), 4);
    for run in &records.runs {
        assert_eq!(run.status, Status::Done, "{}: {}", run.arm, run.note);
        assert!((run.flops / 1.5e9 - 1.0).abs() < 0.02, "{}: {} FLOPs", run.arm, run.flops);
        let phases: Vec<_> = records.phases.iter().filter(|p| p.run == run.run).collect();
        let rollouts: Vec<_> = records.rollouts.iter().filter(|r| r.run == run.run).collect();
        if run.arm == "kto" {
            assert!(phases.is_empty() && rollouts.is_empty());
            continue;
        }
        let names: Vec<&str> = phases.iter().map(|p| p.phase.as_str()).collect();
        assert!(names.starts_with(&["reward-model", "sampling", "scoring"]), "{names:?}");
        let sum: f64 = phases.iter().map(|p| p.flops).sum();
        assert!((sum / run.flops - 1.0).abs() < 1e-9);
        assert!(rollouts.len() > 3 && rollouts.iter().all(|r| r.gold.is_none() && r.kl.is_some()));
        assert_eq!(records.steps.iter().filter(|s| s.run == run.run).count() as u64, run.steps);
    }
    for file in ["charts/phases.svg", "charts/overoptimisation.svg"] {
        assert!(place.read(&format!("a/{file}")).contains("rloo"), "{file}");
    }
    place.run(&["report", "a", "--check"]).succeeds();
    let without_time = |name: &str| {
        let text = place.read(name);
        let cut = |line: &str| line.rsplit_once(',').map(|(row, _)| row.to_owned()).unwrap_or_default();
        text.lines().map(cut).collect::<Vec<_>>()
    };
    for file in ["rollouts.csv", "phases.csv", "steps.csv"] {
        assert_eq!(without_time(&format!("a/{file}")), without_time(&format!("b/{file}")), "{file}");
    }
}

const TUNED: &str = r#"
[tune]
trials = 2
validation = 0.2
suite = "heldout-gold"
metric = "gold_reward"
budget_share = 0.5

[[arm]]
method = "kto"
tune = { learning_rate = { from = 1e-4, to = 1e-2 }, beta = { from = 0.03, to = 1.0 } }

[[arm]]
method = "rloo"
max_new_tokens = 8
tune = { learning_rate = { from = 1e-4, to = 1e-2 }, beta = { from = 0.03, to = 1.0 } }
"#;

#[test]
fn arms_that_learn_from_samples_are_tuned_as_the_others_are() {
    let place = Place::new();
    let text = plan(&place);
    let head = text.split("[[arm]]").next().unwrap();
    place.write("tuned.toml", &(head.to_owned() + TUNED));
    place.run(&["compare", "tuned.toml", "--out", "a", "--quiet"]).succeeds();
    let records = Records::read(&place.path("a")).unwrap();
    let asked: Vec<u64> = records.trials.iter().map(|t| t.n).collect();
    assert!(asked.len() == 6 && asked[0] > 10 && asked.iter().all(|n| *n == asked[0]), "{asked:?}");
    for trial in &records.trials {
        assert_eq!((trial.status, trial.metric.as_str()), (Status::Done, "gold_reward"), "{}", trial.note);
        // Half of the budget, the reward model, the samples and their scores among it.
        assert!((trial.flops / 0.75e9 - 1.0).abs() < 0.03, "{} {}: {}", trial.arm, trial.trial, trial.flops);
    }
    let of: Vec<_> = records.trials.iter().filter(|t| t.arm == "rloo").collect();
    let values = kto_eval::stats::tuning::best(&of).unwrap().values.clone();
    let chosen = |key: &str, planned: f64| {
        let found = values.split(' ').find_map(|v| v.strip_prefix(key)?.strip_prefix('='));
        found.map_or(planned, |v| v.parse().unwrap())
    };
    // β stands in every rollout; the policy's steps are those without an accuracy.
    let rollouts: Vec<_> = records.rollouts.iter().filter(|r| r.arm == "rloo").collect();
    assert!(rollouts.len() > 3 && rollouts.iter().all(|r| r.beta == chosen("beta", 0.05)), "{values}");
    let policy = records.steps.iter().filter(|s| s.arm == "rloo" && s.accuracy.is_none());
    let (peak, rate) = (policy.map(|s| s.learning_rate).fold(0.0, f64::max), chosen("learning_rate", 1e-3));
    assert!(peak <= rate && peak > 0.6 * rate, "{peak} for {rate}");
}

#[test]
fn a_budget_in_labels_is_spent_by_label_and_refused_where_it_never_would_be() {
    let place = Place::new();
    let text = plan(&place).replace("flops = 1.5e9", "labels = 100");
    let head = text.split("[[arm]]").next().unwrap();
    let arms = ["sft", "dpo", "kto"].map(|m| format!("[[arm]]\nmethod = \"{m}\"\n")).concat();
    place.write("labels.toml", &(head.to_owned() + &arms));
    place.run(&["compare", "labels.toml", "--out", "a", "--quiet"]).succeeds();
    let records = Records::read(&place.path("a")).unwrap();
    let spent: Vec<_> = records.runs.iter().map(|r| (r.arm.as_str(), r.labels, r.examples)).collect();
    assert_eq!(spent, [("sft", 100, 100), ("dpo", 100, 200), ("kto", 100, 100)]);
    assert!(place.read("a/report.md").contains("100 labels a run"), "{}", place.read("a/report.md"));
    place.write("never.toml", &(head.to_owned() + "[[arm]]\nmethod = \"rloo\"\n"));
    place
        .run(&["compare", "never.toml", "--out", "x", "--quiet"])
        .fails(2, &["arm rloo", "a budget in labels is never spent", "hint: set reward = \"gold\""]);
}

/// A place with enough pairs to learn from (`pairs`), and a model that can (`larger`).
fn labelled_place() -> Place {
    let place = Place::new();
    let world =
        World::new(&WorldSpec { train_pairs: 1500, heldout_pairs: 300, ..WorldSpec::default() }).unwrap();
    let vocab = world.vocab_size();
    let size = Size { vocab, hidden: 32, layers: 2, heads: 2, kv_heads: 2, intermediate: 64, context: 96 };
    let model = place.path("larger");
    let config = DecoderConfig::llama(size).unwrap();
    Decoder::random(config, 1, DType::F32, &Device::Cpu).unwrap().save(&model).unwrap();
    world.write_tokenizer(&model).unwrap();
    std::fs::create_dir(place.path("pairs")).unwrap();
    for (split, pairs) in [("train", world.train_pairs()), ("test", world.heldout_pairs())] {
        let row = |p: &PreferencePair| {
            json!({"prompt": p.prompt, "chosen": p.chosen, "rejected": p.rejected}).to_string() + "\n"
        };
        place.write(&format!("pairs/{split}.jsonl"), &pairs.iter().map(row).collect::<String>());
    }
    place
}

const TRANSFORMERS: &str = r#"
import json, sys, torch
from transformers import AutoModelForSequenceClassification, AutoTokenizer
job = json.load(open(sys.argv[1]))
model = AutoModelForSequenceClassification.from_pretrained(job["model"], dtype=torch.float32).eval()
tokenizer = AutoTokenizer.from_pretrained(job["model"])
def score(text):
    ids = tokenizer(text).input_ids
    ids = ids if ids[-1] == tokenizer.eos_token_id else ids + [tokenizer.eos_token_id]
    with torch.no_grad():
        return model(torch.tensor([ids])).logits[0, 0].item()
margins = []
for line in open(job["pairs"]):
    pair = json.loads(line)
    margins.append(score(pair["prompt"] + pair["chosen"]) - score(pair["prompt"] + pair["rejected"]))
json.dump({"class": type(model).__name__, "margins": margins}, open(job["folder"] + "/answers.json", "w"))
"#;

/// `pip install torch transformers` into a venv; its python in KTO_EVAL_PYTHON (default python3). Then:
/// cargo test --release --test rlhf -- --ignored transformers
#[test]
#[ignore = "needs Python with torch and transformers: pip install torch transformers"]
fn transformers_opens_a_trained_reward_model_and_gives_its_margins() {
    let place = labelled_place();
    place.run(&REWARD_MODEL).succeeds();
    place
        .run(&["reward", "--model", "rm/model", "--data", "pairs", "--quiet", "--out", "margins.csv"])
        .succeeds();
    let job = json!({
        "model": place.path("rm/model"), "pairs": place.path("pairs/test.jsonl"), "folder": place.dir(),
    });
    let answers: Value = python(place.dir(), TRANSFORMERS, &job);
    let table = place.read("margins.csv");
    let ours = table.lines().skip(1).map(|l| l.rsplit(',').next().unwrap().parse::<f64>().unwrap());
    let theirs = answers["margins"].as_array().unwrap();
    let (mut furthest, mut n) = (0.0f64, 0);
    for (a, b) in ours.zip(theirs) {
        (furthest, n) = (furthest.max((a - b.as_f64().unwrap()).abs()), n + 1);
    }
    println!("{}: {n} margins within {furthest:.1e}", answers["class"]);
    assert!(n == 300 && furthest < 1e-4, "{n} margins within {furthest:e}");
}

#[test]
fn a_reward_model_is_trained_measured_and_refused_as_a_policy() {
    let place = labelled_place();
    let said = place.run(&REWARD_MODEL);
    said.succeeds();
    assert!(said.err.contains("reward model on 300 pairs: accuracy"), "{}", said.err);
    let measured =
        place.run(&["reward", "--model", "rm/model", "--data", "pairs", "--json", "--out", "margins.csv"]);
    let quality: serde_json::Value = serde_json::from_str(measured.succeeds()).unwrap();
    let number = |key: &str| quality[key].as_f64().unwrap();
    assert_eq!(number("pairs"), 300.0);
    // A model of two small layers that has read nothing but these pairs: well above a coin, and honest about it.
    let above_chance = (number("accuracy") - 0.5) / number("accuracy_standard_error");
    println!("{quality}");
    assert!(above_chance > 5.0, "{quality}");
    // Knowing nothing has a loss of log 2 = 0.69 and a Brier score of 0.25.
    assert!(number("loss") < 0.67 && number("brier") < 0.235, "{quality}");
    assert!(number("expected_calibration_error") < 0.12, "{quality}");
    let margins: Vec<f64> = place
        .read("margins.csv")
        .lines()
        .skip(1)
        .map(|l| l.rsplit(',').next().unwrap().parse().unwrap())
        .collect();
    let right = margins.iter().filter(|m| **m > 0.0).count() as f64;
    assert_eq!(right / margins.len() as f64, number("accuracy"));
    place
        .run(&["compare", "plan.toml", "--model", "rm/model", "--out", "y", "--quiet"])
        .fails(2, &["is a reward model", "name a language model"]);
    place
        .run(&["reward", "--model", "model", "--data", "pairs"])
        .fails(2, &["holds no reward model", "hint: `kto-eval train --method reward`"]);
    let arm = place.read("plan.toml").replace("method = \"kto\"", "method = \"reward\"");
    place.write("arm.toml", &arm);
    place
        .run(&["compare", "arm.toml", "--out", "z", "--quiet"])
        .fails(2, &["arm reward", "cannot be compared", "kto-eval train --method reward"]);
}
