//! A data set by name: the planted-truth world, a file, a directory, or a hub id.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::fs;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};

use serde_json::Value;

use crate::base::error::{Context, HintExt, Result, anyhow, bail};
use crate::plan::{DataFormat, DataSpec};

use super::rows::{Example, parse};
use super::template::Template;
use super::types::{Dataset, PreferencePair, UnpairedExample};
use super::world::World;
use super::{detect, hub, layout, stream};

/// Rows that are looked at before the form is settled.
const DETECT_ROWS: usize = 16;
/// Files that a directory may hold before it is taken for something else than a data set.
const MOST_FILES: usize = 10_000;

/// A data set as read, and what was found on the way.
#[derive(Clone, Debug)]
pub struct Loaded {
    pub dataset: Dataset,
    pub format: DataFormat,
    /// Rows read, those included that were left out.
    pub rows: usize,
    /// What a reader of the results should know: rows left out and why, decisions taken.
    pub notes: Vec<String>,
    /// Content hash: [`Dataset::hash`].
    pub hash: String,
}

/// Reads a split of `spec.source`; conversations are rendered with the default template.
///
/// # Errors
/// Missing source, unknown split or configuration (those that there are listed), malformed rows
/// (`path:line`), an empty split.
pub fn load(spec: &DataSpec, split: &str) -> Result<Loaded> {
    load_with(spec, split, &Template::default())
}

/// As [`load`], with conversations rendered by `template` (see [`super::Tokenizer::template`]).
pub fn load_with(spec: &DataSpec, split: &str, template: &Template) -> Result<Loaded> {
    if spec.source == "world" {
        return load_world(spec, split);
    }
    let (files, note) = find(spec, split)?;
    let mut reader = Reader::new(spec, template);
    reader.notes.extend(note);
    for file in &files {
        if reader.read(file)?.is_break() {
            break;
        }
    }
    reader.finish(&files)
}

fn load_world(spec: &DataSpec, split: &str) -> Result<Loaded> {
    let world = World::new(&spec.world)?;
    let mut pairs = match split {
        "train" => world.train_pairs(),
        "test" => world.heldout_pairs(),
        other => return Err(crate::base::error::unknown("split", other, &["train", "test"]).context("world")),
    };
    if spec.max_examples > 0 {
        pairs.truncate(spec.max_examples);
    }
    let (rows, dataset) = (pairs.len(), Dataset::Paired(pairs));
    let hash = dataset.hash();
    Ok(Loaded { dataset, format: DataFormat::TrlPaired, rows, notes: vec![world.describe()], hash })
}

/// The files of the split, and what was decided to find them.
///
/// # Errors
/// Missing source, unknown split or configuration (those that there are listed).
pub fn find(spec: &DataSpec, split: &str) -> Result<(Vec<PathBuf>, Option<String>)> {
    let path = Path::new(&spec.source);
    if path.is_file() {
        return Ok((vec![path.to_owned()], Some(single_file(path, split)?)));
    }
    if path.is_dir() {
        let picked = layout::pick(&list(path)?, &spec.config, split, &spec.source)?;
        return Ok((picked.files.iter().map(|f| path.join(f)).collect(), picked.note));
    }
    if !hub::is_id(&spec.source) {
        return Err(missing(path));
    }
    hub::resolve_dataset(&spec.source, &spec.revision, &spec.config, split).with_context(|| {
        format!("`{}` is no file or directory here, so it was taken as a hub id", spec.source)
    })
}

/// A file is one split; one that names itself another is not silently taken for the one asked for.
fn single_file(path: &Path, split: &str) -> Result<String> {
    const SPLITS: [&str; 6] = ["train", "test", "validation", "valid", "dev", "eval"];
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let stem = name.split('.').next().unwrap_or_default();
    if SPLITS.contains(&stem) && stem != split {
        return Err(anyhow!("{} is the split `{stem}`, and `{split}` is asked for", path.display()))
            .hint("give the directory that holds both, or set the split");
    }
    Ok(format!("{name} is one file: taken as the split `{split}`"))
}

fn missing(path: &Path) -> anyhow::Error {
    let parent = path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let failed: Result<()> = Err(anyhow!("no such file or directory: {}", path.display()));
    let Ok(entries) = fs::read_dir(parent) else {
        return failed.hint(format!("{} does not exist either", parent.display())).unwrap_err();
    };
    let mut names: Vec<String> =
        entries.take(1000).flatten().map(|e| e.file_name().to_string_lossy().into_owned()).collect();
    names.sort_unstable();
    names.truncate(20);
    failed.hint(format!("{} holds: {}", parent.display(), names.join(", "))).unwrap_err()
}

/// Files below `root`, at most two folders deep, as paths relative to it.
fn list(root: &Path) -> Result<Vec<String>> {
    let mut files = Vec::new();
    let mut folders = vec![(root.to_owned(), 0)];
    while let Some((folder, depth)) = folders.pop() {
        let entries = fs::read_dir(&folder).with_context(|| format!("listing {}", folder.display()))?;
        for entry in entries {
            let path = entry.with_context(|| format!("listing {}", folder.display()))?.path();
            if path.is_dir() && depth < 2 {
                folders.push((path, depth + 1));
            } else if let Ok(relative) = path.strip_prefix(root) {
                files.push(relative.to_string_lossy().replace('\\', "/"));
            }
            if files.len() + folders.len() > MOST_FILES {
                bail!(
                    "{} holds more than {MOST_FILES} files: name the folder of the data set",
                    root.display()
                );
            }
        }
    }
    files.sort_unstable();
    Ok(files)
}

struct Row {
    /// Its id, unless it brings its own.
    id: String,
    /// `path:line`
    place: String,
    value: Value,
}

/// Takes rows one by one; the first few are held back until their form is settled.
struct Reader<'a> {
    template: &'a Template,
    format: DataFormat,
    most: usize,
    held: Vec<Row>,
    pairs: Vec<PreferencePair>,
    unpaired: Vec<UnpairedExample>,
    /// Where each id was seen.
    seen: HashMap<String, String>,
    rows: usize,
    prompts_differ: usize,
    notes: Vec<String>,
}

impl<'a> Reader<'a> {
    fn new(spec: &DataSpec, template: &'a Template) -> Self {
        let most = if spec.max_examples == 0 { usize::MAX } else { spec.max_examples };
        Self {
            template,
            format: spec.format,
            most,
            held: Vec::new(),
            pairs: Vec::new(),
            unpaired: Vec::new(),
            seen: HashMap::new(),
            rows: 0,
            prompts_differ: 0,
            notes: Vec::new(),
        }
    }

    fn read(&mut self, path: &Path) -> Result<ControlFlow<()>> {
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let mut flow = ControlFlow::Continue(());
        stream::read_rows(path, &mut |place, row| {
            let id = format!("{name}:{}", place.number);
            flow = self.take(Row { id, place: format!("{}:{}", path.display(), place.line), value: row })?;
            Ok(flow)
        })?;
        Ok(flow)
    }

    fn take(&mut self, row: Row) -> Result<ControlFlow<()>> {
        self.rows += 1;
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
        let example = parse(&value, self.format, self.template, id).with_context(|| place.clone())?;
        let id = match &example {
            Example::Pair(pair) => &pair.id,
            Example::Unpaired(example) => &example.id,
            Example::PromptsDiffer => {
                self.prompts_differ += 1;
                return Ok(());
            }
        };
        match self.seen.entry(id.clone()) {
            Entry::Occupied(first) => bail!("{place}: the id `{id}` was used before, at {}", first.get()),
            Entry::Vacant(entry) => entry.insert(place),
        };
        match example {
            Example::Pair(pair) => self.pairs.push(pair),
            Example::Unpaired(example) => self.unpaired.push(example),
            Example::PromptsDiffer => {}
        }
        Ok(())
    }

    fn finish(mut self, files: &[PathBuf]) -> Result<Loaded> {
        self.settle()?;
        let shown = files.iter().map(|f| f.display().to_string()).collect::<Vec<_>>().join(", ");
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
        let dataset = if self.format == DataFormat::TrlUnpaired {
            Dataset::Unpaired(self.unpaired)
        } else {
            Dataset::Paired(self.pairs)
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
