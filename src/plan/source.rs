//! A plan's text as values, and where each of them stands, for messages.

use std::collections::BTreeMap;

use serde::Deserialize;
use toml::de::{DeTable, DeValue};
use toml::{Table, Value};

use crate::base::error::{HintExt, Result, anyhow};

/// Values by key, and the place of each by dotted path (`train.batch_size`, `arm.kto.beta`).
#[derive(Clone, Debug)]
pub(super) struct Source {
    /// Path of the plan file, of a shipped one as `suites/plans/NAME.toml`; stands before the line number in messages.
    origin: String,
    pub values: Table,
    lines: BTreeMap<String, usize>,
    /// Paths that the command line has set, with the option as it was written.
    overridden: BTreeMap<String, String>,
}

impl Source {
    /// Parses TOML.
    ///
    /// # Errors
    /// On a syntax error, with path and line.
    pub fn parse(text: &str, origin: &str) -> Result<Self> {
        let line_of = |offset: usize| 1 + text[..offset.min(text.len())].matches('\n').count();
        let malformed = |e: toml::de::Error| {
            let line = e.span().map(|s| format!(":{}", line_of(s.start))).unwrap_or_default();
            anyhow!("{origin}{line}: {}", e.message())
        };
        let tree = DeTable::parse(text).map_err(malformed)?;
        let mut lines = BTreeMap::new();
        index(tree.get_ref(), "", &line_of, &mut lines);
        let values = Table::deserialize(toml::Deserializer::from(tree)).map_err(malformed)?;
        Ok(Self { origin: origin.to_owned(), values, lines, overridden: BTreeMap::new() })
    }

    /// Notes that the value at `path` now comes from the command line.
    pub fn note_override(&mut self, path: &str, option: &str) {
        self.overridden.insert(path.to_owned(), option.to_owned());
    }

    /// Where the value at `path` comes from: `plans/hh.toml:7`, `--set train.warmup=2`, or, where it stands
    /// nowhere (a default), the place of the section around it.
    pub fn at(&self, path: &str) -> String {
        let nowhere = !self.says(path);
        // A section that only the command line has.
        if let Some(option) = self.overridden_below(path).filter(|_| nowhere) {
            return option.clone();
        }
        let mut path = path;
        loop {
            if let Some(option) = self.overridden.get(path) {
                return option.clone();
            }
            if let Some(line) = self.lines.get(path) {
                return format!("{}:{line}", self.origin);
            }
            match path.rsplit_once('.') {
                Some((parent, _)) => path = parent,
                None => return self.origin.clone(),
            }
        }
    }

    fn overridden_below(&self, path: &str) -> Option<&String> {
        let below = |key: &&String| key.strip_prefix(path).is_some_and(|rest| rest.starts_with('.'));
        self.overridden.keys().find(below).map(|key| &self.overridden[key])
    }

    /// Notes that what was addressed as `from` now goes by the name `to`, as an arm does whose method is set.
    pub fn rename(&mut self, from: &str, to: &str) {
        fn renamed<V: Clone>(map: &mut BTreeMap<String, V>, from: &str, to: &str) {
            let new = |(key, value): (&String, &V)| {
                let rest = key.strip_prefix(from).filter(|rest| rest.is_empty() || rest.starts_with('.'))?;
                Some((format!("{to}{rest}"), value.clone()))
            };
            let found: Vec<(String, V)> = map.iter().filter_map(new).collect();
            map.extend(found);
        }
        renamed(&mut self.lines, from, to);
        renamed(&mut self.overridden, from, to);
    }

    /// An error about the value at `path`.
    pub fn error(&self, path: &str, message: impl std::fmt::Display) -> anyhow::Error {
        anyhow!("{}: `{path}` {message}", self.at(path))
    }

    /// Whether the plan or the command line says anything at `path`.
    pub fn says(&self, path: &str) -> bool {
        self.lines.contains_key(path) || self.overridden.contains_key(path)
    }

    /// [`crate::base::error::unknown`] with its place before it.
    pub fn unknown(&self, path: &str, what: &str, name: &str, known: &[&str]) -> anyhow::Error {
        let error = crate::base::error::unknown(what, name, known);
        let text = crate::base::error::render(&error);
        let placed = anyhow!("{}: {error}", self.at(path));
        let close = text.split_once("\nhint: ").map(|(_, hint)| hint.to_owned());
        match elsewhere(name).map(|ours| format!("here it is {ours}")).or(close) {
            Some(hint) => Err::<(), _>(placed).hint(hint).expect_err("built from an error"),
            None => placed,
        }
    }
}

/// What a key of TRL, PEFT or transformers is called here.
fn elsewhere(name: &str) -> Option<&'static str> {
    Some(match name {
        "lr" => "`learning_rate`",
        "per_device_train_batch_size" | "train_batch_size" => "`batch_size`: completions in a step",
        "gradient_accumulation_steps" => {
            "`micro_tokens`, of which a step of `batch_size` has as many as it needs"
        }
        "num_train_epochs" | "epochs" => "`budget`, in examples, tokens, steps, …: the same for every arm",
        "max_steps" => "`budget = { steps = … }`",
        "lr_scheduler_type" => "`schedule`",
        "warmup_ratio" | "warmup_steps" => "`warmup`: a share of the budget",
        "max_seq_length" => "`data.max_length`",
        "desirable_weight" => "`lambda_desirable`",
        "undesirable_weight" => "`lambda_undesirable`",
        "r" | "lora_r" => "`rank`",
        "lora_alpha" => "`alpha`",
        "lora_dropout" => "`dropout`",
        "model_name_or_path" => "`model.source`",
        "dataset_name" => "`data.source`",
        "loss_type" => "an arm's `method`",
        _ => return None,
    })
}

/// The name under which messages and `--set` address an arm: its own, else its method's.
pub(super) fn arm_label(arm: &Table, index: usize) -> String {
    let text = |key: &str| arm.get(key).and_then(Value::as_str).map(str::to_owned);
    text("name").or_else(|| text("method")).unwrap_or_else(|| index.to_string())
}

fn index(
    table: &DeTable<'_>,
    prefix: &str,
    line_of: &impl Fn(usize) -> usize,
    lines: &mut BTreeMap<String, usize>,
) {
    for (key, value) in table.iter() {
        let path = join(prefix, key.get_ref());
        lines.insert(path.clone(), line_of(key.span().start));
        match value.get_ref() {
            DeValue::Table(inner) => index(inner, &path, line_of, lines),
            DeValue::Array(items) if path == "arm" => {
                for (i, item) in items.iter().enumerate() {
                    let DeValue::Table(arm) = item.get_ref() else { continue };
                    let text = |key: &str| arm.get(key).and_then(|v| v.get_ref().as_str());
                    let label = text("name").or_else(|| text("method")).map_or(i.to_string(), str::to_owned);
                    let arm_path = join(&path, &label);
                    // The first of two arms of one name keeps the entry; the clash is reported by name.
                    lines.entry(arm_path.clone()).or_insert_with(|| line_of(item.span().start));
                    index(arm, &arm_path, line_of, lines);
                }
            }
            _ => {}
        }
    }
}

pub(super) fn join(prefix: &str, key: &str) -> String {
    if prefix.is_empty() { key.to_owned() } else { format!("{prefix}.{key}") }
}
