//! The language-model judge against a real HTTP server that misbehaves on purpose.

mod cli;
mod judge_server;

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use cli::{Place, Ran};
use judge_server::{Answer, Server, serve};
use kto_eval::base::error::render;
use kto_eval::record::{JudgeUsage, Records};
use kto_eval::suite::judge::llm::{Endpoint, JudgeTemplate, LlmJudge};
use kto_eval::suite::judge::{Judge, Match, Task};

fn endpoint(server: &Server) -> Endpoint {
    Endpoint {
        url: server.url.clone(),
        model: "judge-1".to_owned(),
        key_variable: String::new(),
        timeout: Duration::from_millis(700),
        retries: 6,
        backoff: Duration::from_millis(5),
        concurrency: 3,
    }
}

fn tasks(n: usize) -> Vec<Task> {
    (0..n).map(|i| Task { id: i.to_string(), prompt: format!("request {i}"), ..Task::default() }).collect()
}

/// The answer that stands first in the judge's prompt is `good`.
fn good_first(body: &str) -> bool {
    body.find("good").unwrap() < body.find("bad").unwrap()
}

fn compare(judge: &LlmJudge, tasks: &[Task]) -> anyhow::Result<Vec<Option<f64>>> {
    let matches: Vec<Match> =
        tasks.iter().map(|task| Match { task, candidate: "good", baseline: "bad" }).collect();
    Ok(judge.compare(&matches)?.into_iter().map(|o| o.preference).collect())
}

#[test]
fn every_kind_of_failure_is_overcome_and_nothing_is_asked_twice() {
    let server = serve(Box::new(|number, body| match number {
        0 => Answer::Status(429, "retry-after: 0\r\n"),
        1 => Answer::Status(500, ""),
        2 => Answer::Status(503, ""),
        3 => Answer::CutOff,
        4 => Answer::Raw("{\"choices\": [}"),
        5 => Answer::Raw("{\"error\": \"busy\"}"),
        6 => Answer::Slow,
        _ => Answer::Says(if good_first(body) { "fine [[A]]" } else { "hm [[B]]" }),
    }));
    let cache = tempfile::tempdir().unwrap();
    let judge = LlmJudge::new(endpoint(&server), JudgeTemplate::pairwise().unwrap(), cache.path()).unwrap();
    let tasks = tasks(8);
    assert_eq!(compare(&judge, &tasks).unwrap(), vec![Some(1.0); 8]);
    let tally = judge.tally();
    assert_eq!((tally.usage.asked, tally.usage.cached, tally.usage.repeated), (16, 0, 7));
    assert_eq!((tally.usage.prompt_tokens, tally.usage.completion_tokens), (1600, 112));
    assert!(server.most_at_once.load(Ordering::SeqCst) <= 3, "bounded concurrency");
    let asked = server.requests.load(Ordering::SeqCst);
    let again = LlmJudge::new(endpoint(&server), JudgeTemplate::pairwise().unwrap(), cache.path()).unwrap();
    assert_eq!(compare(&again, &tasks).unwrap(), vec![Some(1.0); 8]);
    assert_eq!(server.requests.load(Ordering::SeqCst), asked, "the second run pays for nothing");
    assert_eq!(again.tally().usage.cached, 16);
}

#[test]
fn order_bias_is_a_tie_and_nonsense_is_counted_and_not_guessed() {
    // Task 0: always the first; task 1: always the second in one order and nonsense in the other; task 2: a tie.
    let server = serve(Box::new(|_, body| {
        if body.contains("request 0") {
            Answer::Says("[[A]]")
        } else if body.contains("request 1") {
            Answer::Says(if good_first(body) { "[[B]]" } else { "I cannot say." })
        } else {
            Answer::Says("[[C]]")
        }
    }));
    let cache = tempfile::tempdir().unwrap();
    let judge = LlmJudge::new(endpoint(&server), JudgeTemplate::pairwise().unwrap(), cache.path()).unwrap();
    assert_eq!(compare(&judge, &tasks(3)).unwrap(), [Some(0.5), None, Some(0.5)]);
    let tally = judge.tally();
    assert_eq!((tally.matches, tally.invalid, tally.flipped, tally.flip_rate()), (3, 1, 1, 0.5));
}

#[test]
fn a_question_that_is_refused_has_no_verdict_and_the_others_go_on() {
    // Task 0 is beyond the judge's context, task 1 makes it reason until its tokens are spent.
    let spent = "{\"choices\": [{\"message\": {\"content\": null}, \"finish_reason\": \"length\"}]}";
    let server = serve(Box::new(move |_, body| match () {
        () if body.contains("request 0") => Answer::Status(400, ""),
        () if body.contains("request 1") => Answer::Raw(spent),
        () => Answer::Says("[[C]]"),
    }));
    let cache = tempfile::tempdir().unwrap();
    let judge = LlmJudge::new(endpoint(&server), JudgeTemplate::pairwise().unwrap(), cache.path()).unwrap();
    assert_eq!(compare(&judge, &tasks(4)).unwrap(), [None, None, Some(0.5), Some(0.5)]);
    let tally = judge.tally();
    assert_eq!(
        (tally.invalid, tally.refused, tally.usage.asked, tally.down),
        (2, 2, 7, false),
        "six questions and the control question"
    );
    assert!(judge.refusal().unwrap().contains("HTTP status 400: oops!"));
    // Refusals are not kept: they may have been the endpoint's mistake.
    assert_eq!(std::fs::read_dir(cache.path()).unwrap().count(), 6);

    // However many are beyond it: the endpoint answers others.
    let server = serve(Box::new(|_, body| match body.contains("two plus two") {
        true => Answer::Says("[[A]]"),
        false => Answer::Status(400, ""),
    }));
    let judge = LlmJudge::new(endpoint(&server), JudgeTemplate::pairwise().unwrap(), cache.path()).unwrap();
    assert_eq!(compare(&judge, &tasks(40)).unwrap(), [None; 40]);
    assert!(!judge.tally().down);

    let server = serve(Box::new(|_, _| Answer::Status(400, "")));
    let cache = tempfile::tempdir().unwrap();
    let judge = LlmJudge::new(endpoint(&server), JudgeTemplate::pairwise().unwrap(), cache.path()).unwrap();
    let text = render(&compare(&judge, &tasks(40)).unwrap_err());
    assert!(text.contains("HTTP status 400") && judge.tally().down, "{text}");
    assert!(server.requests.load(Ordering::SeqCst) < 20, "an endpoint that refuses everything is given up");
}

#[test]
fn an_endpoint_that_refuses_everything_from_some_question_on_is_given_up() {
    // Its credit is spent after so many.
    let credit = Arc::new(AtomicUsize::new(3));
    let left = credit.clone();
    let server = serve(Box::new(move |number, _| match number < left.load(Ordering::SeqCst) {
        true => Answer::Says("[[C]]"),
        false => Answer::Status(400, ""),
    }));
    let cache = tempfile::tempdir().unwrap();
    let judge =
        || LlmJudge::new(endpoint(&server), JudgeTemplate::pairwise().unwrap(), cache.path()).unwrap();
    let first = judge();
    let text = render(&compare(&first, &tasks(40)).unwrap_err());
    assert!(text.contains("HTTP status 400") && text.contains("the same command goes on"), "{text}");
    assert!(first.tally().down && server.requests.load(Ordering::SeqCst) < 20);
    // So it is by a command whose first questions the cache answers.
    let next = judge();
    assert!(compare(&next, &tasks(40)).is_err() && next.tally().usage.cached == 3 && next.tally().down);
    // The last two questions of a suite are too few to tell by themselves.
    credit.store(server.requests.load(Ordering::SeqCst) + 75, Ordering::SeqCst);
    assert!(compare(&judge(), &tasks(40)).is_err());
    credit.store(usize::MAX, Ordering::SeqCst);
    assert_eq!(compare(&judge(), &tasks(40)).unwrap().iter().flatten().count(), 40);
}

#[test]
fn equal_texts_tie_unasked_and_equal_questions_are_one() {
    let server = serve(Box::new(|_, _| Answer::Says("[[A]]")));
    let cache = tempfile::tempdir().unwrap();
    let judge = LlmJudge::new(endpoint(&server), JudgeTemplate::pairwise().unwrap(), cache.path()).unwrap();
    let task = tasks(1).remove(0);
    let (same, other) = (
        Match { task: &task, candidate: "good", baseline: "good" },
        Match { task: &task, candidate: "good", baseline: "bad" },
    );
    let found = judge.compare(&[same, other, other, other, same]).unwrap();
    let shown: Vec<_> = found.iter().map(|o| (o.preference, o.flipped)).collect();
    let flipped = (Some(0.5), Some(true));
    assert_eq!(shown, [(Some(0.5), None), flipped, flipped, flipped, (Some(0.5), None)]);
    assert_eq!(server.requests.load(Ordering::SeqCst), 2);
}

#[test]
fn a_judge_that_is_down_keeps_what_is_done_and_the_same_command_goes_on() {
    let server = serve(Box::new(|number, body| {
        if (3..8).contains(&number) {
            Answer::Status(500, "")
        } else {
            Answer::Says(if good_first(body) { "[[A]]" } else { "[[B]]" })
        }
    }));
    let cache = tempfile::tempdir().unwrap();
    let patient = Endpoint { retries: 1, concurrency: 1, ..endpoint(&server) };
    let judge = || LlmJudge::new(patient.clone(), JudgeTemplate::pairwise().unwrap(), cache.path()).unwrap();
    let text = render(&compare(&judge(), &tasks(5)).unwrap_err());
    assert!(
        text.contains("failed after 2 attempts: HTTP status 500")
            && text.contains("the same command goes on"),
        "{text}"
    );
    assert_eq!(server.requests.load(Ordering::SeqCst), 5, "three answers, two failures, and then no more");
    assert!(compare(&judge(), &tasks(5)).is_err(), "still down: two more failures");
    let last = judge();
    assert!(compare(&last, &tasks(5)).is_ok());
    assert_eq!((last.tally().usage.cached, last.tally().usage.asked), (3, 7));
}

#[test]
fn the_key_goes_to_the_endpoint_and_nowhere_else() {
    // SAFETY: no other thread of this test binary reads or writes this variable.
    unsafe { std::env::set_var("KTO_EVAL_TEST_JUDGE_KEY", "sk-secret-value") };
    let server =
        serve(Box::new(|number, _| if number < 2 { Answer::Says("[[C]]") } else { Answer::Status(401, "") }));
    let cache = tempfile::tempdir().unwrap();
    let keyed = Endpoint { key_variable: "KTO_EVAL_TEST_JUDGE_KEY".to_owned(), ..endpoint(&server) };
    let judge = LlmJudge::new(keyed, JudgeTemplate::pairwise().unwrap(), cache.path()).unwrap();
    assert_eq!(compare(&judge, &tasks(1)).unwrap(), [Some(0.5)]);
    let sent = server.headers.lock().unwrap().join("\n").to_lowercase();
    assert!(sent.contains("authorization: bearer sk-secret-value"));
    for file in std::fs::read_dir(cache.path()).unwrap() {
        let text = std::fs::read_to_string(file.unwrap().path()).unwrap();
        assert!(!text.contains("secret"), "{text}");
    }
    let error = format!("{:?}", compare(&judge, &tasks(4)).unwrap_err());
    assert!(
        error.contains("401") && error.contains("after 1 attempts") && !error.contains("secret"),
        "{error}"
    );
    let missing = Endpoint { key_variable: "KTO_EVAL_TEST_NO_SUCH_KEY".to_owned(), ..endpoint(&server) };
    let judge = LlmJudge::new(missing, JudgeTemplate::pairwise().unwrap(), cache.path()).unwrap();
    let error = render(&compare(&judge, &tasks(5)).unwrap_err());
    assert!(error.contains("KTO_EVAL_TEST_NO_SUCH_KEY, which is not set"), "{error}");
}

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
    // The same numbers as the other form of the verb gives.
    let whole = place.run(&["score", "--model", "model", "--data", "data", "--max-examples", "8"]);
    let first = whole.succeeds().lines().nth(1).unwrap().split(',').nth(4).unwrap().parse::<f64>().unwrap();
    assert!((first - logps[1][column("logp")].parse::<f64>().unwrap()).abs() < 1e-4);
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
