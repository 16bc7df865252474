//! The gate through the command line: verdicts and outputs, baselines, planted faults, bad input.

mod cli;

use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use cli::{Place, Ran, ran};
use kto_eval::data::Sequence;
use kto_eval::gate::{Config, Findings, History, Kind, Side, judge};
use kto_eval::launch::{Silent, TrainingSet, prepare, trained};
use kto_eval::plan::{Method, Overrides, Plan, RunSpec, Z0};
use kto_eval::record::{Records, Status, StepRow};
use kto_eval::stats::gate::Change;

fn gate(place: &Place, arguments: &[&str]) -> Ran {
    place.run(&[&["gate"], arguments].concat())
}

fn findings(place: &Place, out: &str) -> Findings {
    serde_json::from_str(&place.read(&format!("{out}/gate.json"))).unwrap()
}

fn verdict(found: &Findings, id: &str) -> Change {
    found.findings.iter().find(|f| f.id == id).unwrap_or_else(|| panic!("no {id} in {found:?}")).verdict
}

fn copy(place: &Place, from: &str, to: &str) {
    std::fs::create_dir_all(place.path(to)).unwrap();
    for entry in std::fs::read_dir(place.path(from)).unwrap() {
        let path = entry.unwrap().path();
        if path.is_file() {
            std::fs::copy(&path, place.path(to).join(path.file_name().unwrap())).unwrap();
        }
    }
}

#[test]
fn a_gate_says_what_changed_where_ci_reads_it() {
    let place = Place::new();
    let compare = |out: &str, more: &[&str]| {
        place.run(&[&["compare", "plan.toml", "--quiet", "--out", out], more].concat()).succeeds().to_owned()
    };
    compare("a", &[]);
    compare("b", &[]);
    compare("c", &["--set", "train.learning_rate=2e-3"]);

    // The same bits: everything that rows alone can show passes.
    let same = gate(&place, &["--baseline", "a", "--candidate", "b", "--out", "same"]);
    same.succeeds();
    let found = findings(&place, "same");
    for arm in ["sft", "dpo", "kto"] {
        for id in [format!("completion/{arm}"), format!("final-loss/{arm}"), format!("trajectory/{arm}")] {
            assert_eq!(verdict(&found, &id), Change::Pass, "{id}: {found:?}");
        }
        assert_eq!(verdict(&found, &format!("quality/{arm}/heldout/reward_accuracy")), Change::Pass);
        // Nobody measured them side by side.
        assert_eq!(verdict(&found, &format!("throughput/{arm}")), Change::Inconclusive);
    }
    let strict = "inconclusive = \"fail\"\n";
    place.write("strict.toml", strict);
    gate(&place, &["--baseline", "a", "--candidate", "b", "--config", "strict.toml"]).fails(1, &[]);
    place.write("gate.toml", "[throughput]\nenabled = false\n[memory]\nenabled = false\n");
    let clean =
        gate(&place, &["--baseline", "a", "--candidate", "b", "--json", "--history", "past", "--record"]);
    let clean: Findings = serde_json::from_str(clean.succeeds()).unwrap();
    assert_eq!((clean.verdict, clean.fails), (Change::Pass, false));
    assert_eq!(std::fs::read_dir(place.path("past")).unwrap().count(), 1);

    // A doubled learning rate, as GitHub Actions sees it.
    let mut command =
        place.command(&["gate", "--baseline", "a", "--candidate", "c", "--out", "out", "--history", "past"]);
    command.env("GITHUB_ACTIONS", "true").env("GITHUB_STEP_SUMMARY", place.path("summary.md"));
    command.env("GITHUB_OUTPUT", place.path("output"));
    let doubled = ran(command.output().unwrap());
    assert_eq!(doubled.code, 1, "{}{}", doubled.out, doubled.err);
    assert!(doubled.err.contains("::error title=trajectory/kto::"), "{}", doubled.err);
    assert!(
        doubled.out.contains("gate: regressed") && doubled.out.contains("learning_rate"),
        "{}",
        doubled.out
    );
    assert!(
        place.read("summary.md").contains("regressed") && place.read("output").contains("verdict=regressed")
    );
    let junit = place.read("out/junit.xml");
    assert!(junit.contains("<failure") && junit.contains("trajectory/kto"), "{junit}");
    for file in ["gate.md", "bigger-is-better.json", "smaller-is-better.json", "bencher.json"] {
        assert!(place.read(&format!("out/{file}")).len() > 50, "{file}");
    }

    baselines(&place);
    bad_input(&place);
    a_candidate_that_diverges_has_its_verdict(&place);
}

/// Measured on both sides, and no run of the candidate ends well in any round.
fn a_candidate_that_diverges_has_its_verdict(place: &Place) {
    for side in ["m/baseline", "m/candidate"] {
        copy(place, "a", side);
        for round in ["repeats/01", "repeats/02"] {
            copy(place, "a", &format!("{side}/{round}"));
        }
        place.write(&format!("{side}/repeats/session.json"), "{\"id\": \"x\", \"rounds\": 2}\n");
    }
    for folder in ["", "/repeats/01", "/repeats/02"] {
        let runs = format!("m/candidate{folder}/runs.csv");
        place.write(&runs, &place.read(&runs).replace(",done,", ",diverged,"));
    }
    gate(place, &["--baseline", "m/baseline", "--candidate", "m/candidate", "--out", "lost"]).fails(1, &[]);
    let found = findings(place, "lost");
    for arm in ["sft", "dpo", "kto"] {
        assert_eq!(verdict(&found, &format!("completion/{arm}")), Change::Regressed);
    }
}

fn baselines(place: &Place) {
    let saved = place.run(&["baseline", "save", "a", "--to", "kept", "--name", "main"]);
    assert!(saved.succeeds().contains("kept/main"), "{}", saved.out);
    assert!(place.run(&["baseline", "list", "kept"]).succeeds().contains("main"));
    let shown = place.run(&["baseline", "show", "kept/main"]);
    assert!(shown.succeeds().contains("sft dpo kto") && shown.out.contains("data"), "{}", shown.out);
    assert!(!place.path("kept/main/samples.jsonl").exists() && !place.path("kept/main/report.html").exists());
    gate(place, &["--baseline", "kept/main", "--candidate", "b", "--out", "kept-same"]).succeeds();
    assert_eq!(findings(place, "kept-same").verdict, Change::Pass);
    gate(place, &["--baseline", "kept/main", "--candidate", "c"]).fails(1, &[]);
    // By the name that `baseline list` prints, where it lies in the usual folder.
    place.run(&["baseline", "save", "a", "--name", "usual"]).succeeds();
    assert!(place.run(&["baseline", "show", "usual"]).succeeds().contains("sft dpo kto"));
    gate(place, &["--baseline", "usual", "--candidate", "b", "--out", "usual-same"]).succeeds();
    place
        .run(&["baseline", "save", "a", "--to", "kept", "--name", "main"])
        .fails(2, &["is there already", "--force"]);
    place.run(&["baseline", "save", "a", "--to", "kept", "--name", "main", "--force"]).succeeds();
    place
        .run(&["baseline", "save", "a", "--to", "kept", "--name", "../x"])
        .fails(2, &["is no name for a baseline"]);
    place.run(&["baseline", "show", "a"]).fails(2, &["baseline.json", "baseline list"]);

    copy(place, "a", "packed");
    for name in ["runs.csv", "scores.csv", "examples.csv"] {
        let path = place.path("packed").join(name);
        let file = std::fs::File::create(path.with_file_name(format!("{name}.gz"))).unwrap();
        let mut packed = flate2::write::GzEncoder::new(file, flate2::Compression::fast());
        std::io::Write::write_all(&mut packed, &std::fs::read(&path).unwrap()).unwrap();
        packed.finish().unwrap();
        std::fs::remove_file(path).unwrap();
    }
    place.run(&["baseline", "save", "packed", "--to", "kept", "--name", "packed"]).succeeds();
    for file in ["runs.csv", "scores.csv", "examples.csv"] {
        assert_eq!(place.read(&format!("kept/packed/{file}")), place.read(&format!("kept/main/{file}")));
    }

    copy(place, "kept/main", "touched");
    place.write("touched/runs.csv", &(place.read("touched/runs.csv") + "x"));
    gate(place, &["--baseline", "touched", "--candidate", "b"])
        .fails(2, &["runs.csv was changed since baseline `main`"]);
    copy(place, "kept/main", "later");
    place.write(
        "later/baseline.json",
        &place.read("later/baseline.json").replacen("\"format\": 1", "\"format\": 9", 1),
    );
    gate(place, &["--baseline", "later", "--candidate", "b"])
        .fails(2, &["format 9; this program reads 1", "hint:"]);
}

fn bad_input(place: &Place) {
    gate(place, &["--baseline", "nowhere", "--candidate", "b"]).fails(2, &["nowhere/plan.toml", "hint:"]);
    gate(place, &["--candidate", "b"]).fails(2, &["--baseline"]);
    gate(place, &["--baseline", "a", "--candidate", "b", "--config", "no.toml"])
        .fails(2, &["no.toml", "kto-eval init"]);
    place.write("bad.toml", "[throughput]\ntolerence = 1\n");
    gate(place, &["--baseline", "a", "--candidate", "b", "--config", "bad.toml"])
        .fails(2, &["bad.toml:2", "unknown field `tolerence`"]);
    place.write("misspelt.toml", "[quality]\nmetrics = [\"reward_acuracy\"]\n");
    gate(place, &["--baseline", "a", "--candidate", "b", "--config", "misspelt.toml"])
        .fails(2, &["`quality.metrics`", "did you mean `reward_accuracy`?"]);
    std::fs::create_dir(place.path("junk")).unwrap();
    place.write("junk/x.json", "{}");
    gate(place, &["--baseline", "a", "--candidate", "b", "--history", "junk"])
        .fails(2, &["junk/x.json is not a gate's"]);

    copy(place, "a", "schema");
    let environment = place.read("a/environment.json");
    place.write("schema/environment.json", &environment.replacen("\"schema\": 1", "\"schema\": 7", 1));
    gate(place, &["--baseline", "schema", "--candidate", "b"]).fails(2, &["schema version 7"]);

    copy(place, "a", "half");
    let runs = place.read("a/runs.csv");
    let kept: Vec<&str> = runs.lines().take(4).collect();
    place.write("half/runs.csv", &(kept.join("\n") + "\n"));
    gate(place, &["--baseline", "a", "--candidate", "half"])
        .fails(2, &["half is half written: arm `sft` under seed 2", "goes on where it was cut"]);
    std::fs::remove_file(place.path("half/environment.json")).unwrap();
    gate(place, &["--baseline", "half", "--candidate", "b"]).fails(2, &["no environment.json"]);
    place.write("half/runs.csv", &runs.replacen(",done,", ",finished,", 1));
    gate(place, &["--baseline", "half", "--candidate", "b"]).fails(2, &["half/runs.csv:2", "finished"]);

    copy(place, "a", "other");
    let hash = serde_json::from_str::<serde_json::Value>(&environment).unwrap()["data_hash"]
        .as_str()
        .unwrap()
        .to_owned();
    place.write("other/environment.json", &environment.replace(&hash, "0123"));
    gate(place, &["--baseline", "a", "--candidate", "other"]).fails(2, &["data hash", "--allow-different"]);
    let allowed =
        gate(place, &["--baseline", "a", "--candidate", "other", "--allow-different", "--out", "allowed"]);
    allowed.succeeds();
    assert!(findings(place, "allowed").notes.iter().any(|n| n.contains("data hash")));
}

/// Steps and runs of the plan, trained here with whatever the change does to data and runs.
fn side(
    place: &Place,
    data: impl Fn(&mut TrainingSet),
    change: impl Fn(&mut RunSpec),
    row: impl Fn(&mut StepRow),
) -> Side {
    let at = |name: &str| toml::Value::String(place.path(name).display().to_string()).to_string();
    let text = cli::PLAN
        .replacen("\"model\"", &at("model"), 1)
        .replacen("\"data\"", &at("data"), 1)
        .replacen("preference = [\"heldout\"]", "preference = []", 1);
    let plan = Plan::parse(&text, "plan.toml", &Overrides::default()).unwrap();
    let mut prepared = prepare(&plan, candle_core::Device::Cpu, &mut Silent).unwrap();
    let mut records = Records {
        plan: plan.clone(),
        environment: prepared.environment.clone(),
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
    let mut changed = plan.runs();
    prepared.data.each_mut().for_each(data);
    for run in &mut changed {
        change(run);
        let mut step = |s: &StepRow| {
            let mut s = s.clone();
            row(&mut s);
            records.steps.push(s);
            Ok(())
        };
        let done = trained(&prepared, run, &AtomicBool::new(false), &mut step, &mut Silent).unwrap();
        assert_eq!(done.row.status, Status::Done, "{}", done.row.note);
        records.runs.push(done.row);
    }
    Side { records, session: None, repeats: vec![] }
}

fn sequences(set: &mut TrainingSet, change: impl Fn(&Sequence) -> Sequence) {
    match set {
        TrainingSet::Paired(pairs) => {
            for pair in pairs {
                (pair.chosen, pair.rejected) = (change(&pair.chosen), change(&pair.rejected));
            }
        }
        TrainingSet::Unpaired(examples) => examples.iter_mut().for_each(|e| e.sequence = change(&e.sequence)),
    }
}

/// Real runs with one fault each, of a trainer that does not know of its fault.
#[test]
fn planted_faults_are_caught_and_rounding_is_not() {
    let place = Place::new();
    let baseline = side(&place, |_| {}, |_| {}, |_| {});
    let gate = |candidate: &Side| {
        let found = judge(&baseline, candidate, &Config::default(), &History::default(), vec![]);
        let regressed: Vec<String> = found.of(Change::Regressed).map(|f| f.words.clone()).collect();
        (found, regressed)
    };

    // The same update by sums in another order.
    let rounding = side(&place, |_| {}, |run| run.arm.train.micro_tokens = 96, |_| {});
    assert_ne!(
        rounding.records.runs[0].weights, baseline.records.runs[0].weights,
        "nothing was rounded otherwise"
    );
    let (found, regressed) = gate(&rounding);
    assert!(regressed.is_empty(), "{regressed:?}");
    for arm in ["sft", "dpo", "kto"] {
        assert_eq!(verdict(&found, &format!("trajectory/{arm}")), Change::Pass);
    }

    // Its log still tells the rate that it believes in.
    let doubled = side(&place, |_| {}, |run| run.arm.train.learning_rate *= 2.0, |s| s.learning_rate /= 2.0);
    let (found, regressed) = gate(&doubled);
    for arm in ["sft", "dpo", "kto"] {
        assert_eq!(verdict(&found, &format!("trajectory/{arm}")), Change::Regressed, "{regressed:?}");
    }

    // It goes on reporting a KL of 0 and its tokens.
    let dropped = side(
        &place,
        |_| {},
        |run| {
            if let Method::Kto(kto) = &mut run.arm.method {
                kto.z0 = Z0::Zero;
            }
        },
        |s| {
            if s.arm == "kto" {
                (s.kl, s.kl_unclamped) = (Some(0.0), Some(0.0));
            }
        },
    );
    let (found, _) = gate(&dropped);
    assert_eq!(verdict(&found, "trajectory/kto"), Change::Regressed);
    assert_eq!(verdict(&found, "trajectory/dpo"), Change::Pass, "dpo has no such term");

    let unmasked = side(
        &place,
        |data| sequences(data, |s| Sequence { ids: Arc::clone(&s.ids), prompt_len: 1 }),
        |_| {},
        |_| {},
    );
    let lost = side(
        &place,
        |data| {
            sequences(data, |s| {
                let end = (s.ids.len() - 1).max(s.prompt_len + 1);
                Sequence { ids: s.ids[..end].into(), prompt_len: s.prompt_len }
            });
        },
        |_| {},
        |_| {},
    );
    for (what, candidate) in [("unmasked prompt", unmasked), ("lost EOS", lost)] {
        for hidden in [false, true] {
            let mut candidate = candidate.clone();
            if hidden {
                // A trainer whose counts are those of the data file: only its numbers betray it.
                for (theirs, ours) in candidate.records.steps.iter_mut().zip(&baseline.records.steps) {
                    (theirs.policy_tokens, theirs.completion_tokens) =
                        (ours.policy_tokens, ours.completion_tokens);
                    theirs.kl_tokens = ours.kl_tokens;
                }
            }
            let (found, regressed) = gate(&candidate);
            for arm in ["sft", "dpo", "kto"] {
                let id = format!("trajectory/{arm}");
                assert_eq!(
                    verdict(&found, &id),
                    Change::Regressed,
                    "{what}, {arm}, hidden {hidden}: {regressed:?}"
                );
            }
        }
    }
    assert!(found.findings.iter().all(|f| f.kind != Kind::Quality), "nothing was scored");
}

#[test]
fn init_writes_what_the_program_reads_and_replaces_nothing() {
    let place = Place::new();
    std::fs::remove_file(place.path("plan.toml")).unwrap();
    let wrote = place.run(&["init"]);
    assert!(wrote.succeeds().contains("data: data") && wrote.out.contains("model: model"), "{}", wrote.out);
    for file in ["kto-eval.toml", "gate.toml", ".github/workflows/kto-eval.yml"] {
        assert!(!place.read(file).is_empty());
    }
    let workflow = place.read(".github/workflows/kto-eval.yml");
    assert!(!workflow.contains("@BRANCH@") && workflow.contains("gate measure"), "{workflow}");
    assert!(wrote.out.contains("no trainer found") && workflow.contains("--baseline-plan"), "{workflow}");
    let shown = place.run(&["plan", "show", "kto-eval.toml"]);
    assert!(shown.succeeds().contains("source = \"data\""), "{}", shown.out);
    place.run(&["init"]).fails(2, &["kto-eval.toml is there already", "--force", "nothing was written"]);
    place.run(&["init", "--force", "--quiet"]).succeeds();
    place.run(&["init", "nowhere"]).fails(2, &["nowhere"]);
}
