//! Matches in both orders, several questions at a time.

use std::collections::HashMap;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Mutex, OnceLock};

use serde_json::Value;

use super::cache::{Cache, Reply};
use super::client::{Answer, Client, Endpoint, Trouble, Usage, start};
use super::template::JudgeTemplate;
use crate::base::error::{HintExt, Result, anyhow, ensure};
use crate::suite::judge::task::{Grade, Judge, Match, Outcome, Task};

/// What the judge decided, over all matches so far.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Tally {
    pub matches: u64,
    /// Matches with a reply that holds no valid verdict, in either order: not counted as anything.
    pub invalid: u64,
    /// Matches whose verdict changed with the order: ties.
    pub flipped: u64,
    /// Questions that the endpoint would not answer: no verdict.
    pub refused: u64,
    /// Those of them since its last answer.
    refused_in_a_row: u64,
    /// Replies that hold a verdict, and those that hold none.
    read: u64,
    pub unread: u64,
    /// Those of them that were cut at `max_tokens`.
    pub cut: u64,
    pub usage: Usage,
    /// The endpoint has failed for good: what is not judged yet stays unjudged.
    pub down: bool,
}

/// Replies without a verdict, and none with one, after which the judge is given up: both orders of eight matches.
const UNREAD: u64 = 16;

/// Refusals in a row after which the control question is asked.
const REFUSALS: u64 = 8;

/// Prompt and two completions that any judge can be asked about: an endpoint that refuses them too (no credit is left, a
/// model that was unloaded) refuses everything, whatever the questions.
const CONTROL: [&str; 3] = ["What is two plus two?", "Four.", "Five."];

/// A language model that says which of two completions is better.
pub struct LlmJudge {
    endpoint: Endpoint,
    template: JudgeTemplate,
    cache: Cache,
    tally: Mutex<Tally>,
    refusal: OnceLock<String>,
    /// The first reply that was said to its end and holds no verdict.
    unreadable: OnceLock<String>,
}

impl LlmJudge {
    /// # Errors
    /// If the cache's folder cannot be made, or no question may be under way.
    pub fn new(endpoint: Endpoint, template: JudgeTemplate, cache: &Path) -> Result<Self> {
        ensure!(endpoint.concurrency > 0, "the judge needs a concurrency of at least 1");
        Ok(Self {
            endpoint,
            template,
            cache: Cache::open(cache)?,
            tally: Mutex::default(),
            refusal: OnceLock::new(),
            unreadable: OnceLock::new(),
        })
    }

    /// What a person should know of what was asked since `before`.
    pub fn remarks(&self, before: &Tally) -> Vec<String> {
        let now = self.tally();
        let (refused, cut) = (now.refused - before.refused, now.cut - before.cut);
        let unread = now.unread - before.unread - cut;
        let mut remarks = vec![];
        if let Some(reason) = self.refusal.get().filter(|_| refused > 0) {
            remarks.push(format!("the judge refused {refused} questions, the first one with: {reason}"));
        }
        if cut > 0 {
            let most = self.template.max_tokens;
            remarks.push(format!(
                "{cut} replies of the judge were cut at max_tokens = {most} and count as no verdict: raise it in the \
                 judge's template (judge.template)"
            ));
        }
        if let Some(first) = self.unreadable.get().filter(|_| unread > 0) {
            remarks.push(format!("{unread} replies of the judge hold no verdict; the first reads: {first}"));
        }
        remarks
    }

    /// Asks a plain question: whether the endpoint answers, in a form that a verdict can be read from.
    ///
    /// # Errors
    /// It does not.
    pub fn probe(&self) -> Result<()> {
        let endpoint = Endpoint { retries: self.endpoint.retries.min(1), ..self.endpoint.clone() };
        let client = Client::new(&endpoint)?;
        let reply = match self.ask(&client, &self.plain_question()?)? {
            Answer::Said(reply, _) => self.text(reply)?,
            Answer::Refused(reason) => return Err(client.down(Trouble::new(reason), 1)),
        };
        if self.template.read(&reply).is_some() { Ok(()) } else { Err(self.without_verdict()) }
    }

    fn plain_question(&self) -> Result<Value> {
        let [prompt, first, second] = CONTROL;
        self.template.request(&self.endpoint.model, prompt, first, second)
    }

    pub fn tally(&self) -> Tally {
        *self.tally.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    fn count(&self, change: impl FnOnce(&mut Tally)) {
        change(&mut self.tally.lock().unwrap_or_else(std::sync::PoisonError::into_inner));
    }

    fn reply(&self, client: &Client, request: &Value) -> Result<String> {
        if let Some(reply) = self.cache.get(&self.endpoint.url, request) {
            self.count(|t| t.usage.cached += 1);
            return self.text(reply);
        }
        match self.ask(client, request)? {
            Answer::Said(reply, _) => {
                self.cache.put(&self.endpoint.url, request, &reply)?;
                self.text(reply)
            }
            // No verdict. It is not kept, and asked again another time.
            Answer::Refused(_) => {
                if self.tally().refused_in_a_row >= REFUSALS {
                    self.control(client)?;
                }
                Ok(String::new())
            }
        }
    }

    /// What a verdict is read from: nothing, where the reply was cut.
    ///
    /// # Errors
    /// There were replies enough, and not one held a verdict.
    fn text(&self, reply: Reply) -> Result<String> {
        let text = if reply.cut { String::new() } else { reply.text };
        let read = self.template.read(&text).is_some();
        if !read && !reply.cut {
            self.unreadable.get_or_init(|| start(&text));
        }
        self.count(|t| {
            t.read += u64::from(read);
            t.unread += u64::from(!read);
            t.cut += u64::from(reply.cut);
        });
        let Tally { read, unread, .. } = self.tally();
        if read == 0 && unread >= UNREAD {
            self.count(|t| t.down = true);
            return Err(self.without_verdict());
        }
        Ok(text)
    }

    /// The error of a judge none of whose replies can be read.
    fn without_verdict(&self) -> anyhow::Error {
        let Tally { unread, cut, .. } = self.tally();
        let JudgeTemplate { name, verdict, max_tokens, .. } = &self.template;
        let mut text = format!(
            "judge {}: none of its {unread} replies holds a verdict (`{verdict}` of the template {name})",
            self.endpoint.model
        );
        if cut > 0 {
            text += &format!("; {cut} were cut at max_tokens = {max_tokens}");
        }
        if let Some(first) = self.unreadable.get() {
            text += &format!("; the first reads: {first}");
        }
        let remedy = match cut {
            0 => {
                "ask another model (--judge-model), or take a template that this one follows (judge.template)"
            }
            _ => {
                "raise max_tokens in the judge's template (judge.template), or ask a model that reasons less"
            }
        };
        Err::<(), _>(anyhow!(text)).hint(remedy).expect_err("built from an error")
    }

    /// Asks the endpoint itself, and counts what comes of it.
    fn ask(&self, client: &Client, request: &Value) -> Result<Answer> {
        let answer = client.ask(request);
        self.count(|t| match &answer {
            Ok(Answer::Said(reply, repeated)) => {
                t.refused_in_a_row = 0;
                t.usage.asked += 1;
                t.usage.repeated += repeated;
                t.usage.prompt_tokens += reply.prompt_tokens;
                t.usage.completion_tokens += reply.completion_tokens;
            }
            Ok(Answer::Refused(reason)) => {
                self.refusal.get_or_init(|| reason.clone());
                t.refused += 1;
                t.refused_in_a_row += 1;
            }
            Err(_) => t.down = true,
        });
        answer
    }

    /// Asks the control question, whose reply is not kept.
    ///
    /// # Errors
    /// It is refused: the endpoint answers nothing more.
    fn control(&self, client: &Client) -> Result<()> {
        match self.ask(client, &self.plain_question()?)? {
            Answer::Said(..) => Ok(()),
            Answer::Refused(reason) => {
                self.count(|t| t.down = true);
                Err(client.down(Trouble::new(reason), 1))
            }
        }
    }

    /// The replies to all requests, in their order; equal ones are one question. The first failure stops what has not begun.
    /// Where some were refused, the control question tells whether it was for what they ask.
    fn replies(&self, requests: &[Value]) -> Result<Vec<String>> {
        let client = Client::new(&self.endpoint).inspect_err(|_| self.count(|t| t.down = true))?;
        let refused = self.tally().refused;
        let (mut questions, mut index, mut at) = (Vec::new(), HashMap::new(), Vec::new());
        for request in requests {
            let next = questions.len();
            let i = *index.entry(request.to_string()).or_insert(next);
            if i == next {
                questions.push(request);
            }
            at.push(i);
        }
        let (next, failed) = (AtomicUsize::new(0), AtomicBool::new(false));
        let slots: Vec<Mutex<Option<Result<String>>>> = questions.iter().map(|_| Mutex::new(None)).collect();
        std::thread::scope(|scope| {
            for _ in 0..self.endpoint.concurrency.min(questions.len()) {
                scope.spawn(|| {
                    while !failed.load(Ordering::Relaxed) {
                        let i = next.fetch_add(1, Ordering::Relaxed);
                        let Some(request) = questions.get(i) else { break };
                        let reply = self.reply(&client, request);
                        failed.fetch_or(reply.is_err(), Ordering::Relaxed);
                        *slots[i].lock().unwrap_or_else(std::sync::PoisonError::into_inner) = Some(reply);
                    }
                });
            }
        });
        let done: Vec<Option<Result<String>>> = slots
            .into_iter()
            .map(|s| s.into_inner().unwrap_or_else(std::sync::PoisonError::into_inner))
            .collect();
        // Where one failed, others may never have begun: the failure is what is reported.
        let mut replies = Vec::with_capacity(done.len());
        let mut missing = false;
        for reply in done {
            match reply {
                Some(reply) => replies.push(reply?),
                None => missing = true,
            }
        }
        ensure!(!missing, "a question was left unasked");
        if self.tally().refused > refused {
            self.control(&client)?;
        }
        Ok(at.into_iter().map(|i| replies[i].clone()).collect())
    }
}

impl Judge for LlmJudge {
    /// Nothing: this judge only compares.
    fn grade(&self, _task: &Task, _completion: &str) -> Result<Grade> {
        Ok(Grade::default())
    }

    /// Equal texts tie, and nobody is asked about them.
    fn compare(&self, matches: &[Match]) -> Result<Vec<Outcome>> {
        let mut requests = Vec::with_capacity(2 * matches.len());
        for m in matches.iter().filter(|m| m.candidate != m.baseline) {
            for (first, second) in [(m.candidate, m.baseline), (m.baseline, m.candidate)] {
                requests.push(self.template.request(
                    &self.endpoint.model,
                    m.task.request(),
                    first,
                    second,
                )?);
            }
        }
        let replies = self.replies(&requests)?;
        let decide = |pair: &[String]| {
            let (forth, back) = (self.template.read(&pair[0]), self.template.read(&pair[1]).map(|p| 1.0 - p));
            let both = forth.zip(back);
            let preference = both.map(|(a, b)| if a == b { a } else { 0.5 });
            let outcome = Outcome { preference, flipped: both.map(|(a, b)| a != b) };
            self.count(|t| {
                t.matches += 1;
                t.invalid += u64::from(preference.is_none());
                t.flipped += u64::from(outcome.flipped == Some(true));
            });
            outcome
        };
        let mut decided = replies.chunks(2).map(decide);
        let outcome = |m: &Match| {
            let equal = m.candidate == m.baseline;
            if equal { Some(Outcome::from(Some(0.5))) } else { decided.next() }
        };
        matches
            .iter()
            .map(outcome)
            .collect::<Option<_>>()
            .ok_or_else(|| anyhow!("a match was left undecided"))
    }
}
