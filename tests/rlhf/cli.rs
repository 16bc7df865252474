//! Through the command line: a comparison with arms that learn from samples, and a reward model of one's own.

use kto_eval::record::{Records, Status};

use crate::place::Place;

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

#[test]
fn a_reward_model_is_trained_measured_and_refused_as_a_policy() {
    let place = Place::new();
    let train = ["train", "--method", "reward", "--model", "model", "--data", "data", "--out", "rm"];
    let settings = ["--tokens", "20000", "--learning-rate", "3e-3", "--max-length", "64"];
    let said = place.run(&[&train[..], &settings].concat());
    said.succeeds();
    assert!(said.err.contains("reward model on 24 pairs: accuracy"), "{}", said.err);
    let measured =
        place.run(&["reward", "--model", "rm/model", "--data", "data", "--json", "--out", "margins.csv"]);
    let quality: serde_json::Value = serde_json::from_str(measured.succeeds()).unwrap();
    let number = |key: &str| quality[key].as_f64().unwrap();
    assert_eq!(number("pairs"), 24.0);
    // 24 noisy pairs and a model of one layer that has learned 120 by heart: no worse than a coin.
    assert!(number("accuracy") >= 0.5 && number("loss").is_finite(), "{quality}");
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
        .fails(2, &["is a reward model", "no policy can start from it"]);
    place
        .run(&["reward", "--model", "model", "--data", "data"])
        .fails(2, &["holds no reward model", "hint: `kto-eval train --method reward`"]);
    let arm = place.read("plan.toml").replace("method = \"kto\"", "method = \"reward\"");
    place.write("arm.toml", &arm);
    place
        .run(&["compare", "arm.toml", "--out", "z", "--quiet"])
        .fails(2, &["arm reward", "cannot be compared", "kto-eval train --method reward"]);
}
