//! `check` passes a report that follows from its rows, and names what was changed.

mod report_fixture;

use std::fs;
use std::path::Path;
use std::process::Command;

use kto_eval::record::Status;
use kto_eval::report::{self, Input};

fn written(input: &Input) -> tempfile::TempDir {
    let dir = tempfile::tempdir().expect("a temporary folder");
    report::write(input, dir.path()).expect("the fixture makes a report");
    dir
}

fn places(input: &Input, dir: &Path) -> Vec<String> {
    let found = report::check_input(input, dir).expect("the records can be read");
    found.iter().map(ToString::to_string).collect()
}

#[test]
fn an_untouched_report_passes_and_the_same_records_give_the_same_bytes() {
    let input = report_fixture::input(7);
    let (a, b) = (written(&input), written(&input));
    assert_eq!(places(&input, a.path()), Vec::<String>::new());
    for name in ["report.html", "report.md", "report.json", "tables/comparisons.tex", "charts/cost.png"] {
        assert!(
            fs::read(a.path().join(name)).unwrap() == fs::read(b.path().join(name)).unwrap(),
            "{name} differs"
        );
    }
}

/// What the repository shows was drawn by this code, from the rows beside it.
#[test]
fn the_shipped_reports_follow_from_their_rows() {
    for name in ["quickstart", "hh-harmless", "rlhf"] {
        let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("reports").join(name);
        let ran =
            Command::new(env!("CARGO_BIN_EXE_kto-eval")).arg("report").arg(&dir).arg("--check").output();
        let ran = ran.expect("the program starts");
        let said = String::from_utf8_lossy(&ran.stderr) + String::from_utf8_lossy(&ran.stdout);
        assert!(ran.status.success(), "kto-eval report reports/{name} draws it again: {said}");
    }
}

#[test]
fn a_changed_figure_is_named_in_every_file() {
    let input = report_fixture::input(7);
    let dir = written(&input);
    let changes = [
        ("report.json", "\"mean\":0.", "\"mean\":1."),
        ("report.md", " % ± ", " % ± 9"),
        ("report.html", " to +", " to +9"),
        ("charts/scores-world.svg", "<circle cx=\"", "<circle cx=\"1"),
        ("tables/comparisons.tex", "better", "worse"),
    ];
    for (name, from, to) in changes {
        let path = dir.path().join(name);
        let text = fs::read_to_string(&path).unwrap();
        assert!(text.contains(from), "{name} lacks {from}");
        fs::write(&path, text.replacen(from, to, 1)).unwrap();
    }
    let found = places(&input, dir.path());
    for (name, _, _) in changes {
        assert!(found.iter().any(|f| f.starts_with(name)), "{name}: {found:?}");
    }
    assert!(found.iter().any(|f| f.starts_with("report.json: scores[0].mean: says 1.")), "{found:?}");
}

#[test]
fn a_png_of_another_drawing_and_a_missing_file_are_found() {
    let input = report_fixture::input(7);
    let dir = written(&input);
    let chart = |name: &str| dir.path().join(format!("charts/{name}.png"));
    fs::copy(chart("scores-world"), chart("cost")).unwrap();
    fs::remove_file(dir.path().join("report.md")).unwrap();
    let found = places(&input, dir.path());
    assert_eq!(found.len(), 2, "{found:?}");
    assert!(
        found[0].starts_with("report.md: says nothing") && found[1].starts_with("charts/cost.png: "),
        "{found:?}"
    );
}

#[test]
fn rows_that_contradict_each_other_are_found() {
    let mut input = report_fixture::input(7);
    input.scores[0].value += 0.01;
    input.comparisons[0].difference += 0.5;
    let dir = written(&input);
    let found = places(&input, dir.path());
    assert!(found.iter().any(|f| f.starts_with("scores.csv:2: value")), "{found:?}");
    assert!(found.iter().any(|f| f.starts_with("comparisons.csv:2: difference")), "{found:?}");
}

#[test]
fn every_kind_of_row_that_another_contradicts_is_found() {
    let mut input = report_fixture::input(7);
    let scored = input.scores.iter().position(|s| s.arm == "kto").expect("kto has scores");
    input.scores[scored].standard_error *= 1.5;
    input.runs[1].policy_tokens += 1;
    input.runs[2].final_loss += 0.1;
    let sample = input.samples.iter().position(|s| s.arm == "kto").expect("kto wrote samples");
    input.samples[sample].opponents[0].preference = 1.0 - input.samples[sample].opponents[0].preference;
    let dir = written(&input);
    let found = places(&input, dir.path());
    let score = format!("scores.csv:{}: standard_error", scored + 2);
    let line = format!("samples.jsonl:{}: preference against base", sample + 1);
    for place in [score.as_str(), "runs.csv:3: policy_tokens", "runs.csv:4: final_loss", &line] {
        assert!(found.iter().any(|f| f.starts_with(place)), "{place}: {found:?}");
    }
}

#[test]
fn a_verdict_that_was_edited_is_found_by_judging_again() {
    let expected = report_fixture::input(7).comparisons;
    assert_eq!(report::check_comparisons(&expected, &expected), Vec::new());
    let mut edited = expected.clone();
    edited[1].p *= 0.5;
    edited[3].verdict = kto_eval::record::Verdict::Invalid;
    edited[4].low = f64::NAN;
    let found: Vec<_> =
        report::check_comparisons(&edited, &expected).iter().map(|d| d.place.clone()).collect();
    assert_eq!(found, ["comparisons.csv:3: p", "comparisons.csv:5: verdict", "comparisons.csv:6: low"]);
    assert_eq!(report::check_comparisons(&edited[1..], &expected).len(), 1);
}

#[test]
fn an_arm_that_lost_a_seed_is_compared_over_the_others_and_passes() {
    let mut input = report_fixture::input(7);
    for run in input.runs.iter_mut().filter(|r| r.arm == "dpo" && r.seed == 2) {
        (run.status, run.note) = (Status::Diverged, "the loss is NaN at step 17".into());
    }
    let lost = |arm: &str, seed: u64| arm == "dpo" && seed == 2;
    input.scores.retain(|r| !lost(&r.arm, r.seed));
    input.examples.retain(|r| !lost(&r.arm, r.seed));
    input.samples.retain(|r| !lost(&r.arm, r.seed));
    let scores = input.scores.clone();
    for c in input.comparisons.iter_mut().filter(|c| c.arm_a == "dpo" || c.arm_b == "dpo") {
        let mean = |arm: &str| {
            let same = scores
                .iter()
                .filter(|s| (&s.suite, &s.metric, &s.subset) == (&c.suite, &c.metric, &c.subset));
            let values: Vec<f64> = same.filter(|s| s.arm == arm && s.seed != 2).map(|s| s.value).collect();
            values.iter().sum::<f64>() / values.len() as f64
        };
        (c.mean_a, c.mean_b, c.seeds) = (mean(&c.arm_a), mean(&c.arm_b), 2);
        let moved = c.mean_a - c.mean_b - c.difference;
        (c.difference, c.low, c.high) = (c.difference + moved, c.low + moved, c.high + moved);
    }
    assert_eq!(places(&input, written(&input).path()), Vec::<String>::new());
    let edited = input.comparisons.iter().position(|c| c.arm_b == "dpo").unwrap();
    input.comparisons[edited].mean_a += 0.01;
    input.comparisons[edited].difference += 0.01;
    let found = places(&input, written(&input).path());
    assert!(
        found.iter().any(|f| f.starts_with(&format!("comparisons.csv:{}: mean_a", edited + 2))),
        "{found:?}"
    );
}

#[test]
fn a_chart_of_an_earlier_report_is_found_and_the_next_report_takes_it_away() {
    let mut input = report_fixture::input(7);
    let dir = written(&input);
    let at = |name: &str| dir.path().join("charts").join(name);
    // One's own, though they are called as charts are.
    let own = ["notes.txt", "loss-zoom.png", "length-elsewhere.svg"];
    own.iter().for_each(|name| fs::write(at(name), "mine").unwrap());
    assert_eq!(places(&input, dir.path()), Vec::<String>::new());
    let old = ["scores-world.png", "scores-world.svg"];
    assert!(old.iter().all(|name| at(name).is_file()));
    input.scores.retain(|s| s.suite != "world");
    input.examples.retain(|s| s.suite != "world");
    input.comparisons.retain(|s| s.suite != "world");
    input.samples.clear();
    let found = places(&input, dir.path());
    for name in old {
        let said = format!("charts/{name}: says a chart of an earlier report");
        assert!(found.iter().any(|f| f.starts_with(&said)), "{name}: {found:?}");
    }
    report::write(&input, dir.path()).unwrap();
    assert!(!old.iter().any(|name| at(name).exists()) && own.iter().all(|name| at(name).exists()));
    assert_eq!(places(&input, dir.path()), Vec::<String>::new());
}
