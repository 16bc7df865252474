//! Comparisons and `score` with a language model as their judge: what it costs, what it leaves behind, what goes on without it.

mod cli;
mod judge_server;

use std::path::Path;
use std::sync::atomic::Ordering;

use cli::{Place, Ran};
use judge_server::{Answer, serve};
use kto_eval::record::{JudgeUsage, Records};

/// Requests about `reverse` go to whoever stands first, those about `sort` to nobody; all others are ties.
fn verdict(body: &str) -> Answer {
    let (_, rest) = body.split_once("<request>").unwrap();
    let (request, _) = rest.split_once("</request>").unwrap();
    if request.contains("reverse ") {
        Answer::Says("[[A]]")
    } else if request.contains("sort ") {
        Answer::Says("Both are answers.")
    } else {
        Answer::Says("[[C]]")
    }
}

/// A plan with two arms whose samples a language model judges.
fn judged_place() -> Place {
    let place = Place::new();
    let plan = cli::PLAN
        .replace("seeds = [1, 2]", "seeds = [1]")
        .replace("[[arm]]\nmethod = \"dpo\"\n\n", "")
        .replace("preference = [\"heldout\"]", "generation = [\"heldout-judged\"]\nmax_examples = 12");
    place.write("plan.toml", &(plan + "\n[judge]\nretries = 0\nconcurrency = 1\nreply_price = 1e6\n"));
    place
}

fn compare_with(place: &Place, url: &str, out: &str) -> Ran {
    let model = ["--judge-url", url, "--judge-model", "judge-1", "--out", out, "--threads", "1"];
    let mut command = place.command(&[&["compare", "plan.toml"][..], &model].concat());
    cli::ran(command.env("KTO_EVAL_JUDGE_KEY", "sk-secret-value").output().unwrap())
}

/// Files below a folder that hold a text.
fn holding(folder: &Path, text: &str) -> Vec<String> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(holding(&path, text));
        } else if String::from_utf8_lossy(&std::fs::read(&path).unwrap()).contains(text) {
            found.push(path.display().to_string());
        }
    }
    found
}

#[test]
fn a_comparison_outlives_its_judge_and_pays_for_nothing_twice() {
    let place = judged_place();
    place.run(&["compare", "plan.toml", "--out", "out"]).fails(
        2,
        &["suite `heldout-judged` is judged by a language model, and none is named", "--judge-url"],
    );
    // The base's 12 samples against the chosen ones and three sentinels against both: 7 × 12 matches, in both
    // orders at most 168 questions (equal texts ask once). The endpoint goes down among the first arm's.
    let server = serve(Box::new(|number, body| match number {
        170..=171 => Answer::Status(500, ""),
        _ => verdict(body),
    }));
    let down = compare_with(&place, &server.url, "out");
    down.fails(2, &["failed after 1 attempts: HTTP status 500", "the same command goes on"]);
    let usage = |out: &str| -> JudgeUsage {
        serde_json::from_str(&place.read(&format!("{out}/judge.json"))).unwrap()
    };
    let first = usage("out");
    assert_eq!(first.asked, 170, "what was answered is kept");
    while server.requests.load(Ordering::SeqCst) < 172 {
        compare_with(&place, &server.url, "out").fails(2, &["HTTP status 500"]);
    }
    let done = compare_with(&place, &server.url, "out");
    assert!(done.succeeds().contains("judge judge-1:"), "{}", done.out);
    let paid = usage("out");
    assert_eq!(
        paid.asked + 2,
        server.requests.load(Ordering::SeqCst) as u64,
        "every answer was paid for once"
    );
    assert_eq!(paid.reply_tokens, 7 * paid.asked);
    assert!((paid.cost - 7.0 * paid.asked as f64).abs() < 1e-6, "{paid:?}");

    // Elsewhere: the same rows, and not one question.
    let asked = server.requests.load(Ordering::SeqCst);
    compare_with(&place, &server.url, "again").succeeds();
    assert_eq!(server.requests.load(Ordering::SeqCst), asked);
    for file in
        ["scores.csv", "examples.csv", "samples.jsonl", "judgments.jsonl", "winrates.csv", "strengths.csv"]
    {
        assert_eq!(place.read(&format!("out/{file}")), place.read(&format!("again/{file}")), "{file}");
    }
    let sent = server.headers.lock().unwrap().join("\n").to_lowercase();
    assert!(sent.contains("authorization: bearer sk-secret-value"));
    assert_eq!(holding(&place.path("."), "sk-secret-value"), Vec::<String>::new());
    what_was_judged(&place);

    // Passed on without the judgments, the tables made of them stay.
    let tables = ["winrates.csv", "strengths.csv"].map(|file| place.read(&format!("again/{file}")));
    std::fs::remove_file(place.path("again/judgments.jsonl")).unwrap();
    place.run(&["report", "again"]).succeeds();
    assert_eq!(["winrates.csv", "strengths.csv"].map(|file| place.read(&format!("again/{file}"))), tables);
}

fn what_was_judged(place: &Place) {
    let records = Records::read(&place.path("out")).unwrap();
    let score = |arm: &str, metric: &str| {
        let row = records.scores.iter().find(|s| s.arm == arm && s.metric == metric && s.subset == "all");
        row.map_or(f64::NAN, |s| s.value)
    };
    let kind = |word: &str| {
        let asked = records.samples.iter().filter(|s| s.arm == "kto" && s.prompt.starts_with(word)).count();
        asked as f64
    };
    let (reverse, sort) = (kind("reverse"), kind("sort"));
    assert!(reverse > 0.0 && sort > 0.0);
    for arm in ["sft", "kto"] {
        assert_eq!((score(arm, "win_rate_base"), score(arm, "win_rate_chosen")), (0.5, 0.5));
        assert!((score(arm, "invalid_judgments") - sort / 12.0).abs() < 1e-12);
        assert!((score(arm, "flip_rate") - reverse / (12.0 - sort)).abs() < 1e-12);
    }
    assert_eq!(score("sentinel-constant", "win_rate_base"), 0.5);
    // Base against chosen, two arms against two, three sentinels against two.
    assert_eq!(records.judgments.len(), 12 * (1 + 4 + 6));
    let rates = place.read("out/winrates.csv");
    let [header, row] = ["suite,", "heldout-judged,kto,base,"].map(|start| {
        rates
            .lines()
            .find(|l| l.starts_with(start))
            .unwrap_or_else(|| panic!("no {start} in {rates}"))
            .to_owned()
    });
    let of = |name: &str| {
        row.split(',').nth(header.split(',').position(|h| h == name).unwrap()).unwrap().to_owned()
    };
    assert_eq!(
        (of("win_rate"), of("ties"), of("invalid")),
        ("0.5".into(), (12.0 - sort).to_string(), sort.to_string())
    );
    assert_eq!(
        place.read("out/strengths.csv").lines().count(),
        1 + 7,
        "two arms, base, chosen, three sentinels"
    );
    let rates = place.run(&["winrate", "out/judgments.jsonl"]);
    assert!(
        rates.succeeds().lines().any(|l| l.starts_with("kto ") && l.contains("50.00 %")),
        "{}",
        rates.out
    );
}

#[test]
fn a_comparison_goes_on_with_a_judge_that_has_moved() {
    let place = judged_place();
    let first = serve(Box::new(|_, _| Answer::Status(500, "")));
    compare_with(&place, &first.url, "out").fails(2, &["HTTP status 500"]);
    let second = serve(Box::new(|_, body| verdict(body)));
    let resume = ["compare", "--resume", "out", "--threads", "1", "--judge-url", &second.url];
    place.run(&[&resume[..], &["--judge-model", "judge-1"]].concat()).succeeds();
    assert!(second.requests.load(Ordering::SeqCst) > 0);
    // Another judge makes another comparison.
    place.run(&[&resume[..], &["--judge-model", "judge-2"]].concat()).fails(2, &["another plan", "judge-2"]);
    place.run(&[&resume[..], &["--seed", "3"]].concat()).fails(2, &["goes on with the folder's own plan"]);
}

#[test]
fn a_scoring_whose_judge_went_down_goes_on_by_the_same_command() {
    let place = Place::new();
    // Three answers, then none, then all.
    let server =
        serve(Box::new(
            |number, body| if (3..7).contains(&number) { Answer::Status(500, "") } else { verdict(body) },
        ));
    let asked = |model: &str| {
        place.line(&format!(
            "score --model {model} --reference model --data data --max-examples 6 --suite heldout --suite heldout-judged \
             --set judge.retries=0 --set judge.concurrency=1 --judge-url {} --judge-model m --out scored",
            server.url
        ))
    };
    asked("model").fails(2, &["HTTP status 500", "the same command goes on"]);
    assert!(place.read("scored/scores.csv").contains("heldout"), "what was scored stays to be read");
    // Another question is another scoring.
    let other = place.line("score --model model --data data --suite heldout --out scored");
    other.fails(2, &["of an earlier scoring", "--force"]);
    while server.requests.load(Ordering::SeqCst) < 7 {
        asked("model").fails(2, &["HTTP status 500"]);
    }
    asked("model").succeeds();
    let usage: JudgeUsage = serde_json::from_str(&place.read("scored/judge.json")).unwrap();
    assert_eq!(
        usage.asked + 4,
        server.requests.load(Ordering::SeqCst) as u64,
        "all that was paid for is counted"
    );
    let once = |line: &str| place.read("scored/scores.csv").lines().filter(|l| *l == line).count() == 1;
    assert!(place.read("scored/scores.csv").lines().all(once), "no row twice");
    asked("model").fails(2, &["of an earlier scoring"]);
}

#[test]
fn a_judge_that_cannot_be_read_ends_the_command_before_anything_is_trained() {
    let place = judged_place();
    let server = serve(Box::new(|_, _| Answer::Says("I cannot decide.")));
    compare_with(&place, &server.url, "out")
        .fails(2, &["holds a verdict", "the first reads: I cannot decide."]);
    assert!(!place.path("out/runs.csv").exists() && server.requests.load(Ordering::SeqCst) == 16);
    let verify = |url: &str| {
        place.run(&["verify", "plan.toml", "--judge-url", url, "--judge-model", "judge-1", "--threads", "1"])
    };
    verify(&server.url).fails(2, &["I cannot decide."]);
    verify("http://127.0.0.1:9/v1").fails(2, &["the judge at http://127.0.0.1:9/v1 failed"]);
    let good = serve(Box::new(|_, _| Answer::Says("[[A]]")));
    verify(&good.url).succeeds();
    assert_eq!(good.requests.load(Ordering::SeqCst), 1, "one question");
}

#[test]
fn score_measures_any_model_on_any_suite() {
    let place = Place::new();
    let server = serve(Box::new(|_, body| verdict(body)));
    let asked = "score --model model --data data --max-examples 8 --set data.world.heldout_pairs=30 --suite heldout \
                 --suite preference/world --suite generation/world --suite heldout-judged";
    let judge = format!("--judge-url {} --judge-model m --reference model --out scored", server.url);
    let ran = place.line(&format!("{asked} {judge}"));
    let table = ran.succeeds();
    for part in ["heldout ", "preference/world ", "generation/world ", "heldout-judged ", "judge m:"] {
        assert!(table.contains(part), "lacks {part}: {table}");
    }
    let csv = |name: &str| -> Vec<Vec<String>> {
        let mut reader = csv::ReaderBuilder::new().has_headers(false).from_path(place.path(name)).unwrap();
        reader.records().map(|r| r.unwrap().iter().map(str::to_owned).collect()).collect()
    };
    let logps = csv("scored/logps.csv");
    assert_eq!(logps.len(), 1 + 2 * 2 * 8, "two completions of eight pairs of two suites");
    let column = |name: &str| logps[0].iter().position(|h| h == name).unwrap();
    for row in &logps[1..] {
        assert!(row[column("logp")].parse::<f64>().unwrap() < 0.0 && row[column("completion_tokens")] != "0");
        assert!(row[column("reward")].parse::<f64>().unwrap().abs() < 1e-4, "the model is its own reference");
    }
    // The same numbers as the other form of the verb gives, of which this one has drawn eight pairs.
    let whole = place.run(&["score", "--model", "model", "--data", "data"]);
    let drawn = &logps[1];
    let mut rows = whole.succeeds().lines().map(|line| line.split(',').collect::<Vec<_>>());
    let same =
        rows.find(|row| row[0] == drawn[column("example")] && row[1] == drawn[column("side")]).unwrap();
    let logp = |text: &str| text.parse::<f64>().unwrap();
    assert!((logp(same[4]) - logp(&drawn[column("logp")])).abs() < 1e-4);
    let names =
        |name: &str| csv(name).iter().map(|r| r[3].clone()).collect::<std::collections::BTreeSet<_>>();
    assert!(
        names("scored/scores.csv").contains("generation/world")
            && names("scored/examples.csv").contains("preference/world")
    );
    let samples = place.read("scored/samples.jsonl");
    assert_eq!(samples.lines().filter(|l| l.contains("\"run\":\"model\"")).count(), 16);
    assert!(place.read("scored/judgments.jsonl").contains("\"baseline\":\"chosen\""));

    // Scored anew, the judge's earlier questions are no longer counted.
    let matches =
        || -> u64 { serde_json::from_str::<JudgeUsage>(&place.read("scored/judge.json")).unwrap().matches };
    let first = matches();
    place.line(&format!("{asked} {judge} --force")).succeeds();
    assert!(first > 0 && matches() == first);

    // Without a reference what needs one is left out, and nothing is made up.
    place
        .run(&["score", "--model", "model", "--data", "data", "--suite", "heldout", "--out", "alone"])
        .succeeds();
    let scores = place.read("alone/scores.csv");
    assert!(scores.contains("logp_accuracy") && !scores.contains("reward_") && !scores.contains("margin"));
    for (arguments, says) in [
        (&["--suite", "world"][..], "say `preference/world` or `generation/world`"),
        (&["--suite", "heldout"], "name it with --data"),
        (&["--suite", "heldut"], "unknown suite `heldut`"),
        (&["--suite", "heldout-judged", "--data", "data"], "--judge-url"),
        (&["--suite", "heldout", "--suite", "heldout", "--data", "data"], "is named twice"),
        (
            &[
                "--suite",
                "heldout-judged",
                "--data",
                "data",
                "--judge-url",
                "http://u:pw@h/v1",
                "--judge-model",
                "m",
            ],
            "holds a user or a password",
        ),
        (
            &["--suite", "heldout-judged", "--data", "data", "--judge-url", "ftp://h", "--judge-model", "m"],
            "must begin with http",
        ),
        (
            &["--suite", "heldout-judged", "--data", "data", "--judge-url", "http://h"],
            "a judge has a url and a model",
        ),
    ] {
        let ran = place.run(&[&["score", "--model", "model", "--out", "bad"][..], arguments].concat());
        ran.fails(2, &[says]);
        assert!(!ran.err.contains("pw@"), "{}", ran.err);
    }
}
