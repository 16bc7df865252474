//! A local stand-in of the hub's HTTP interface.

use std::collections::HashMap;
use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex};

const COMMIT: &str = "0123456789abcdef0123456789abcdef01234567";

#[derive(Default)]
pub struct Hub {
    /// `<repository>/<file>` → its bytes.
    pub files: HashMap<String, Vec<u8>>,
    /// Repositories that want the token `secret`.
    pub gated: Vec<String>,
    /// Files whose first transfer breaks off half-way.
    pub cut: Vec<String>,
    /// Files that are redirected, as large ones are.
    pub redirected: Vec<String>,
    /// Files (or `api/<repository>`) that answer with this status, and how often yet; transfers of whole files only.
    pub failing: HashMap<String, (u16, usize)>,
    /// The branch has moved to another commit.
    pub moved: bool,
    /// Requests that were answered.
    pub log: Vec<String>,
    /// The range that each request asked for, if any.
    pub ranges: Vec<Option<String>>,
    /// The token that each request brought, if any.
    pub tokens: Vec<Option<String>>,
}

fn commit_of(hub: &Hub) -> String {
    if hub.moved { COMMIT.replace('0', "e") } else { COMMIT.to_owned() }
}

pub fn serve(hub: Arc<Mutex<Hub>>) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = format!("http://{}", listener.local_addr().unwrap());
    let base = address.clone();
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let (hub, base) = (Arc::clone(&hub), base.clone());
            std::thread::spawn(move || answer(stream, &hub, &base));
        }
    });
    address
}

fn answer(stream: TcpStream, hub: &Mutex<Hub>, base: &str) -> Option<()> {
    let mut reader = BufReader::new(stream.try_clone().ok()?);
    let mut first = String::new();
    reader.read_line(&mut first).ok()?;
    let path = first.split(' ').nth(1)?.trim_start_matches('/').to_owned();
    let mut headers = HashMap::new();
    for line in reader.lines() {
        let line = line.ok()?;
        let Some((name, value)) = line.split_once(": ") else { break };
        headers.insert(name.to_lowercase(), value.to_owned());
    }
    let mut hub = hub.lock().unwrap();
    hub.log.push(path.clone());
    let token = headers.get("authorization").cloned();
    hub.tokens.push(token.clone());
    hub.ranges.push(headers.get("range").cloned());
    let response = respond(&mut hub, &path, headers.get("range").map(String::as_str), token.as_deref(), base);
    drop(hub);
    let mut stream = stream;
    stream.write_all(&response).ok()
}

fn respond(hub: &mut Hub, path: &str, range: Option<&str>, token: Option<&str>, base: &str) -> Vec<u8> {
    let status = |line: &str| {
        format!("HTTP/1.1 {line}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n").into_bytes()
    };
    let gated = |hub: &Hub, repo: &str| hub.gated.iter().any(|g| g == repo) && token != Some("Bearer secret");
    let fails = |hub: &mut Hub, name: &str| match hub.failing.get_mut(name) {
        Some((code, left)) if *left > 0 => {
            *left -= 1;
            Some(status(&format!("{code} Out Of Order")))
        }
        _ => None,
    };
    if let Some(rest) = path.strip_prefix("api/") {
        let (repo, revision) =
            rest.trim_start_matches("models/").split_once("/revision/").unwrap_or((rest, "main"));
        // Another revision is another repository here, `<repository>@<revision>`.
        let of_revision = if revision == "main" { repo.to_owned() } else { format!("{repo}@{revision}") };
        let repo = of_revision.as_str();
        if let Some(refusal) = fails(hub, &format!("api/{repo}")) {
            return refusal;
        }
        if gated(hub, repo) {
            return status("401 Unauthorized");
        }
        let mut names: Vec<&str> =
            hub.files.keys().filter_map(|f| f.strip_prefix(&format!("{repo}/"))).collect();
        if names.is_empty() {
            return status("404 Not Found");
        }
        names.sort_unstable();
        let siblings: Vec<_> = names.iter().map(|n| serde_json::json!({"rfilename": n})).collect();
        let body = serde_json::json!({"siblings": siblings, "sha": commit_of(hub)}).to_string();
        let head = format!(
            "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: {}\r\nConnection: close\r\n\r\n",
            body.len()
        );
        return [head.into_bytes(), body.into_bytes()].concat();
    }
    let name = path.trim_start_matches("cdn/").replace("/resolve/main/", "/").replace("/resolve/v2/", "@v2/");
    let commit = if name.contains("@v2/") { COMMIT.replace('0', "f") } else { commit_of(hub) };
    if gated(hub, name.rsplit_once('/').map_or("", |(repo, _)| repo)) {
        return status("401 Unauthorized");
    }
    if range != Some("bytes=0-0")
        && let Some(refusal) = fails(hub, &name)
    {
        return refusal;
    }
    let Some(bytes) = hub.files.get(&name).cloned() else { return status("404 Not Found") };
    let etag = format!("etag-{}", name.len() * 1000 + bytes.len());
    if !path.starts_with("cdn/") && hub.redirected.contains(&name) {
        let head = format!(
            "HTTP/1.1 302 Found\r\nLocation: {base}/cdn/{path}\r\nX-Linked-Etag: \"{etag}\"\r\nX-Repo-Commit: {commit}\r\n\
             Content-Length: 0\r\nConnection: close\r\n\r\n"
        );
        return head.into_bytes();
    }
    let (from, to) = range.and_then(|r| r.strip_prefix("bytes=")?.split_once('-')).unwrap_or(("0", ""));
    let from: usize = from.parse().unwrap();
    let to = to.parse().unwrap_or(bytes.len() - 1).min(bytes.len() - 1);
    let body = &bytes[from..=to];
    let head = format!(
        "HTTP/1.1 206 Partial Content\r\nETag: \"{etag}\"\r\nX-Repo-Commit: {commit}\r\nContent-Range: bytes {from}-{to}/{}\r\n\
         Content-Length: {}\r\nConnection: close\r\n\r\n",
        bytes.len(),
        body.len()
    );
    let at = hub.cut.iter().position(|c| *c == name).filter(|_| body.len() > 1);
    let sent = if let Some(at) = at {
        hub.cut.remove(at);
        body.len() / 2
    } else {
        body.len()
    };
    [head.as_bytes(), &body[..sent]].concat()
}
