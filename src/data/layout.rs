//! Which files of a directory or of a hub repository hold a split.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use crate::base::error::{HintExt, Result, anyhow, unknown};

use super::hinted::hinted;

/// Endings of files that hold rows, plain and compressed.
const ENDINGS: [&str; 5] = [".parquet", ".jsonl", ".json", ".jsonl.gz", ".json.gz"];

/// What splits are usually called.
pub(super) const SPLITS: [&str; 6] = ["train", "test", "validation", "valid", "dev", "eval"];

/// The configuration that stands for all of them: the split of every folder.
const EVERY: &str = "*";

/// The files of one split, and what had to be decided to find them.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Split {
    pub files: Vec<String>,
    pub note: Option<String>,
}

/// Picks the files of `split` among `files` (paths relative to the data set, with `/`):
/// `<config>/<split>.jsonl`, `<split>.jsonl`, `data/<split>.jsonl` or shards `<split>-00000-of-00002.jsonl`;
/// `.json`, `.gz` and `.parquet` likewise, and all files of a folder `<config>/<split>/` or `<split>/`, as the hub's
/// own conversion to Parquet has them. A `config` that names a file is that file, whatever the split is called; `*` is
/// the split of every folder.
///
/// # Errors
/// Unknown configuration or split, with those that there are; shards that are missing; `shown` names the data set.
pub fn pick(files: &[String], config: &str, split: &str, shown: &str) -> Result<Split> {
    let files: Vec<&str> = files.iter().map(String::as_str).filter(|f| stem(f).is_some()).collect();
    if files.is_empty() {
        return Err(anyhow!("no file of rows in {shown}"))
            .hint(format!("rows are read from {}", ENDINGS.join(", ")));
    }
    if files.contains(&config) {
        return Ok(Split { files: vec![config.to_owned()], note: None });
    }
    let (roots, note) = roots(&files, config, split, shown)?;
    let mut found = Split { note, ..Split::default() };
    for root in &roots {
        let here = in_folder(&files, root, split, shown)?;
        found.files.extend(here.files);
        found.note = found.note.or(here.note);
        if config != EVERY && !found.files.is_empty() {
            return Ok(found);
        }
    }
    for root in &roots {
        let here = below(&files, root, split, shown)?;
        found.files.extend(here.files);
        found.note = found.note.or(here.note);
        if config != EVERY && !found.files.is_empty() {
            break;
        }
    }
    found.files.sort_unstable();
    found.files.dedup();
    if found.files.is_empty() { Err(no_split(&files, &roots, config, split, shown)) } else { Ok(found) }
}

/// The folders that are looked into, in this order, and what that decided.
fn roots<'f>(
    files: &[&'f str],
    config: &'f str,
    split: &str,
    shown: &str,
) -> Result<(Vec<&'f str>, Option<String>)> {
    let holds = |folder: &str| files.iter().any(|f| f.starts_with(&format!("{folder}/{split}/")));
    let folders: BTreeSet<&str> = files.iter().map(|f| folder(f)).collect();
    let configs = configs(files, split);
    if config.is_empty() {
        Ok((vec!["", "data", "default"], None))
    } else if config == EVERY {
        Ok((["", "data"].into_iter().chain(configs).collect(), None))
    } else if folders.contains(config) || holds(config) {
        Ok((vec![config], None))
    } else if configs.is_empty() {
        // A flat copy of one configuration: there is nothing to confuse it with.
        let note = format!("{shown} has no folder `{config}`: its own files are taken");
        Ok((vec!["", "data"], Some(note)))
    } else {
        Err(unknown("configuration", config, &configs)).map_err(|e| e.context(shown.to_owned()))
    }
}

/// Folders that may be named as a configuration: those of files, without a last part that is a split's name.
fn configs<'f>(files: &[&'f str], split: &str) -> Vec<&'f str> {
    let is_split = |name: &str| name == split || SPLITS.contains(&name);
    let config = |file: &&'f str| {
        let folder = folder(file);
        match folder.rsplit_once('/') {
            Some((above, last)) if is_split(last) => above,
            None if is_split(folder) => "",
            _ => folder,
        }
    };
    let all: BTreeSet<&str> = files.iter().map(config).filter(|d| !d.is_empty() && *d != "data").collect();
    all.into_iter().collect()
}

fn folder(file: &str) -> &str {
    file.rsplit_once('/').map_or("", |(folder, _)| folder)
}

/// The split's own file in a folder, or its shards; none where it has neither.
fn in_folder(files: &[&str], root: &str, split: &str, shown: &str) -> Result<Split> {
    let here: Vec<(&str, &str)> =
        files.iter().filter(|f| folder(f) == root).filter_map(|f| Some((*f, stem(f)?))).collect();
    let whole: Vec<&str> = here.iter().filter(|(_, stem)| *stem == split).map(|(f, _)| *f).collect();
    if !whole.is_empty() {
        let (file, note) = one_of(&whole, shown);
        return Ok(Split { files: vec![file.to_owned()], note });
    }
    let shards =
        here.iter().filter_map(|(f, stem)| Some((shard(stem)?, *f))).filter(|(s, _)| s.split == split);
    let files = all_shards(shards.collect(), root, split, shown)?;
    Ok(Split { files, note: None })
}

/// One of several files of one name, and the note that tells of the others.
fn one_of<'f>(files: &[&'f str], shown: &str) -> (&'f str, Option<String>) {
    let first = files[0];
    let note = (files.len() > 1)
        .then(|| format!("{} stand side by side in {shown}: {first} is read", files.join(", ")));
    (first, note)
}

/// The files of shards in their order; none may be missing.
fn all_shards(mut shards: Vec<(Shard, &str)>, folder: &str, split: &str, shown: &str) -> Result<Vec<String>> {
    shards.sort_unstable_by_key(|(s, f)| (s.index, *f));
    complete(&shards, split).map_err(|missing| {
        let place = if folder.is_empty() { shown.to_owned() } else { format!("{shown}, folder {folder}") };
        hinted(anyhow!("{place}: {missing}"), "copy or fetch the whole split anew, into an empty folder")
    })?;
    Ok(shards.into_iter().map(|(_, file)| file.to_owned()).collect())
}

/// All files below the split's own folder in `root`, whatever they are called: those of one name in another form once.
fn below(files: &[&str], root: &str, split: &str, shown: &str) -> Result<Split> {
    let top = if root.is_empty() { format!("{split}/") } else { format!("{root}/{split}/") };
    let mut by_name: BTreeMap<(&str, &str), Vec<&str>> = BTreeMap::new();
    for file in files.iter().filter(|f| f.starts_with(&top)) {
        by_name.entry((folder(file), stem(file).unwrap_or(file))).or_default().push(file);
    }
    let mut found = Split::default();
    let mut shards: BTreeMap<(&str, &str), Vec<(Shard, &str)>> = BTreeMap::new();
    for ((folder, stem), same) in by_name {
        let (file, note) = one_of(&same, shown);
        found.note = found.note.or(note);
        match shard(stem) {
            Some(shard) => shards.entry((folder, shard.split)).or_default().push((shard, file)),
            None => found.files.push(file.to_owned()),
        }
    }
    for ((folder, split), shards) in shards {
        found.files.extend(all_shards(shards, folder, split, shown)?);
    }
    Ok(found)
}

/// Shards of one writing, all of them, numbered from 0 or from 1.
fn complete(shards: &[(Shard, &str)], split: &str) -> std::result::Result<(), String> {
    let Some((Shard { of, .. }, _)) = shards.first() else { return Ok(()) };
    if let Some((other, file)) = shards.iter().find(|(s, _)| s.of != *of) {
        return Err(format!("the split `{split}` lies there in {of} shards and in {} ({file})", other.of));
    }
    if let Some(twice) = shards.windows(2).find(|w| w[0].0.index == w[1].0.index) {
        return Err(format!("{} and {} are the same shard of `{split}`", twice[0].1, twice[1].1));
    }
    let there: BTreeSet<u64> = shards.iter().map(|(s, _)| s.index).collect();
    let first = u64::from(!there.contains(&0) && there.contains(of));
    let missing: Vec<String> =
        (first..first + of).filter(|i| !there.contains(i)).take(8).map(|i| i.to_string()).collect();
    match missing.is_empty() && there.len() as u64 == *of {
        true => Ok(()),
        false if missing.is_empty() => Err(format!("the split `{split}` has more than its {of} shards")),
        false => Err(format!(
            "of the {of} shards of the split `{split}` {} are there; missing: {}",
            there.len(),
            missing.join(", ")
        )),
    }
}

fn no_split(files: &[&str], roots: &[&str], config: &str, split: &str, shown: &str) -> anyhow::Error {
    let mut known = BTreeSet::new();
    for (file, root) in files.iter().flat_map(|f| roots.iter().map(move |r| (*f, *r))) {
        let below = if root.is_empty() {
            Some(file)
        } else {
            file.strip_prefix(root).and_then(|f| f.strip_prefix('/'))
        };
        known.extend(match below.map(|f| f.split_once('/').ok_or(f)) {
            Some(Err(name)) => stem(name).map(|stem| shard(stem).map_or(stem, |s| s.split)),
            Some(Ok((folder, _))) => SPLITS.iter().find(|s| **s == folder).copied(),
            None => None,
        });
    }
    if known.is_empty() && config.is_empty() {
        let error = anyhow!("{shown} has configurations, and none is named");
        let all = configs(files, split).join(", ");
        return hinted(error, format!("set data.config to one of: {all}; `*` is all of them"));
    }
    let known: Vec<&str> = known.into_iter().collect();
    unknown("split", split, &known).context(shown.to_owned())
}

/// What the rows of each file are called by: its path below the folder that all of them have in common.
pub fn names(files: &[PathBuf]) -> Vec<String> {
    let parts = |file: &Path| -> Vec<String> {
        file.components().map(|c| c.as_os_str().to_string_lossy().into_owned()).collect()
    };
    let all: Vec<Vec<String>> = files.iter().map(|f| parts(f)).collect();
    let Some(first) = all.first() else { return vec![] };
    let above = first.len().saturating_sub(1);
    let common = (0..above).take_while(|&i| all.iter().all(|f| f.len() > i + 1 && f[i] == first[i])).count();
    all.iter().map(|f| f[common..].join("/")).collect()
}

/// Whether the name is that of a file of rows.
pub(super) fn is_rows(name: &str) -> bool {
    stem(name).is_some()
}

/// The split that a file calls itself, if it does: `train.jsonl`, `test-00000-of-00002.parquet`.
pub(super) fn split_of(path: &Path) -> Option<&'static str> {
    let name = path.file_name()?.to_string_lossy();
    let stem = name.split('.').next().unwrap_or_default();
    let split = shard(stem).map_or(stem, |s| s.split);
    SPLITS.into_iter().find(|s| *s == split)
}

/// What a file of rows calls itself: its name without ending and number.
pub(super) fn own_name(file: &str) -> Option<&str> {
    stem(file).map(|stem| shard(stem).map_or(stem, |s| s.split))
}

/// Refuses a folder that `datasets`' `save_to_disk` has written: its rows are in Arrow's own form.
///
/// # Errors
/// See there.
pub(super) fn not_saved_to_disk(folder: &Path) -> Result<()> {
    let arrow = || {
        let mut files = std::fs::read_dir(folder).into_iter().flatten().flatten();
        files.any(|file| file.path().extension().is_some_and(|ending| ending == "arrow"))
    };
    let several = folder.join("dataset_dict.json").is_file();
    let one = folder.join("state.json").is_file() && arrow();
    if !several && !one {
        return Ok(());
    }
    let shown = folder.display();
    let split = if several { "['train']" } else { "" };
    Err(anyhow!("{shown} was written by `save_to_disk`: its rows are Arrow files, which are not read")).hint(format!(
        "write each split as Parquet: datasets.load_from_disk(\"{shown}\"){split}.to_parquet(\"DIR/train.parquet\")"
    ))
}

/// The file's name without its ending, if it is one of rows. `dataset_infos.json` and their like describe
/// a data set and are none.
fn stem(file: &str) -> Option<&str> {
    let name = file.rsplit('/').next().unwrap_or(file);
    let ending = ENDINGS.iter().filter(|e| name.ends_with(*e)).max_by_key(|e| e.len())?;
    let stem = &name[..name.len() - ending.len()];
    let describes = ["dataset_infos", "dataset_info", "dataset_dict", "state", "config"].contains(&stem);
    (!describes && !stem.is_empty() && !stem.starts_with('.')).then_some(stem)
}

/// A part of a split that was written in several files.
struct Shard<'f> {
    split: &'f str,
    index: u64,
    of: u64,
}

/// `train`, 0 and 2 for `train-00000-of-00002`, and for `train-00000-of-00002-<hash>`.
fn shard(stem: &str) -> Option<Shard<'_>> {
    let (rest, of) = stem.rsplit_once("-of-")?;
    let (split, index) = rest.rsplit_once('-')?;
    let number = |s: &str| s.bytes().all(|b| b.is_ascii_digit()).then(|| s.parse().ok()).flatten();
    let (of, hash) = of.split_once('-').unwrap_or((of, "0"));
    let (index, of) = (number(index)?, number(of)?);
    hash.bytes().all(|b| b.is_ascii_hexdigit()).then_some(Shard { split, index, of })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::error::render;

    fn picked(files: &[&str], config: &str, split: &str) -> Result<Vec<String>> {
        let files: Vec<String> = files.iter().map(|f| (*f).to_owned()).collect();
        pick(&files, config, split, "there").map(|s| s.files)
    }

    #[test]
    fn a_split_is_found_where_people_put_it() {
        let hub = [
            "README.md",
            "harmless-base/test.jsonl.gz",
            "harmless-base/train.jsonl.gz",
            "red/train.jsonl.gz",
        ];
        assert_eq!(picked(&hub, "harmless-base", "train").unwrap(), ["harmless-base/train.jsonl.gz"]);
        assert_eq!(picked(&["train.jsonl", "test.json"], "", "test").unwrap(), ["test.json"]);
        assert_eq!(picked(&["data/train.json"], "", "train").unwrap(), ["data/train.json"]);
        let hashed =
            ["data/test-00000-of-00001-8c7c51afc6d45980.parquet", "data/train-00000-of-00001-0a.parquet"];
        assert_eq!(picked(&hashed, "", "train").unwrap(), [hashed[1]]);
        let converted =
            ["default/train/0001.parquet", "default/train/0000.parquet", "default/test/0000.parquet"];
        assert_eq!(picked(&converted, "", "train").unwrap(), [converted[1], converted[0]]);
        assert_eq!(
            picked(&["x/train/0.parquet", "y/train/0.parquet"], "y", "train").unwrap(),
            ["y/train/0.parquet"]
        );
        let shards = ["train-00001-of-00002.jsonl", "train-00000-of-00002.jsonl", "training.jsonl"];
        assert_eq!(picked(&shards, "", "train").unwrap(), [shards[1], shards[0]]);
    }

    #[test]
    fn a_flat_copy_serves_for_its_configuration_and_says_so() {
        let files = ["train.jsonl".to_owned()];
        let split = pick(&files, "harmless-base", "train", "there").unwrap();
        assert_eq!(split.files, ["train.jsonl"]);
        assert!(split.note.unwrap().contains("harmless-base"));
    }

    #[test]
    fn what_is_not_there_is_answered_with_what_is() {
        let hub = ["harmless-base/train.jsonl.gz", "harmless-base/test.jsonl.gz", "red/train.jsonl.gz"];
        let text = |config, split| render(&picked(&hub, config, split).unwrap_err());
        assert_eq!(
            text("harmless-bsae", "train"),
            "there: unknown configuration `harmless-bsae` (known: harmless-base, red)\nhint: did you mean `harmless-base`?"
        );
        assert_eq!(
            text("harmless-base", "validation"),
            "there: unknown split `validation` (known: test, train)"
        );
        assert!(text("", "train").contains("hint: set data.config to one of: harmless-base, red; `*`"));
        assert!(
            render(&picked(&["README.md", "dataset_infos.json"], "", "train").unwrap_err())
                .contains("no file of rows")
        );
    }

    #[test]
    fn a_folder_a_split_serves_at_the_top_and_its_name_is_no_configuration() {
        let top = ["train/0.parquet", "test/0.parquet"];
        assert_eq!(picked(&top, "", "test").unwrap(), ["test/0.parquet"]);
        let text = render(&picked(&top, "", "validation").unwrap_err());
        assert!(text.contains("unknown split `validation` (known: test, train)"), "{text}");
        let text = render(&picked(&["x/train/0.parquet", "y/train/0.parquet"], "", "train").unwrap_err());
        assert!(text.contains("set data.config to one of: x, y;"), "{text}");
    }

    #[test]
    fn a_configuration_may_be_a_file_or_all_folders() {
        let files = ["README.md", "raw/question.jsonl", "data/train.jsonl"];
        assert_eq!(picked(&files, "raw/question.jsonl", "train").unwrap(), ["raw/question.jsonl"]);
        let shp = ["askdocs/test.json", "askculinary/test.json", "askculinary/train.json"];
        assert_eq!(picked(&shp, "*", "test").unwrap(), ["askculinary/test.json", "askdocs/test.json"]);
        assert_eq!(picked(&["y/test/0.parquet", "x/test/0.parquet"], "*", "test").unwrap().len(), 2);
        assert!(picked(&shp, "*", "validation").is_err());
        let paths: Vec<_> = ["/d/askdocs/test.json", "/d/askculinary/test.json"].map(Into::into).into();
        assert_eq!(names(&paths), ["askdocs/test.json", "askculinary/test.json"]);
        assert_eq!(names(&paths[..1]), ["test.json"]);
    }

    #[test]
    fn a_split_without_all_its_shards_is_refused() {
        let shard = |i: usize, of: usize| format!("data/train-{i:05}-of-{of:05}.parquet");
        let text = |shards: &[(usize, usize)]| {
            let files: Vec<String> = shards.iter().map(|(i, of)| shard(*i, *of)).collect();
            pick(&files, "", "train", "there").map_or_else(|e| render(&e), |s| s.files.len().to_string())
        };
        assert_eq!((text(&[(1, 2), (0, 2)]), text(&[(1, 2), (2, 2)])), ("2".to_owned(), "2".to_owned()));
        assert!(text(&[(0, 3)]).contains("of the 3 shards of the split `train` 1 are there; missing: 1, 2"));
        assert!(text(&[(0, 2), (1, 2), (0, 3)]).contains("lies there in 2 shards and in 3"));
        let twice = ["train-00000-of-00001-0a.parquet", "train-00000-of-00001-0b.parquet"];
        assert!(render(&picked(&twice, "", "train").unwrap_err()).contains("are the same shard of `train`"));
        // Within the folder of a split it is the same.
        let within = |folder: &str, shards: &[(usize, usize)]| {
            let name = |(i, of): &(usize, usize)| format!("{folder}/train-{i:05}-of-{of:05}.parquet");
            let files: Vec<String> = shards.iter().map(name).collect();
            pick(&files, folder.split_once('/').map_or("", |(config, _)| config), "train", "there")
                .map_or_else(|e| render(&e), |s| s.files.len().to_string())
        };
        for folder in ["train", "x/train"] {
            assert_eq!(within(folder, &[(1, 2), (0, 2)]), "2");
            let text = within(folder, &[(0, 2)]);
            assert!(text.contains(&format!("there, folder {folder}: of the 2 shards")), "{text}");
        }
        let forms = ["train/0000.jsonl", "train/0000.parquet", "train/0001.parquet"].map(str::to_owned);
        let once = pick(&forms, "", "train", "there").unwrap();
        assert_eq!(once.files, ["train/0000.jsonl", "train/0001.parquet"]);
        assert!(once.note.unwrap().contains("train/0000.jsonl, train/0000.parquet stand side by side"));
        let both =
            pick(&["train.json".to_owned(), "train.parquet".to_owned()], "", "train", "there").unwrap();
        assert_eq!(both.files, ["train.json"]);
        assert!(both.note.unwrap().contains("train.json, train.parquet stand side by side in there"));
    }
}
