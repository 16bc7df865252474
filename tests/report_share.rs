//! What may be passed on of a comparison: a copy without texts, packed rows, TensorBoard events.

mod cli;

use std::io::Write;
use std::path::Path;

use cli::Place;
use kto_eval::record::Records;

/// Every file below `dir` as (name, bytes).
fn files(dir: &Path) -> Vec<(String, Vec<u8>)> {
    let mut found = vec![];
    for entry in std::fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(files(&path));
        } else {
            found.push((path.display().to_string(), std::fs::read(&path).unwrap()));
        }
    }
    found
}

fn holds(bytes: &[u8], text: &str) -> bool {
    bytes.windows(text.len()).any(|w| w == text.as_bytes())
}

#[test]
fn a_copy_without_texts_holds_none_and_its_report_follows_from_it() {
    let place = Place::new();
    place
        .run(&[
            "compare",
            "plan.toml",
            "--set",
            "suites.generation=[\"heldout-prompts\"]",
            "--out",
            "own",
            "--quiet",
        ])
        .succeeds();
    let own = Records::read(&place.path("own")).unwrap();
    let mut texts: Vec<String> = own
        .samples
        .iter()
        .flat_map(|s| {
            [s.prompt.clone(), s.completion.clone()]
                .into_iter()
                .chain(s.opponents.iter().map(|o| o.completion.clone()))
        })
        .map(|t| t.trim().to_owned())
        // Shorter ones are words that any report has.
        .filter(|t| t.split_whitespace().count() > 3)
        .collect();
    texts.sort();
    texts.dedup();
    assert!(texts.len() > 20, "the comparison has texts to withhold");
    let before = files(&place.path("own"));
    assert!(texts.iter().any(|t| before.iter().any(|(_, bytes)| holds(bytes, t))));

    place.run(&["report", "own", "--without-texts", "shared"]).succeeds();
    for (name, bytes) in files(&place.path("shared")) {
        let found = texts.iter().find(|t| holds(&bytes, t));
        assert!(found.is_none(), "{name} holds {found:?}");
    }
    let shared = Records::read(&place.path("shared")).unwrap();
    assert_eq!(shared.samples.len(), own.samples.len());
    assert_eq!(shared.comparisons, own.comparisons);
    let html = place.read("shared/report.html");
    assert!(html.contains("Prompts and completions are withheld"));
    assert_eq!(place.read("shared/scores.csv"), place.read("own/scores.csv"));
    place.run(&["report", "shared", "--check"]).succeeds();
    // The original keeps its texts, and nothing is written over.
    assert!(files(&place.path("own")) == before);
    place.run(&["report", "own", "--without-texts", "own"]).fails(2, &["is not empty"]);
}

/// Its scores on the suites before that stay on the disk, and no verdict stands on them.
#[test]
fn a_run_that_failed_while_it_was_scored_is_not_judged() {
    let place = Place::new();
    place.run(&["compare", "plan.toml", "--out", "out", "--quiet"]).succeeds();
    let before = Records::read(&place.path("out")).unwrap();
    let lost = before.runs.iter().find(|r| r.arm == "kto").unwrap();
    let runs = place.read("out/runs.csv");
    let row = runs.lines().find(|l| l.starts_with(&lost.run)).unwrap();
    place.write("out/runs.csv", &runs.replace(row, &row.replace(",done,", ",failed,")));
    place.run(&["report", "out"]).succeeds();
    let after = Records::read(&place.path("out")).unwrap();
    let seeds = |records: &Records, arm: &str| {
        records
            .comparisons
            .iter()
            .filter(|c| c.arm_a == arm || c.arm_b == arm)
            .map(|c| c.seeds)
            .min()
            .unwrap()
    };
    assert_eq!((seeds(&before, "kto"), seeds(&after, "kto")), (2, 1));
    assert_eq!(after.scores, before.scores, "the rows stay");
    place.run(&["report", "out", "--check"]).succeeds();
}

#[test]
fn packed_rows_are_read_like_plain_ones() {
    let place = Place::new();
    place
        .run(&[
            "compare",
            "plan.toml",
            "--set",
            "suites.generation=[\"heldout-prompts\"]",
            "--out",
            "out",
            "--quiet",
        ])
        .succeeds();
    let plain = Records::read(&place.path("out")).unwrap();
    for name in ["examples.csv", "steps.csv", "samples.jsonl"] {
        let path = place.path("out").join(name);
        let file = std::fs::File::create(place.path("out").join(format!("{name}.gz"))).unwrap();
        let mut packed = flate2::write::GzEncoder::new(file, flate2::Compression::best());
        packed.write_all(&std::fs::read(&path).unwrap()).unwrap();
        packed.finish().unwrap();
        std::fs::remove_file(&path).unwrap();
    }
    assert_eq!(Records::read(&place.path("out")).unwrap(), plain);
    place.run(&["report", "out", "--check"]).succeeds();
    std::fs::write(place.path("out/steps.csv.gz"), b"no gzip").unwrap();
    place.run(&["report", "out", "--check"]).fails(2, &["steps.csv"]);
}

#[test]
fn tensorboard_events_are_written_beside_the_records_or_where_they_are_asked_for() {
    let place = Place::new();
    let short =
        ["compare", "plan.toml", "--set", "seeds=[1]", "--set", "budget.tokens=1500", "--quiet", "--force"];
    for (option, folder) in [("--tensorboard", "out/tensorboard"), ("--tensorboard=events", "events")] {
        place.run(&[&short[..], &["--out", "out", option]].concat()).succeeds();
        let runs: Vec<_> =
            std::fs::read_dir(place.path(folder)).unwrap().map(|e| e.unwrap().path()).collect();
        assert_eq!(runs.len(), 3, "a folder a run in {folder}");
        for run in runs {
            let events = files(&run);
            assert!(
                events.len() == 1 && events[0].0.contains("tfevents") && holds(&events[0].1, "train/loss"),
                "{run:?}"
            );
        }
    }
}
