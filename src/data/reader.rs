//! From rows to a data set: the form settled, ids checked, what is left out counted.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};

use serde_json::{Map, Value};

use crate::base::error::{Context, HintExt, Result, anyhow, bail};
use crate::plan::{DataFormat, DataSpec};

use super::load::Loaded;
use super::recipe::{Recipe, for_columns};
use super::rows::{Example, parse};
use super::template::Template;
use super::types::{Dataset, PreferencePair, UnpairedExample};
use super::{detect, stream};

/// Rows that are looked at before the form is settled.
const DETECT_ROWS: usize = 16;

struct Row {
    /// Its id, unless it brings its own.
    id: String,
    /// `path:line`
    place: String,
    value: Value,
}

/// Takes rows one by one; the first few are held back until their form is settled.
pub struct Reader<'a> {
    template: &'a Template,
    format: DataFormat,
    most: usize,
    /// Settled by the first row.
    recipe: Option<&'static Recipe>,
    /// Rows that are messages of a tree, until all are there.
    messages: Vec<Map<String, Value>>,
    held: Vec<Row>,
    pairs: Vec<PreferencePair>,
    unpaired: Vec<UnpairedExample>,
    /// Where each id was seen.
    seen: HashMap<String, String>,
    rows: usize,
    prompts_differ: usize,
    /// Rows whose own id another row has.
    repeated: usize,
    conversations: usize,
    /// Rows whose label is a number.
    numbers: usize,
    pub notes: Vec<String>,
}

impl<'a> Reader<'a> {
    pub fn new(spec: &DataSpec, template: &'a Template) -> Self {
        let most = if spec.max_examples == 0 { usize::MAX } else { spec.max_examples };
        Self {
            template,
            format: spec.format,
            most,
            recipe: None,
            messages: Vec::new(),
            held: Vec::new(),
            pairs: Vec::new(),
            unpaired: Vec::new(),
            seen: HashMap::new(),
            rows: 0,
            prompts_differ: 0,
            repeated: 0,
            conversations: 0,
            numbers: 0,
            notes: Vec::new(),
        }
    }

    /// Reads a file, whose rows are called `<name>:<number>` unless they bring ids of their own.
    pub fn read(&mut self, path: &Path, name: &str) -> Result<ControlFlow<()>> {
        let mut flow = ControlFlow::Continue(());
        stream::read_rows(path, &mut |place, row| {
            let id = format!("{name}:{}", place.number);
            flow = self.take(Row { id, place: format!("{}:{}", path.display(), place.line), value: row })?;
            Ok(flow)
        })?;
        Ok(flow)
    }

    fn take(&mut self, mut row: Row) -> Result<ControlFlow<()>> {
        self.rows += 1;
        let Value::Object(columns) = row.value else { bail!("{}: a row must be an object", row.place) };
        if self.rows == 1 {
            self.recipe = for_columns(&columns);
            self.notes
                .extend(self.recipe.map(|r| format!("columns read by the recipe {}: {}", r.name, r.about)));
        }
        match self.recipe {
            Some(recipe) if recipe.tree.is_some() => {
                self.messages.push(columns);
                return Ok(ControlFlow::Continue(()));
            }
            Some(recipe) => {
                row.value = Value::Object(recipe.apply(columns).with_context(|| row.place.clone())?)
            }
            None => row.value = Value::Object(columns),
        }
        self.accept(row)
    }

    fn accept(&mut self, row: Row) -> Result<ControlFlow<()>> {
        if self.format == DataFormat::Auto {
            self.held.push(row);
            if self.held.len() < DETECT_ROWS.min(self.most) {
                return Ok(ControlFlow::Continue(()));
            }
            self.settle()?;
        } else {
            self.keep(row)?;
        }
        let full = self.pairs.len() + self.unpaired.len() >= self.most;
        Ok(if full { ControlFlow::Break(()) } else { ControlFlow::Continue(()) })
    }

    /// Settles the form by the rows held back, which must agree.
    fn settle(&mut self) -> Result<()> {
        let held = std::mem::take(&mut self.held);
        let mut first: Option<(DataFormat, &str)> = None;
        for Row { place, value, .. } in &held {
            let Value::Object(columns) = value else { bail!("{place}: a row must be an object") };
            let format = detect(columns).with_context(|| place.clone())?;
            match first {
                None => first = Some((format, place)),
                Some((known, at)) if known != format => {
                    return Err(anyhow!(
                        "{place}: the row is {}, that of {at} is {}",
                        name(format),
                        name(known)
                    ))
                    .hint("name the form in the plan: data.format = \"…\"");
                }
                Some(_) => {}
            }
        }
        if let Some((format, _)) = first {
            self.format = format;
            self.notes.push(format!("form of the rows, by the first {}: {}", held.len(), name(format)));
        }
        for row in held {
            self.keep(row)?;
        }
        Ok(())
    }

    fn keep(&mut self, Row { id, place, value }: Row) -> Result<()> {
        if self.pairs.len() + self.unpaired.len() >= self.most {
            return Ok(());
        }
        let chat = ["prompt", "chosen", "messages"].iter().any(|column| value[*column].is_array());
        self.conversations += usize::from(chat);
        self.numbers += usize::from(value["label"].is_number());
        let mut example =
            parse(&value, self.format, self.template, id.clone()).with_context(|| place.clone())?;
        let own = match &mut example {
            Example::Pair(pair) => &mut pair.id,
            Example::Unpaired(example) => &mut example.id,
            Example::PromptsDiffer => {
                self.prompts_differ += 1;
                return Ok(());
            }
        };
        // An `id` may name the prompt, or come from parts that were put together.
        if self.seen.contains_key(own) && *own != id {
            self.repeated += 1;
            *own = id;
        }
        match self.seen.entry(own.clone()) {
            Entry::Occupied(first) => bail!("{place}: the id `{own}` was used before, at {}", first.get()),
            Entry::Vacant(entry) => entry.insert(place),
        };
        match example {
            Example::Pair(pair) => self.pairs.push(pair),
            Example::Unpaired(example) => self.unpaired.push(example),
            Example::PromptsDiffer => {}
        }
        Ok(())
    }

    /// Takes the pairs that a tree's messages make.
    fn take_pairs(&mut self, shown: &str) -> Result<()> {
        let Some(tree) = self.recipe.and_then(|r| r.tree.as_ref()) else { return Ok(()) };
        let pairs = tree.pairs(&std::mem::take(&mut self.messages)).with_context(|| shown.to_owned())?;
        self.notes.push(format!("{} messages make {} pairs of ranked answers", self.rows, pairs.len()));
        for value in pairs {
            let id = value["id"].as_str().unwrap_or_default().to_owned();
            let place = format!("{shown}: answers {id}");
            if self.accept(Row { id, place, value })?.is_break() {
                break;
            }
        }
        Ok(())
    }

    /// The data set, when all of `files` have been read.
    ///
    /// # Errors
    /// No row, or none that can be used; pairs that do not fit together.
    pub fn finish(mut self, files: &[PathBuf]) -> Result<Loaded> {
        let shown = files.iter().map(|f| f.display().to_string()).collect::<Vec<_>>().join(", ");
        self.take_pairs(&shown)?;
        self.settle()?;
        if self.rows == 0 {
            bail!("{shown}: the split is empty");
        }
        if self.prompts_differ > 0 {
            self.notes.push(format!(
                "{} of {} pairs left out: chosen and rejected differ before the last assistant turn, so they do \
                 not answer the same prompt",
                self.prompts_differ, self.rows
            ));
        }
        if self.repeated > 0 {
            self.notes.push(format!(
                "{} of {} rows have an `id` that another one has: they are called by file and number",
                self.repeated, self.rows
            ));
        }
        if self.conversations > 0 {
            self.notes.push(format!(
                "{} of {} rows are conversations, rendered with the chat template {}",
                self.conversations, self.rows, self.template.origin
            ));
        }
        if self.format == DataFormat::TrlUnpaired && self.numbers > 0 {
            let what = "labels 1 and 0 are read as true (desirable) and false";
            self.notes.push(format!("{what}: {} of {} rows", self.numbers, self.rows));
        }
        let dataset = match self.format {
            DataFormat::TrlUnpaired => Dataset::Unpaired(self.unpaired),
            DataFormat::TrlPromptCompletion | DataFormat::TrlMessages => {
                let what =
                    "no labels: every completion (of a conversation its last reply) is taken as desirable";
                self.notes.push(what.to_owned());
                Dataset::Unpaired(self.unpaired)
            }
            _ => Dataset::Paired(self.pairs),
        };
        if dataset.is_empty() {
            bail!("{shown}: none of its {} rows can be used: {}", self.rows, self.notes.join("; "));
        }
        let hash = dataset.hash();
        Ok(Loaded { dataset, format: self.format, rows: self.rows, notes: self.notes, hash })
    }
}

/// The form's name, as a plan says it.
fn name(format: DataFormat) -> String {
    serde_json::to_value(format).ok().and_then(|v| v.as_str().map(str::to_owned)).unwrap_or_default()
}
