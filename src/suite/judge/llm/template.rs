//! The judge's prompt, and how its verdict is read.

use minijinja::{Environment, context};
use regex::Regex;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::base::error::{Context, Result, anyhow, ensure};

/// The shipped pairwise template.
const PAIRWISE: &str = include_str!("../../../../suites/judges/pairwise.toml");

/// A judge's template file (`suites/judges/*.toml`).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct JudgeTemplate {
    pub name: String,
    pub temperature: f64,
    pub max_tokens: u32,
    /// The verdict is group 1 of the last match.
    pub verdict: String,
    pub first: String,
    pub second: String,
    pub tie: String,
    pub system: String,
    /// Minijinja over `prompt`, `first` and `second`.
    pub user: String,
}

impl JudgeTemplate {
    /// The shipped template, which asks for the better one of two completions.
    ///
    /// # Errors
    /// See [`Self::parse`].
    pub fn pairwise() -> Result<Self> {
        Self::parse(PAIRWISE, "suites/judges/pairwise.toml")
    }

    /// # Errors
    /// On TOML that does not parse, and a verdict that is no expression with a group.
    pub fn parse(text: &str, origin: &str) -> Result<Self> {
        let template: Self =
            toml::from_str(text).map_err(|e| anyhow!("{origin}: {}", e.to_string().trim_end()))?;
        let verdict = Regex::new(&template.verdict).with_context(|| format!("{origin}: `verdict`"))?;
        ensure!(verdict.captures_len() > 1, "{origin}: `verdict` has no group that holds the answer");
        Ok(template)
    }

    /// The body of a request to `/chat/completions`.
    pub fn request(&self, model: &str, prompt: &str, first: &str, second: &str) -> Result<Value> {
        let mut environment = Environment::new();
        environment.set_fuel(Some(crate::data::TEMPLATE_FUEL));
        let user = environment.render_str(&self.user, context! { prompt, first, second });
        let user = user.with_context(|| format!("judge template `{}`", self.name))?;
        Ok(json!({
            "model": model,
            "temperature": self.temperature,
            "max_tokens": self.max_tokens,
            "messages": [
                {"role": "system", "content": self.system.trim()},
                {"role": "user", "content": user.trim()},
            ],
        }))
    }

    /// The preference for the first answer (1, 0 or one half); `None` where the reply has no valid verdict.
    pub fn read(&self, reply: &str) -> Option<f64> {
        let verdict = Regex::new(&self.verdict).ok()?;
        let last = verdict.captures_iter(said(reply)).last()?;
        let said = last.get(1)?.as_str();
        [(&self.first, 1.0), (&self.second, 0.0), (&self.tie, 0.5)]
            .into_iter()
            .find(|(word, _)| word.as_str() == said)
            .map(|(_, preference)| preference)
    }
}

/// A reply without the reasoning that stands in it, where the server does not part the two: what is said after the last
/// `</think>` (whose beginning may stand in the prompt), up to a `<think>` that never ended.
fn said(reply: &str) -> &str {
    let after = reply.rsplit_once("</think>").map_or(reply, |(_, after)| after);
    after.split_once("<think>").map_or(after, |(before, _)| before)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_are_put_in_as_text_and_the_last_verdict_counts() {
        let template = JudgeTemplate::pairwise().unwrap();
        // What a completion says is text, never a template, and is not escaped for HTML.
        let body = template.request("m", "ask", "{{ prompt }} <b>", "say [[A]]").unwrap();
        let user = body["messages"][1]["content"].as_str().unwrap();
        assert!(user.contains("{{ prompt }} <b>") && user.contains("say [[A]]"));
        assert_eq!(template.read("A is better than [[B]]? No: [[A]]"), Some(1.0));
        assert_eq!((template.read("[[C]]"), template.read("[[B]]\n")), (Some(0.5), Some(0.0)));
        assert_eq!((template.read("A"), template.read("[[D]]"), template.read("")), (None, None, None));
        assert!(JudgeTemplate::parse("name = 3", "x.toml").unwrap_err().to_string().contains("x.toml"));
    }

    /// What a model mentions while it reasons is no verdict.
    #[test]
    fn a_verdict_is_what_is_said_after_the_reasoning() {
        let template = JudgeTemplate::pairwise().unwrap();
        for (reply, verdict) in [
            ("<think>maybe [[A]] or [[B]]</think>", None),
            ("<think>maybe [[A]], or is it", None),
            ("maybe [[B]]</think>So: [[A]]", Some(1.0)),
            ("<think>[[A]]</think>\n<think>[[B]]</think>\nEqual. [[C]]", Some(0.5)),
        ] {
            assert_eq!(template.read(reply), verdict, "{reply}");
        }
    }
}
