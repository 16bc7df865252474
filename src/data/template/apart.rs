//! Templates of strangers are compiled and rendered in a process of their own: this program once more, with an empty
//! environment, limits on memory and time, and a pipe each way.
//!
//! The engine counts work (its fuel), but not what every operation makes: lists that are added to themselves over and
//! over, or values that hold one another a thousand deep, fill the memory or the stack. A process bounds them all, and
//! one that dies is an error with the template's name.

use std::io::{BufRead, BufReader, Write};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::Local;
use crate::base::error::{Context, Result, anyhow, render};

/// The argument that makes this program a renderer of one template.
const ARGUMENT: &str = "--render-a-chat-template";

/// Bytes that a renderer may hold. Linux counts every page that it may write to; macOS keeps no such count.
const MEMORY: u64 = 512 << 20;
/// Processor time for one text, seconds.
const SECONDS: i64 = 5;

static APART: AtomicBool = AtomicBool::new(false);

/// The first thing that the program does. As a renderer it serves until its input ends, and gives `true`; else
/// templates are rendered apart from now on.
pub fn begin() -> bool {
    if cfg!(not(unix)) {
        return false;
    }
    if std::env::args().nth(1).as_deref() == Some(ARGUMENT) {
        serve();
        return true;
    }
    APART.store(true, Ordering::Relaxed);
    false
}

/// Whether this process can start renderers: a library's test is not this program.
pub fn possible() -> bool {
    APART.load(Ordering::Relaxed)
}

#[derive(Serialize, Deserialize)]
struct Opening {
    source: String,
    bos: String,
    eos: String,
    origin: String,
}

#[derive(Serialize, Deserialize)]
struct Request {
    messages: Vec<Value>,
    add_generation_prompt: bool,
}

#[derive(Serialize, Deserialize)]
enum Reply {
    Text(String),
    /// As [`render`] writes it, its hints on lines of their own.
    Error(String),
}

impl From<Result<String>> for Reply {
    fn from(result: Result<String>) -> Self {
        result.map_or_else(|e| Self::Error(render(&e)), Self::Text)
    }
}

/// The process that holds one template; it ends with this value.
pub struct Renderer {
    child: Child,
    input: Option<ChildStdin>,
    output: BufReader<ChildStdout>,
    origin: String,
}

impl Renderer {
    /// # Errors
    /// If the template does not parse, or no process starts.
    pub fn start(source: &str, bos: &str, eos: &str, origin: &str) -> Result<Self> {
        let opening = Opening {
            source: source.to_owned(),
            bos: bos.to_owned(),
            eos: eos.to_owned(),
            origin: origin.to_owned(),
        };
        let mut child = Command::new(program()?)
            .arg(ARGUMENT)
            .env_clear()
            // Addresses that the allocator would reserve count as memory.
            .env("MIMALLOC_DISALLOW_ARENA_ALLOC", "1")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .context("starting the process that renders the chat template")?;
        let output = BufReader::new(child.stdout.take().expect("its output is a pipe"));
        let input = child.stdin.take();
        let mut renderer = Self { child, input, output, origin: origin.to_owned() };
        renderer.ask(&opening)?;
        Ok(renderer)
    }

    /// As [`super::Template::render`].
    pub fn render(&mut self, messages: &[Value], add_generation_prompt: bool) -> Result<String> {
        self.ask(&Request { messages: messages.to_vec(), add_generation_prompt })
    }

    fn ask(&mut self, request: &impl Serialize) -> Result<String> {
        let mut line = serde_json::to_string(request)? + "\n";
        let sent = self.input.as_mut().is_some_and(|i| i.write_all(line.as_bytes()).is_ok());
        line.clear();
        if sent && self.output.read_line(&mut line).is_ok_and(|n| n > 0) {
            return match serde_json::from_str(&line)? {
                Reply::Text(text) => Ok(text),
                Reply::Error(text) => Err(said(&text)),
            };
        }
        Err(self.ended())
    }

    /// Why there is no answer.
    fn ended(&mut self) -> anyhow::Error {
        self.input = None;
        let why = self.child.wait().map_or_else(|e| e.to_string(), |status| cause(&status));
        let hint =
            "the template is damaged, or means harm: put another chat_template.jinja in the model's folder";
        crate::data::hinted::hinted(anyhow!("chat template ({}): it {why}", self.origin), hint)
    }
}

impl Drop for Renderer {
    fn drop(&mut self) {
        self.input = None;
        let _ = self.child.wait();
    }
}

/// An error from its text: the hints that stood on lines of their own are hints again.
fn said(text: &str) -> anyhow::Error {
    let mut parts = text.split("\nhint: ");
    let error = anyhow!("{}", parts.next().unwrap_or_default());
    parts.fold(error, crate::data::hinted::hinted)
}

/// This program, also where its file has been replaced since it started.
fn program() -> Result<std::path::PathBuf> {
    let own = std::path::Path::new("/proc/self/exe");
    if own.exists() { Ok(own.to_owned()) } else { std::env::current_exe().context("finding this program") }
}

/// What ended a renderer: it sets its own limits, and dies of them.
#[cfg(unix)]
fn cause(status: &std::process::ExitStatus) -> String {
    match std::os::unix::process::ExitStatusExt::signal(status) {
        Some(libc::SIGPROF) => format!("takes more than {SECONDS} s for one text"),
        // Rust aborts where memory is refused, and where the stack is all used up.
        Some(libc::SIGABRT | libc::SIGSEGV | libc::SIGBUS) => {
            format!("takes more than {} MiB, or nests values deeper than the stack", MEMORY >> 20)
        }
        Some(signal) => format!("was being rendered by a process that signal {signal} ended"),
        None => format!("was being rendered by a process that ended with {status}"),
    }
}

#[cfg(not(unix))]
fn cause(status: &std::process::ExitStatus) -> String {
    format!("was being rendered by a process that ended with {status}")
}

/// A renderer's whole life.
fn serve() {
    bound();
    let (mut input, mut output) = (std::io::stdin().lock(), std::io::stdout().lock());
    let mut line = String::new();
    let mut template: Option<Local> = None;
    while input.read_line(&mut line).is_ok_and(|n| n > 0) {
        allow(SECONDS);
        let reply = Reply::from(answer(&mut template, &line));
        allow(0);
        let Ok(text) = serde_json::to_string(&reply) else { return };
        if output.write_all((text + "\n").as_bytes()).and_then(|()| output.flush()).is_err() {
            return;
        }
        line.clear();
    }
}

/// The first line brings the template, the others messages.
fn answer(template: &mut Option<Local>, line: &str) -> Result<String> {
    if let Some(template) = template {
        let request: Request = serde_json::from_str(line)?;
        return template.render(&request.messages, request.add_generation_prompt);
    }
    let Opening { source, bos, eos, origin } = serde_json::from_str(line)?;
    *template = Some(Local::parse(&source, &bos, &eos, &origin)?);
    Ok(String::new())
}

/// Limits memory, and leaves signals from the terminal to the program that asked.
#[cfg(unix)]
fn bound() {
    let limit = libc::rlimit { rlim_cur: MEMORY as libc::rlim_t, rlim_max: MEMORY as libc::rlim_t };
    let none = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: each call reads a struct or an integer; no other thread is running.
    unsafe {
        libc::setrlimit(libc::RLIMIT_DATA, &limit);
        libc::setrlimit(libc::RLIMIT_CORE, &none);
        for number in [libc::SIGINT, libc::SIGTERM, libc::SIGHUP] {
            libc::signal(number, libc::SIG_IGN);
        }
    }
}

#[cfg(not(unix))]
fn bound() {}

/// Ends this process after so many seconds of processor time; 0: never.
#[cfg(unix)]
fn allow(seconds: i64) {
    let none = libc::timeval { tv_sec: 0, tv_usec: 0 };
    let once = libc::itimerval {
        it_interval: none,
        it_value: libc::timeval { tv_sec: seconds as libc::time_t, tv_usec: 0 },
    };
    // SAFETY: the struct lives through the call, and the old value is not asked for.
    unsafe { libc::setitimer(libc::ITIMER_PROF, &once, std::ptr::null_mut()) };
}

#[cfg(not(unix))]
fn allow(_: i64) {}
