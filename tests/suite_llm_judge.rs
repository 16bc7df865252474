//! The language-model judge against a real HTTP server that misbehaves on purpose.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use kto_eval::base::error::render;
use kto_eval::suite::judge::llm::{Endpoint, JudgeTemplate, LlmJudge};
use kto_eval::suite::judge::{Judge, Match, Task};

/// What the server does with a request, given its number and its body.
type Behaviour = dyn Fn(usize, &str) -> Answer + Send + Sync;

enum Answer {
    Says(&'static str),
    Status(u16, &'static str),
    Raw(&'static str),
    /// Promises more than it sends.
    CutOff,
    Slow,
}

struct Server {
    url: String,
    requests: Arc<AtomicUsize>,
    headers: Arc<Mutex<Vec<String>>>,
    most_at_once: Arc<AtomicUsize>,
}

fn serve(behaviour: Box<Behaviour>) -> Server {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}/v1", listener.local_addr().unwrap());
    let server =
        Server { url, requests: Arc::default(), headers: Arc::default(), most_at_once: Arc::default() };
    let (requests, headers, most) =
        (server.requests.clone(), server.headers.clone(), server.most_at_once.clone());
    let (behaviour, now) = (Arc::new(behaviour), Arc::new(AtomicUsize::new(0)));
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let (requests, headers, most) = (requests.clone(), headers.clone(), most.clone());
            let (behaviour, now) = (behaviour.clone(), now.clone());
            std::thread::spawn(move || {
                let Some((head, body)) = read_request(&stream) else { return };
                most.fetch_max(now.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
                headers.lock().unwrap().push(head);
                let number = requests.fetch_add(1, Ordering::SeqCst);
                let answer = behaviour(number, &body);
                now.fetch_sub(1, Ordering::SeqCst);
                respond(stream, answer);
            });
        }
    });
    server
}

fn read_request(mut stream: &TcpStream) -> Option<(String, String)> {
    let (mut data, mut buffer) = (Vec::new(), [0; 4096]);
    loop {
        let n = stream.read(&mut buffer).ok().filter(|n| *n > 0)?;
        data.extend_from_slice(&buffer[..n]);
        let text = String::from_utf8_lossy(&data).into_owned();
        let Some((head, body)) = text.split_once("\r\n\r\n") else { continue };
        let length = head
            .lines()
            .find_map(|l| l.to_lowercase().strip_prefix("content-length: ")?.parse::<usize>().ok());
        if body.len() >= length.unwrap_or(0) {
            return Some((head.to_owned(), body.to_owned()));
        }
    }
}

fn respond(mut stream: TcpStream, answer: Answer) {
    let send = |stream: &mut TcpStream, status: u16, extra: &str, length: usize, body: &str| {
        let head =
            format!("HTTP/1.1 {status} X\r\nconnection: close\r\n{extra}content-length: {length}\r\n\r\n");
        let _ = stream.write_all((head + body).as_bytes());
    };
    match answer {
        Answer::Says(text) => {
            let body = serde_json::json!({
                "choices": [{"message": {"role": "assistant", "content": text}}],
                "usage": {"prompt_tokens": 100, "completion_tokens": 7},
            })
            .to_string();
            send(&mut stream, 200, "", body.len(), &body);
        }
        Answer::Status(status, extra) => send(&mut stream, status, extra, 5, "oops!"),
        Answer::Raw(body) => send(&mut stream, 200, "", body.len(), body),
        Answer::CutOff => send(&mut stream, 200, "", 500, "{\"choices\": [{\"mess"),
        Answer::Slow => {
            std::thread::sleep(Duration::from_millis(1500));
            send(&mut stream, 200, "", 2, "{}");
        }
    }
}

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
    judge.compare(&matches)
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
