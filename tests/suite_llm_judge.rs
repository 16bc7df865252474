//! The language-model judge against a real HTTP server that misbehaves on purpose.

mod judge_server;

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use judge_server::{Answer, Server, serve};
use kto_eval::base::error::render;
use kto_eval::suite::judge::llm::{Endpoint, JudgeTemplate, LlmJudge, Tally};
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
    assert_eq!((tally.matches, tally.invalid, tally.flipped), (3, 1, 1));
}

/// What a judge mentions while it reasons is no verdict, and a reply that was cut has none.
#[test]
fn reasoning_that_never_ended_is_no_verdict_and_is_counted() {
    let cut = r#"{"choices": [{"message": {"content": "<think>maybe [[A]] or [[B]]</think>"}, "finish_reason": "length"}]}"#;
    let early =
        r#"{"choices": [{"message": {"content": "First thought: [[A]]. But"}, "finish_reason": "length"}]}"#;
    let server = serve(Box::new(move |_, body| match () {
        () if body.contains("request 0") => Answer::Raw(cut),
        () if body.contains("request 1") => Answer::Raw(early),
        () => Answer::Says("<think>[[A]]?</think>[[C]]"),
    }));
    let cache = tempfile::tempdir().unwrap();
    let judge = LlmJudge::new(endpoint(&server), JudgeTemplate::pairwise().unwrap(), cache.path()).unwrap();
    assert_eq!(compare(&judge, &tasks(3)).unwrap(), [None, None, Some(0.5)]);
    let tally = judge.tally();
    assert_eq!((tally.invalid, tally.flipped, tally.cut, tally.unread), (2, 0, 4, 4));
    let remarks = judge.remarks(&Tally::default());
    assert!(
        remarks.len() == 1 && remarks[0].contains("4 replies of the judge were cut at max_tokens = 512"),
        "{remarks:?}"
    );
    // Kept as what it is.
    let again = LlmJudge::new(endpoint(&server), JudgeTemplate::pairwise().unwrap(), cache.path()).unwrap();
    assert_eq!(compare(&again, &tasks(3)).unwrap(), [None, None, Some(0.5)]);
    assert_eq!((again.tally().usage.asked, again.tally().cut), (0, 4));
}

#[test]
fn a_judge_of_whose_replies_none_can_be_read_is_given_up_with_one_of_them() {
    let server = serve(Box::new(|_, _| Answer::Says("I cannot\ndecide.")));
    let cache = tempfile::tempdir().unwrap();
    let judge =
        || LlmJudge::new(endpoint(&server), JudgeTemplate::pairwise().unwrap(), cache.path()).unwrap();
    let few = judge();
    assert_eq!(compare(&few, &tasks(7)).unwrap(), [None; 7]);
    let remarks = few.remarks(&Tally::default());
    assert!(
        remarks[0].ends_with("14 replies of the judge hold no verdict; the first reads: I cannot decide."),
        "{remarks:?}"
    );
    let many = judge();
    let text = render(&compare(&many, &tasks(60)).unwrap_err());
    // Sixteen, and what was under way.
    for part in ["replies holds a verdict", "I cannot decide.", "judge.template"] {
        assert!(text.contains(part), "{text}");
    }
    assert!(many.tally().down && server.requests.load(Ordering::SeqCst) < 24, "no more was asked");
    let text = render(&judge().probe().unwrap_err());
    assert!(text.contains("the first reads: I cannot decide."), "{text}");
    // One verdict tells that the judge can give them.
    let server = serve(Box::new(|number, _| Answer::Says(if number == 0 { "[[C]]" } else { "Well." })));
    let judge = LlmJudge::new(endpoint(&server), JudgeTemplate::pairwise().unwrap(), cache.path()).unwrap();
    judge.probe().unwrap();
    assert_eq!(compare(&judge, &tasks(20)).unwrap(), [None; 20]);
}

#[test]
fn what_the_endpoint_says_against_a_question_is_passed_on_with_a_remedy() {
    for (answer, says) in [
        (429, &["failed after 2 attempts: HTTP status 429: oops!"][..]),
        (401, &["HTTP status 401: oops!", "no key was sent", "KTO_EVAL_JUDGE_KEY"]),
        (404, &["HTTP status 404: oops!", "`judge-1` at", "--judge-model"]),
        (0, &["no answer within judge.timeout = 0.7 s", "judge.concurrency"]),
    ] {
        let server = serve(Box::new(move |_, _| match answer {
            0 => Answer::Slow,
            status => Answer::Status(status, ""),
        }));
        let cache = tempfile::tempdir().unwrap();
        let hasty = Endpoint { retries: 1, concurrency: 1, ..endpoint(&server) };
        let judge = LlmJudge::new(hasty, JudgeTemplate::pairwise().unwrap(), cache.path()).unwrap();
        for text in [render(&judge.probe().unwrap_err()), render(&compare(&judge, &tasks(1)).unwrap_err())] {
            for part in says.iter().chain(&["the same command goes on"]) {
                assert!(text.contains(part), "lacks {part}: {text}");
            }
        }
    }
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
    let remarks = judge.remarks(&Tally::default());
    assert!(
        remarks[0].contains("the judge refused 2 questions, the first one with: HTTP status 400: oops!"),
        "{remarks:?}"
    );
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
