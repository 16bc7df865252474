//! What readers expect around the file that they are given.

use std::path::{Path, PathBuf};

use kto_eval::model::Decoder;
use kto_eval::plan::LoraSpec;
use kto_eval::record::files;
use kto_eval::suite::judge::llm::JudgeTemplate;

use crate::seeds;

/// A thread's own folder, with a tiny model and a folder of records.
pub struct Place {
    dir: tempfile::TempDir,
    pub start: Decoder,
    pub judge: JudgeTemplate,
}

impl Place {
    pub fn new() -> Self {
        // In memory where the system has a place there: millions of files pass through.
        let shm = Path::new("/dev/shm");
        let dir = if shm.is_dir() { tempfile::tempdir_in(shm) } else { tempfile::tempdir() }.unwrap();
        let place = Self { dir, start: seeds::tiny(), judge: JudgeTemplate::pairwise().unwrap() };
        place.start.save(&place.path("model")).unwrap();
        seeds::world().write_tokenizer(&place.path("model")).unwrap();
        for copy in ["tokenizer", "sharded", "adapter", "records", "checkpoint", "configured"] {
            std::fs::create_dir(place.path(copy)).unwrap();
        }
        for (copy, names) in [
            ("tokenizer", &["tokenizer.json", "tokenizer_config.json", "config.json"][..]),
            ("configured", &["tokenizer.json", "config.json"]),
            ("sharded", &["config.json"]),
        ] {
            for name in names.iter().filter(|n| place.path("model").join(n).exists()) {
                std::fs::copy(place.path("model").join(name), place.path(copy).join(name)).unwrap();
            }
        }
        let shard = place.path("sharded").join("model-00001-of-00002.safetensors");
        std::fs::copy(place.path("model/model.safetensors"), shard).unwrap();
        let lora = LoraSpec { rank: 2, ..seeds::lora() };
        place.start.with_adapter(&lora, 1).unwrap().save_adapter(&place.path("adapter"), "base").unwrap();
        std::fs::write(place.path("records").join(files::PLAN), seeds::SMALL_PLAN).unwrap();
        place
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    pub fn write(&self, name: &str, input: &[u8]) -> PathBuf {
        let path = self.path(name);
        std::fs::write(&path, input).unwrap();
        path
    }
}
