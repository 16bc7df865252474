//! Content hashes: how runs, caches and checkpoints are addressed.

use sha2::{Digest, Sha256};

/// Accumulates named parts; two inputs that differ in any part, or in where one part ends, differ in hash.
#[derive(Clone, Default)]
pub struct Hasher(Sha256);

impl Hasher {
    pub fn new(domain: &str) -> Self {
        Self::default().part(domain.as_bytes())
    }

    /// Adds a part, its length first.
    #[must_use]
    pub fn part(mut self, bytes: &[u8]) -> Self {
        self.0.update((bytes.len() as u64).to_le_bytes());
        self.0.update(bytes);
        self
    }

    #[must_use]
    pub fn ids(mut self, ids: &[u32]) -> Self {
        self.0.update((ids.len() as u64).to_le_bytes());
        for id in ids {
            self.0.update(id.to_le_bytes());
        }
        self
    }

    /// 64 hex digits.
    pub fn hex(self) -> String {
        self.0.finalize().iter().map(|b| format!("{b:02x}")).collect()
    }

    /// The first 12 hex digits: enough for an id that a person reads.
    pub fn short(self) -> String {
        self.hex()[..12].to_owned()
    }

    pub fn u64(self) -> u64 {
        let digest = self.0.finalize();
        u64::from_le_bytes(digest[..8].try_into().expect("a digest has 32 bytes"))
    }
}
