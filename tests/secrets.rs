//! Keys and tokens reach the servers that they are for, and nothing else: no log, report, cache, checkpoint or script.
#![cfg(unix)]

mod cli;
mod judge_server;

use std::io::{BufRead, BufReader, Write};
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;
use std::sync::{Arc, Mutex};

use cli::{Place, Ran};
use judge_server::{Answer, serve};

const JUDGE: &str = "sk-canary-judge-7f3a9c";
const TOKEN: &str = "hf_canaryTokenB81d4E";

/// Everything below the folder that holds one of the secrets, in a name or in its bytes.
fn leaks(dir: &Path) -> Vec<String> {
    let mut found = vec![];
    let mut folders = vec![dir.to_owned()];
    let (mut files, secrets) = (0, [JUDGE.as_bytes(), TOKEN.as_bytes()]);
    let holds = |bytes: &[u8]| secrets.iter().any(|s| bytes.windows(s.len()).any(|w| w == *s));
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(&folder).unwrap() {
            let entry = entry.unwrap();
            let (path, kind) = (entry.path(), entry.file_type().unwrap());
            if kind.is_dir() {
                folders.push(path.clone());
            }
            files += usize::from(kind.is_file());
            if holds(path.as_os_str().as_encoded_bytes())
                || (kind.is_file() && holds(&std::fs::read(&path).unwrap()))
            {
                found.push(path.display().to_string());
            }
        }
    }
    assert!(files > 6, "only {files} files were looked at");
    found
}

/// Everything that a command said and wrote.
#[track_caller]
fn kept_secret(place: &Place, ran: &Ran) {
    for text in [&ran.out, &ran.err] {
        assert!(!text.contains(JUDGE) && !text.contains(TOKEN), "{text}");
    }
    assert_eq!(leaks(place.dir()), Vec::<String>::new());
}

fn command(place: &Place, arguments: &[&str]) -> Command {
    let mut command = place.command(arguments);
    command.env("KTO_EVAL_JUDGE_KEY", JUDGE).env("OPENAI_API_KEY", JUDGE).env("HF_TOKEN", TOKEN);
    command
}

/// A plan whose samples are judged by a language model, with an arm of another program's.
fn judged() -> Place {
    let place = Place::new();
    let trainer = "[[arm]]\nname = \"other\"\nmethod = \"sft\"\n[arm.trainer]\ndata = \"trl-jsonl\"\n\
                   command = [\"sh\", \"-c\", \"cp {model}/* {out}/\"]\n";
    let plan = cli::PLAN
        .replace("[1, 2]", "[1]")
        .replace("preference = [\"heldout\"]", "generation = [\"heldout-judged\"]\nmax_examples = 6")
        .replace("[[arm]]\nmethod = \"dpo\"\n\n", trainer);
    let judge =
        "\n[judge]\nretries = 2\nconcurrency = 2\nkey = \"OPENAI_API_KEY\"\n\n[slurm]\npartition = \"x\"\n";
    place.write("plan.toml", &(plan + judge));
    place
}

#[test]
fn a_judge_that_sends_the_key_back_puts_it_into_no_file() {
    let place = judged();
    let judge = |url: &str, out: &str, more: &[&str]| {
        let common = [
            "compare",
            "plan.toml",
            "--judge-url",
            url,
            "--judge-model",
            "m",
            "--threads",
            "1",
            "--out",
            out,
        ];
        cli::ran(command(&place, &[&common, more].concat()).output().unwrap())
    };
    let good = serve(Box::new(|number, _| match number % 7 {
        0 => Answer::Status(429, "retry-after: 0\r\n"),
        3 => Answer::CutOff,
        5 => Answer::Raw("{\"error\": \"busy\"}"),
        n if n % 2 == 1 => Answer::Says("[[A]]"),
        _ => Answer::Echo(200),
    }));
    let more = ["--checkpoint-every", "1", "--tensorboard"];
    let ran = judge(&good.url, "out", &more);
    // A judge that breaks off now and then may be given up: what counts is what was written.
    assert!(ran.code == 0 || ran.err.contains("the judge at"), "{}", ran.err);
    kept_secret(&place, &ran);
    let sent = good.headers.lock().unwrap().concat().to_lowercase();
    assert!(sent.contains(&format!("bearer {JUDGE}")), "the judge was given its key");
    assert!(!sent.contains(&TOKEN.to_lowercase()), "and no other one");

    let refusing = serve(Box::new(|_, _| Answer::Echo(401)));
    let ran = judge(&refusing.url, "refused", &more);
    ran.fails(2, &["HTTP status 401", "you sent", "[key]"]);
    kept_secret(&place, &ran);
    let beside = judge(&refusing.url, "beside", &["--launcher", "local", "--jobs", "2"]);
    beside.fails(2, &["HTTP status 401"]);
    kept_secret(&place, &beside);
}

/// A hub that wants no token, and sends whatever it is sent back.
fn echoing_hub() -> (String, Arc<Mutex<Vec<String>>>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = format!("http://{}", listener.local_addr().unwrap());
    let seen = Arc::new(Mutex::new(vec![]));
    let heard = Arc::clone(&seen);
    std::thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            let lines = BufReader::new(stream.try_clone().unwrap()).lines().map_while(Result::ok);
            let head: Vec<String> = lines.take_while(|l| !l.is_empty()).collect();
            let token = head.iter().find(|l| l.to_lowercase().starts_with("authorization")).cloned();
            let token = token.unwrap_or_default();
            heard.lock().unwrap().push(token.clone());
            let body = format!("no: {token}");
            let answer = format!(
                "HTTP/1.1 403 {token}\r\nx-error-message: {token}\r\ncontent-length: {}\r\nconnection: close\r\n\r\n{body}",
                body.len()
            );
            let _ = stream.write_all(answer.as_bytes());
        }
    });
    (address, seen)
}

#[test]
fn a_hub_that_sends_the_token_back_puts_it_into_no_message() {
    let place = Place::new();
    let (hub, seen) = echoing_hub();
    for arguments in [
        &["compare", "plan.toml", "--model", "some/model", "--out", "a"][..],
        &["compare", "plan.toml", "--data", "some/data", "--out", "b"],
        &["score", "--model", "some/model", "--reference", "model", "--suite", "heldout", "--data", "data"],
    ] {
        let mut command = command(&place, arguments);
        command.env("HF_ENDPOINT", &hub).env_remove("HF_HUB_OFFLINE");
        let ran = cli::ran(command.output().unwrap());
        ran.fails(2, &["fetching"]);
        kept_secret(&place, &ran);
    }
    let seen = seen.lock().unwrap();
    assert!(seen.iter().any(|line| line.contains(TOKEN)), "the hub was given the token: {seen:?}");
    assert!(!seen.iter().any(|line| line.contains(JUDGE)));
}

#[test]
fn a_job_script_holds_no_key() {
    let place = judged();
    std::fs::create_dir(place.path("bin")).unwrap();
    // Slurm's commands, as far as the launcher sees them: jobs that vanish.
    for (name, script) in
        [("sbatch", "#!/bin/sh\necho 7\n"), ("squeue", "#!/bin/sh\n"), ("sacct", "#!/bin/sh\n")]
    {
        place.write(&format!("bin/{name}"), script);
        std::fs::set_permissions(place.path("bin").join(name), std::fs::Permissions::from_mode(0o755))
            .unwrap();
    }
    let path = format!("{}:{}", place.path("bin").display(), std::env::var("PATH").unwrap());
    let judge = ["--judge-url", "http://127.0.0.1:9/v1", "--judge-model", "m"];
    let arguments = [&["compare", "plan.toml", "--out", "array", "--launcher", "slurm"][..], &judge].concat();
    let ran = cli::ran(command(&place, &arguments).env("PATH", path).output().unwrap());
    ran.fails(2, &["after 5 submissions 3 runs are still missing"]);
    assert!(place.read("array/shards/job.sh").contains("#SBATCH --partition=x"));
    kept_secret(&place, &ran);
}
