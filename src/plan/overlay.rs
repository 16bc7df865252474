//! Given values laid over defaults: one definition of every key, its type and its default.

use serde::Serialize;
use serde::de::DeserializeOwned;
use toml::{Table, Value};

use super::source::{Source, join};
use crate::base::error::Result;

/// `default` with the values that the plan gives in the section `path`.
///
/// # Errors
/// An unknown key (the valid ones are listed) or a value of the wrong type, with its place.
pub(super) fn section<T: Serialize + DeserializeOwned>(
    default: &T,
    source: &Source,
    path: &str,
) -> Result<T> {
    match source.values.get(path) {
        None => overlay(default, &Table::new(), source, path),
        Some(Value::Table(given)) => overlay(default, given, source, path),
        Some(other) => Err(source.error(path, format!("is {}; it must be a section", other.type_str()))),
    }
}

/// `default` with `given` laid over it. Keys that are sections by default are merged key by key.
pub(super) fn overlay<T: Serialize + DeserializeOwned>(
    default: &T,
    given: &Table,
    source: &Source,
    path: &str,
) -> Result<T> {
    let mut table = Table::try_from(default).expect("every section is a table");
    let mut leaves = vec![];
    collect(given, &table, source, path, &mut vec![], &mut leaves)?;
    for (keys, value) in leaves {
        *slot(&mut table, &keys) = value.clone();
        // Typed after each key, so that a failure belongs to that key.
        if let Err(e) = T::deserialize(table.clone()) {
            let path = keys.iter().fold(path.to_owned(), |p, k| join(&p, k));
            return Err(source.error(&path, format!("is {value}: {}", in_words(e.message()))));
        }
    }
    T::deserialize(table).map_err(|e| source.error(path, in_words(e.message())))
}

/// Names of a section's keys, sorted.
pub(super) fn keys_of<T: Serialize>(default: &T) -> Vec<String> {
    Table::try_from(default).expect("every section is a table").keys().cloned().collect()
}

fn collect<'v>(
    given: &'v Table,
    known: &Table,
    source: &Source,
    path: &str,
    prefix: &mut Vec<String>,
    leaves: &mut Vec<(Vec<String>, &'v Value)>,
) -> Result<()> {
    for (key, value) in given {
        let full = join(path, key);
        let Some(default) = known.get(key) else {
            let known: Vec<&str> = known.keys().map(String::as_str).collect();
            return Err(source.unknown(&full, &format!("key in [{path}]"), key, &known));
        };
        prefix.push(key.clone());
        match (default, value) {
            (Value::Table(inner_known), Value::Table(inner)) => {
                collect(inner, inner_known, source, &full, prefix, leaves)?;
            }
            _ => leaves.push((prefix.clone(), value)),
        }
        prefix.pop();
    }
    Ok(())
}

fn slot<'t>(table: &'t mut Table, keys: &[String]) -> &'t mut Value {
    let (last, sections) = keys.split_last().expect("a leaf has a key");
    let mut table = table;
    for key in sections {
        table = table.get_mut(key).and_then(Value::as_table_mut).expect("`collect` walked this path");
    }
    table.get_mut(last).expect("`collect` found this key")
}

/// serde's words for types, as a person would put them.
fn in_words(message: &str) -> String {
    let mut words = message.trim_end().to_owned();
    for (rust, plain) in [
        ("expected usize", "expected a whole number, 0 or above"),
        ("expected u64", "expected a whole number, 0 or above"),
        ("expected f64", "expected a number"),
        ("expected a sequence", "expected a list"),
        ("expected struct LoraSpec", "expected a section, such as { rank = 16, alpha = 32 }"),
    ] {
        words = words.replace(rust, plain);
    }
    words
}
