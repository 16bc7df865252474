//! A report from records alone: every file is there and says what the rows say.

mod report_fixture;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use kto_eval::record::{EventFile, Family, RunRow, ScoreRow, Status, StepRow, Verdict, masked_crc};
use kto_eval::report::{self, Input};

/// Set `KTO_EVAL_REPORT_OUT` to keep the fixture's reports for looking at, each in a folder of that one.
fn out(name: &str) -> (Option<tempfile::TempDir>, PathBuf) {
    match std::env::var_os("KTO_EVAL_REPORT_OUT") {
        Some(dir) => {
            let dir = PathBuf::from(dir).join(name);
            fs::create_dir_all(&dir).expect("KTO_EVAL_REPORT_OUT can be written to");
            (None, dir)
        }
        None => {
            let dir = tempfile::tempdir().expect("a temporary folder");
            let path = dir.path().to_owned();
            (Some(dir), path)
        }
    }
}

#[test]
fn a_report_is_written_with_every_chart() {
    let (_keep, dir) = out("plain");
    let paths = report::write(&report_fixture::input(7), &dir).expect("the fixture makes a report");
    let names: Vec<_> =
        paths.charts.iter().map(|p| p.file_stem().unwrap().to_str().unwrap().to_owned()).collect();
    for name in ["scores-heldout", "scores-world", "differences-world", "subsets-world", "rewards-heldout"] {
        assert!(names.iter().any(|n| n == name), "{name} is missing in {names:?}");
    }
    for name in ["headline", "length-world", "learning", "kl", "cost", "pareto", "throughput"] {
        assert!(names.iter().any(|n| n == name), "{name} is missing in {names:?}");
    }
    for chart in &paths.charts {
        let png = fs::read(chart.with_extension("png")).unwrap();
        assert_eq!(&png[1..4], b"PNG");
    }
}

/// Writes the report, finds it consistent, and gives its Markdown, its HTML (its text not escaped) and the terminal's summary.
fn shown(name: &str, input: &Input) -> [String; 3] {
    let (_keep, dir) = out(name);
    let paths = report::write(input, &dir).expect("every record makes a report");
    assert_eq!(report::check_input(input, &dir).expect("the check runs"), Vec::new());
    let read = |path: &Path| fs::read_to_string(path).unwrap();
    let html = read(&paths.html).replace("&#x27;", "'").replace("&#x2f;", "/");
    [read(&paths.markdown), html, report::terminal_summary(input, None)]
}

#[test]
fn a_lost_arm_is_named_with_its_reason_and_the_others_stand() {
    let mut input = report_fixture::input(7);
    for run in input.runs.iter_mut().filter(|r: &&mut RunRow| r.arm == "dpo") {
        (run.status, run.note) = (Status::Diverged, "the loss is NaN at step 17".into());
    }
    input.scores.retain(|s| s.arm != "dpo");
    input.examples.retain(|e| e.arm != "dpo");
    input.samples.retain(|e| e.arm != "dpo");
    input.comparisons.retain(|c| c.arm_a != "dpo" && c.arm_b != "dpo");
    for text in shown("lost-arm", &input) {
        assert!(text.contains("dpo: 0 of 3 runs finished; nothing is said of it"), "{text}");
        assert!(text.contains("the loss is NaN at step 17"));
        assert!(!text.contains("INVALID"), "the other arms' verdicts stand");
    }
}

#[test]
fn a_comparison_whose_verdicts_are_all_invalid_says_so_first() {
    let mut input = report_fixture::input(7);
    input.comparisons.iter_mut().for_each(|c| c.verdict = Verdict::Invalid);
    for text in shown("invalid", &input) {
        assert!(text.contains("INVALID comparison: every verdict below names the reason."));
    }
}

#[test]
fn a_plan_whose_question_nothing_measures_is_called_exploratory() {
    let mut input = report_fixture::input(7);
    for text in shown("asked", &input) {
        assert!(!text.contains("Exploratory"), "{text}");
    }
    input.plan["verdict"]["primary"] = serde_json::json!(["win_rate_judged"]);
    input.comparisons.iter_mut().for_each(|c| c.family = Family::Secondary);
    let texts = shown("exploratory", &input);
    for text in &texts {
        let says = "Exploratory: the suites measure none of the plan's primary metrics (";
        assert!(text.contains(says), "{text}");
        assert!(
            !text.contains("The plan's primary metrics by arm")
                && !text.contains("comparisons on the plan's")
        );
    }
    let [markdown, html, _] = texts;
    for text in [markdown, html] {
        assert!(text.contains("primary metrics is measured; "), "{text}");
    }
}

#[test]
fn intervals_say_no_more_than_the_rows_do() {
    let mut input = report_fixture::input(7);
    for c in &mut input.comparisons {
        (c.low, c.high) = match c.metric.as_str() {
            "reward_accuracy" | "margin" => (-3.9, 4.5),
            "logp_accuracy" => (c.difference, c.difference),
            _ => (c.low, c.high),
        };
    }
    let [markdown, html, _] = shown("intervals", &input);
    for text in [&markdown, &html] {
        assert!(text.contains("−100.0 to +100.0") && !text.contains("−390.0"), "{text}");
    }
    assert!(
        html.contains("none: all alike") && html.contains("[none]") && html.contains("−3.90 to +4.50"),
        "{html}"
    );
}

#[test]
fn other_currencies_say_whether_a_verdict_stands_and_how_to_measure_it() {
    let input = report_fixture::input(7);
    let [markdown, html, _] = shown("currencies", &input);
    for text in [&markdown, &html] {
        assert!(text.contains("Verdicts in other currencies"));
        // sft spends least FLOPs, dpo fewest labels: a win of theirs stands, a win over them is open.
        assert!(text.contains("open (sft spent "), "{text}");
        // Only shipped plans go by their names; the one in the report's folder is any report's.
        assert!(text.contains("kto-eval compare HERE/plan.toml --set budget.flops="), "{text}");
        assert!(text.contains("HERE is the folder of this report"), "{text}");
        assert!(text.contains("Matched on feedback labels at what dpo spent"));
    }
    let mut same = input;
    for run in &mut same.runs {
        (run.flops, run.train_seconds, run.labels) = (1e12, 20.0, 5000);
        run.tokens_per_second = run.policy_tokens as f64 / run.train_seconds;
    }
    let [markdown, _, _] = shown("currencies-matched", &same);
    assert!(!markdown.contains("Verdicts in other currencies"), "all currencies were matched");
}

#[test]
fn one_seed_many_arms_long_names_and_many_suites_are_drawn() {
    let mut one = report_fixture::input(7);
    one.runs.retain(|r| r.seed == 1);
    one.steps.retain(|r| r.seed == 1);
    one.scores.retain(|r| r.seed <= 1);
    one.examples.retain(|r| r.seed <= 1);
    one.samples.retain(|r| r.seed <= 1);
    one.comparisons.clear();
    assert!(shown("one-seed", &one)[0].contains("(1 seed)"));
    let many = report_fixture::eight_arms(7);
    let [markdown, html, _] = shown("eight-arms", &many);
    assert!(markdown.contains("kto-with-a-name-much-longer") && html.contains("kto-with-a-name-much-longer"));
    let suites = report_fixture::six_suites(7);
    let [_, html, _] = shown("six-suites", &suites);
    for i in 1..=3 {
        assert!(html.contains(&format!("id=\"suite-world-{i}\"")), "suite world-{i} has no section");
    }
    let mut single = report_fixture::input(7);
    single.scores.retain(|s| s.suite == "heldout");
    single.examples.retain(|s| s.suite == "heldout");
    single.comparisons.retain(|s| s.suite == "heldout");
    single.samples.clear();
    assert!(!shown("one-suite", &single)[1].contains("suite-world"));
}

#[test]
fn what_the_base_has_by_definition_is_not_said_to_be_measured() {
    let input = report_fixture::input(7);
    let [markdown, html, terminal] = shown("even-base", &input);
    assert!(
        markdown.contains("| reward accuracy ↑ | – |") && markdown.contains("| reward margin ↑ | – |"),
        "{markdown}"
    );
    assert!(!markdown.contains("| log-prob accuracy ↑ | – |"));
    for text in [markdown, html, terminal] {
        assert!(text.contains("its implicit reward is 0 by definition"), "{text}");
    }
    // With a reference of its own the base is measured.
    let mut own = input;
    for s in own.scores.iter_mut().filter(|s| s.arm == "base" && s.metric == "reward_accuracy") {
        s.standard_error = 0.02;
    }
    assert!(!report::terminal_summary(&own, None).contains("by definition"));
}

#[test]
fn an_equivalence_is_shown_with_the_p_that_it_rests_on() {
    let mut input = report_fixture::input(7);
    let tests = input.comparisons.len();
    for (i, c) in input.comparisons.iter_mut().enumerate() {
        c.p_equivalence = if i == 0 { 0.0002 } else { 0.9 };
    }
    (input.comparisons[0].verdict, input.comparisons[0].p_adjusted) = (Verdict::Equivalent, 1.0);
    let [markdown, ..] = shown("equivalent", &input);
    let corrected = format!("{:.3} (equivalence) | equivalent", 0.0002 * tests as f64);
    assert!(markdown.contains(&corrected), "{corrected} is not in {markdown}");
}

/// What another trainer writes is not checked: an accuracy in per cent, a perplexity of a policy that collapsed.
#[test]
fn values_that_no_axis_expects_are_drawn() {
    let mut input = report_fixture::input(7);
    input.steps.iter_mut().for_each(|s| s.accuracy = s.accuracy.map(|a| 80.0 + a));
    for s in input.scores.clone().into_iter().filter(|s| s.metric == "margin") {
        let value = if s.arm == "kto" { 3.25e30 } else { 40.0 };
        let metric = "chosen_perplexity".to_owned();
        input.scores.push(ScoreRow { metric, value, unit: String::new(), ..s });
    }
    let [markdown, html, _] = shown("hostile-numbers", &input);
    assert!(html.contains("3.25e30") && markdown.contains("3.25e30") && !markdown.contains("3250000000"));
}

#[test]
fn runs_that_did_not_end_well_are_in_no_curve_and_no_score() {
    let input = report_fixture::input(7);
    let (kept, lost) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    report::write(&input, kept.path()).unwrap();
    let mut more = input.clone();
    let run = input.runs.iter().find(|r| r.arm == "kto").unwrap();
    let id = "kto-s9".to_owned();
    more.runs.push(RunRow { run: id.clone(), seed: 9, status: Status::Failed, ..run.clone() });
    for step in input.steps.iter().filter(|s| s.run == run.run) {
        more.steps.push(StepRow {
            run: id.clone(),
            seed: 9,
            loss: 1e4,
            kl_unclamped: Some(90.0),
            ..step.clone()
        });
    }
    // It failed in its second suite: the first one's rows are there.
    for s in input.scores.iter().filter(|s| s.run == run.run && s.suite == "heldout") {
        more.scores.push(ScoreRow { run: id.clone(), seed: 9, value: 0.0, ..s.clone() });
    }
    report::write(&more, lost.path()).unwrap();
    let read = |dir: &tempfile::TempDir, name: &str| fs::read_to_string(dir.path().join(name)).unwrap();
    for name in ["charts/learning.svg", "charts/kto.svg", "charts/scores-heldout.svg", "tables/arms.csv"] {
        assert!(read(&kept, name) == read(&lost, name), "{name}");
    }
    assert!(read(&lost, "report.md").contains("kto: 3 of 4 runs finished"));
}

fn events(dir: &Path) -> Vec<u8> {
    let mut file = EventFile::open(dir, 1000.0, 1, &|_| false).unwrap();
    for step in 1..=300 {
        file.scalars(step, 1000.5, &[("train/loss", 1.0 / step as f64), ("train/nan", f64::NAN)]).unwrap();
    }
    file.flush().unwrap();
    let found: Vec<_> = fs::read_dir(dir).unwrap().collect();
    assert_eq!(found.len(), 1, "a run that begins anew replaces its events");
    fs::read(found[0].as_ref().unwrap().path()).unwrap()
}

#[test]
fn tensorboard_events_are_framed_records_with_valid_checksums() {
    let dir = tempfile::tempdir().unwrap();
    events(dir.path());
    let bytes = events(dir.path());
    assert_eq!(count(&bytes), 301, "the version, then a record a step");

    // A process that was killed leaves half a record; the next goes on from a checkpoint after step 200.
    let file = fs::read_dir(dir.path()).unwrap().next().unwrap().unwrap().path();
    fs::write(&file, &bytes[..bytes.len() - 5]).unwrap();
    let mut again = EventFile::open(dir.path(), 2000.0, 201, &|_| false).unwrap();
    assert_eq!(again.last_step(), 200);
    again.scalars(201, 2000.5, &[("train/loss", 0.5)]).unwrap();
    again.flush().unwrap();
    again.scalars(201, 2001.0, &[("heldout/reward_accuracy", 0.5)]).unwrap();
    again.flush().unwrap();
    let count_now = || count(&fs::read(&file).unwrap());
    assert_eq!(count_now(), 203, "the version, 200 steps that are kept, a new one, and its scores");
    // Killed after its scores: these will be written once more.
    let scores = |tag: &str| tag.starts_with("heldout/");
    let last = EventFile::open(dir.path(), 3000.0, u64::MAX, &scores).unwrap().last_step();
    assert_eq!((last, count_now()), (201, 202));
}

/// Records of an event file, each with its checksums checked.
fn count(bytes: &[u8]) -> usize {
    let (mut rest, mut records) = (bytes, 0);
    while !rest.is_empty() {
        let length = u64::from_le_bytes(rest[..8].try_into().unwrap()) as usize;
        let crc = |at: usize| u32::from_le_bytes(rest[at..at + 4].try_into().unwrap());
        assert_eq!(crc(8), masked_crc(&rest[..8]));
        assert_eq!(crc(12 + length), masked_crc(&rest[12..12 + length]));
        rest = &rest[16 + length..];
        records += 1;
    }
    records
}

/// `python3 -m venv V && V/bin/pip install tensorboard`, then
/// `KTO_EVAL_TENSORBOARD=V/bin/python cargo test --test report_write -- --ignored`.
#[test]
#[ignore = "needs Python with tensorboard"]
fn the_real_tensorboard_reads_the_events() {
    let python = std::env::var("KTO_EVAL_TENSORBOARD").unwrap_or_else(|_| "python3".to_owned());
    let dir = tempfile::tempdir().unwrap();
    events(&dir.path().join("kto-s1"));
    let read = "import sys\nfrom tensorboard.backend.event_processing.event_accumulator import EventAccumulator as A\n\
                a = A(sys.argv[1], size_guidance={'scalars': 0})\na.Reload()\n\
                print(a.Tags()['scalars'], len(a.Scalars('train/loss')), a.Scalars('train/loss')[-1].step, \
                round(a.Scalars('train/loss')[3].value, 6), a.Scalars('train/loss')[0].wall_time)";
    let out = Command::new(&python).args(["-c", read]).arg(dir.path().join("kto-s1")).output().unwrap();
    let said = String::from_utf8_lossy(&out.stdout);
    assert_eq!(said.trim(), "['train/loss'] 300 300 0.25 1000.5", "{}", String::from_utf8_lossy(&out.stderr));
}
