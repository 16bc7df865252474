//! Sweeps, SFT first and tuning through the command line, on a tiny model and a little data.

mod cli;

use cli::Place;
use kto_eval::record::{Family, Records, Status, Verdict};

/// The tiny plan with other arms, and lines of its own before the first section.
fn plan(head: &str, arms: &str) -> String {
    let (sections, _) = cli::PLAN.split_once("[[arm]]").unwrap();
    format!("{head}\n{sections}\n{arms}")
}

const SWEEP: &str = r#"
[data.feedback]
fraction = [0.25, 1.0]

[sweep]
claim = "KTO matches DPO at less feedback"
against = ["dpo@fraction=1"]

[[arm]]
method = "kto"
sft_first = 0.25

[[arm]]
method = "dpo"
"#;

#[test]
fn a_sweep_runs_every_point_judges_equal_ones_and_draws_its_chart() {
    let place = Place::new();
    place.write("plan.toml", &plan("", SWEEP));
    let dry = place.run(&["compare", "plan.toml", "--dry-run"]);
    for part in [
        "# 8 runs (4 arms × 2 seeds) of 6000 tokens each",
        "# policy tokens: 0.05 million",
        "# time: about",
        "MiB",
    ] {
        assert!(dry.succeeds().contains(part), "lacks {part}: {}", dry.out);
    }
    assert!(!place.path("out").exists());

    place.run(&["compare", "plan.toml", "--out", "a"]).succeeds();
    let records = Records::read(&place.path("a")).unwrap();
    assert_eq!(records.runs.len(), 8);
    for run in &records.runs {
        assert_eq!(run.status, Status::Done, "{}", run.note);
        assert!(
            run.policy_tokens > 5900 && run.policy_tokens <= 6000,
            "SFT is counted: {}",
            run.policy_tokens
        );
        let steps: Vec<_> = records.steps.iter().filter(|s| s.run == run.run).collect();
        assert_eq!(steps.len() as u64, run.steps);
        assert!(steps.iter().zip(1..).all(|(s, n)| s.step == n), "steps are numbered through both stages");
        assert_eq!(steps.last().unwrap().total_policy_tokens, run.policy_tokens);
        let sft: u64 = steps
            .iter()
            .filter(|s| s.reward_chosen.is_none() && s.reward_rejected.is_none())
            .map(|s| s.policy_tokens)
            .sum();
        let share = if run.method == "kto" { 0.25 } else { 0.0 };
        assert!((sft as f64 / 6000.0 - share).abs() < 0.02, "{}: {sft} tokens of SFT", run.run);
        let saturated: Vec<f64> = steps.iter().filter_map(|s| s.saturation).collect();
        assert_eq!(saturated.is_empty(), run.method != "kto");
        assert!(saturated.iter().all(|s| (0.0..1.0).contains(s)));
    }
    // The same budget on a quarter of the labels takes four times the epochs.
    let epochs = |arm: &str| records.runs.iter().find(|r| r.arm == arm).unwrap().epochs;
    let ratio = epochs("dpo@fraction=0.25") / epochs("dpo@fraction=1");
    assert!((3.5..4.5).contains(&ratio), "{ratio}");

    let pairs: Vec<(&str, &str)> = records
        .comparisons
        .iter()
        .filter(|c| c.family == Family::Primary)
        .map(|c| (c.arm_a.as_str(), c.arm_b.as_str()))
        .collect();
    assert_eq!(
        pairs,
        [
            ("kto@fraction=0.25", "dpo@fraction=0.25"),
            ("kto@fraction=0.25", "dpo@fraction=1"),
            ("kto@fraction=1", "dpo@fraction=1"),
            ("dpo@fraction=0.25", "dpo@fraction=1"),
        ]
    );
    assert!(records.comparisons.iter().all(|c| c.verdict != Verdict::Invalid));
    let report = place.read("a/report.md");
    assert!(report.contains("“KTO matches DPO at less feedback”: "), "{report}");
    assert!(place.read("a/report.html").contains("kto against dpo@fraction=1"));
    let svg = place.read("a/charts/sweep-heldout-reward_accuracy-data-feedback-fraction.svg");
    for part in ["kto at 25 %: ", "dpo at 100 %: ", "scores.csv:"] {
        assert!(svg.contains(part), "lacks {part}");
    }
    let again = place.run(&["report", "a", "--check"]);
    assert_eq!(again.code, 0, "{}{}", again.out, again.err);
    // The folder's own plan is the same plan: the command goes on with nothing left to do.
    place.run(&["compare", "a/plan.toml", "--out", "a", "--quiet"]).succeeds();
    assert_eq!(Records::read(&place.path("a")).unwrap().runs, records.runs);
}

#[test]
fn a_budget_may_be_swept_and_has_its_price() {
    let place = Place::new();
    let arms = "[prices]\ndevice_hour = 36\n[[arm]]\nmethod = \"kto\"\nz0 = \"reversed\"\n[[arm]]\nmethod = \"sft\"\n";
    place.write(
        "plan.toml",
        &plan("", arms).replace("tokens = 6000", "tokens = [2000, 4000]").replace("[1, 2]", "[1]"),
    );
    place.run(&["compare", "plan.toml", "--out", "a", "--quiet"]).succeeds();
    let records = Records::read(&place.path("a")).unwrap();
    let spent: Vec<(&str, bool)> =
        records.runs.iter().map(|r| (r.arm.as_str(), r.policy_tokens > 2000)).collect();
    assert_eq!(
        spent,
        [
            ("kto@tokens=2000", false),
            ("kto@tokens=4000", true),
            ("sft@tokens=2000", false),
            ("sft@tokens=4000", true)
        ]
    );
    let report = place.read("a/report.md");
    assert!(!report.contains("INVALID") && report.contains("money (at the plan's price)"), "{report}");
    let svg = place.read("a/charts/sweep-cost.svg");
    assert!(svg.contains("money (USD, at 36 a device-hour)"), "{svg}");
    assert_eq!(place.run(&["report", "a", "--check"]).code, 0);
}

#[test]
fn seconds_that_are_swept_are_added_up() {
    let place = Place::new();
    let arms = "[[arm]]\nmethod = \"kto\"\n";
    place.write(
        "plan.toml",
        &plan("", arms).replace("tokens = 6000", "seconds = [60, 600]").replace("[1, 2]", "[1]"),
    );
    let dry = place.run(&["compare", "plan.toml", "--dry-run", "--json"]);
    let dry: serde_json::Value = serde_json::from_str(dry.succeeds()).unwrap();
    assert_eq!(dry["estimate"]["seconds"], 660.0);
}

const TUNE: &str = r#"
[tune]
trials = 2
validation = 0.2
budget_share = 0.5

[[arm]]
method = "kto"
tune = { learning_rate = [1e-5, 3e-3] }

[[arm]]
method = "sft"
tune = { learning_rate = { from = 1e-4, to = 1e-2 } }
"#;

#[test]
fn tuning_tries_the_same_number_for_every_arm_and_chooses_on_training_data() {
    let place = Place::new();
    place.write("plan.toml", &plan("", TUNE));
    place.run(&["compare", "plan.toml", "--out", "a", "--quiet"]).succeeds();
    let records = Records::read(&place.path("a")).unwrap();
    let tried: Vec<(&str, u64)> = records.trials.iter().map(|t| (t.arm.as_str(), t.trial)).collect();
    assert_eq!(tried, [("kto", 0), ("kto", 1), ("kto", 2), ("sft", 0), ("sft", 1), ("sft", 2)]);
    for trial in &records.trials {
        assert_eq!((trial.status, trial.metric.as_str()), (Status::Done, "reward_accuracy"));
        assert!(trial.policy_tokens > 2900 && trial.policy_tokens <= 3000, "{}", trial.policy_tokens);
        assert!((10..=40).contains(&trial.n) && (0.0..=1.0).contains(&trial.value), "{trial:?}");
    }
    // Validation prompts are taken out of the training data: a run sees fewer examples an epoch than there are.
    let run = records.runs.iter().find(|r| r.arm == "kto").unwrap();
    let an_epoch = run.examples as f64 / run.epochs;
    assert!((180.0..=204.0).contains(&an_epoch), "240 completions less a fifth of the prompts: {an_epoch}");
    // The chosen learning rate is the one that ran.
    let best = |arm: &str| {
        let of: Vec<_> = records.trials.iter().filter(|t| t.arm == arm).collect();
        kto_eval::stats::tuning::best(&of).unwrap().values.clone()
    };
    let peak = |arm: &str| {
        let steps = records.steps.iter().filter(|s| s.arm == arm).map(|s| s.learning_rate);
        steps.fold(0.0, f64::max)
    };
    for arm in ["kto", "sft"] {
        let planned = 1e-3;
        let chosen = best(arm).strip_prefix("learning_rate=").map_or(planned, |v| v.parse().unwrap());
        assert!(peak(arm) <= chosen && peak(arm) > 0.8 * chosen, "{arm}: {} for {chosen}", peak(arm));
    }
    let svg = place.read("a/charts/tuning.svg");
    assert!(svg.contains("kto: expected best of 2 is") && svg.contains("trials.csv:2-4"), "{svg}");
    assert_eq!(place.run(&["report", "a", "--check"]).code, 0);

    // Cut in the middle of the trials: the rest is made up for, and all rows come out the same.
    std::fs::create_dir(place.path("b")).unwrap();
    let kept: Vec<String> = place.read("a/trials.csv").lines().take(3).map(str::to_owned).collect();
    place.write("b/trials.csv", &(kept.join("\n") + "\n"));
    std::fs::copy(place.path("a/plan.toml"), place.path("b/plan.toml")).unwrap();
    place.run(&["compare", "plan.toml", "--out", "b", "--quiet"]).succeeds();
    let again = Records::read(&place.path("b")).unwrap();
    let scores = |r: &Records| r.trials.iter().map(|t| (t.arm.clone(), t.trial, t.value)).collect::<Vec<_>>();
    assert_eq!(scores(&again), scores(&records));
    assert_eq!(again.scores, records.scores);

    let held_out = plan("", &TUNE.replace("trials = 2", "trials = 2\nsuite = \"world\""));
    place.write("wrong.toml", &held_out);
    place.run(&["compare", "wrong.toml", "--out", "c"]).fails(2, &["held out", "hint:"]);
}

#[test]
fn an_arm_none_of_whose_trials_ended_well_does_not_stop_the_others() {
    let place = Place::new();
    let lost = TUNE
        .replace("[1e-5, 3e-3]", "[1e29, 1e30]")
        .replace("method = \"kto\"", "method = \"kto\"\nlearning_rate = 1e30\nwarmup = 0");
    place.write("plan.toml", &plan("", &lost));
    let ran = place.run(&["compare", "plan.toml", "--out", "a"]);
    ran.fails(1, &["kto: none of its 3 trials ended well; it runs as the plan has it"]);
    let records = Records::read(&place.path("a")).unwrap();
    for run in &records.runs {
        assert_eq!(
            run.status,
            if run.arm == "kto" { Status::Diverged } else { Status::Done },
            "{}",
            run.note
        );
    }
    assert_eq!((records.runs.len(), records.trials.len()), (4, 6));
    assert_eq!(place.run(&["report", "a", "--check"]).code, 0);
}

/// A cache that cannot be written is nobody's fault: no trial is lost over it.
#[test]
fn a_trial_is_not_to_blame_for_a_full_disk() {
    let place = Place::new();
    place.write("plan.toml", &plan("", TUNE));
    let arguments = ["compare", "plan.toml", "--out", "a", "--quiet"];
    // A folder stands where the file of log-probs would.
    place.run(&["compare", "plan.toml", "--out", "first", "--quiet"]).succeeds();
    let kept = std::fs::read_dir(place.path("cache/reference")).unwrap().next().unwrap().unwrap().path();
    std::fs::remove_file(&kept).unwrap();
    std::fs::create_dir(&kept).unwrap();
    place.run(&arguments).fails(2, &["trial kto-trial0", "saving reference log-probs to"]);
    assert!(!place.read("a/trials.csv").contains("kto"), "{}", place.read("a/trials.csv"));
    std::fs::remove_dir(&kept).unwrap();
    place.run(&arguments).succeeds();
    assert_eq!(Records::read(&place.path("a")).unwrap().trials.len(), 6);
}
