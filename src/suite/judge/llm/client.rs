//! One question to the endpoint, asked again where that may help.

use std::time::Duration;

use rand::RngExt;
use serde_json::Value;

use super::cache::Reply;
use crate::base::error::{HintExt, Result, anyhow};
use crate::base::hash::Hasher;
use crate::base::seed;
use crate::plan::JUDGE_KEY;

/// Where the judge is, and how patiently it is asked.
#[derive(Clone, Debug, PartialEq)]
pub struct Endpoint {
    /// Up to and without `/chat/completions`.
    pub url: String,
    pub model: String,
    /// Name of the environment variable that holds the key; empty: no key is sent.
    pub key_variable: String,
    pub timeout: Duration,
    /// Further attempts after the first.
    pub retries: u32,
    /// Wait before the first retry; doubles with each, with jitter.
    pub backoff: Duration,
    /// Questions under way at once.
    pub concurrency: usize,
}

/// What was asked and counted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    /// Questions that the endpoint answered.
    pub asked: u64,
    /// Questions that the cache answered.
    pub cached: u64,
    /// Attempts that failed and were repeated.
    pub repeated: u64,
    /// As the endpoint counts them, cached answers not included.
    pub prompt_tokens: u64,
    pub completion_tokens: u64,
}

/// What came of a question.
#[derive(Clone, Debug, PartialEq)]
pub enum Answer {
    /// The reply, and how many attempts failed before it.
    Said(Reply, u64),
    /// The endpoint will not answer this question (a prompt beyond its context, a filter of contents), and says why.
    Refused(String),
}

/// Why an attempt failed.
enum Failure {
    /// Another attempt may succeed; the endpoint may have said when.
    Again(Trouble, Option<Duration>),
    /// No attempt at this question will succeed; others may.
    Refused(String),
    Final(Trouble),
}

/// What went wrong, and what to do about it where that is known.
pub struct Trouble {
    pub reason: String,
    pub remedy: Option<String>,
}

impl Trouble {
    pub fn new(reason: impl Into<String>) -> Self {
        Self { reason: reason.into(), remedy: None }
    }
}

/// Said wherever a judge is given up.
pub const GOES_ON: &str = "what it answered so far is kept: the same command goes on when the judge is back";

/// The longest that a doubling wait becomes.
const LONGEST_WAIT: Duration = Duration::from_secs(60);

/// The longest that an endpoint is waited for because it says so.
const LONGEST_ASKED: Duration = Duration::from_secs(3600);

pub struct Client<'a> {
    endpoint: &'a Endpoint,
    agent: ureq::Agent,
    key: Option<String>,
}

impl<'a> Client<'a> {
    /// # Errors
    /// If the environment variable for the key is named and not set.
    pub fn new(endpoint: &'a Endpoint) -> Result<Self> {
        let key = match endpoint.key_variable.as_str() {
            "" => None,
            name => Some(
                std::env::var(name)
                    .map_err(|_| anyhow!("the judge's key is looked for in the environment variable {name}, which is not set"))
                    .hint("export it, or name another variable")?,
            ),
        };
        let config = ureq::Agent::config_builder()
            .timeout_global(Some(endpoint.timeout))
            .http_status_as_error(false)
            .build();
        Ok(Self { endpoint, agent: config.into(), key })
    }

    /// Asks until there is an answer.
    ///
    /// # Errors
    /// Where every attempt failed, or one in a way that another cannot mend (a wrong key, an unknown model).
    pub fn ask(&self, request: &Value) -> Result<Answer> {
        // Jitter of its own for each question, so that a burst of refusals does not come back as a burst.
        let mut rng = seed::rng(Hasher::new("judge").part(request.to_string().as_bytes()).u64(), "backoff");
        let mut failed = 0;
        loop {
            let (trouble, wait) = match self.attempt(request) {
                Ok(reply) => return Ok(Answer::Said(reply, u64::from(failed))),
                Err(Failure::Refused(reason)) => return Ok(Answer::Refused(reason)),
                Err(Failure::Final(trouble)) => return Err(self.down(trouble, failed + 1)),
                Err(Failure::Again(trouble, wait)) => (trouble, wait),
            };
            if failed >= self.endpoint.retries {
                return Err(self.down(trouble, failed + 1));
            }
            let backoff = self.endpoint.backoff * 2u32.saturating_pow(failed);
            let jittered = backoff.mul_f64(0.5 + rng.random::<f64>());
            std::thread::sleep(pause(jittered, wait));
            failed += 1;
        }
    }

    /// The error of an endpoint that answers nothing more.
    pub fn down(&self, Trouble { reason, remedy }: Trouble, attempts: u32) -> anyhow::Error {
        let error = anyhow!("the judge at {} failed after {attempts} attempts: {reason}", self.endpoint.url);
        let failed: Result<()> = match remedy {
            Some(remedy) => Err(error).hint(remedy),
            None => Err(error),
        };
        failed.hint(GOES_ON).expect_err("built from an error")
    }

    /// What to do about a status that no repetition mends.
    fn remedy(&self, status: u16) -> Option<String> {
        match status {
            401 | 403 => Some(match self.endpoint.key_variable.as_str() {
                "" => {
                    format!("no key was sent: the environment variable {JUDGE_KEY} holds it, and is not set")
                }
                name => format!("the key that was sent is the environment variable {name}"),
            }),
            404 => Some(format!(
                "the judge is `{}` at {}/chat/completions: --judge-model is the name that the endpoint knows it by, \
                 --judge-url goes up to and with /v1",
                self.endpoint.model,
                self.endpoint.url.trim_end_matches('/')
            )),
            _ => None,
        }
    }

    /// A question that got no answer at all.
    fn unanswered(&self, error: ureq::Error) -> Trouble {
        if !matches!(error, ureq::Error::Timeout(_)) {
            return Trouble::new(self.without_key(error.to_string()));
        }
        let seconds = self.endpoint.timeout.as_secs_f64();
        Trouble {
            reason: format!("no answer within judge.timeout = {seconds} s"),
            remedy: Some(format!(
                "--set judge.timeout=… waits longer; --set judge.concurrency=… ({}) asks fewer at once",
                self.endpoint.concurrency
            )),
        }
    }

    fn without_key(&self, text: String) -> String {
        match &self.key {
            Some(key) if !key.is_empty() && text.contains(key.as_str()) => {
                text.replace(key.as_str(), "[key]")
            }
            _ => text,
        }
    }

    fn attempt(&self, request: &Value) -> std::result::Result<Reply, Failure> {
        let url = format!("{}/chat/completions", self.endpoint.url.trim_end_matches('/'));
        let mut post = self.agent.post(&url).header("content-type", "application/json");
        if let Some(key) = &self.key {
            post = post.header("authorization", format!("Bearer {key}"));
        }
        let mut response =
            post.send(request.to_string()).map_err(|e| Failure::Again(self.unanswered(e), None))?;
        let status = response.status().as_u16();
        let after = response.headers().get("retry-after").and_then(|v| v.to_str().ok()?.trim().parse().ok());
        // A server may send back what it was sent: the key is to be in no reply, cache or message.
        let body = match response.body_mut().read_to_string() {
            Ok(body) => self.without_key(body),
            Err(ureq::Error::Timeout(which)) => {
                return Err(Failure::Again(self.unanswered(ureq::Error::Timeout(which)), None));
            }
            Err(e) if (200..=299).contains(&status) => {
                return Err(Failure::Again(Trouble::new(format!("the answer broke off: {e}")), None));
            }
            Err(_) => String::new(),
        };
        let said = || match start(&body) {
            text if text.is_empty() => format!("HTTP status {status}"),
            text => format!("HTTP status {status}: {text}"),
        };
        match status {
            200..=299 => read_completion(&body).ok_or_else(|| {
                Failure::Again(Trouble::new(format!("not a chat completion: {}", start(&body))), None)
            }),
            408 | 409 | 425 | 429 | 500..=599 => {
                Err(Failure::Again(Trouble::new(said()), after.map(Duration::from_secs)))
            }
            400 | 413 | 422 => Err(Failure::Refused(said())),
            _ => Err(Failure::Final(Trouble { reason: said(), remedy: self.remedy(status) })),
        }
    }
}

/// How long to wait for the next attempt: with doubling waits, or as long as the endpoint says.
fn pause(jittered: Duration, said: Option<Duration>) -> Duration {
    let own = jittered.min(LONGEST_WAIT);
    said.map_or(own, |said| said.max(own).min(LONGEST_ASKED))
}

/// The text and the counts of a chat completion; `None` where the body is none. A message without content (a refusal, a
/// limit reached while the model was still reasoning) is a completion without text.
pub fn read_completion(body: &str) -> Option<Reply> {
    let value: Value = serde_json::from_str(body).ok()?;
    let message = value["choices"][0]["message"].as_object()?;
    let text = match message.get("content") {
        None | Some(Value::Null) => "",
        Some(content) => content.as_str()?,
    };
    let count = |name: &str| value["usage"][name].as_u64().unwrap_or(0);
    Some(Reply {
        text: text.to_owned(),
        cut: value["choices"][0]["finish_reason"] == "length",
        prompt_tokens: count("prompt_tokens"),
        completion_tokens: count("completion_tokens"),
    })
}

/// The beginning of a text, on one line.
pub fn start(text: &str) -> String {
    let words: Vec<&str> = text.split_whitespace().collect();
    words.join(" ").chars().take(200).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_endpoint_says_how_long_to_wait_and_never_how_short() {
        let seconds = Duration::from_secs;
        assert_eq!(pause(seconds(2), None), seconds(2));
        assert_eq!(pause(seconds(200), None), LONGEST_WAIT);
        assert_eq!(pause(seconds(2), Some(seconds(300))), seconds(300));
        assert_eq!(pause(seconds(2), Some(seconds(0))), seconds(2), "no burst comes back as a burst");
        assert_eq!(pause(seconds(2), Some(seconds(1 << 40))), LONGEST_ASKED);
    }

    #[test]
    fn a_message_without_content_is_a_reply_without_text() {
        let text = |body: &str| read_completion(body).map(|reply| reply.text);
        let spent = r#"{"choices": [{"message": {"role": "assistant", "content": null}, "finish_reason": "length"}]}"#;
        assert_eq!(text(spent), Some(String::new()));
        assert_eq!(text(r#"{"choices": [{"message": {"refusal": "no"}}]}"#), Some(String::new()));
        assert_eq!(text(r#"{"choices": [{"message": {"content": 3}}]}"#), None);
        assert_eq!(text(r#"{"error": "busy"}"#), None);
        let cut = |body: &str| read_completion(body).unwrap().cut;
        assert!(
            cut(spent) && !cut(r#"{"choices": [{"message": {"content": "x"}, "finish_reason": "stop"}]}"#)
        );
    }
}
