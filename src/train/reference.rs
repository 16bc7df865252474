//! Log-probs under the reference: computed once, shared by all arms and seeds, kept for the next time.

use super::micro::{packs, sums};
use crate::base::atomic;
use crate::base::cache;
use crate::base::error::{Context, HintExt, Result, ensure};
use crate::base::hash::Hasher;
use crate::data::Sequence;
use crate::model::{Decoder, Packed};
use std::collections::{BTreeMap, HashSet};
use std::path::{Path, PathBuf};
use std::sync::Mutex;

/// Completion log-prob sums under one reference model, addressed by content: weights, ids, prompt length.
///
/// With a folder, what was computed before is read when it opens, and [`ReferenceCache::save`] writes it
/// back. A file that does not hold together is left aside: a cache may be lost, never wrong.
pub struct ReferenceCache {
    /// Hash of the reference's weights.
    weights: String,
    path: Option<PathBuf>,
    state: Mutex<State>,
}

/// What was computed cannot be kept, in this file: no other run would fare better, and none is to blame.
#[derive(Clone, Debug, thiserror::Error)]
#[error("saving reference log-probs to {0}")]
pub struct NotKept(String);

#[derive(Default)]
struct State {
    sums: BTreeMap<u64, f64>,
    changed: bool,
}

/// The reference model with its cache.
#[derive(Clone, Copy)]
pub struct Reference<'a> {
    /// `None`: the policy as training finds it. All that a run will ask is then asked before its first update.
    pub decoder: Option<&'a Decoder>,
    pub cache: &'a ReferenceCache,
}

impl ReferenceCache {
    /// The user's folder for it, where there is one.
    pub fn user_folder() -> Option<PathBuf> {
        cache::user_folder().map(|folder| folder.join("reference"))
    }

    /// An empty cache in memory, or what `folder` holds for these weights.
    pub fn open(weights: &str, folder: Option<&Path>) -> Self {
        let path = folder.map(|f| {
            f.join(format!(
                "{}.logps",
                Hasher::new("kto-eval/reference/packed").part(weights.as_bytes()).short()
            ))
        });
        let sums =
            path.as_deref().and_then(|p| std::fs::read(p).ok()).and_then(|b| decode(&b)).unwrap_or_default();
        Self { weights: weights.to_owned(), path, state: Mutex::new(State { sums, changed: false }) }
    }

    /// Writes what was added, aside first and then in place of the old file. A cache only in memory, or
    /// without news, writes nothing.
    ///
    /// # Errors
    /// The folder cannot be written.
    pub fn save(&self) -> Result<()> {
        let Some(path) = &self.path else { return Ok(()) };
        let mut state = self.lock();
        if !state.changed {
            return Ok(());
        }
        atomic::write(path, &encode(&state.sums))
            .hint(cache::ELSEWHERE)
            .with_context(|| NotKept(path.display().to_string()))?;
        state.changed = false;
        Ok(())
    }

    /// Hash of the weights that the log-probs are of.
    pub fn weights(&self) -> &str {
        &self.weights
    }

    /// Sequences known.
    pub fn len(&self) -> usize {
        self.lock().sums.len()
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    fn key(&self, sequence: &Sequence) -> u64 {
        // 64 bits of SHA-256: with a million sequences a collision has probability 3e-8.
        Hasher::new("kto-eval/logps")
            .part(self.weights.as_bytes())
            .ids(&sequence.ids)
            .part(&(sequence.prompt_len as u64).to_le_bytes())
            .u64()
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, State> {
        // A poisoned lock means that another thread panicked between two insertions; each is whole.
        self.state.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}

impl<'a> Reference<'a> {
    pub fn new(decoder: &'a Decoder, cache: &'a ReferenceCache) -> Self {
        Self { decoder: Some(decoder), cache }
    }

    /// The policy itself before its first update: one copy of the weights less than [`Reference::new`]. Not for a
    /// budget in seconds, whose steps are not known beforehand.
    pub fn start(cache: &'a ReferenceCache) -> Self {
        Self { decoder: None, cache }
    }

    /// (n,) Σ log π_ref over each completion; those not known yet are computed.
    ///
    /// They go in packed batches of at most `pack_tokens` tokens, those with the same prompt together. On the CPU
    /// a log-prob has the same bits whatever it is packed with (in f32 and f64); else a resumed run, or one whose cache another
    /// arm has filled, would differ from a fresh one.
    ///
    /// # Errors
    /// A forward pass fails, or a log-prob is not finite; one is not known, and there is no model to ask.
    pub fn logps(&self, sequences: &[&Sequence], pack_tokens: usize) -> Result<Vec<f64>> {
        let keys: Vec<u64> = sequences.iter().map(|s| self.cache.key(s)).collect();
        let mut missing: Vec<usize> = {
            let (state, mut seen) = (self.cache.lock(), HashSet::new());
            (0..keys.len()).filter(|&i| !state.sums.contains_key(&keys[i]) && seen.insert(keys[i])).collect()
        };
        missing.sort_by(|&a, &b| sequences[a].prompt().cmp(sequences[b].prompt()));
        let wanted: Vec<&Sequence> = missing.iter().map(|&i| sequences[i]).collect();
        let unknown = missing.len();
        let of = |packed: &Packed| {
            let decoder = self.decoder.with_context(|| {
                format!("{unknown} reference log-probs were not computed before the first update")
            })?;
            Ok(sums(packed, &decoder.logps(packed)?))
        };
        let computed: Vec<Vec<f64>> = packs(&wanted, pack_tokens).iter().map(of).collect::<Result<_>>()?;
        let mut state = self.cache.lock();
        for (&i, &sum) in missing.iter().zip(computed.iter().flatten()) {
            ensure!(
                sum.is_finite(),
                "the reference gives a sequence of {} tokens the log-prob {sum}",
                sequences[i].ids.len()
            );
            state.sums.insert(keys[i], sum);
            state.changed = true;
        }
        Ok(keys.iter().map(|key| state.sums[key]).collect())
    }
}

const MAGIC: &[u8; 8] = b"ktologp1";

/// Magic, (key, sum) pairs in order of key, and a checksum of all before it.
fn encode(sums: &BTreeMap<u64, f64>) -> Vec<u8> {
    let mut bytes = MAGIC.to_vec();
    for (key, sum) in sums {
        bytes.extend(key.to_le_bytes());
        bytes.extend(sum.to_le_bytes());
    }
    let checksum = Hasher::new("kto-eval/logps-file").part(&bytes).u64();
    bytes.extend(checksum.to_le_bytes());
    bytes
}

fn decode(bytes: &[u8]) -> Option<BTreeMap<u64, f64>> {
    let (body, checksum) = bytes.split_at_checked(bytes.len().checked_sub(8)?)?;
    let pairs = body.strip_prefix(MAGIC)?;
    let expected = Hasher::new("kto-eval/logps-file").part(body).u64();
    if checksum != expected.to_le_bytes() || pairs.len() % 16 != 0 {
        return None;
    }
    let word = |b: &[u8]| <[u8; 8]>::try_from(b).ok();
    pairs
        .chunks_exact(16)
        .map(|c| Some((u64::from_le_bytes(word(&c[..8])?), f64::from_le_bytes(word(&c[8..])?))))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_file_is_read_back_whole_or_not_at_all() {
        let sums: BTreeMap<u64, f64> = (0..100).map(|i| (i * 7919, -(i as f64) / 3.0)).collect();
        let bytes = encode(&sums);
        assert_eq!(decode(&bytes), Some(sums));
        assert_eq!(decode(&encode(&BTreeMap::new())), Some(BTreeMap::new()));
        for broken in [0, 1, 7, 16, bytes.len() / 2, bytes.len() - 1] {
            assert_eq!(decode(&bytes[..broken]), None, "cut to {broken} bytes");
        }
        for i in (0..bytes.len()).step_by(37) {
            let mut flipped = bytes.clone();
            flipped[i] ^= 4;
            assert_eq!(decode(&flipped), None, "byte {i} changed");
        }
    }

    #[test]
    fn a_cache_outlives_its_process_and_knows_its_model() {
        let folder = tempfile::tempdir().unwrap();
        let cache = ReferenceCache::open("weights-a", Some(folder.path()));
        let sequence = Sequence { ids: [1, 2, 3].into(), prompt_len: 1 };
        let other = Sequence { ids: [1, 2, 3].into(), prompt_len: 2 };
        assert_ne!(cache.key(&sequence), cache.key(&other), "the prompt's length is part of the address");
        {
            let mut state = cache.lock();
            state.sums.insert(cache.key(&sequence), -1.5);
            state.changed = true;
        }
        cache.save().unwrap();
        assert_eq!(ReferenceCache::open("weights-a", Some(folder.path())).len(), 1);
        assert!(ReferenceCache::open("weights-b", Some(folder.path())).is_empty());
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1, "nothing is left aside");
    }
}
