//! `--set key=value`: any key of a plan from the command line.

use toml::de::DeValue;
use toml::{Table, Value};

use super::source::{Source, arm_label};
use crate::base::error::{HintExt, Result, anyhow};

/// What the command line changes in a plan.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Overrides {
    /// `key=value`, in order; a later one wins.
    pub set: Vec<String>,
    /// Short for `model.source`.
    pub model: Option<String>,
    /// Short for `data.source`.
    pub data: Option<String>,
    /// Short for `judge.url` and `judge.model`.
    pub judge_url: Option<String>,
    pub judge_model: Option<String>,
    /// Short for `judge.reward_model`.
    pub judge_reward: Option<String>,
    /// Replaces the plan's seeds where not empty.
    pub seeds: Vec<u64>,
}

impl Overrides {
    /// Writes the overrides into the plan's values.
    ///
    /// # Errors
    /// An option without `=`, or a path that leads nowhere: an arm that the plan lacks, a key below a plain
    /// value. (Keys that do not exist are found when the values are typed.)
    pub(super) fn apply(&self, source: &mut Source) -> Result<()> {
        for (path, value, option) in [
            ("model.source", &self.model, "--model"),
            ("data.source", &self.data, "--data"),
            ("judge.url", &self.judge_url, "--judge-url"),
            ("judge.model", &self.judge_model, "--judge-model"),
            ("judge.reward_model", &self.judge_reward, "--judge-reward"),
        ] {
            if let Some(text) = value {
                put(source, path, Value::String(text.clone()), &format!("{option} {text}"))?;
            }
        }
        if !self.seeds.is_empty() {
            let seeds: Vec<Value> = self.seeds.iter().map(|&s| number(s)).collect();
            put(source, "seeds", Value::Array(seeds), "--seed")?;
        }
        for text in &self.set {
            let option = format!("--set {text}");
            let (path, value) = text
                .split_once('=')
                .ok_or_else(|| anyhow!("{option}: no `=` in it"))
                .hint("write --set key=value, such as --set train.learning_rate=1e-5")?;
            put(source, path.trim(), value_of(value.trim()), &option)?;
        }
        Ok(())
    }
}

/// TOML numbers are signed; a seed beyond them is kept as text and refused where it is typed.
fn number(seed: u64) -> Value {
    i64::try_from(seed).map_or_else(|_| Value::String(seed.to_string()), Value::Integer)
}

/// TOML where it is TOML, else the bare string: `1e-5`, `[1, 2]`, `world`, `EleutherAI/pythia-70m`.
fn value_of(text: &str) -> Value {
    let bare = || Value::String(text.to_owned());
    match DeValue::parse(text) {
        Ok(value) => match value_from(value.into_inner()) {
            Some(Value::Datetime(_)) | None => bare(),
            Some(value) => value,
        },
        Err(_) => bare(),
    }
}

fn value_from(value: DeValue<'_>) -> Option<Value> {
    use serde::Deserialize;
    let spanned = toml::Spanned::new(0..0, value);
    Value::deserialize(toml::de::ValueDeserializer::from(spanned)).ok()
}

fn put(source: &mut Source, path: &str, value: Value, option: &str) -> Result<()> {
    let keys: Vec<&str> = path.split('.').collect();
    if keys.iter().any(|k| k.is_empty()) {
        return Err(anyhow!("{option}: `{path}` is no dotted key"));
    }
    // A budget has one currency: setting one replaces the other.
    if keys.len() == 2 && keys[0] == "budget" {
        source.values.remove("budget");
    }
    let (section, last) = match keys.as_slice() {
        ["arm", name, rest @ .., last] => {
            (descend(arm(&mut source.values, name, option)?, rest, option)?, *last)
        }
        ["arm", ..] => {
            return Err(anyhow!("{option}: an arm's key is addressed as `arm.<name>.<key>`"));
        }
        [rest @ .., last] => (descend(&mut source.values, rest, option)?, *last),
        [] => unreachable!("split gives at least one part"),
    };
    section.insert(last.to_owned(), value);
    let label = arm_label(section, 0);
    source.note_override(path, option);
    if let ["arm", name, "name" | "method"] = keys.as_slice() {
        source.rename(&format!("arm.{name}"), &format!("arm.{label}"));
    }
    Ok(())
}

fn arm<'t>(values: &'t mut Table, name: &str, option: &str) -> Result<&'t mut Table> {
    let arms = values.get_mut("arm").and_then(Value::as_array_mut);
    let mut known = vec![];
    for (i, arm) in arms.into_iter().flatten().enumerate() {
        let Some(table) = arm.as_table_mut() else { continue };
        let label = arm_label(table, i);
        if label == name {
            return Ok(table);
        }
        known.push(label);
    }
    let known: Vec<&str> = known.iter().map(String::as_str).collect();
    Err(crate::base::error::unknown("arm", name, &known).context(option.to_owned()))
}

fn descend<'t>(table: &'t mut Table, keys: &[&str], option: &str) -> Result<&'t mut Table> {
    let mut table = table;
    for key in keys {
        let entry = table.entry((*key).to_owned()).or_insert_with(|| Value::Table(Table::new()));
        table = entry.as_table_mut().ok_or_else(|| anyhow!("{option}: `{key}` is no section"))?;
    }
    Ok(table)
}
