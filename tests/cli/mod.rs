//! The real binary, on a tiny model and a little data that are made here: no network, no other file.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use candle_core::{DType, Device};
use kto_eval::data::world::World;
use kto_eval::model::{Decoder, DecoderConfig, Size};
use kto_eval::plan::WorldSpec;

/// A folder with `model/` (random weights, the world's tokenizer), `data/train.jsonl` and `data/test.jsonl`.
pub struct Place {
    dir: tempfile::TempDir,
}

/// What a command did.
pub struct Ran {
    pub code: i32,
    pub out: String,
    pub err: String,
}

#[allow(dead_code, reason = "each test binary uses a part of it")]
impl Ran {
    /// Asserts the exit code and that each part stands in stderr.
    #[track_caller]
    pub fn fails(&self, code: i32, says: &[&str]) {
        assert_eq!(self.code, code, "stdout: {}\nstderr: {}", self.out, self.err);
        for part in says {
            assert!(self.err.contains(part), "lacks: {part}\nstderr: {}", self.err);
        }
        assert!(!self.err.contains("panicked"), "{}", self.err);
    }

    #[track_caller]
    pub fn succeeds(&self) -> &str {
        assert_eq!(self.code, 0, "stdout: {}\nstderr: {}", self.out, self.err);
        &self.out
    }
}

#[allow(dead_code, reason = "each test binary uses a part of it")]
impl Place {
    /// An empty folder.
    pub fn empty() -> Self {
        Self { dir: tempfile::tempdir().unwrap() }
    }

    pub fn new() -> Self {
        let place = Self::empty();
        let spec = WorldSpec { train_pairs: 120, heldout_pairs: 24, ..WorldSpec::default() };
        let world = World::new(&spec).unwrap();
        let size = Size {
            vocab: world.vocab_size(),
            hidden: 16,
            layers: 1,
            heads: 2,
            kv_heads: 2,
            intermediate: 32,
            context: 96,
        };
        let model = place.path("model");
        let config = DecoderConfig::llama(size).unwrap();
        Decoder::random(config, 1, DType::F32, &Device::Cpu).unwrap().save(&model).unwrap();
        world.write_tokenizer(&model).unwrap();
        std::fs::create_dir(place.path("data")).unwrap();
        for (split, pairs) in [("train", world.train_pairs()), ("test", world.heldout_pairs())] {
            let row = |p: kto_eval::data::PreferencePair| {
                serde_json::json!({"prompt": p.prompt, "chosen": p.chosen, "rejected": p.rejected})
                    .to_string()
            };
            let text: Vec<String> = pairs.into_iter().map(row).collect();
            place.write(&format!("data/{split}.jsonl"), &(text.join("\n") + "\n"));
        }
        place.write("plan.toml", PLAN);
        place
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    pub fn write(&self, name: &str, text: &str) {
        std::fs::write(self.path(name), text).unwrap();
    }

    pub fn read(&self, name: &str) -> String {
        std::fs::read_to_string(self.path(name)).unwrap_or_else(|e| panic!("{name}: {e}"))
    }

    /// Runs the program in the folder, without network, its cache in the folder too.
    pub fn run(&self, arguments: &[&str]) -> Ran {
        ran(self.command(arguments).output().unwrap())
    }

    /// The same for arguments on one line, none of which holds a space.
    pub fn line(&self, arguments: &str) -> Ran {
        self.run(&arguments.split_whitespace().collect::<Vec<_>>())
    }

    /// The log-probs that `score` prints of a model's completions.
    pub fn logps(&self, model: &str, more: &str) -> Vec<f64> {
        let ran = self.line(&format!("score --model {model} --data data --max-length 64 {more}"));
        let mut reader = csv::Reader::from_reader(ran.succeeds().as_bytes());
        let at = reader.headers().unwrap().iter().position(|c| c == "logp").unwrap();
        reader.records().map(|r| r.unwrap()[at].parse().unwrap()).collect()
    }

    /// Holds that a plan, shown, is the same plan, and that `compare` makes the same rows of it twice, in `a` and `b`.
    /// Returns the plan as it is shown.
    #[track_caller]
    pub fn runs_the_same_twice(&self, plan: &str) -> String {
        let shown = self.run(&["plan", "show", plan]).succeeds().to_owned();
        self.write("again.toml", &shown);
        assert_eq!(self.run(&["plan", "show", "again.toml"]).succeeds(), shown, "a resolved plan is a plan");
        for out in ["a", "b"] {
            self.run(&["compare", plan, "--out", out]).succeeds();
        }
        self.assert_same_rows("a", "b");
        shown
    }

    /// Makes each change (from, to) to a plan, which must then be refused with these words.
    #[track_caller]
    pub fn refuses(&self, plan: &str, changes: &[(&str, &str, &str)]) {
        for (from, to, says) in changes {
            assert!(plan.contains(from), "the test replaces {from}");
            self.write("plan.toml", &plan.replacen(from, to, 1));
            self.run(&["compare", "plan.toml", "--out", "x"]).fails(2, &[says]);
        }
    }

    pub fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_kto-eval"));
        command.args(arguments).current_dir(self.dir.path());
        command.env("KTO_EVAL_CACHE", self.path("cache")).env("HF_HUB_OFFLINE", "1");
        command.env("HF_HOME", self.path("hub"));
        command
    }

    /// Two folders of records hold the same rows, and nothing of a run under way.
    #[track_caller]
    pub fn assert_same_rows(&self, a: &str, b: &str) {
        for table in TABLES {
            let [want, have] = [a, b].map(|out| stable(&self.read(&format!("{out}/{table}"))));
            assert_eq!(want.len(), have.len(), "{b}/{table}: rows");
            for (i, (want, have)) in want.iter().zip(&have).enumerate() {
                assert_eq!(want, have, "{b}/{table}:{}", i + 2);
            }
            assert!(!want.is_empty(), "{table} has rows");
        }
        assert!(!self.path(b).join(".checkpoints").exists(), "a checkpoint outlived its run");
    }

    pub fn dir(&self) -> &Path {
        self.dir.path()
    }
}

pub fn ran(output: Output) -> Ran {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    Ran { code: output.status.code().unwrap_or(-1), out: text(&output.stdout), err: text(&output.stderr) }
}

/// The tables that the same plan gives the same rows in.
#[allow(dead_code, reason = "each test binary uses a part of it")]
pub const TABLES: [&str; 5] = ["runs.csv", "steps.csv", "scores.csv", "examples.csv", "comparisons.csv"];

/// Rows of a CSV without the columns of time and memory.
#[allow(dead_code, reason = "each test binary uses a part of it")]
pub fn stable(text: &str) -> Vec<Vec<String>> {
    let mut reader = csv::Reader::from_reader(text.as_bytes());
    let volatile = ["_seconds", "tokens_per_second", "_mib"];
    let header = reader.headers().unwrap().clone();
    let kept: Vec<usize> = (0..header.len())
        .filter(|&i| &header[i] != "seconds" && !volatile.iter().any(|v| header[i].ends_with(v)))
        .collect();
    assert!(kept.len() > 5, "{header:?}");
    let records: Vec<csv::StringRecord> = reader.records().map(Result::unwrap).collect();
    records.iter().map(|r| kept.iter().map(|&i| r[i].to_owned()).collect()).collect()
}

/// Three arms, two seeds, a second or two of work.
pub const PLAN: &str = r#"name = "tiny"
seeds = [1, 2]
budget = { tokens = 6000 }

[model]
source = "model"

[data]
source = "data"
max_length = 64

[train]
batch_size = 8
learning_rate = 1e-3

[suites]
preference = ["heldout"]

[[arm]]
method = "sft"

[[arm]]
method = "dpo"

[[arm]]
method = "kto"
"#;
