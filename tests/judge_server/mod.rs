//! A real HTTP server on this machine that answers as a test says, misbehaviour included.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

/// What the server does with a request, given its number and its body.
pub type Behaviour = dyn Fn(usize, &str) -> Answer + Send + Sync;

#[allow(dead_code, reason = "each test binary uses a part of it")]
pub enum Answer {
    Says(&'static str),
    Status(u16, &'static str),
    Raw(&'static str),
    /// Sends the key back that came with the request, as a reply or with another status.
    Echo(u16),
    /// Promises more than it sends.
    CutOff,
    Slow,
}

#[allow(dead_code, reason = "each test binary uses a part of it")]
pub struct Server {
    pub url: String,
    pub requests: Arc<AtomicUsize>,
    pub headers: Arc<Mutex<Vec<String>>>,
    pub most_at_once: Arc<AtomicUsize>,
}

pub fn serve(behaviour: Box<Behaviour>) -> Server {
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
                headers.lock().unwrap().push(head.clone());
                let number = requests.fetch_add(1, Ordering::SeqCst);
                let answer = behaviour(number, &body);
                now.fetch_sub(1, Ordering::SeqCst);
                respond(stream, answer, &head);
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

fn respond(mut stream: TcpStream, answer: Answer, asked: &str) {
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
        Answer::Echo(status) => {
            let key = asked.lines().find(|l| l.to_lowercase().starts_with("authorization"));
            let text = format!("you sent {} [[A]]", key.unwrap_or("no key"));
            let body = match status {
                200 => serde_json::json!({"choices": [{"message": {"content": text}}]}).to_string(),
                _ => text,
            };
            send(&mut stream, status, "", body.len(), &body);
        }
        Answer::Raw(body) => send(&mut stream, 200, "", body.len(), body),
        Answer::CutOff => send(&mut stream, 200, "", 500, "{\"choices\": [{\"mess"),
        Answer::Slow => {
            std::thread::sleep(Duration::from_millis(1500));
            send(&mut stream, 200, "", 2, "{}");
        }
    }
}
