//! A report from records alone: every file is there and says what the rows say.

mod report_fixture;

use std::fs;
use std::path::PathBuf;

use kto_eval::report;

/// Set `KTO_EVAL_REPORT_OUT` to keep the fixture's report for looking at.
fn out() -> (Option<tempfile::TempDir>, PathBuf) {
    match std::env::var_os("KTO_EVAL_REPORT_OUT") {
        Some(dir) => (None, PathBuf::from(dir)),
        None => {
            let dir = tempfile::tempdir().expect("a temporary folder");
            let path = dir.path().to_owned();
            (Some(dir), path)
        }
    }
}

#[test]
fn a_report_is_written_with_every_chart() {
    let (_keep, dir) = out();
    let paths = report::write(&report_fixture::input(7), &dir).expect("the fixture makes a report");
    let names: Vec<_> =
        paths.charts.iter().map(|p| p.file_stem().unwrap().to_str().unwrap().to_owned()).collect();
    for name in ["scores-heldout", "scores-world", "differences-world", "subsets-world", "rewards-heldout"] {
        assert!(names.iter().any(|n| n == name), "{name} is missing in {names:?}");
    }
    for name in ["length-world", "learning", "cost", "pareto", "throughput"] {
        assert!(names.iter().any(|n| n == name), "{name} is missing in {names:?}");
    }
    for chart in &paths.charts {
        let png = fs::read(chart.with_extension("png")).unwrap();
        assert_eq!(&png[1..4], b"PNG");
    }
}
