mod folders;

use std::path::Path;

use super::table::row_file;
use super::*;
use crate::base::error::render;
use crate::plan::{Overrides, Plan, RunSpec};

fn plan(options: &[&str]) -> Plan {
    let set = options.iter().map(|s| (*s).to_owned()).collect();
    Plan::open("quickstart", &Overrides { set, ..Overrides::default() }).unwrap()
}

fn run_row(spec: &RunSpec, status: Status) -> RunRow {
    RunRow {
        run: spec.id.clone(),
        arm: spec.arm.name.clone(),
        method: spec.arm.method.name().into(),
        seed: spec.seed,
        status,
        note: "a, \"quoted\"\nnote".into(),
        steps: 3,
        examples: 24,
        labels: 12,
        policy_tokens: 1000,
        completion_tokens: 400,
        computed_tokens: 900,
        kl_tokens: 0,
        reference_tokens: 1000,
        flops: 1.25e12,
        epochs: 0.1,
        trained_parameters: 1000,
        final_loss: f64::NAN,
        weights: "ab".into(),
        train_seconds: 1.5,
        tokens_per_second: 666.6666666666666,
        reference_seconds: 0.1,
        score_seconds: 0.2,
        start_host_mib: 60.0,
        peak_host_mib: 100.0,
        peak_device_mib: 0.0,
    }
}

fn step_row(spec: &RunSpec, step: u64) -> StepRow {
    let (run, arm) = (spec.id.clone(), spec.arm.name.clone());
    StepRow { run, arm, seed: spec.seed, step, loss: 0.1 + 0.2, margin: Some(1e-9), ..StepRow::default() }
}

fn score_row(run: &str, arm: &str, seed: u64) -> ScoreRow {
    let text = str::to_owned;
    ScoreRow {
        run: text(run),
        arm: text(arm),
        seed,
        suite: text("world"),
        subset: text("all"),
        metric: text("accuracy"),
        value: 0.5,
        n: 10,
        standard_error: 0.1,
        unit: text("share"),
        direction: Direction::Higher,
    }
}

fn sample_row(run: &str) -> SampleRow {
    let text = str::to_owned;
    let opponent = Opponent { name: text("base"), completion: text("c"), reward: None, preference: 0.5 };
    SampleRow {
        run: text(run),
        arm: text("a"),
        seed: 1,
        suite: text("world"),
        subset: text("all"),
        example: text("e"),
        prompt: text("line\nbreak"),
        completion: text("\u{1F600}"),
        tokens: 2,
        finished: true,
        reward: Some(-0.25),
        opponents: vec![opponent],
    }
}

/// Writes a run as the launcher does: steps, scores, samples, then the row that makes it finished.
fn record(writer: &mut RecordWriter, spec: &RunSpec, status: Option<Status>) {
    for step in 1..=2 {
        writer.step(&step_row(spec, step)).unwrap();
    }
    writer.scores(&[score_row(&spec.id, &spec.arm.name, spec.seed)]).unwrap();
    writer.samples(&[sample_row(&spec.id)]).unwrap();
    if let Some(status) = status {
        writer.run(&run_row(spec, status)).unwrap();
    }
}

fn base(writer: &mut RecordWriter) {
    writer.scores(&["base", "sentinel-copy", "base"].map(|name| score_row(name, name, 0))).unwrap();
}

fn complete(dir: &Path, plan: &Plan) {
    let mut writer = RecordWriter::open(dir, plan, false).unwrap();
    if !writer.has_base_of(0, "world") {
        base(&mut writer);
    }
    for spec in plan.runs() {
        if writer.finished(&spec.id).is_none() {
            record(&mut writer, &spec, Some(Status::Done));
        }
    }
    writer.arrange().unwrap();
}

fn bytes(dir: &Path) -> Vec<Vec<u8>> {
    [files::RUNS, files::STEPS, files::SCORES, files::SAMPLES]
        .map(|f| std::fs::read(dir.join(f)).unwrap())
        .into()
}

#[test]
fn rows_read_back_as_they_were_written() {
    let (dir, plan) = (tempfile::tempdir().unwrap(), plan(&[]));
    let out = dir.path().join("deep/er");
    let environment = Environment { data_hash: "d".into(), ..Environment::here("cpu", 2) };
    let mut writer = RecordWriter::open(&out, &plan, false).unwrap();
    writer.environment(&environment).unwrap();
    let spec = &plan.runs()[0];
    record(&mut writer, spec, Some(Status::Diverged));
    let records = Records::read(&out).unwrap();
    assert_eq!((&records.plan, &records.environment), (&plan, &environment));
    assert_eq!(records.steps, [step_row(spec, 1), step_row(spec, 2)]);
    assert_eq!(records.samples, [sample_row(&spec.id)]);
    assert!(records.runs[0].final_loss.is_nan());
    let numbered = RunRow { final_loss: 0.0, ..records.runs[0].clone() };
    assert_eq!(numbered, RunRow { final_loss: 0.0, ..run_row(spec, Status::Diverged) });
    assert!(records.examples.is_empty() && records.comparisons.is_empty());
}

#[test]
fn a_comparison_cut_short_anywhere_goes_on_to_the_same_bytes() {
    let (whole, plan) = (tempfile::tempdir().unwrap(), plan(&["seeds=[1, 2]"]));
    complete(whole.path(), &plan);
    let runs = plan.runs();
    let middle = &runs[2];
    for status in [None, Some(Status::Failed)] {
        let cut = tempfile::tempdir().unwrap();
        let mut writer = RecordWriter::open(cut.path(), &plan, false).unwrap();
        base(&mut writer);
        record(&mut writer, &runs[0], Some(Status::Done));
        record(&mut writer, &runs[1], Some(Status::Done));
        record(&mut writer, middle, status);
        record(&mut writer, &runs[3], Some(Status::Done));
        drop(writer);
        // A process killed while it wrote leaves half a line.
        let steps = cut.path().join(files::STEPS);
        let text = std::fs::read_to_string(&steps).unwrap();
        std::fs::write(&steps, format!("{text}{},kto,", runs[4].id)).unwrap();
        assert_eq!(Records::read(cut.path()).unwrap().steps.len(), 8);
        complete(cut.path(), &plan);
        assert!(bytes(cut.path()) == bytes(whole.path()), "{status:?}");
    }
    // Nothing finished: the starting checkpoint's rows may be half there, and are dropped too.
    let early = tempfile::tempdir().unwrap();
    let mut writer = RecordWriter::open(early.path(), &plan, false).unwrap();
    base(&mut writer);
    drop(writer);
    complete(early.path(), &plan);
    assert!(bytes(early.path()) == bytes(whole.path()));
}

/// Shards that were gathered hold the starting checkpoint's rows of some seeds only; a process that is killed while it
/// adds another's leaves some of its suites.
#[test]
fn base_rows_that_are_missing_or_torn_are_written_again_in_their_place() {
    let (dir, plan) = (tempfile::tempdir().unwrap(), plan(&["seeds=[1, 2]"]));
    let scored = |suite: &str, seed| ScoreRow { suite: suite.into(), ..score_row("base", "base", seed) };
    let sampled = |suite: &str, seed| SampleRow { suite: suite.into(), seed, ..sample_row("base") };
    let mut writer = RecordWriter::open(dir.path(), &plan, false).unwrap();
    for suite in ["world", "heldout"] {
        writer.samples(&[sampled(suite, 1)]).unwrap();
        writer.scores(&[scored(suite, 1)]).unwrap();
    }
    record(&mut writer, &plan.runs()[0], Some(Status::Done));
    writer.samples(&[sampled("world", 2)]).unwrap();
    writer.scores(&[scored("world", 2)]).unwrap();
    // Killed before the scores of this one.
    writer.samples(&[sampled("heldout", 2)]).unwrap();
    drop(writer);

    let mut writer = RecordWriter::open(dir.path(), &plan, false).unwrap();
    let has = |suite: &str, seed| writer.has_base_of(seed, suite);
    assert_eq!(
        [has("world", 1), has("heldout", 1), has("world", 2), has("heldout", 2)],
        [true, true, true, false]
    );
    writer.samples(&[sampled("heldout", 2)]).unwrap();
    writer.scores(&[scored("heldout", 2)]).unwrap();
    writer.arrange().unwrap();
    let records = Records::read(dir.path()).unwrap();
    let base = |rows: Vec<(&str, &str, u64)>| -> Vec<(String, u64)> {
        rows.into_iter().filter(|r| r.0 == "base").map(|(_, suite, seed)| (suite.to_owned(), seed)).collect()
    };
    let whole =
        [("world", 1), ("world", 2), ("heldout", 1), ("heldout", 2)].map(|(s, seed)| (s.to_owned(), seed));
    let scores = records.scores.iter().map(|r| (r.run.as_str(), r.suite.as_str(), r.seed));
    let samples = records.samples.iter().map(|r| (r.run.as_str(), r.suite.as_str(), r.seed));
    assert_eq!(base(scores.collect()), whole);
    assert_eq!(base(samples.collect()), whole);
}

#[test]
fn what_is_wrong_in_a_folder_is_said_with_path_and_line() {
    let (dir, plan) = (tempfile::tempdir().unwrap(), plan(&["seeds=[1]"]));
    let text = render(&Records::read(dir.path()).unwrap_err());
    assert!(text.contains("plan.toml") && text.contains("--out"), "{text}");
    complete(dir.path(), &plan);
    let damage = |file: &str, from: &str, to: &str, says: &str| {
        let path = dir.path().join(file);
        let sound = std::fs::read_to_string(&path).unwrap();
        assert!(sound.contains(from), "{file} has {from}");
        std::fs::write(&path, sound.replacen(from, to, 1)).unwrap();
        let text = render(&Records::read(dir.path()).unwrap_err());
        assert!(text.contains(says), "{file}: {text}");
        std::fs::write(&path, sound).unwrap();
    };
    damage(files::STEPS, ",2,0.3", ",two,0.3", "steps.csv:3: ");
    damage(files::SCORES, ",0.5,", ",0.5,9,", "scores.csv:2: 12 columns, but the header has 11");
    damage(files::SAMPLES, "\"tokens\":2", "\"tokens\":", "samples.jsonl:1: ");
    RecordWriter::open(dir.path(), &plan, false).unwrap().environment(&Environment::here("cpu", 1)).unwrap();
    damage(
        files::ENVIRONMENT,
        "\"schema\": 1",
        "\"schema\": 999",
        "schema version 999; this program reads version 1",
    );
}

#[test]
fn zeros_within_a_file_end_nothing_and_zeros_at_its_end_are_no_rows() {
    let (dir, plan) = (tempfile::tempdir().unwrap(), plan(&["seeds=[1]"]));
    let mut writer = RecordWriter::open(dir.path(), &plan, false).unwrap();
    let runs = plan.runs();
    writer.run(&RunRow { note: "\0\u{1b}[1m".into(), ..run_row(&runs[0], Status::Diverged) }).unwrap();
    writer.run(&run_row(&runs[1], Status::Done)).unwrap();
    drop(writer);
    let path = dir.path().join(files::RUNS);
    let text = std::fs::read_to_string(&path).unwrap();
    assert!(text.contains("  [1m") && !text.contains('\0'), "{text}");
    // As an earlier version wrote it, and then the power went.
    for end in ["\0".repeat(300), "\0\0\n\0\n".into(), "kto-s1-\0\0\n\0\n".into()] {
        std::fs::write(&path, text.replace("  [1m", "\0\0[1m") + &end).unwrap();
        assert_eq!(Records::read(dir.path()).unwrap().runs.len(), 2, "{end:?}");
        assert!(RecordWriter::open(dir.path(), &plan, false).unwrap().finished(&runs[1].id).is_some());
    }
}

#[test]
fn the_last_row_of_another_program_needs_no_line_end() {
    let (dir, plan) = (tempfile::tempdir().unwrap(), plan(&["seeds=[1]"]));
    complete(dir.path(), &plan);
    let trial = |trial| TrialRow { trial, ..trial_row(&plan.runs()[0]) };
    row_file(dir.path(), files::TRIALS).append(&[trial(0), trial(1)]).unwrap();
    let (lock, whole) = (dir.path().join(files::LOCK), Records::read(dir.path()).unwrap());
    std::fs::remove_file(&lock).unwrap();
    // By their text: a NaN equals no other.
    let same = |r: &Records| format!("{r:?}") == format!("{whole:?}");
    let count = |r: &Records| r.runs.len() + r.scores.len() + r.samples.len() + r.trials.len();
    for name in [files::RUNS, files::SCORES, files::SAMPLES, files::TRIALS] {
        let path = dir.path().join(name);
        let text = std::fs::read_to_string(&path).unwrap();
        let read = |text: &str| {
            std::fs::write(&path, text).unwrap();
            Records::read(dir.path()).unwrap()
        };
        assert!(same(&read(text.trim_end())), "{name}");
        // It is there too when the folder is gone on with, or gathered from.
        drop(RecordWriter::open(dir.path(), &plan, false).unwrap());
        assert!(same(&Records::read(dir.path()).unwrap()), "{name}");
        std::fs::remove_file(&lock).unwrap();
        // Half a row is none, at a comma or in its last field.
        let half = text.trim_end().rfind([',', ':']).unwrap();
        assert_eq!(count(&read(&text[..half])), count(&whole) - 1, "{name}");
        assert_eq!(count(&read(&text[..=half])), count(&whole) - 1, "{name}");
        // Where a process of ours wrote, it was killed before the line's end.
        std::fs::write(&lock, "pid 1\n").unwrap();
        assert_eq!(count(&read(text.trim_end())), count(&whole) - 1, "{name}");
        std::fs::remove_file(&lock).unwrap();
        read(&text);
    }
}

fn trial_row(spec: &RunSpec) -> TrialRow {
    TrialRow {
        arm: spec.arm.name.clone(),
        method: spec.arm.method.name().into(),
        trial: 0,
        values: "beta=0.1".into(),
        status: Status::Done,
        note: String::new(),
        suite: "world".into(),
        metric: "accuracy".into(),
        direction: Direction::Higher,
        unit: "share".into(),
        value: 0.5,
        n: 10,
        standard_error: 0.1,
        steps: 1,
        examples: 2,
        labels: 1,
        policy_tokens: 3,
        kl_tokens: 0,
        reference_tokens: 3,
        flops: 1.0,
        train_seconds: 1.0,
        reference_seconds: 0.5,
        score_seconds: 0.25,
    }
}

#[test]
fn a_copy_without_texts_has_no_trainers_last_words() {
    let dir = tempfile::tempdir().unwrap();
    let text = "seeds = [1]\nbudget = { tokens = 1000 }\n[model]\nsource = \"m\"\n[data]\nsource = \"d\"\n\
                [[arm]]\nname = \"theirs\"\nmethod = \"kto\"\n[arm.trainer]\ncommand = [\"t\", \"{out}\"]\n\
                [[arm]]\nname = \"sft\"\nmethod = \"sft\"\n";
    let plan = Plan::parse(text, "plan.toml", &Overrides::default()).unwrap();
    let (from, to) = (dir.path().join("own"), dir.path().join("shared"));
    let mut writer = RecordWriter::open(&from, &plan, false).unwrap();
    let said = "the trainer `t` failed; its log ends: bad row {'prompt': 'My name is'} (whole log: x)";
    for spec in plan.runs() {
        let note = if spec.arm.name == "sft" { "the loss is NaN" } else { said };
        writer.run(&RunRow { note: note.into(), ..run_row(&spec, Status::Failed) }).unwrap();
    }
    drop(writer);
    withhold_texts(&from, &to).unwrap();
    let notes: Vec<String> = Records::read(&to).unwrap().runs.into_iter().map(|r| r.note).collect();
    assert_eq!(notes, ["the trainer `t` failed; its log is withheld", "the loss is NaN"]);
}
