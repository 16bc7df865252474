//! Every reader of something that comes from outside: good inputs, words of its language, and how it is called.

use std::ops::ControlFlow;
use std::path::{Path, PathBuf};

use candle_core::{DType, Device};
use kto_eval::base::error::render;
use kto_eval::data::{Template, Tokenizer, detect, load_with, read_from, read_rows};
use kto_eval::gate;
use kto_eval::launch::read_trainer_metrics;
use kto_eval::model::peft::read_adapter_config;
use kto_eval::model::{Decoder, DecoderConfig, Size, read_config};
use kto_eval::plan::{DataFormat, DataSpec, FeedbackSpec, LoraSpec, Overrides, Plan, WorldSpec};
use kto_eval::record::{Records, RunRow, Status, files};
use kto_eval::stats::winrate;
use kto_eval::suite::judge::llm::{JudgeTemplate, read_completion};
use kto_eval::suite::judge::{ExactMatch, Instructions, Judge, Task};
use kto_eval::suite::{JudgeKind, Suite};
use kto_eval::train::Saved;
use serde_json::{Value, json};

use crate::forge;
use crate::mutate::Mutator;

pub struct Reader {
    pub name: &'static str,
    /// Of a thousand inputs, how many are for it.
    pub share: u64,
    pub seeds: fn() -> Vec<Vec<u8>>,
    pub words: &'static [&'static str],
    /// A changed input, from a good one.
    pub change: fn(&mut Mutator<'_>) -> Vec<u8>,
    /// Reads; `place` is a folder that holds what the reader expects besides.
    pub read: fn(place: &Place, input: &[u8]),
    /// Most memory in MiB that one input may take.
    pub mib: usize,
}

fn text(m: &mut Mutator<'_>) -> Vec<u8> {
    let seed = m.seed();
    m.text(seed)
}

/// Most readers need no more than this for any input of a few kB.
const LITTLE: usize = 64;

pub const READERS: &[Reader] = &[
    Reader {
        name: "JSON lines",
        share: 260,
        seeds: seeds::json_lines,
        words: words::ROWS,
        change: text,
        read: rows,
        mib: LITTLE,
    },
    Reader {
        name: "JSON array",
        share: 130,
        seeds: seeds::json_array,
        words: words::ROWS,
        change: text,
        read: rows,
        mib: LITTLE,
    },
    Reader {
        name: "rows to examples",
        share: 60,
        seeds: seeds::json_lines,
        words: words::ROWS,
        change: text,
        read: examples,
        mib: LITTLE,
    },
    Reader {
        name: "gzip",
        share: 20,
        seeds: seeds::json_lines,
        words: words::ROWS,
        change: forge::gzip,
        read: file_rows,
        mib: LITTLE,
    },
    Reader {
        name: "Parquet",
        share: 30,
        seeds: seeds::parquet,
        words: &[],
        change: forge::parquet,
        read: file_rows,
        mib: 512,
    },
    Reader {
        name: "safetensors",
        share: 50,
        seeds: seeds::safetensors,
        words: words::TENSORS,
        change: forge::safetensors,
        read: weights,
        mib: LITTLE,
    },
    Reader {
        name: "safetensors index",
        share: 10,
        seeds: seeds::index,
        words: words::TENSORS,
        change: text,
        read: index,
        mib: LITTLE,
    },
    Reader {
        name: "adapter",
        share: 15,
        seeds: seeds::adapter,
        words: words::ADAPTER,
        change: text,
        read: adapter,
        mib: LITTLE,
    },
    Reader {
        name: "config.json",
        share: 60,
        seeds: seeds::config,
        words: words::CONFIG,
        change: text,
        read: config,
        mib: LITTLE,
    },
    Reader {
        name: "tokenizer.json",
        share: 2,
        seeds: seeds::tokenizer,
        words: words::TOKENIZER,
        change: text,
        read: tokenizer,
        mib: 256,
    },
    Reader {
        name: "tokenizer_config.json",
        share: 3,
        seeds: seeds::tokenizer_config,
        words: words::TOKENIZER,
        change: text,
        read: tokenizer_config,
        mib: LITTLE,
    },
    Reader {
        name: "chat template",
        share: 50,
        seeds: seeds::template,
        words: words::TEMPLATE,
        change: text,
        read: template,
        mib: 512,
    },
    Reader {
        name: "plan",
        share: 20,
        seeds: seeds::plan,
        words: words::PLAN,
        change: text,
        read: plan,
        mib: LITTLE,
    },
    Reader {
        name: "--set",
        share: 15,
        seeds: seeds::set,
        words: words::PLAN,
        change: text,
        read: set,
        mib: LITTLE,
    },
    Reader {
        name: "suite",
        share: 40,
        seeds: seeds::suite,
        words: words::SUITE,
        change: text,
        read: suite,
        mib: LITTLE,
    },
    Reader {
        name: "judge template",
        share: 10,
        seeds: seeds::judge,
        words: words::SUITE,
        change: text,
        read: judge,
        mib: LITTLE,
    },
    Reader {
        name: "judge reply",
        share: 110,
        seeds: seeds::reply,
        words: words::REPLY,
        change: text,
        read: reply,
        mib: LITTLE,
    },
    Reader {
        name: "instructions",
        share: 30,
        seeds: seeds::instructions,
        words: words::INSTRUCTIONS,
        change: text,
        read: instructions,
        mib: LITTLE,
    },
    Reader {
        name: "records",
        share: 25,
        seeds: seeds::records,
        words: words::RECORDS,
        change: text,
        read: records,
        mib: LITTLE,
    },
    Reader {
        name: "judgments",
        share: 25,
        seeds: seeds::judgments,
        words: words::ROWS,
        change: text,
        read: judgments,
        mib: LITTLE,
    },
    Reader {
        name: "checkpoint",
        share: 15,
        seeds: seeds::checkpoint,
        words: words::CHECKPOINT,
        change: forge::checkpoint,
        read: checkpoint,
        mib: LITTLE,
    },
    Reader {
        name: "trainer metrics",
        share: 15,
        seeds: seeds::metrics,
        words: words::RECORDS,
        change: text,
        read: metrics,
        mib: LITTLE,
    },
    Reader {
        name: "gate.toml",
        share: 5,
        seeds: seeds::gate,
        words: words::RECORDS,
        change: text,
        read: gate_config,
        mib: LITTLE,
    },
];

/// A thread's own folder, with a tiny model and a folder of records.
pub struct Place {
    dir: tempfile::TempDir,
    start: Decoder,
    judge: JudgeTemplate,
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

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn write(&self, name: &str, input: &[u8]) -> PathBuf {
        let path = self.path(name);
        std::fs::write(&path, input).unwrap();
        path
    }
}

/// An error says something.
fn said<T>(result: Result<T, anyhow::Error>) -> Option<T> {
    result.map_err(|e| assert!(!render(&e).trim().is_empty(), "an error without a word")).ok()
}

fn lossy(input: &[u8]) -> String {
    String::from_utf8_lossy(input).into_owned()
}

fn rows(_: &Place, input: &[u8]) {
    let mut n = 0;
    said(read_from(input, "rows", &mut |_, row| {
        n += 1;
        if let Value::Object(row) = &row {
            said(detect(row));
        }
        Ok(ControlFlow::Continue(()))
    }));
    assert!(n <= input.len(), "{n} rows of {} bytes", input.len());
}

fn data_spec(source: &Path) -> DataSpec {
    DataSpec {
        source: source.display().to_string(),
        revision: String::new(),
        config: String::new(),
        split: "train".to_owned(),
        format: DataFormat::Auto,
        max_length: 64,
        max_examples: 0,
        feedback: FeedbackSpec::default(),
        world: WorldSpec::default(),
    }
}

fn examples(place: &Place, input: &[u8]) {
    let path = place.write("rows.jsonl", input);
    if let Some(loaded) = said(load_with(&data_spec(&path), "train", &Template::default())) {
        assert!(loaded.rows <= input.len() && !loaded.dataset.is_empty());
    }
}

fn file_rows(place: &Place, input: &[u8]) {
    let path = place.write("rows", input);
    said(read_rows(&path, &mut |_, _| Ok(ControlFlow::Continue(()))));
}

fn weights(place: &Place, input: &[u8]) {
    place.write("model/model.safetensors", input);
    said(Decoder::load(&place.path("model"), DType::F32, &Device::Cpu));
}

fn index(place: &Place, input: &[u8]) {
    place.write("sharded/model.safetensors.index.json", input);
    said(Decoder::load(&place.path("sharded"), DType::F32, &Device::Cpu));
}

fn adapter(place: &Place, input: &[u8]) {
    place.write("adapter/adapter_config.json", input);
    if said(read_adapter_config(&place.path("adapter"))).is_some() {
        said(place.start.load_adapter(&place.path("adapter")));
    }
}

fn config(place: &Place, input: &[u8]) {
    place.write("configured/config.json", input);
    if let Some(config) = said(read_config(&place.path("configured"))) {
        assert!(config.heads > 0 && config.heads % config.kv_heads == 0 && !config.layers.is_empty());
        for rope in config.layers.iter().take(4).filter_map(|l| l.rope).filter(|r| r.width < 1 << 16) {
            assert_eq!(rope.inverse_frequencies().len(), rope.width.div_ceil(2));
        }
    }
}

fn tokenizer(place: &Place, input: &[u8]) {
    place.write("tokenizer/tokenizer.json", input);
    used(said(Tokenizer::load(&place.path("tokenizer"))));
}

fn tokenizer_config(place: &Place, input: &[u8]) {
    place.write("configured/tokenizer_config.json", input);
    std::fs::write(place.path("configured/config.json"), "{}").unwrap();
    used(said(Tokenizer::load(&place.path("configured"))));
}

fn used(tokenizer: Option<Tokenizer>) {
    let Some(tokenizer) = tokenizer else { return };
    for text in ["a sorted list: 3 1 2", "", "Grüße \u{10ffff}\0 <|im_end|>"] {
        if let Some(ids) = said(tokenizer.encode(text)) {
            said(tokenizer.decode(&ids));
        }
    }
    said(tokenizer.check_fits(100));
    said(tokenizer.template().render(&chat(), true));
}

fn chat() -> Vec<Value> {
    let message = |role: &str, content: &str| json!({"role": role, "content": content});
    vec![message("system", "Be brief."), message("user", " Grüße & <tags> "), message("assistant", "1, 2")]
}

fn template(_: &Place, input: &[u8]) {
    let Some(template) = said(Template::parse(&lossy(input), "<s>", "</s>", "fuzz")) else { return };
    said(template.render(&chat(), true));
    said(template.render(&[], false));
}

fn plan(_: &Place, input: &[u8]) {
    let Some(plan) = said(Plan::parse(&lossy(input), "p.toml", &Overrides::default())) else { return };
    assert_eq!(plan.runs().len(), plan.arms.len() * plan.seeds.len());
    let written = plan.to_toml();
    match Plan::parse(&written, "p.toml", &Overrides::default()) {
        Ok(again) => assert!(again.to_toml() == written && again.hash() == plan.hash(), "{written}"),
        Err(e) => panic!("a plan that parses is written as one that does not: {}\n{written}", render(&e)),
    }
}

fn set(_: &Place, input: &[u8]) {
    let set = lossy(input).lines().map(str::to_owned).collect();
    said(Plan::parse(seeds::SMALL_PLAN, "p.toml", &Overrides { set, ..Overrides::default() }));
}

fn suite(_: &Place, input: &[u8]) {
    let Some(suite) = said(Suite::parse(&lossy(input), "s.toml")) else { return };
    if let (JudgeKind::ExactMatch, Some(rule)) = (suite.judge, &suite.answer)
        && let Some(judge) = said(ExactMatch::new(rule))
    {
        let task = Task { answer: Some("#### 1,234.5".to_owned()), ..Task::default() };
        said(judge.grade(&task, "so 12 + 3 = 15 #### 1234.50"));
    }
}

fn judge(_: &Place, input: &[u8]) {
    let Some(template) = said(JudgeTemplate::parse(&lossy(input), "j.toml")) else { return };
    said(template.request("m", "ask {{ x }}", "one", "two"));
    template.read("A is better: [[A]]");
}

fn reply(place: &Place, input: &[u8]) {
    let body = lossy(input);
    let reply = read_completion(&body);
    let preference = place.judge.read(reply.as_ref().map_or(&body, |r| &r.text));
    assert!(preference.is_none_or(|p| [0.0, 0.5, 1.0].contains(&p)));
}

fn instructions(_: &Place, input: &[u8]) {
    let Ok(Value::Object(row)) = serde_json::from_slice(input) else { return };
    let task = Task { id: "x".to_owned(), row, ..Task::default() };
    if matches!(said(Instructions.refuses(&task)), Some(None)) {
        said(Instructions.grade(&task, "* One.\n\n***\n\nTwo \"words\", <<title>> P.S. [x] paragraph"));
    }
}

/// The first byte says which file it is.
fn records(place: &Place, input: &[u8]) {
    let Some((which, text)) = input.split_first() else { return };
    let name = seeds::RECORDS[usize::from(which % 10).min(seeds::RECORDS.len() - 1)];
    let path = place.write(&format!("records/{name}"), text);
    said(Records::read(&place.path("records")));
    if name == files::PLAN {
        place.write(&format!("records/{name}"), seeds::SMALL_PLAN.as_bytes());
    } else {
        std::fs::remove_file(path).unwrap();
    }
}

fn judgments(_: &Place, input: &[u8]) {
    if let Some(parsed) = said(winrate::parse(&lossy(input))) {
        assert!(parsed.judgments.iter().all(|j| (0.0..=1.0).contains(&j.preference)));
    }
}

fn checkpoint(place: &Place, input: &[u8]) {
    place.write("checkpoint/step-0000000002.safetensors", input);
    let (saved, notes) = Saved::latest(&place.path("checkpoint"));
    assert!(saved.is_some() == notes.is_empty(), "{notes:?}");
}

fn metrics(place: &Place, input: &[u8]) {
    let path = place.write("metrics.jsonl", input);
    let run = seeds::run();
    if let Some(rows) = said(read_trainer_metrics(&path, &run)) {
        assert!(rows.len() <= input.len());
    }
}

fn gate_config(_: &Place, input: &[u8]) {
    said(gate::Config::parse(&lossy(input), "gate.toml"));
}

#[path = "seeds.rs"]
pub mod seeds;
#[path = "words.rs"]
mod words;
