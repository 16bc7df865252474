//! Data sets whose columns or splits are named otherwise: a few lines of TOML each, in `recipes/`.

use std::collections::{BTreeMap, HashMap};
use std::sync::LazyLock;

use serde::Deserialize;
use serde_json::{Map, Value, json};

use crate::base::error::{Context, Result, anyhow, bail};

/// Name and text of every recipe; what the keys mean stands in `recipes/README.md`.
const TEXTS: [(&str, &str); 7] = [
    ("hh-rlhf", include_str!("recipes/hh-rlhf.toml")),
    ("shp", include_str!("recipes/shp.toml")),
    ("oasst1", include_str!("recipes/oasst1.toml")),
    ("ultrafeedback-h4", include_str!("recipes/ultrafeedback-h4.toml")),
    ("kto-mix-14k", include_str!("recipes/kto-mix-14k.toml")),
    ("ultrafeedback-trl", include_str!("recipes/ultrafeedback-trl.toml")),
    ("argilla", include_str!("recipes/argilla.toml")),
];

/// How one data set becomes rows in TRL's columns.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Recipe {
    #[serde(skip)]
    pub name: &'static str,
    pub about: String,
    /// Hub id.
    pub source: String,
    splits: BTreeMap<String, String>,
    columns: BTreeMap<String, String>,
    /// The texts are a question and its answers: messages, for the model's template.
    chat: bool,
    prefer: Option<Prefer>,
    pub(super) tree: Option<Tree>,
}

/// Two texts and a column that says which was chosen.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
struct Prefer {
    column: String,
    first: String,
    second: String,
}

/// Rows are messages of trees; the keys name columns, `assistant` the role that answers.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Tree {
    id: String,
    parent: String,
    text: String,
    role: String,
    rank: String,
    assistant: String,
}

/// An answer with its rank among its siblings, 0 the best.
type Ranked<'m> = (i64, &'m Map<String, Value>);

static RECIPES: LazyLock<Vec<Recipe>> = LazyLock::new(|| {
    let read = |(name, text): &(&'static str, &str)| {
        let recipe: Recipe = toml::from_str(text).unwrap_or_else(|e| panic!("recipe {name}: {e}"));
        Recipe { name, ..recipe }
    };
    TEXTS.iter().map(read).collect()
});

/// Every recipe.
pub fn recipes() -> &'static [Recipe] {
    &RECIPES
}

/// What the repository `source` calls the split.
pub(super) fn split_name<'a>(source: &str, split: &'a str) -> &'a str {
    let recipe = recipes().iter().find(|r| r.source == source);
    recipe.and_then(|r| r.splits.get(split)).map_or(split, String::as_str)
}

/// The recipe for rows with these columns; `None` where they are read as they are.
pub(super) fn for_columns(row: &Map<String, Value>) -> Option<&'static Recipe> {
    recipes().iter().find(|r| {
        let mut columns = r.columns().peekable();
        columns.peek().is_some() && columns.all(|c| row.contains_key(c))
    })
}

impl Recipe {
    /// The data set's own columns that it needs.
    fn columns(&self) -> impl Iterator<Item = &str> {
        let prefer = self.prefer.iter().flat_map(|p| [&p.column, &p.first, &p.second]);
        let tree = self.tree.iter().flat_map(|t| [&t.id, &t.parent, &t.text, &t.role, &t.rank]);
        self.columns.values().chain(prefer).chain(tree).map(String::as_str)
    }

    /// The row in TRL's columns.
    ///
    /// # Errors
    /// A preference that is neither yes nor no.
    pub(super) fn apply(&self, mut row: Map<String, Value>) -> Result<Map<String, Value>> {
        for (ours, theirs) in &self.columns {
            if let Some(value) = row.remove(theirs) {
                row.insert(ours.clone(), value);
            }
        }
        if let Some(Prefer { column, first, second }) = &self.prefer {
            let said = row.get(column).cloned().unwrap_or_default();
            let (chosen, rejected) = match said.as_bool().or(said.as_i64().and_then(yes_or_no)) {
                Some(true) => (first, second),
                Some(false) => (second, first),
                None => bail!("`{column}` is {said}; it must be 1 ({first} was preferred) or 0 ({second})"),
            };
            for (ours, theirs) in [("chosen", chosen), ("rejected", rejected)] {
                let text = row.get(theirs).cloned().unwrap_or_default();
                row.insert(ours.to_owned(), text);
            }
        }
        if self.chat {
            for (column, role) in [("prompt", "user"), ("chosen", "assistant"), ("rejected", "assistant")] {
                // What is no text is refused by the reader, with its place.
                if let Some(Value::String(text)) = row.get(column) {
                    let message = json!([{"role": role, "content": text}]);
                    row.insert(column.to_owned(), message);
                }
            }
        }
        Ok(row)
    }
}

fn yes_or_no(number: i64) -> Option<bool> {
    match number {
        1 => Some(true),
        0 => Some(false),
        _ => None,
    }
}

impl Tree {
    /// Pairs in TRL's columns, conversational: of each message's ranked answers the one ranked 0 against every
    /// other, in the order of the rows. A pair's id is those of its answers.
    ///
    /// # Errors
    /// A message without a column, or of a wrong type; a parent that is not there.
    pub(super) fn pairs(&self, messages: &[Map<String, Value>]) -> Result<Vec<Value>> {
        let by_id: HashMap<&str, &Map<String, Value>> =
            messages.iter().map(|m| Ok((self.string(m, &self.id)?, m))).collect::<Result<_>>()?;
        let mut answers: HashMap<&str, Vec<Ranked<'_>>> = HashMap::new();
        let mut parents = Vec::new();
        for message in messages {
            let rank = message.get(&self.rank).and_then(Value::as_i64);
            let parent = message.get(&self.parent).and_then(Value::as_str);
            let (Some(rank), Some(parent)) = (rank, parent) else { continue };
            if self.string(message, &self.role)? != self.assistant {
                continue;
            }
            let siblings = answers.entry(parent).or_default();
            if siblings.is_empty() {
                parents.push(parent);
            }
            siblings.push((rank, message));
        }
        let mut pairs = Vec::new();
        for parent in parents {
            let siblings = &answers[parent];
            let Some((_, best)) = siblings.iter().find(|(rank, _)| *rank == 0) else { continue };
            let prompt = self.thread(parent, &by_id)?;
            for (_, other) in siblings.iter().filter(|(rank, _)| *rank > 0) {
                let answer = |m| {
                    Ok::<_, anyhow::Error>(
                        json!([{"role": "assistant", "content": self.string(m, &self.text)?}]),
                    )
                };
                let id = format!("{}/{}", self.string(best, &self.id)?, self.string(other, &self.id)?);
                pairs.push(json!({
                    "id": id, "prompt": prompt, "chosen": answer(best)?, "rejected": answer(other)?,
                }));
            }
        }
        Ok(pairs)
    }

    /// The conversation from the root to `id`.
    fn thread(&self, id: &str, by_id: &HashMap<&str, &Map<String, Value>>) -> Result<Vec<Value>> {
        let (mut messages, mut at) = (Vec::new(), Some(id));
        while let Some(id) = at {
            let message =
                by_id.get(id).with_context(|| format!("message `{id}` is answered and not there"))?;
            let role = if self.string(message, &self.role)? == self.assistant { "assistant" } else { "user" };
            messages.push(json!({"role": role, "content": self.string(message, &self.text)?}));
            // In a tree no message comes twice; a cycle would never end.
            if messages.len() > by_id.len() {
                bail!("message `{id}` answers itself");
            }
            at = message.get(&self.parent).and_then(Value::as_str);
        }
        messages.reverse();
        Ok(messages)
    }

    fn string<'m>(&self, message: &'m Map<String, Value>, column: &str) -> Result<&'m str> {
        let value = message.get(column).and_then(Value::as_str);
        value.ok_or_else(|| anyhow!("a message without a text in `{column}`"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_recipe_parses_and_names_its_source_once() {
        let mut sources: Vec<&str> = recipes().iter().map(|r| r.source.as_str()).collect();
        assert!(recipes().iter().all(|r| r.about.ends_with('.') && r.source.contains('/')));
        sources.sort_unstable();
        sources.dedup();
        assert_eq!(sources.len(), TEXTS.len());
        assert_eq!(split_name("HuggingFaceH4/ultrafeedback_binarized", "train"), "train_prefs");
        assert_eq!(split_name("somebody/else", "train"), "train");
    }

    #[test]
    fn the_best_ranked_answer_is_chosen_over_each_other_one() {
        let tree = recipes().iter().find_map(|r| r.tree.clone()).unwrap();
        let message = |id: &str, parent: Option<&str>, role: &str, rank: Option<i64>| {
            let row = json!({"message_id": id, "parent_id": parent, "text": format!("t{id}"), "role": role, "rank": rank});
            row.as_object().unwrap().clone()
        };
        let rows = [
            message("q", None, "prompter", None),
            message("a", Some("q"), "assistant", Some(1)),
            message("b", Some("q"), "assistant", Some(0)),
            message("c", Some("q"), "assistant", Some(2)),
            message("r", Some("b"), "prompter", Some(0)),
            message("d", Some("r"), "assistant", Some(0)),
            message("e", Some("r"), "assistant", None),
        ];
        let pairs = tree.pairs(&rows).unwrap();
        let ids: Vec<&str> = pairs.iter().map(|p| p["id"].as_str().unwrap()).collect();
        assert_eq!(ids, ["b/a", "b/c"], "an answer without a rank makes no pair");
        assert_eq!(pairs[0]["prompt"], json!([{"role": "user", "content": "tq"}]));
        let thread = tree.thread("d", &rows.iter().map(|m| (m["message_id"].as_str().unwrap(), m)).collect());
        let roles: Vec<Value> = thread.unwrap().iter().map(|m| m["role"].clone()).collect();
        assert_eq!(roles, ["user", "assistant", "user", "assistant"]);
        let orphan = tree.pairs(&[
            message("x", Some("gone"), "assistant", Some(0)),
            message("y", Some("gone"), "assistant", Some(1)),
        ]);
        assert!(orphan.unwrap_err().to_string().contains("`gone` is answered and not there"));
    }
}
