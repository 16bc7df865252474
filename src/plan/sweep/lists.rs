//! The lists of a plan: where one stands for a sweep, and which values it may hold.

use toml::{Table, Value};

use crate::base::error::{HintExt, Result};
use crate::plan::source::{Source, join};
use crate::plan::types::{DataSpec, TrainSpec};

/// A list: where it stands for messages, where its values go in an arm's table, and the values.
pub struct Listed {
    pub key: String,
    pub place: String,
    pub values: Vec<Value>,
}

pub fn defaults(section: &str) -> Table {
    let table = match section {
        "train" => Table::try_from(TrainSpec::default()),
        "data" => Table::try_from(DataSpec::default()),
        _ => Ok(Table::new()),
    };
    table.expect("every section is a table")
}

/// Lists that stand where the default is no list, with their dotted keys.
pub fn lists(table: &Table, defaults: &Table, prefix: &str, found: &mut Vec<(String, Vec<Value>)>) {
    let empty = Table::new();
    for (key, value) in table {
        let default = defaults.get(key);
        match value {
            Value::Array(values) if !default.is_some_and(Value::is_array) => {
                found.push((join(prefix, key), values.clone()));
            }
            Value::Table(inner) => {
                let known = default.and_then(Value::as_table).unwrap_or(&empty);
                lists(inner, known, &join(prefix, key), found);
            }
            _ => {}
        }
    }
}

/// # Errors
/// An empty list, a value that is a list or table itself or stands there twice, a key that the held-out questions depend on;
/// the message names the place in the plan.
pub fn check_values(source: &Source, place: &str, values: &[Value]) -> Result<()> {
    if values.is_empty() {
        return Err(source.error(place, "is an empty list; a sweep takes at least one value"));
    }
    for (i, value) in values.iter().enumerate() {
        if matches!(value, Value::Array(_) | Value::Table(_) | Value::Datetime(_)) {
            return Err(source.error(place, format!("holds {value}; a sweep takes single values")));
        }
        if values[..i].iter().any(|other| text(other) == text(value)) {
            return Err(source.error(place, format!("holds {value} twice; a value makes one arm")));
        }
    }
    match place.strip_prefix("data.") {
        Some(key) if asks_only(key) => {
            let why = "is a list, and the held-out questions depend on it: all arms answer the same";
            Err(source.error(place, why)).hint("write a plan for each set of questions")
        }
        _ => Ok(()),
    }
}

/// Keys of the data that say what is asked. All others say what an arm is trained on; the held-out questions are the
/// plan's own, whatever an arm has.
pub fn asks_only(key: &str) -> bool {
    ["world.heldout_pairs", "heldout_split", "heldout_fraction"].contains(&key)
}

/// What the section says once its list has gone to the arms: the largest budget and the largest length, which no
/// arm exceeds; of the data's place and make the first one, whose held-out questions all arms answer; the default of
/// everything else.
pub fn settle(source: &mut Source, listed: &Listed) {
    let number = |v: &Value| v.as_float().or(v.as_integer().map(|i| i as f64)).unwrap_or(0.0);
    let kept = match listed.place.as_str() {
        place if place.starts_with("budget.") || place == "data.max_length" => {
            listed.values.iter().max_by(|a, b| number(a).total_cmp(&number(b)))
        }
        place if place.starts_with("data.feedback.") || place == "data.max_examples" => None,
        place if place.starts_with("data.") => listed.values.first(),
        _ => None,
    }
    .cloned();
    let mut keys: Vec<&str> = listed.place.split('.').collect();
    let last = keys.pop().expect("a place has a key");
    let mut table = &mut source.values;
    for key in keys {
        let Some(inner) = table.get_mut(key).and_then(Value::as_table_mut) else { return };
        table = inner;
    }
    match kept {
        Some(value) => table.insert(last.to_owned(), value),
        None => table.remove(last),
    };
}

/// A value as names show it: `0.1`, `1`, `1e-5`, `auto`.
pub fn text(value: &Value) -> String {
    match value {
        Value::Float(x) => {
            let text = format!("{x:?}");
            text.strip_suffix(".0").map_or(text.clone(), str::to_owned)
        }
        Value::String(word) => word.clone(),
        other => other.to_string(),
    }
}
