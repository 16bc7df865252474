//! A whole comparison through the command line.

mod cli;

use cli::{Place, TABLES, stable};
use kto_eval::record::{Records, Status};

#[test]
fn the_same_command_gives_the_same_rows_and_goes_on_where_it_was_cut() {
    let place = Place::new();
    place.run(&["compare", "plan.toml", "--out", "a", "--quiet"]).succeeds();
    let records = Records::read(&place.path("a")).unwrap();
    assert_eq!(records.runs.len(), 6);
    for run in &records.runs {
        assert_eq!(run.status, Status::Done, "{}", run.note);
        assert!(run.policy_tokens > 5900 && run.policy_tokens <= 6000, "{}", run.policy_tokens);
        assert!(records.steps.iter().any(|s| s.run == run.run));
        assert!(records.scores.iter().any(|s| s.run == run.run && s.metric == "reward_accuracy"));
    }
    let base = records.scores.iter().find(|s| s.run == "base" && s.metric == "reward_accuracy");
    assert_eq!(base.map(|s| s.value), Some(0.5), "the starting checkpoint has no reward against itself");
    assert!(records.comparisons.iter().any(|c| c.arm_a == "kto" || c.arm_b == "kto"));
    for file in ["report.md", "report.html", "environment.json", "plan.toml"] {
        assert!(!place.read(&format!("a/{file}")).is_empty());
    }
    assert!(place.path("a/charts").read_dir().unwrap().count() > 1);

    // Elsewhere, with nothing cached.
    std::fs::remove_dir_all(place.path("cache")).ok();
    place.run(&["compare", "plan.toml", "--out", "b", "--quiet"]).succeeds();
    // Cut after the third run, in the middle of the fourth, and gone on with.
    std::fs::create_dir(place.path("c")).unwrap();
    std::fs::remove_dir_all(place.path("cache")).ok();
    for file in ["plan.toml", "environment.json", "scores.csv", "examples.csv", "steps.csv"] {
        std::fs::copy(place.path("a").join(file), place.path("c").join(file)).unwrap();
    }
    let kept: Vec<String> = place.read("a/runs.csv").lines().take(4).map(str::to_owned).collect();
    place.write("c/runs.csv", &(kept.join("\n") + "\n"));
    place.run(&["compare", "plan.toml", "--out", "c", "--quiet"]).succeeds();
    for table in TABLES {
        let first = stable(&place.read(&format!("a/{table}")));
        for other in ["b", "c"] {
            assert_eq!(first, stable(&place.read(&format!("{other}/{table}"))), "{other}/{table}");
        }
    }
    let again = place.run(&["report", "a", "--check"]);
    assert_eq!(again.code, 0, "{}{}", again.out, again.err);
}

#[test]
fn more_seeds_go_on_and_end_with_the_rows_of_all_at_once() {
    let place = Place::new();
    let compare = |out: &str, seeds: &str| {
        place.run(&["compare", "plan.toml", "--out", out, "--seed", seeds, "--quiet"]).succeeds();
    };
    compare("grown", "1");
    let before = stable(&place.read("grown/runs.csv"));
    compare("grown", "1,2");
    compare("whole", "1,2");
    place.assert_same_rows("whole", "grown");
    assert_eq!(stable(&place.read("grown/runs.csv"))[..before.len()], before[..], "what was there stays");
    place.run(&["report", "grown", "--check"]).succeeds();
}

#[test]
fn an_arm_that_diverges_is_recorded_and_the_others_go_on() {
    let place = Place::new();
    let set = ["--set", "arm.dpo.learning_rate=1e30", "--set", "seeds=[1]", "--set", "arm.dpo.warmup=0"];
    let ran = place.run(&[&["compare", "plan.toml", "--out", "out"][..], &set].concat());
    ran.fails(1, &["diverged"]);
    let records = Records::read(&place.path("out")).unwrap();
    let status: Vec<_> = records.runs.iter().map(|r| (r.arm.as_str(), r.status)).collect();
    assert_eq!(status, [("sft", Status::Done), ("dpo", Status::Diverged), ("kto", Status::Done)]);
    let dpo = records.runs.iter().find(|r| r.arm == "dpo").unwrap();
    assert!(!dpo.note.is_empty() && records.steps.iter().any(|s| s.run == dpo.run), "{dpo:?}");
}

#[test]
fn verify_takes_one_step_with_each_arm() {
    let place = Place::new();
    let ran = place.run(&["verify", "plan.toml", "--quiet"]);
    for arm in ["sft", "dpo", "kto"] {
        assert!(
            ran.succeeds().lines().any(|l| l.starts_with(arm) && l.contains("step-0 identity")),
            "{}",
            ran.out
        );
    }
    place
        .run(&["verify", "plan.toml", "--set", "suites.preference=[\"nope\"]"])
        .fails(2, &["unknown preference suite"]);
}

#[test]
fn a_suite_that_cannot_be_read_is_said_before_anything_is_trained() {
    let place = Place::new();
    place.write(
        "gone.toml",
        "name = \"gone\"\nanalysis = \"x\"\nlicence = \"x\"\nsize = \"x\"\nkind = \"preference\"\nsource = \"gone.jsonl\"\nmetrics = [\"reward_accuracy\"]\n",
    );
    let tuned = cli::PLAN
        .replace("\"heldout\"", "\"heldout\", \"gone.toml\"")
        .replace("[suites]", "[tune]\ntrials = 1\n[suites]")
        .replace("\n\n[[arm]]", "\ntune.learning_rate = [1e-4]\n\n[[arm]]")
        .replacen("\ntune.learning_rate = [1e-4]\n", "\n", 1);
    place.write("tuned.toml", &(tuned + "tune.learning_rate = [1e-4]\n"));
    for command in ["verify tuned.toml", "compare tuned.toml --out out"] {
        place.line(command).fails(2, &["reading suite `gone`", "gone.jsonl"]);
    }
    assert!(!place.path("out/trials.csv").exists());
}

#[test]
fn records_stay_until_others_can_be_made() {
    let place = Place::new();
    let compare = |more: &[&str]| {
        place.run(&[&["compare", "plan.toml", "--out", "out", "--set", "seeds=[1]"][..], more].concat())
    };
    compare(&[]).succeeds();
    let rows = || ["runs.csv", "steps.csv", "report.md"].map(|name| place.read(&format!("out/{name}")));
    let before = rows();
    compare(&["--force", "--set", "model.source=gone"]).fails(2, &["gone"]);
    std::fs::rename(place.path("data"), place.path("elsewhere")).unwrap();
    compare(&["--force"]).fails(2, &["data"]);
    assert_eq!(rows(), before);
    std::fs::rename(place.path("elsewhere"), place.path("data")).unwrap();
    // Memory is saved, and nothing that was computed changes: the same comparison.
    compare(&["--set", "train.gradient_checkpointing=true"]).succeeds();
    assert_eq!(rows()[0], before[0]);
}

#[test]
fn verify_takes_a_step_of_each_stage_where_an_arm_has_two() {
    let place = Place::new();
    let staged = place.read("plan.toml")
        + "\n[[arm]]\nname = \"kto-after-sft\"\nmethod = \"kto\"\nsft_first = 0.4\n"
        + "\n[[arm]]\nmethod = \"rloo\"\nmax_new_tokens = 8\n";
    place.write("staged.toml", &staged);
    let ran = place.run(&["verify", "staged.toml", "--quiet"]);
    let said = ran.succeeds();
    for arm in ["kto-after-sft", "rloo"] {
        let identity = |l: &str| l.starts_with(arm) && l.contains("passed") && l.contains("step-0 identity");
        assert!(said.lines().any(identity), "{said}");
    }
}

#[test]
fn bench_leaves_out_what_it_cannot_measure() {
    let place = Place::new();
    let arms = "\n[[arm]]\nmethod = \"rloo\"\nmax_new_tokens = 8\n\
                \n[[arm]]\nname = \"theirs\"\n[arm.trainer]\ncommand = [\"true\", \"{out}\"]\n";
    place.write("more.toml", &(place.read("plan.toml") + arms));
    let ran = place.run(&["bench", "more.toml", "--seconds", "1", "--json"]);
    let bench: serde_json::Value = serde_json::from_str(ran.succeeds()).unwrap();
    let phases: Vec<&str> =
        bench["phases"].as_array().unwrap().iter().map(|p| p["phase"].as_str().unwrap()).collect();
    assert_eq!(phases[2..5], ["steps of sft", "steps of dpo", "steps of kto"]);
    assert_eq!(bench["max_length"], 64);
    assert!(phases.len() == 6 && phases[5].starts_with("sampling"), "{phases:?}");
    assert!(ran.err.contains("arm rloo: not measured") && ran.err.contains("arm theirs: not"), "{}", ran.err);
    let ran = place.line("bench --model model --data data --seconds 1 --json");
    let bench: serde_json::Value = serde_json::from_str(ran.succeeds()).unwrap();
    assert_eq!(bench["max_length"], 512, "of data that are named, not of quickstart's");
}

#[test]
fn plans_are_shown_with_every_default_and_dry_runs_spend_nothing() {
    let place = Place::new();
    let shown = place.run(&["plan", "show", "plan.toml"]);
    place.write("shown.toml", shown.succeeds());
    assert_eq!(place.run(&["plan", "show", "shown.toml"]).succeeds(), shown.out);
    for key in [
        "retries = 6",
        "# trials = 8",
        "currency = \"USD\"",
        "partition = \"\"",
        "sft_first = 0.0",
        "against = []",
    ] {
        assert!(shown.out.contains(key), "lacks {key}: {}", shown.out);
    }
    let dry = place.run(&["compare", "plan.toml", "--dry-run", "--json", "--seed", "4,5,6"]);
    let dry: serde_json::Value = serde_json::from_str(dry.succeeds()).unwrap();
    assert_eq!(dry["runs"].as_array().map(Vec::len), Some(9));
    assert!(dry["estimate"]["runs"] == 9 && dry["estimate"]["seconds"].as_f64().unwrap() > 0.0, "{dry}");
    assert!(!place.path("out").exists());
    let methods = place.run(&["methods"]);
    assert!(methods.succeeds().contains("lambda_undesirable = \"auto\""), "{}", methods.out);
    assert!(place.run(&["suites", "list"]).succeeds().contains("heldout"));
    let shown = place.run(&["suites", "show", "heldout"]);
    assert!(
        shown.succeeds().contains("\n# margin (reward, higher is better): implicit reward of chosen"),
        "{}",
        shown.out
    );
    assert!(place.run(&["data", "inspect", "data"]).succeeds().contains("120 pairs of 120 rows"));
}

#[test]
fn train_writes_steps_and_a_model_that_score_reads() {
    let place = Place::new();
    let train = [
        "train",
        "--method",
        "kto",
        "--model",
        "model",
        "--data",
        "data",
        "--steps",
        "5",
        "--batch-size",
        "4",
        "--order",
        "sequential",
        "--schedule",
        "constant",
        "--warmup",
        "0",
        "--learning-rate",
        "1e-3",
        "--param",
        "z0=previous",
        "--out",
        "run",
        "--save-model",
        "kept",
        "--quiet",
    ];
    place.run(&train).succeeds();
    let records = Records::read(&place.path("run")).unwrap();
    assert_eq!(records.steps.len(), 5);
    assert!(records.steps.iter().all(|s| s.learning_rate == 1e-3 && s.kl_unclamped.is_some()));
    assert!(
        (records.steps[0].loss - 0.5).abs() < 1e-6,
        "policy and reference are equal: {}",
        records.steps[0].loss
    );

    let score = |model: &str| {
        let arguments =
            ["score", "--model", model, "--reference", "model", "--data", "data", "--split", "test"];
        let ran = place.run(&arguments);
        let mut reader = csv::Reader::from_reader(ran.succeeds().as_bytes());
        reader.records().map(|r| r.unwrap().iter().map(str::to_owned).collect()).collect::<Vec<Vec<String>>>()
    };
    let (before, after) = (score("model"), score("kept"));
    assert_eq!((before.len(), before[0][1].as_str(), before[1][1].as_str()), (48, "chosen", "rejected"));
    for (b, a) in before.iter().zip(&after) {
        assert_eq!(b[4], b[5], "a model's log-prob against itself");
        assert_eq!(b[5], a[5]);
    }
    assert!(before.iter().zip(&after).any(|(b, a)| b[4] != a[4]), "training moved the policy");
    saves_where_it_is_told(&place, &train);
}

/// A run that is there already is not said to be somewhere else, and no checkpoint that is read is written over.
fn saves_where_it_is_told(place: &Place, train: &[&str]) {
    let again: serde_json::Value =
        serde_json::from_str(place.run(&[train, &["--json"]].concat()).succeeds()).unwrap();
    assert!(again["model"] == "kept" && again["run"]["steps"] == 5, "{again}");
    let to = |model: &str, more: &[&str]| {
        let words: Vec<&str> = train.iter().map(|w| if *w == "kept" { model } else { *w }).collect();
        place.run(&[&words, more].concat())
    };
    to("elsewhere", &[])
        .fails(2, &["run holds this run already", "its model is not in elsewhere", "--force"]);
    assert!(!place.path("elsewhere").exists());
    copy(place, "model", "other");
    for (model, more) in [("model", &[][..]), ("other", &["--reference", "other"])] {
        let refused = to(model, &[&["--force"], more].concat());
        refused.fails(2, &[&format!("--save-model is {model}, a checkpoint that is read from")]);
        assert!(!refused.err.contains("step "), "before it is trained: {}", refused.err);
    }
}

/// Models of two runs have folders of their own, and what lies in one is not deleted unasked.
#[test]
fn scores_of_one_model_stay_where_another_is_scored() {
    let place = Place::new();
    for model in ["a/model", "b/model"] {
        copy(&place, "model", model);
        let line = format!("score --model {model} --data data --suite heldout --max-examples 2");
        place.line(&line).succeeds();
        place.line(&line).fails(2, &["holds scores.csv of an earlier scoring", "--out", "--force"]);
        place.line(&format!("{line} --force")).succeeds();
    }
    for out in ["out/score-a-model", "out/score-b-model"] {
        assert_eq!(place.read(&format!("{out}/logps.csv")).lines().count(), 1 + 2 * 2, "{out}");
    }
}

fn copy(place: &Place, from: &str, to: &str) {
    std::fs::create_dir_all(place.path(to)).unwrap();
    for entry in std::fs::read_dir(place.path(from)).unwrap() {
        let path = entry.unwrap().path();
        std::fs::copy(&path, place.path(to).join(path.file_name().unwrap())).unwrap();
    }
}
