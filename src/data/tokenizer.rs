//! A model's tokenizer: the Hugging Face `tokenizer.json` and what its neighbours say about it.

use std::fs;
use std::path::{Path, PathBuf};

use serde_json::Value;

use crate::base::caught::caught;
use crate::base::error::{Context, HintExt, Result, anyhow, bail};

use super::template::Template;

/// Files beside `tokenizer.json` that belong to the tokenizer.
const FILES: [&str; 8] = [
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "chat_template.jinja",
    "vocab.json",
    "merges.txt",
    "tokenizer.model",
];

/// The files of a tokenizer that `dir` holds.
pub fn tokenizer_files(dir: &Path) -> Vec<PathBuf> {
    FILES.iter().map(|f| dir.join(f)).filter(|p| p.is_file()).collect()
}

/// A tokenizer with its special tokens.
pub struct Tokenizer {
    inner: tokenizers::Tokenizer,
    dir: PathBuf,
    /// What the tokenizer's own post-processor puts before a text: BOS for most Llamas, often nothing.
    prefix: Vec<u32>,
    bos: Option<u32>,
    eos: u32,
    pad: u32,
    stops: Vec<u32>,
    unknown: Option<u32>,
    template: Option<Template>,
}

impl std::fmt::Debug for Tokenizer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Tokenizer").field("dir", &self.dir).field("eos", &self.eos).finish_non_exhaustive()
    }
}

impl Tokenizer {
    /// Reads `tokenizer.json` in `dir`; special tokens come from `tokenizer_config.json`,
    /// `special_tokens_map.json`, `generation_config.json` and `config.json`, in this order.
    ///
    /// # Errors
    /// A missing or malformed file, no EOS token, a chat template that does not parse.
    pub fn load(dir: &Path) -> Result<Self> {
        let path = dir.join("tokenizer.json");
        if !path.exists() {
            return Err(anyhow!("no tokenizer.json in {}", dir.display()))
                .hint("a tokenizer in another form can be saved as one by transformers: AutoTokenizer.from_pretrained(dir).save_pretrained(dir)");
        }
        let read = guarded("reading it", || tokenizers::Tokenizer::from_file(&path));
        let mut inner = read.with_context(|| path.display().to_string())?;
        // Cutting is ours to do and to count; packing needs no padding.
        inner.with_truncation(None).map_err(|e| anyhow!("{}: {e}", path.display()))?;
        inner.with_padding(None);
        let read = Special::read(dir)?;
        let eos = read.id(&inner, "eos").ok_or_else(|| anyhow!("{} names no EOS token", dir.display()));
        let eos =
            eos.hint("set eos_token in tokenizer_config.json, or eos_token_id in generation_config.json")?;
        let (bos, pad) = (read.id(&inner, "bos"), read.id(&inner, "pad").unwrap_or(eos));
        let (prefix, unknown) = (prefix(&inner)?, read.id(&inner, "unk"));
        let mut stops = vec![eos];
        stops.extend(read.stops().into_iter().filter(|&id| id != eos));
        let mut tokenizer =
            Self { inner, dir: dir.to_owned(), prefix, bos, eos, pad, stops, unknown, template: None };
        tokenizer.template = tokenizer.read_template(&read)?;
        Ok(tokenizer)
    }

    /// Token ids of `text` alone: of a piece that stands within a text.
    pub fn encode_within(&self, text: &str) -> Result<Vec<u32>> {
        let encoding = guarded("tokenizing", || self.inner.encode_fast(text, false))?;
        Ok(encoding.get_ids().to_vec())
    }

    /// Token ids of `text`, with BOS before them if the tokenizer's own post-processor puts it there and the
    /// text does not begin with it already (a rendered chat does). Never with EOS after them.
    pub fn encode(&self, text: &str) -> Result<Vec<u32>> {
        let ids = self.encode_within(text)?;
        if self.prefix.is_empty() || ids.starts_with(&self.prefix) {
            return Ok(ids);
        }
        Ok(self.prefix.iter().chain(&ids).copied().collect())
    }

    /// The text of `ids`, special tokens left out.
    pub fn decode(&self, ids: &[u32]) -> Result<String> {
        guarded("decoding", || self.inner.decode(ids, true))
    }

    /// The text of `ids`, special tokens included.
    pub fn decode_all(&self, ids: &[u32]) -> Result<String> {
        guarded("decoding", || self.inner.decode(ids, false))
    }

    pub fn bos(&self) -> Option<u32> {
        self.bos
    }

    pub fn eos(&self) -> u32 {
        self.eos
    }

    /// EOS where the tokenizer names no padding token.
    pub fn pad(&self) -> u32 {
        self.pad
    }

    /// What stands for text that the vocabulary lacks, if there is such a token.
    pub fn unknown(&self) -> Option<u32> {
        self.unknown
    }

    /// Tokens that end a generation: EOS, and what `generation_config.json` lists beside it.
    pub fn stops(&self) -> &[u32] {
        &self.stops
    }

    /// One more than the largest token id.
    pub fn vocab_size(&self) -> usize {
        self.inner.get_vocab(true).values().max().map_or(0, |&id| id as usize + 1)
    }

    /// Whether it brings a chat template of its own.
    pub fn has_template(&self) -> bool {
        self.template.is_some()
    }

    /// The tokenizer's chat template; the HH transcript form where it has none.
    pub fn template(&self) -> Template {
        self.template.clone().unwrap_or_default()
    }

    /// # Errors
    /// If a token id is beyond the model's vocabulary. A model may have more ids than its tokenizer (padded).
    pub fn check_fits(&self, model_vocab: usize) -> Result<()> {
        let needed = self.vocab_size();
        if needed <= model_vocab {
            return Ok(());
        }
        let last = self.inner.id_to_token(needed as u32 - 1).unwrap_or_default();
        Err(anyhow!(
            "the tokenizer in {} does not fit the model: its ids go up to {} (`{last}`), the model's vocabulary is {model_vocab}",
            self.dir.display(),
            needed - 1
        ))
        .hint("take the tokenizer that the model was trained with, or resize the model's embeddings")
    }

    /// The tokenizer's files, to be copied beside a checkpoint.
    pub fn files(&self) -> Vec<PathBuf> {
        tokenizer_files(&self.dir)
    }

    fn read_template(&self, read: &Special) -> Result<Option<Template>> {
        let token = |id: Option<u32>| id.and_then(|id| self.inner.id_to_token(id)).unwrap_or_default();
        let (bos, eos) = (token(self.bos), token(Some(self.eos)));
        let file = self.dir.join("chat_template.jinja");
        if file.is_file() {
            let source = fs::read_to_string(&file).with_context(|| format!("reading {}", file.display()))?;
            return Template::parse(&source, &bos, &eos, &file.display().to_string()).map(Some);
        }
        let source = match &read.tokenizer_config["chat_template"] {
            Value::String(source) => source,
            // Several by name: the one that chats without tools.
            Value::Array(named) => {
                match named.iter().find(|t| t["name"] == "default").map(|t| &t["template"]) {
                    Some(Value::String(source)) => source,
                    _ => return Ok(None),
                }
            }
            _ => return Ok(None),
        };
        let origin = self.dir.join("tokenizer_config.json");
        Template::parse(source, &bos, &eos, &origin.display().to_string()).map(Some)
    }
}

/// A call of the library, which panics on some files that contradict themselves.
fn guarded<T>(doing: &str, call: impl FnOnce() -> tokenizers::Result<T>) -> Result<T> {
    match caught(call) {
        Ok(result) => result.map_err(|e| anyhow!("{doing}: {e}")),
        Err(panic) => Err(anyhow!("{doing}: tokenizer.json contradicts itself: {panic}")),
    }
}

/// What the tokenizer's post-processor puts before a text, found by asking it.
fn prefix(inner: &tokenizers::Tokenizer) -> Result<Vec<u32>> {
    let ids = |special| {
        let encoding = guarded("tokenizing", || inner.encode_fast("a", special))?;
        Result::Ok(encoding.get_ids().to_vec())
    };
    let (plain, special) = (ids(false)?, ids(true)?);
    if plain.is_empty() {
        return Ok(Vec::new());
    }
    let at = special.windows(plain.len()).position(|w| w == plain).unwrap_or(0);
    Ok(special[..at].to_vec())
}

/// The files that name special tokens; absent ones read as null.
struct Special {
    tokenizer_config: Value,
    special_tokens_map: Value,
    generation_config: Value,
    config: Value,
}

impl Special {
    fn read(dir: &Path) -> Result<Self> {
        Ok(Self {
            tokenizer_config: read_json(&dir.join("tokenizer_config.json"))?,
            special_tokens_map: read_json(&dir.join("special_tokens_map.json"))?,
            generation_config: read_json(&dir.join("generation_config.json"))?,
            config: read_json(&dir.join("config.json"))?,
        })
    }

    /// The id of `bos`, `eos`, `pad` or `unk`: of the first file that names its text; where none does, by its id. A
    /// tokenizer that says null has no such token, whatever id the model's configuration has for it (Qwen2.5's BOS); only
    /// EOS is looked for further, since nothing ends without one.
    fn id(&self, inner: &tokenizers::Tokenizer, name: &str) -> Option<u32> {
        let key = format!("{name}_token");
        let said =
            [&self.tokenizer_config, &self.special_tokens_map].into_iter().filter_map(|file| file.get(&key));
        for token in said {
            let text = token.as_str().or_else(|| token["content"].as_str());
            match text.and_then(|text| inner.token_to_id(text)) {
                None if token.is_null() && name != "eos" => return None,
                None => {}
                found => return found,
            }
        }
        let by_id = [&self.generation_config, &self.config].into_iter();
        by_id.flat_map(|file| ids(&file[format!("{key}_id")])).next()
    }

    fn stops(&self) -> Vec<u32> {
        ids(&self.generation_config["eos_token_id"])
    }
}

/// `7` or `[7, 8]`.
fn ids(value: &Value) -> Vec<u32> {
    let id = |v: &Value| v.as_u64().and_then(|id| u32::try_from(id).ok());
    match value {
        Value::Array(ids) => ids.iter().filter_map(id).collect(),
        one => id(one).into_iter().collect(),
    }
}

fn read_json(path: &Path) -> Result<Value> {
    if !path.exists() {
        return Ok(Value::Null);
    }
    let text = fs::read_to_string(path).with_context(|| format!("reading {}", path.display()))?;
    match serde_json::from_str(&text) {
        Ok(value @ Value::Object(_)) => Ok(value),
        Ok(_) => bail!("{}: an object is expected", path.display()),
        Err(e) => bail!("{}:{}: not JSON: {e}", path.display(), e.line()),
    }
}
