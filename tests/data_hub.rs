//! Data sets and models by hub id, against a local stand-in of the hub's HTTP interface.
//!
//! One test: the environment variables under test belong to the whole process.

use std::collections::HashMap;
use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::sync::{Arc, Mutex};

use kto_eval::base::error::render;
use kto_eval::data::{load, resolve_model};
use kto_eval::plan::{DataFormat, DataSpec, WorldSpec};

const COMMIT: &str = "0123456789abcdef0123456789abcdef01234567";

#[derive(Default)]
struct Hub {
    /// `<repository>/<file>` → its bytes.
    files: HashMap<String, Vec<u8>>,
    /// Repositories that want the token `secret`.
    gated: Vec<String>,
    /// Files whose first transfer breaks off half-way.
    cut: Vec<String>,
    /// Files that are redirected, as large ones are.
    redirected: Vec<String>,
    /// Requests that were answered.
    log: Vec<String>,
    /// The token that each request brought, if any.
    tokens: Vec<Option<String>>,
}

fn serve(hub: Arc<Mutex<Hub>>) -> String {
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
    if let Some(rest) = path.strip_prefix("api/") {
        let repo = rest.trim_end_matches("/revision/main").trim_start_matches("models/");
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
        let body = serde_json::json!({"siblings": siblings, "sha": COMMIT}).to_string();
        let head = format!(
            "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: {}\r\nConnection: close\r\n\r\n",
            body.len()
        );
        return [head.into_bytes(), body.into_bytes()].concat();
    }
    let name = path.trim_start_matches("cdn/").replace("/resolve/main/", "/");
    let Some(bytes) = hub.files.get(&name).cloned() else { return status("404 Not Found") };
    let etag = format!("etag-{}", name.len() * 1000 + bytes.len());
    if !path.starts_with("cdn/") && hub.redirected.contains(&name) {
        let head = format!(
            "HTTP/1.1 302 Found\r\nLocation: {base}/cdn/{path}\r\nX-Linked-Etag: \"{etag}\"\r\nX-Repo-Commit: {COMMIT}\r\n\
             Content-Length: 0\r\nConnection: close\r\n\r\n"
        );
        return head.into_bytes();
    }
    let (from, to) = range.and_then(|r| r.strip_prefix("bytes=")?.split_once('-')).unwrap_or(("0", ""));
    let from: usize = from.parse().unwrap();
    let to = to.parse().unwrap_or(bytes.len() - 1).min(bytes.len() - 1);
    let body = &bytes[from..=to];
    let head = format!(
        "HTTP/1.1 206 Partial Content\r\nETag: \"{etag}\"\r\nX-Repo-Commit: {COMMIT}\r\nContent-Range: bytes {from}-{to}/{}\r\n\
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

/// # Safety
/// No other thread may read the environment meanwhile; the stand-in's threads do not.
fn set(variable: &str, value: &str) {
    // SAFETY: see above; this binary has one test.
    unsafe { std::env::set_var(variable, value) }
}

fn spec(source: &str, config: &str) -> DataSpec {
    DataSpec {
        source: source.to_owned(),
        revision: "main".to_owned(),
        config: config.to_owned(),
        split: "train".to_owned(),
        format: DataFormat::Auto,
        max_length: 512,
        max_examples: 0,
        world: WorldSpec { seed: 0, train_pairs: 1, heldout_pairs: 1, temperature: 1.0, flip: 0.0 },
    }
}

fn gzip(text: &str) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(text.as_bytes()).unwrap();
    encoder.finish().unwrap()
}

#[test]
fn data_sets_and_models_are_fetched_cached_and_refused_as_the_hub_answers() {
    let home = tempfile::TempDir::new().unwrap();
    let row = |i: usize| {
        let side = |word: &str| format!("\\n\\nHuman: q{i}\\n\\nAssistant: {word}");
        format!("{{\"chosen\": \"{}\", \"rejected\": \"{}\"}}\n", side("yes"), side("no"))
    };
    let rows: String = (0..200).map(row).collect();
    let mut hub = Hub::default();
    let mut put = |name: &str, bytes: Vec<u8>| drop(hub.files.insert(name.to_owned(), bytes));
    put("datasets/Org/hh/README.md", b"# hh".to_vec());
    put("datasets/Org/hh/harmless-base/train.jsonl.gz", gzip(&rows));
    put("datasets/Org/hh/harmless-base/test.jsonl.gz", gzip(&row(300)));
    put("datasets/Org/secret/train.jsonl", rows.clone().into_bytes());
    for file in ["config.json", "tokenizer.json", "README.md", "pytorch_model.bin"] {
        put(&format!("Org/model/{file}"), b"{}".to_vec());
    }
    put("Org/model/model-00001-of-00001.safetensors", vec![7; 5000]);
    put("Org/pickle/config.json", b"{}".to_vec());
    put("Org/pickle/pytorch_model.bin", b"x".to_vec());
    hub.redirected.push("Org/model/model-00001-of-00001.safetensors".to_owned());
    hub.gated.push("datasets/Org/secret".to_owned());
    hub.cut.push("datasets/Org/hh/harmless-base/train.jsonl.gz".to_owned());
    let hub = Arc::new(Mutex::new(hub));
    set("HF_HOME", &home.path().display().to_string());
    set("HF_ENDPOINT", &serve(Arc::clone(&hub)));

    // A configuration of a data set, compressed; its first transfer breaks off and is taken up again.
    let loaded = load(&spec("Org/hh", "harmless-base"), "train").unwrap();
    assert_eq!((loaded.dataset.len(), loaded.format), (200, DataFormat::HhTranscript));
    assert!(hub.lock().unwrap().cut.is_empty());
    let before = hub.lock().unwrap().log.len();
    assert_eq!(load(&spec("Org/hh", "harmless-base"), "train").unwrap().hash, loaded.hash);
    assert_eq!(
        hub.lock().unwrap().log.len(),
        before + 1,
        "the second time only the list of files is asked for"
    );

    let text = render(&load(&spec("Org/hh", "harmless"), "train").unwrap_err());
    assert!(text.contains("unknown configuration `harmless` (known: harmless-base)"), "{text}");
    let text = render(&load(&spec("Org/none", ""), "train").unwrap_err());
    assert!(text.contains("taken as a hub id") && text.contains("check the spelling"), "{text}");

    // Gated: refused without a token, and with it the token goes along.
    let text = render(&load(&spec("Org/secret", ""), "train").unwrap_err());
    assert!(text.contains("set HF_TOKEN"), "{text}");
    set("HF_TOKEN", "secret");
    assert_eq!(load(&spec("Org/secret", ""), "train").unwrap().dataset.len(), 200);
    assert!(hub.lock().unwrap().tokens.iter().any(|t| t.as_deref() == Some("Bearer secret")));

    // A model: what it needs and nothing else, through a redirect.
    let dir = resolve_model("Org/model", "main").unwrap();
    assert!(dir.join("config.json").is_file() && dir.join("tokenizer.json").is_file());
    assert_eq!(std::fs::read(dir.join("model-00001-of-00001.safetensors")).unwrap(), vec![7; 5000]);
    assert!(!dir.join("pytorch_model.bin").exists() && !dir.join("README.md").exists());
    let text = render(&resolve_model("Org/pickle", "main").unwrap_err());
    assert!(text.contains("no safetensors weights"), "{text}");
    let text = render(&resolve_model("../no/such/dir", "main").unwrap_err());
    assert!(text.contains("no such model directory"), "{text}");
    assert_eq!(resolve_model(&home.path().display().to_string(), "main").unwrap(), home.path());

    // Offline: the cache serves what it has, and nothing is asked.
    set("HF_HUB_OFFLINE", "1");
    let before = hub.lock().unwrap().log.len();
    assert_eq!(load(&spec("Org/hh", "harmless-base"), "train").unwrap().hash, loaded.hash);
    assert_eq!(resolve_model("Org/model", "main").unwrap(), dir);
    for (source, config, split) in [("Org/hh", "harmless-base", "test"), ("Org/other", "", "train")] {
        let text = render(&load(&spec(source, config), split).unwrap_err());
        assert!(
            text.contains("HF_HUB_OFFLINE") || text.contains("unknown split `test` (known: train)"),
            "{text}"
        );
    }
    assert_eq!(hub.lock().unwrap().log.len(), before);
    assert!(Path::new(&dir).starts_with(home.path()));
}
