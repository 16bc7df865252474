//! Chat templates, rendered as transformers renders them.

mod apart;
mod env;
mod methods;
mod python;

use std::sync::{Arc, Mutex, PoisonError};

use minijinja::Environment;
use serde_json::Value;

use crate::base::error::{Result, anyhow};

use super::hinted::hinted;
pub use apart::begin as begin_templates;
pub use env::FUEL;

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
    engine: Engine,
    /// Where it comes from: `chat_template.jinja`, `tokenizer_config.json`, `hh (default)`.
    pub origin: String,
}

#[derive(Clone)]
enum Engine {
    Here(Arc<Local>),
    /// In a process of its own; one text at a time.
    Apart(Arc<Mutex<apart::Renderer>>),
}

impl std::fmt::Debug for Template {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Template").field("origin", &self.origin).finish_non_exhaustive()
    }
}

impl Default for Template {
    /// `\n\nHuman: …\n\nAssistant: …`
    fn default() -> Self {
        let origin = "hh (default)";
        let local = Local::parse(HH, "", "", origin).expect("the built-in template parses");
        Self { engine: Engine::Here(Arc::new(local)), origin: origin.to_owned() }
    }
}

impl Template {
    /// Compiles a Jinja template; `bos` and `eos` are what it sees as `bos_token` and `eos_token`. In the program
    /// (not in a library's test) it is kept in a process of its own, with limits.
    ///
    /// # Errors
    /// If it does not parse, with the line.
    pub fn parse(source: &str, bos: &str, eos: &str, origin: &str) -> Result<Self> {
        let engine = if apart::possible() {
            Engine::Apart(Arc::new(Mutex::new(apart::Renderer::start(source, bos, eos, origin)?)))
        } else {
            Engine::Here(Arc::new(Local::parse(source, bos, eos, origin)?))
        };
        Ok(Self { engine, origin: origin.to_owned() })
    }

    /// Renders messages (objects with `role`, `content` and whatever else the template reads).
    ///
    /// # Errors
    /// If the template fails or raises an exception, with its line; if it takes more memory or time than any text needs.
    pub fn render(&self, messages: &[Value], add_generation_prompt: bool) -> Result<String> {
        match &self.engine {
            Engine::Here(local) => local.render(messages, add_generation_prompt),
            Engine::Apart(renderer) => {
                let mut renderer = renderer.lock().unwrap_or_else(PoisonError::into_inner);
                renderer.render(messages, add_generation_prompt)
            }
        }
    }
}

/// A compiled template in this process.
struct Local {
    env: Environment<'static>,
    bos: String,
    eos: String,
    origin: String,
}

impl Local {
    fn parse(source: &str, bos: &str, eos: &str, origin: &str) -> Result<Self> {
        let mut env = env::environment();
        let source = env::without_generation_blocks(source);
        env.add_template_owned(NAME, source.clone()).map_err(|e| explain(&e, &source, origin))?;
        Ok(Self { env, bos: bos.to_owned(), eos: eos.to_owned(), origin: origin.to_owned() })
    }

    fn render(&self, messages: &[Value], add_generation_prompt: bool) -> Result<String> {
        let template = self.env.get_template(NAME).map_err(|e| explain(&e, "", &self.origin))?;
        let context = minijinja::context! {
            messages => python::value(&Value::Array(messages.to_vec())),
            add_generation_prompt => add_generation_prompt,
            // transformers passes both always, and a template may ask whether they are none.
            tools => (),
            documents => (),
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
