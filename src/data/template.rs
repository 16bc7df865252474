//! Chat templates, rendered as transformers renders them.

mod env;
mod methods;
mod python;

use std::sync::Arc;

use minijinja::Environment;
use serde_json::Value;

use crate::base::error::{Result, anyhow};

use super::hinted::hinted;

/// The form of Anthropic's hh-rlhf, for tokenizers that bring no template.
const HH: &str = "\
{%- for message in messages -%}
{%- if message.role == 'user' %}{{ '\\n\\nHuman: ' + message.content }}
{%- elif message.role == 'assistant' %}{{ '\\n\\nAssistant: ' + message.content }}
{%- elif message.role == 'system' %}{{ message.content }}
{%- else %}{{ raise_exception('the default template knows the roles system, user and assistant, not ' + message.role) }}
{%- endif -%}
{%- endfor -%}
{%- if add_generation_prompt %}{{ '\\n\\nAssistant:' }}{% endif -%}";

const NAME: &str = "chat template";

/// A conversation's way into text.
#[derive(Clone)]
pub struct Template {
    env: Arc<Environment<'static>>,
    bos: String,
    eos: String,
    /// Where it comes from: `chat_template.jinja`, `tokenizer_config.json`, `hh (default)`.
    pub origin: String,
}

impl std::fmt::Debug for Template {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Template").field("origin", &self.origin).finish_non_exhaustive()
    }
}

impl Default for Template {
    /// `\n\nHuman: …\n\nAssistant: …`
    fn default() -> Self {
        Self::parse(HH, "", "", "hh (default)").expect("the built-in template parses")
    }
}

impl Template {
    /// Compiles a Jinja template; `bos` and `eos` are what it sees as `bos_token` and `eos_token`.
    ///
    /// # Errors
    /// If it does not parse, with the line.
    pub fn parse(source: &str, bos: &str, eos: &str, origin: &str) -> Result<Self> {
        let mut env = env::environment();
        let source = env::without_generation_blocks(source);
        env.add_template_owned(NAME, source.clone()).map_err(|e| explain(&e, &source, origin))?;
        Ok(Self { env: Arc::new(env), bos: bos.to_owned(), eos: eos.to_owned(), origin: origin.to_owned() })
    }

    /// Renders messages (objects with `role`, `content` and whatever else the template reads).
    ///
    /// # Errors
    /// If the template fails or raises an exception, with its line.
    pub fn render(&self, messages: &[Value], add_generation_prompt: bool) -> Result<String> {
        let template = self.env.get_template(NAME).map_err(|e| explain(&e, "", &self.origin))?;
        let context = minijinja::context! {
            messages => python::value(&Value::Array(messages.to_vec())),
            add_generation_prompt => add_generation_prompt,
            bos_token => self.bos.as_str(),
            eos_token => self.eos.as_str(),
        };
        template.render(context).map_err(|e| explain(&e, template.source(), &self.origin))
    }
}

/// The engine's error with the line of the template that it is about.
fn explain(error: &minijinja::Error, source: &str, origin: &str) -> anyhow::Error {
    let line = error.line().unwrap_or(0);
    let text = source.lines().nth(line.saturating_sub(1)).unwrap_or_default().trim();
    let detail = error.detail().map_or_else(|| error.kind().to_string(), str::to_owned);
    let failed = anyhow!("chat template ({origin}), line {line}: {detail}");
    match text {
        "" => failed,
        text => hinted(failed, format!("the line reads: {text}")),
    }
}

#[cfg(test)]
mod tests;
