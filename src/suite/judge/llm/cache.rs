//! Replies on disk, addressed by what was asked.

use std::fs;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::base::atomic;
use crate::base::error::{Context, Result};
use crate::base::hash::Hasher;

/// What the endpoint said, and what it counted.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Reply {
    pub text: String,
    /// The endpoint ended it at `max_tokens`: what it would have said is not known.
    #[serde(default)]
    pub cut: bool,
    pub prompt_tokens: u64,
    pub completion_tokens: u64,
}

/// A folder of replies: one file each, named by the hash of endpoint and request. Keys are no part of it.
pub struct Cache(PathBuf);

impl Cache {
    /// # Errors
    /// If the folder cannot be made.
    pub fn open(folder: &Path) -> Result<Self> {
        fs::create_dir_all(folder)
            .with_context(|| format!("making the judge's cache {}", folder.display()))?;
        Ok(Self(folder.to_owned()))
    }

    pub fn get(&self, url: &str, request: &Value) -> Option<Reply> {
        // A file that cannot be read is the same as none: the question is asked again.
        serde_json::from_str(&fs::read_to_string(self.path(url, request)).ok()?).ok()
    }

    /// # Errors
    /// If the file cannot be written.
    pub fn put(&self, url: &str, request: &Value, reply: &Reply) -> Result<()> {
        atomic::write(&self.path(url, request), serde_json::to_string(reply)?.as_bytes())
    }

    fn path(&self, url: &str, request: &Value) -> PathBuf {
        let hash = Hasher::new("judge").part(url.as_bytes()).part(request.to_string().as_bytes());
        self.0.join(format!("{}.json", hash.hex()))
    }
}
