//! Matches in both orders, several questions at a time.

use std::collections::HashMap;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Mutex, OnceLock};

use serde_json::Value;

use super::cache::Cache;
use super::client::{Answer, Client, Endpoint, Usage};
use super::template::JudgeTemplate;
use crate::base::error::{Result, anyhow, ensure};
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
    pub usage: Usage,
    /// The endpoint has failed for good: what is not judged yet stays unjudged.
    pub down: bool,
}

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
        })
    }

    /// Why the first question that was refused was refused.
    pub fn refusal(&self) -> Option<&str> {
        self.refusal.get().map(String::as_str)
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
            return Ok(reply.text);
        }
        match self.ask(client, request)? {
            Answer::Said(reply, _) => {
                self.cache.put(&self.endpoint.url, request, &reply)?;
                Ok(reply.text)
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
        let [prompt, first, second] = CONTROL;
        let request = self.template.request(&self.endpoint.model, prompt, first, second)?;
        match self.ask(client, &request)? {
            Answer::Said(..) => Ok(()),
            Answer::Refused(reason) => {
                self.count(|t| t.down = true);
                Err(client.down(&reason, 1))
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
