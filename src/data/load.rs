//! A data set by name: the planted-truth world, a file, a directory, or a hub id.

use std::fs;
use std::path::{Path, PathBuf};

use crate::base::error::{Context, HintExt, Result, anyhow, bail, unknown};
use crate::plan::{DataFormat, DataSpec};

use super::hinted::hinted;
use super::reader::Reader;
use super::recipe::split_name;
use super::template::Template;
use super::types::Dataset;
use super::world::World;
use super::{hub, layout};

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
    let (files, note) = locate(spec, split)?;
    let mut reader = Reader::new(spec, template);
    reader.notes.extend(note);
    let names = layout::names(&files);
    for (read, (file, name)) in files.iter().zip(&names).enumerate() {
        if reader.read(file, name)?.is_break() {
            if read + 1 < files.len() {
                let n = spec.max_examples;
                let of = if read == 0 { name.clone() } else { format!("{} to {name}", names[0]) };
                reader.notes.push(format!(
                    "the first {n} examples are of {of}: {} of {} files",
                    read + 1,
                    files.len()
                ));
            }
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
        other => return Err(unknown("split", other, &["train", "test"]).context("world")),
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
pub fn locate(spec: &DataSpec, split: &str) -> Result<(Vec<PathBuf>, Option<String>)> {
    let path = Path::new(&spec.source);
    if split.contains(['[', '%', '+']) {
        return Err(anyhow!("{}: `{split}` is a slice or a sum of splits, which are not read", spec.source))
            .hint("name one split; data.max_examples = 10 takes its first ten examples");
    }
    if path.is_file() {
        return Ok((vec![path.to_owned()], Some(single_file(path, split)?)));
    }
    if path.is_dir() {
        layout::not_saved_to_disk(path)?;
        let picked = layout::pick(&list(path)?, &spec.config, split, &spec.source)?;
        return Ok((picked.files.iter().map(|f| path.join(f)).collect(), picked.note));
    }
    if !hub::is_id(&spec.source) || layout::is_rows(&spec.source) {
        return Err(missing(path));
    }
    let split = split_name(&spec.source, split);
    hub::resolve_dataset(&spec.source, &spec.revision, &spec.config, split).with_context(|| {
        format!("`{}` is no file or directory here, so it was taken as a hub id", spec.source)
    })
}

/// The split that is read of `source` where none is asked for: what a single file calls itself, else `usual`.
pub fn split_or(source: &str, usual: &str) -> String {
    let path = Path::new(source);
    let own = layout::split_of(path).filter(|_| path.is_file());
    own.unwrap_or(usual).to_owned()
}

/// A file is one split; one that names itself another is not silently taken for the one asked for.
fn single_file(path: &Path, split: &str) -> Result<String> {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    if let Some(own) = layout::split_of(path).filter(|own| *own != split) {
        return Err(anyhow!("{} is the split `{own}`, and `{split}` is asked for", path.display()))
            .hint("give the directory that holds both, or set the split");
    }
    let own = layout::own_name(&name).unwrap_or(&name);
    if own != split && !layout::SPLITS.contains(&split) {
        let mut known = layout::SPLITS.to_vec();
        known.push(own);
        return Err(unknown("split", split, &known).context(format!("{} is one file", path.display())));
    }
    Ok(format!("{name} is one file: taken as the split `{split}`"))
}

fn missing(path: &Path) -> anyhow::Error {
    let parent = path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let error = anyhow!("no such file or directory: {}", path.display());
    let Ok(entries) = fs::read_dir(parent) else {
        return hinted(error, format!("{} does not exist either", parent.display()));
    };
    let mut names: Vec<String> =
        entries.take(1000).flatten().map(|e| e.file_name().to_string_lossy().into_owned()).collect();
    names.sort_unstable();
    names.truncate(20);
    hinted(error, format!("{} holds: {}", parent.display(), names.join(", ")))
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
