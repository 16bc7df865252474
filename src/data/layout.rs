//! Which files of a directory or of a hub repository hold a split.

use std::collections::BTreeSet;

use crate::base::error::{HintExt, Result, anyhow, unknown};

use super::hinted::hinted;

/// Endings of files that hold rows, plain and compressed.
const ENDINGS: [&str; 5] = [".parquet", ".jsonl", ".json", ".jsonl.gz", ".json.gz"];

/// The files of one split, and what had to be decided to find them.
#[derive(Debug, PartialEq, Eq)]
pub struct Split {
    pub files: Vec<String>,
    pub note: Option<String>,
}

/// Picks the files of `split` among `files` (paths relative to the data set, with `/`):
/// `<config>/<split>.jsonl`, `<split>.jsonl`, `data/<split>.jsonl` or shards `<split>-00000-of-00002.jsonl`;
/// `.json`, `.gz` and `.parquet` likewise, and all files of a folder `<config>/<split>/`, as the hub's own
/// conversion to Parquet has them.
///
/// # Errors
/// Unknown configuration or split, with those that there are; `shown` names the data set.
pub fn pick(files: &[String], config: &str, split: &str, shown: &str) -> Result<Split> {
    let files: Vec<&str> = files.iter().map(String::as_str).filter(|f| stem(f).is_some()).collect();
    if files.is_empty() {
        return Err(anyhow!("no file of rows in {shown}"))
            .hint(format!("rows are read from {}", ENDINGS.join(", ")));
    }
    let holds = |folder: &str| files.iter().any(|f| f.starts_with(&format!("{folder}/{split}/")));
    let folders: BTreeSet<&str> = files.iter().filter_map(|f| f.rsplit_once('/')).map(|(d, _)| d).collect();
    let configs: Vec<&str> = folders.iter().copied().filter(|d| *d != "data").collect();
    let (roots, note) = if config.is_empty() {
        (vec!["", "data", "default"], None)
    } else if folders.contains(config) || holds(config) {
        (vec![config], None)
    } else if configs.is_empty() {
        // A flat copy of one configuration: there is nothing to confuse it with.
        let note = format!("{shown} has no folder `{config}`: its own files are taken");
        (vec!["", "data"], Some(note))
    } else {
        return Err(unknown("configuration", config, &configs)).map_err(|e| e.context(shown.to_owned()));
    };
    for root in &roots {
        let found = in_folder(&files, root, split);
        if !found.is_empty() {
            return Ok(Split { files: found, note });
        }
    }
    for root in roots.iter().filter(|root| !root.is_empty()) {
        let folder = format!("{root}/{split}/");
        let mut found: Vec<String> =
            files.iter().filter(|f| f.starts_with(&folder)).map(|f| (*f).to_owned()).collect();
        if !found.is_empty() {
            found.sort_unstable();
            return Ok(Split { files: found, note });
        }
    }
    Err(no_split(&files, &roots, &configs, config, split, shown))
}

fn in_folder(files: &[&str], folder: &str, split: &str) -> Vec<String> {
    let here: Vec<(&str, &str)> = files
        .iter()
        .filter(|f| f.rsplit_once('/').map_or("", |(d, _)| d) == folder)
        .filter_map(|f| Some((*f, stem(f)?)))
        .collect();
    if let Some((file, _)) = here.iter().find(|(_, stem)| *stem == split) {
        return vec![(*file).to_owned()];
    }
    let mut shards: Vec<String> =
        here.iter().filter(|(_, stem)| shard_of(stem) == Some(split)).map(|(f, _)| (*f).to_owned()).collect();
    shards.sort_unstable();
    shards
}

fn no_split(
    files: &[&str],
    roots: &[&str],
    configs: &[&str],
    config: &str,
    split: &str,
    shown: &str,
) -> anyhow::Error {
    let known: BTreeSet<&str> = files
        .iter()
        .filter(|f| roots.contains(&f.rsplit_once('/').map_or("", |(d, _)| d)))
        .filter_map(|f| stem(f))
        .map(|stem| shard_of(stem).unwrap_or(stem))
        .collect();
    if known.is_empty() && config.is_empty() {
        let error = anyhow!("{shown} has configurations, and none is named");
        return hinted(error, format!("set data.config to one of: {}", configs.join(", ")));
    }
    let known: Vec<&str> = known.into_iter().collect();
    unknown("split", split, &known).context(shown.to_owned())
}

/// The file's name without its ending, if it is one of rows. `dataset_infos.json` and their like describe
/// a data set and are none.
fn stem(file: &str) -> Option<&str> {
    let name = file.rsplit('/').next().unwrap_or(file);
    let ending = ENDINGS.iter().filter(|e| name.ends_with(*e)).max_by_key(|e| e.len())?;
    let stem = &name[..name.len() - ending.len()];
    let describes = ["dataset_infos", "dataset_info", "state", "config"].contains(&stem);
    (!describes && !stem.is_empty() && !stem.starts_with('.')).then_some(stem)
}

/// `train` for `train-00000-of-00002`, and for `train-00000-of-00002-<hash>`.
fn shard_of(stem: &str) -> Option<&str> {
    let (rest, of) = stem.rsplit_once("-of-")?;
    let (split, index) = rest.rsplit_once('-')?;
    let digits = |s: &str| !s.is_empty() && s.bytes().all(|b| b.is_ascii_digit());
    let (of, hash) = of.split_once('-').unwrap_or((of, "0"));
    (hash.bytes().all(|b| b.is_ascii_hexdigit()) && digits(of) && digits(index)).then_some(split)
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
        assert!(text("", "train").ends_with("hint: set data.config to one of: harmless-base, red"));
        assert!(
            render(&picked(&["README.md", "dataset_infos.json"], "", "train").unwrap_err())
                .contains("no file of rows")
        );
    }
}
