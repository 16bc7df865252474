//! The Hugging Face hub: which cache, which endpoint, and what to fetch.
//!
//! The environment is read as everyone else's tools read it: `HF_HOME` and `HF_HUB_CACHE` (where the cache
//! is), `HF_ENDPOINT`, `HF_TOKEN` (or the token file), `HF_HUB_OFFLINE`.

use std::cell::Cell;
use std::collections::BTreeSet;
use std::env;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};

use hf_hub::api::sync::{Api, ApiBuilder, ApiError, ApiRepo};
use hf_hub::{Cache, CacheRepo, Repo, RepoType};

use crate::base::error::{Context, HintExt, Result, anyhow, bail};

use super::hinted::hinted;
use super::layout;

/// Files of an adapter in PEFT's form. The first must exist where there is no model.
const ADAPTER_FILES: [&str; 2] = ["adapter_config.json", "adapter_model.safetensors"];

/// Files of a model that are fetched, beside its weights. The first must exist.
const MODEL_FILES: [&str; 8] = [
    "config.json",
    "generation_config.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "chat_template.jinja",
    "model.safetensors.index.json",
];

/// Whether transfers draw their progress on stderr (where that is a terminal).
static PROGRESS: AtomicBool = AtomicBool::new(true);

/// No progress bars of transfers from here on.
pub fn hide_progress() {
    PROGRESS.store(false, Ordering::Relaxed);
}

/// Whether `source` has the form of a hub id: `name` or `owner/name`.
pub fn is_id(source: &str) -> bool {
    let part = |p: &str| {
        let plain = |b: u8| b.is_ascii_alphanumeric() || b"-_.".contains(&b);
        !p.is_empty() && p.len() <= 96 && p.bytes().all(plain) && !p.starts_with('.') && !p.ends_with('.')
    };
    match source.split('/').collect::<Vec<_>>()[..] {
        [name] => part(name),
        [owner, name] => part(owner) && part(name),
        _ => false,
    }
}

/// The directory that holds a model: `source` itself, or, for a hub id, its snapshot in the hub's cache,
/// fetched first where it is missing.
///
/// # Errors
/// No such directory and no such model, no network, a gated model without a token.
pub fn resolve_model(source: &str, revision: &str) -> Result<PathBuf> {
    let path = Path::new(source);
    if path.is_dir() {
        return Ok(path.to_owned());
    }
    if source == "world" {
        bail!("`world` is made by the program: it has no directory until its base model is trained");
    }
    if path.is_file() {
        return Err(anyhow!("{source} is a file"))
            .hint("a model is a directory with config.json, weights and tokenizer.json");
    }
    if !is_id(source) {
        return Err(anyhow!("no such model directory: {source}"))
            .hint("give a Hugging Face directory or a hub id (owner/name)");
    }
    fetch_model(source, revision)
        .with_context(|| format!("`{source}` is no directory here, so it was taken as a hub id"))
}

fn fetch_model(id: &str, revision: &str) -> Result<PathBuf> {
    let hub = Hub::open(id, RepoType::Model, revision)?;
    let have = hub.files()?;
    let there = |file: &str| have.iter().any(|h| h == file);
    let adapter = there(ADAPTER_FILES[0]) && !there(MODEL_FILES[0]);
    if !adapter && !have.iter().any(|f| is_weights(f)) {
        return Err(anyhow!("the hub's model {id} has no safetensors weights"))
            .hint("convert it to safetensors (transformers: save_pretrained)");
    }
    let beside = MODEL_FILES.iter().skip(1).copied().filter(|f| there(f));
    let own: &[&str] = if adapter { &ADAPTER_FILES } else { &MODEL_FILES[..1] };
    let wanted: Vec<&str> = own
        .iter()
        .copied()
        .chain(beside)
        .chain(have.iter().map(String::as_str).filter(|f| is_weights(f)))
        .collect();
    let files = hub.of_one_commit(&wanted, "model.revision")?;
    files.first().and_then(|file| file.parent()).map(Path::to_owned).context("a model has files")
}

/// A path that stays below the folder that it is relative to.
fn is_plain(file: &str) -> bool {
    use std::path::Component;
    let below = Path::new(file).components().all(|c| matches!(c, Component::Normal(_)));
    below && !file.is_empty() && !file.contains('\\')
}

/// `model.safetensors` or a shard of it; other files of weights are other precisions or adapters.
fn is_weights(file: &str) -> bool {
    file == "model.safetensors" || (file.starts_with("model-") && file.ends_with(".safetensors"))
}

/// The files of a split of a data set on the hub, fetched where they are missing.
///
/// # Errors
/// As [`resolve_model`]; unknown configuration or split.
pub fn resolve_dataset(
    id: &str,
    revision: &str,
    config: &str,
    split: &str,
) -> Result<(Vec<PathBuf>, Option<String>)> {
    let hub = Hub::open(id, RepoType::Dataset, revision)?;
    let picked = layout::pick(&hub.files()?, config, split, id);
    let picked = if hub.cut_off.get() {
        picked.hint(
            "the hub could not be reached, and these are the files that the cache has: check the network",
        )
    } else {
        picked
    }?;
    Ok((hub.of_one_commit(&picked.files, "data.revision")?, picked.note))
}

/// One repository at one revision.
struct Hub {
    id: String,
    snapshot: Option<PathBuf>,
    cache: CacheRepo,
    /// Absent where the environment asks for offline work.
    api: Option<(Api, ApiRepo)>,
    /// Nobody answered, and the cache stands in.
    cut_off: Cell<bool>,
}

impl Hub {
    fn open(id: &str, kind: RepoType, revision: &str) -> Result<Self> {
        let revision = if revision.is_empty() { "main" } else { revision };
        let plain = |b: u8| b.is_ascii_alphanumeric() || b"-_./".contains(&b);
        if !revision.bytes().all(plain) || revision.contains("..") {
            bail!("`{revision}` is no revision (a branch, a tag or a commit)");
        }
        let cache = cache()?;
        let repo = Repo::with_revision(id.to_owned(), kind, revision.to_owned());
        let folder = cache.path().join(repo.folder_name());
        let commit = std::fs::read_to_string(folder.join("refs").join(revision));
        let commit = commit.map_or_else(|_| revision.to_owned(), |c| c.trim().to_owned());
        let snapshot = Some(folder.join("snapshots").join(commit)).filter(|s| s.is_dir());
        let cached = cache.repo(repo.clone());
        let api = match is_set("HF_HUB_OFFLINE") {
            true => None,
            false => {
                let api = api(cache)?;
                let of_repo = api.repo(repo);
                Some((api, of_repo))
            }
        };
        Ok(Self { id: id.to_owned(), snapshot, cache: cached, api, cut_off: Cell::new(false) })
    }

    /// All files of the repository; offline, or where nobody answers, those in the cache.
    fn files(&self) -> Result<Vec<String>> {
        let Some((_, api)) = &self.api else {
            let Some(snapshot) = &self.snapshot else { return Err(self.offline("it")) };
            return walk(snapshot);
        };
        let info = match (api.info(), &self.snapshot) {
            (Ok(info), _) => info,
            // As huggingface_hub has it: a hub that cannot be reached is no reason not to use what is here.
            (Err(e), Some(snapshot)) if unreachable(&e) => {
                self.cut_off.set(true);
                return walk(snapshot);
            }
            (Err(e), _) => return Err(self.explain(&e.to_string(), "its list of files")),
        };
        let files: Vec<String> = info.siblings.into_iter().map(|s| s.rfilename).collect();
        // Their names become paths in the cache.
        match files.iter().find(|f| !is_plain(f)) {
            Some(file) => bail!("the hub's repository {} lists `{file}`, which leads out of it", self.id),
            None => Ok(files),
        }
    }

    fn get(&self, file: &str) -> Result<PathBuf> {
        let Some((api, repo)) = &self.api else {
            let cached = self.snapshot.as_ref().map(|s| s.join(file)).filter(|p| p.exists());
            return cached.ok_or_else(|| self.offline(file));
        };
        if let Some(path) = self.cache.get(file) {
            return Ok(path);
        }
        let explain = |e: ApiError| self.explain(&e.to_string(), file);
        let mut found = (0, 0);
        // A transfer that was taken up again may have been taken up at the wrong place: what lies in the cache
        // afterwards is held to the size that was announced, and fetched anew where it differs.
        for _ in 0..2 {
            let announced = api.metadata(&repo.url(file)).map_err(explain)?;
            let part = self.cache.blob_path(announced.etag()).with_extension("part");
            if std::fs::metadata(&part).is_ok_and(|m| m.len() > announced.size() as u64) {
                std::fs::remove_file(&part).with_context(|| format!("removing {}", part.display()))?;
            }
            let path = repo.get(file).map_err(explain)?;
            let length =
                std::fs::metadata(&path).with_context(|| format!("reading {}", path.display()))?.len();
            if length == announced.size() as u64 {
                return Ok(path);
            }
            found = (length, announced.size());
            for wrong in [path.canonicalize().unwrap_or_else(|_| path.clone()), path] {
                // The second is a link to the first, or the same file.
                let _ = std::fs::remove_file(wrong);
            }
        }
        let error = anyhow!("{file} of {} came as {} bytes, {} were announced", self.id, found.0, found.1);
        Err(error).hint("try again later; nothing of it is kept in the cache")
    }

    /// The files, all of them of one commit.
    ///
    /// # Errors
    /// As [`Hub::get`]; the branch moves meanwhile. `key` is what names a revision.
    fn of_one_commit(&self, files: &[impl AsRef<str>], key: &str) -> Result<Vec<PathBuf>> {
        // Where the branch has moved since a part of it was cached, the first pass ends in two snapshots; the
        // second one completes the newer.
        for _ in 0..2 {
            let (mut paths, mut snapshots) = (Vec::new(), BTreeSet::new());
            for file in files {
                let path = self.get(file.as_ref())?;
                let depth = file.as_ref().split('/').count();
                snapshots.extend(path.ancestors().nth(depth).map(Path::to_owned));
                paths.push(path);
            }
            if snapshots.len() <= 1 {
                return Ok(paths);
            }
        }
        Err(anyhow!("the files of {} belong to more than one commit", self.id))
            .hint(format!("name a commit: {key} = \"<40 hex digits>\""))
    }

    fn offline(&self, what: &str) -> anyhow::Error {
        let error = anyhow!("HF_HUB_OFFLINE is set, and {what} is not in the cache ({})", self.id);
        hinted(error, "unset HF_HUB_OFFLINE to fetch it, or point HF_HOME at the cache that has it")
    }

    fn explain(&self, error: &str, what: &str) -> anyhow::Error {
        let status = |codes: &[u16]| codes.iter().any(|code| error.contains(&format!("status: {code}")));
        let hint = if status(&[401, 403]) {
            "the repository does not exist, or it is gated or private: set HF_TOKEN to a token that may read it"
        } else if ["No space left", "os error 28", "quota"].iter().any(|sign| error.contains(sign)) {
            "the disk of the cache is full: free some space, or point HF_HOME at another one; what has come so \
             far is kept, and the same command goes on from there"
        } else if ["status: 5", "status: 429"].iter().any(|sign| error.contains(sign)) {
            "the hub itself is failing or busy: try again later"
        } else if status(&[404]) {
            "the hub knows no such repository, revision or file: check the spelling"
        } else {
            "check the network; or copy the directory here and give its path"
        };
        let endpoint = endpoint().unwrap_or_default();
        let mut text = format!("fetching {what} of {} from {endpoint}: {error}", self.id);
        // Whatever a server sends back, the token is in no message.
        for token in variable("HF_TOKEN").into_iter().chain(cache().ok().and_then(|c| c.token())) {
            text = text.replace(&token, "[token]");
        }
        hinted(anyhow!(text), hint)
    }
}

fn is_set(variable: &str) -> bool {
    env::var(variable).is_ok_and(|v| ["1", "on", "true", "yes"].contains(&v.to_lowercase().as_str()))
}

/// Whether no answer came at all.
fn unreachable(error: &ApiError) -> bool {
    use ureq::Error::{ConnectionFailed, HostNotFound, Io, Timeout};
    matches!(error, ApiError::RequestError(e) if matches!(**e, Io(_) | HostNotFound | ConnectionFailed | Timeout(_)))
}

/// A variable of the environment, unless it is absent or empty.
fn variable(name: &str) -> Option<String> {
    env::var(name).ok().map(|value| value.trim().to_owned()).filter(|value| !value.is_empty())
}

fn endpoint() -> Result<String> {
    let endpoint = variable("HF_ENDPOINT").unwrap_or_else(|| "https://huggingface.co".to_owned());
    if !endpoint.starts_with("http://") && !endpoint.starts_with("https://") {
        bail!("HF_ENDPOINT is `{endpoint}`; it must begin with https:// or http://");
    }
    Ok(endpoint.trim_end_matches('/').to_owned())
}

fn cache() -> Result<Cache> {
    let home = || {
        let cache = variable("XDG_CACHE_HOME").map(PathBuf::from);
        let cache = cache.or_else(|| env::home_dir().map(|home| home.join(".cache")));
        cache.map(|cache| cache.join("huggingface"))
    };
    let path = variable("HF_HUB_CACHE")
        .map(PathBuf::from)
        .or_else(|| variable("HF_HOME").map(PathBuf::from).or_else(home).map(|home| home.join("hub")));
    path.map(Cache::new).context("no home directory for the hub's cache").hint("set HF_HOME to a folder")
}

fn api(cache: Cache) -> Result<Api> {
    let token = variable("HF_TOKEN").or_else(|| cache.token());
    let builder = ApiBuilder::from_cache(cache).with_endpoint(endpoint()?).with_token(token).with_retries(3);
    let builder = builder.with_progress(PROGRESS.load(Ordering::Relaxed));
    builder.build().context("preparing to talk to the hub")
}

/// Files below a snapshot, which are links into the cache's blobs.
fn walk(snapshot: &Path) -> Result<Vec<String>> {
    let mut files = Vec::new();
    let mut folders = vec![snapshot.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(&folder).with_context(|| format!("listing {}", folder.display()))? {
            let path = entry?.path();
            if path.is_dir() {
                folders.push(path);
            } else if let Ok(relative) = path.strip_prefix(snapshot) {
                files.push(relative.to_string_lossy().into_owned());
            }
        }
    }
    files.sort_unstable();
    Ok(files)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hub_ids_are_told_from_paths() {
        for id in ["gpt2", "EleutherAI/pythia-1.4b", "Anthropic/hh-rlhf"] {
            assert!(is_id(id), "{id}");
        }
        for path in ["", "./gpt2", "../models/x", "/abs/path", "a/b/c", "data/", "a b", "x/..", "https://h/x"]
        {
            assert!(!is_id(path), "{path}");
        }
    }

    #[test]
    fn what_leads_out_of_a_repository_is_no_file_of_it() {
        assert!(is_plain("data/train-00000-of-00001.parquet") && is_plain("a..b"));
        for file in ["../x", "model-/../../x.safetensors", "/etc/passwd", "", "a/..", r"..\x"] {
            assert!(!is_plain(file), "{file}");
        }
    }

    #[test]
    fn only_plain_weights_are_fetched() {
        assert!(is_weights("model.safetensors") && is_weights("model-00001-of-00002.safetensors"));
        assert!(!is_weights("adapter_model.safetensors") && !is_weights("model.fp16.bin"));
    }
}
