//! Good inputs of every reader.

use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;

use candle_core::{DType, Device};
use kto_eval::data::world::World;
use kto_eval::data::{Sequence, TokenizedPair};
use kto_eval::model::{Decoder, DecoderConfig, Size};
use kto_eval::plan::{LoraSpec, Method, Overrides, Plan, WorldSpec};
use kto_eval::record::{RunRow, Status, files};
use kto_eval::train::{Checkpoints, Hooks, Interval, Job, Reference, ReferenceCache, TrainData, train_from};
use serde_json::{Value, json};

pub const SMALL_PLAN: &str = r#"seeds = [1, 2]
budget = { tokens = 1000 }
[model]
source = "world"
[data]
source = "world"
[[arm]]
method = "kto"
[[arm]]
method = "dpo"
beta = [0.1, 0.2]
"#;

/// Files of a record folder that come from outside when shards are gathered or a report is made.
pub const RECORDS: [&str; 10] = [
    files::RUNS,
    files::STEPS,
    files::SCORES,
    files::EXAMPLES,
    files::COMPARISONS,
    files::TRIALS,
    files::SAMPLES,
    files::JUDGMENTS,
    files::ENVIRONMENT,
    files::PLAN,
];

pub fn world() -> World {
    World::new(&WorldSpec { train_pairs: 8, heldout_pairs: 4, ..WorldSpec::default() }).unwrap()
}

pub fn lora() -> LoraSpec {
    LoraSpec::default()
}

pub fn tiny() -> Decoder {
    let size = Size {
        vocab: world().vocab_size(),
        hidden: 8,
        layers: 1,
        heads: 2,
        kv_heads: 1,
        intermediate: 8,
        context: 32,
    };
    Decoder::random(DecoderConfig::llama(size).unwrap(), 1, DType::F32, &Device::Cpu).unwrap()
}

pub fn run() -> RunRow {
    // What a row of `runs.csv` needs is told by the committed one.
    let text = kept("runs.csv", 1);
    let mut row: RunRow = csv::Reader::from_reader(text.as_bytes()).deserialize().next().unwrap().unwrap();
    row.status = Status::Failed;
    row
}

fn manifest(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(path)
}

/// A header and some rows of the committed study.
fn kept(name: &str, rows: usize) -> String {
    use std::io::{BufRead, BufReader};
    let file = std::fs::File::open(manifest("reports/quickstart").join(name)).unwrap();
    let lines: Vec<String> = BufReader::new(file).lines().take(rows + 1).map(Result::unwrap).collect();
    lines.join("\n") + "\n"
}

fn all(folder: &str, ending: &str) -> Vec<Vec<u8>> {
    let mut paths: Vec<PathBuf> =
        std::fs::read_dir(manifest(folder)).unwrap().map(|e| e.unwrap().path()).collect();
    paths.retain(|p| p.extension().is_some_and(|e| e == ending));
    paths.sort();
    paths.iter().map(|p| std::fs::read(p).unwrap()).collect()
}

fn lines(rows: &[Value]) -> Vec<u8> {
    rows.iter().map(|r| r.to_string() + "\n").collect::<String>().into_bytes()
}

fn row_sets() -> Vec<Vec<Value>> {
    let hh = |end: &str| format!("\n\nHuman: hi\n\nAssistant: well\n\nHuman: so?\n\nAssistant: {end}");
    let said = |end: &str| json!([{"role": "user", "content": "hi"}, {"role": "assistant", "content": end}]);
    let asked = json!([{"role": "system", "content": "s"}, {"role": "user", "content": "hi"}]);
    let answer = |text: &str| json!([{"role": "assistant", "content": text}]);
    let node = |id: &str, parent: Value, role: &str, rank: Value| {
        json!({"message_id": id, "parent_id": parent, "message_tree_id": "t", "text": id, "role": role, "rank": rank,
               "lang": "en", "deleted": false, "review_result": true})
    };
    vec![
        vec![
            json!({"chosen": hh("yes"), "rejected": hh("no")}),
            json!({"chosen": hh("a"), "rejected": hh("b")}),
        ],
        vec![json!({"id": "1", "prompt": "p", "chosen": "a", "rejected": "b", "subset": "s"})],
        vec![
            json!({"prompt": "p", "completion": "c", "label": true}),
            json!({"prompt": "p", "completion": "d", "label": false}),
        ],
        vec![json!({"prompt": asked, "chosen": answer("a"), "rejected": answer("b")})],
        vec![
            json!({"chosen": said("a"), "rejected": said("b")}),
            json!({"prompt": "hi", "chosen": said("a"), "rejected": said("b")}),
        ],
        vec![
            json!({"post_id": "x", "history": "h", "human_ref_A": "a", "human_ref_B": "b", "labels": 1, "score_A": 3, "score_B": 1, "domain": "d_train", "seconds_difference": 1.0, "score_ratio": 3.0}),
        ],
        vec![
            node("a", Value::Null, "prompter", Value::Null),
            node("b", json!("a"), "assistant", json!(0)),
            node("c", json!("a"), "assistant", json!(1)),
        ],
        vec![
            json!({"prompt": "p", "messages": said("x"), "label": "True", "nested": {"deep": [1, -2.5e-3, null, "é\u{1f600}"]}}),
        ],
    ]
}

pub fn json_lines() -> Vec<Vec<u8>> {
    row_sets().iter().map(|rows| lines(rows)).collect()
}

pub fn json_array() -> Vec<Vec<u8>> {
    row_sets().into_iter().map(|rows| serde_json::to_vec_pretty(&rows).unwrap()).collect()
}

pub fn parquet() -> Vec<Vec<u8>> {
    all("tests/data/parquet", "parquet")
}

fn saved(write: impl FnOnce(&Path)) -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    write(dir.path());
    dir
}

fn read(dir: &tempfile::TempDir, name: &str) -> Vec<u8> {
    std::fs::read(dir.path().join(name)).unwrap()
}

pub fn safetensors() -> Vec<Vec<u8>> {
    vec![read(&saved(|dir| tiny().save(dir).unwrap()), "model.safetensors")]
}

pub fn index() -> Vec<Vec<u8>> {
    let map = |shard: &str| json!({"metadata": {"total_size": 1}, "weight_map": {"model.embed_tokens.weight": shard}});
    ["model-00001-of-00002.safetensors", "../model/model.safetensors", "/etc/passwd", "."]
        .map(|shard| map(shard).to_string().into_bytes())
        .into()
}

pub fn adapter() -> Vec<Vec<u8>> {
    let write = |dir: &Path| {
        let lora = LoraSpec { rank: 2, ..lora() };
        tiny().with_adapter(&lora, 1).unwrap().save_adapter(dir, "base").unwrap();
    };
    vec![read(&saved(write), "adapter_config.json")]
}

pub fn config() -> Vec<Vec<u8>> {
    let base = |kind: &str| {
        json!({"model_type": kind, "architectures": ["X"], "vocab_size": 100, "hidden_size": 16,
               "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 4,
               "intermediate_size": 32, "hidden_act": "silu", "max_position_embeddings": 128, "rms_norm_eps": 1e-5,
               "rope_theta": 10000.0, "tie_word_embeddings": false, "attention_bias": true})
    };
    let mut all: Vec<Value> =
        ["llama", "mistral", "qwen2", "qwen3", "gemma2", "gemma3_text", "olmo2"].map(base).into();
    let scaled = json!({"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
                        "original_max_position_embeddings": 64});
    all[0]["rope_scaling"] = scaled;
    all[1]["sliding_window"] = json!(16);
    all[2]["layer_types"] = json!(["full_attention", "sliding_attention"]);
    all[5]["rope_parameters"] = json!({"full_attention": {"rope_theta": 1e6, "rope_type": "linear", "factor": 2.0},
                                       "sliding_attention": {"rope_theta": 1e4}});
    all.push(json!({"model_type": "gpt_neox", "vocab_size": 100, "hidden_size": 16, "num_hidden_layers": 2,
                    "num_attention_heads": 4, "intermediate_size": 64, "rotary_pct": 0.25,
                    "use_parallel_residual": true, "hidden_act": "gelu"}));
    all.push(json!({"model_type": "gpt2", "vocab_size": 100, "n_embd": 16, "n_head": 4, "n_layer": 2,
                    "n_positions": 64, "n_inner": null, "activation_function": "gelu_new"}));
    all.push(
        json!({"model_type": "llama", "architectures": ["LlamaForSequenceClassification"], "num_labels": 1,
                    "id2label": {"0": "x"}, "vocab_size": 10, "hidden_size": 8, "num_hidden_layers": 1,
                    "num_attention_heads": 2, "intermediate_size": 8}),
    );
    all.iter().map(|v| v.to_string().into_bytes()).collect()
}

pub fn tokenizer() -> Vec<Vec<u8>> {
    let world = read(&saved(|dir| world().write_tokenizer(dir).unwrap()), "tokenizer.json");
    let bpe = json!({
        "version": "1.0", "truncation": null, "padding": null,
        "added_tokens": [{"id": 0, "content": "</s>", "single_word": false, "lstrip": false, "rstrip": false,
                          "normalized": false, "special": true}],
        "normalizer": {"type": "Sequence", "normalizers": [{"type": "NFC"}, {"type": "Lowercase"}]},
        "pre_tokenizer": {"type": "Sequence", "pretokenizers": [
            {"type": "Split", "pattern": {"Regex": "\\p{N}{1,3}| ?[^\\s\\p{N}]+|\\s+(?!\\S)"}, "behavior": "Isolated", "invert": false},
            {"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": false}]},
        "post_processor": {"type": "TemplateProcessing",
            "single": [{"SpecialToken": {"id": "</s>", "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}}],
            "pair": [{"Sequence": {"id": "A", "type_id": 0}}, {"Sequence": {"id": "B", "type_id": 1}}],
            "special_tokens": {"</s>": {"id": "</s>", "ids": [0], "tokens": ["</s>"]}}},
        "decoder": {"type": "ByteLevel", "add_prefix_space": true, "trim_offsets": true, "use_regex": true},
        "model": {"type": "BPE", "dropout": null, "unk_token": null, "continuing_subword_prefix": null,
                  "end_of_word_suffix": null, "fuse_unk": false, "byte_fallback": false, "ignore_merges": false,
                  "vocab": {"</s>": 0, "a": 1, "b": 2, "ab": 3, "Ġ": 4, "1": 5}, "merges": [["a", "b"]]}
    });
    let unigram = json!({
        "version": "1.0", "truncation": null, "padding": null, "added_tokens": [], "normalizer":
        {"type": "Replace", "pattern": {"String": " "}, "content": "▁"}, "pre_tokenizer":
        {"type": "Metaspace", "replacement": "▁", "prepend_scheme": "always", "split": true}, "post_processor": null,
        "decoder": {"type": "Metaspace", "replacement": "▁", "prepend_scheme": "always", "split": true},
        "model": {"type": "Unigram", "unk_id": 0, "vocab": [["<unk>", 0.0], ["</s>", 0.0], ["▁a", -1.5], ["b", -2.0]],
                  "byte_fallback": false}
    });
    vec![world, bpe.to_string().into_bytes(), unigram.to_string().into_bytes()]
}

pub fn tokenizer_config() -> Vec<Vec<u8>> {
    let world = read(&saved(|dir| world().write_tokenizer(dir).unwrap()), "tokenizer_config.json");
    let chat = json!({"eos_token": {"content": "<eos>"}, "bos_token": null, "pad_token": "<pad>", "chat_template":
        [{"name": "default", "template": "{% for m in messages %}{{ m.role }}: {{ m['content'] | trim }}{% endfor %}"}]});
    vec![world, chat.to_string().into_bytes()]
}

pub fn template() -> Vec<Vec<u8>> {
    let golden: Vec<Value> =
        serde_json::from_slice(&std::fs::read(manifest("tests/templates/golden.json")).unwrap()).unwrap();
    golden.iter().filter_map(|t| t["template"].as_str()).map(|t| t.as_bytes().to_vec()).collect()
}

pub fn plan() -> Vec<Vec<u8>> {
    all("suites/plans", "toml").into_iter().chain([SMALL_PLAN.as_bytes().to_vec()]).collect()
}

pub fn set() -> Vec<Vec<u8>> {
    vec![
        b"train.learning_rate=1e-5\narm.kto.beta=0.2\nbudget.steps=5".to_vec(),
        b"data.feedback.fraction=[0.1, 0.5]\narm.kto.z0=previous\nverdict.primary=[\"x\"]".to_vec(),
        b"seeds=[3, 4]\nprices.device_hour=2\nslurm.options=[\"--x\"]\narm.dpo.train.batch_size=4".to_vec(),
    ]
}

pub fn suite() -> Vec<Vec<u8>> {
    all("suites/preference", "toml").into_iter().chain(all("suites/generation", "toml")).collect()
}

pub fn judge() -> Vec<Vec<u8>> {
    all("suites/judges", "toml")
}

pub fn reply() -> Vec<Vec<u8>> {
    let body = |text: &str| {
        json!({"id": "x", "choices": [{"index": 0, "message": {"role": "assistant", "content": text}}],
               "usage": {"prompt_tokens": 10, "completion_tokens": 3}})
    };
    vec![
        body("Because it is so: [[A]]").to_string().into_bytes(),
        b"Both are good.\n\nMy verdict is [[C]], not [[B]].".to_vec(),
        json!({"error": {"message": "overloaded", "code": 429}}).to_string().into_bytes(),
    ]
}

pub fn instructions() -> Vec<Vec<u8>> {
    let text = std::fs::read_to_string(manifest("tests/data/ifeval_checks.json")).unwrap();
    let mut found = vec![];
    instructions_in(&serde_json::from_str(&text).unwrap(), &mut found);
    assert!(!found.is_empty(), "tests/data/ifeval_checks.json has rows of instructions");
    found.truncate(200);
    found
}

/// Objects with an instruction's id and its arguments, as rows of one instruction.
fn instructions_in(value: &Value, found: &mut Vec<Vec<u8>>) {
    match value {
        Value::Array(values) => values.iter().for_each(|v| instructions_in(v, found)),
        Value::Object(map) => {
            let id = map.get("id").or(map.get("instruction_id")).filter(|v| v.is_string());
            let arguments = map.get("kwargs").or(map.get("arguments")).filter(|v| v.is_object());
            if let (Some(id), Some(arguments)) = (id, arguments) {
                let row = json!({"instruction_id_list": [id], "kwargs": [arguments]});
                found.push(row.to_string().into_bytes());
            }
            map.values().for_each(|v| instructions_in(v, found));
        }
        _ => {}
    }
}

pub fn records() -> Vec<Vec<u8>> {
    let mut all = vec![];
    for (i, name) in RECORDS.iter().enumerate() {
        let path = manifest("reports/quickstart").join(name);
        let text = match *name {
            files::PLAN => SMALL_PLAN.to_owned(),
            files::ENVIRONMENT => std::fs::read_to_string(path).unwrap(),
            _ if path.exists() => kept(name, 3),
            files::JUDGMENTS => r#"{"run":"r","arm":"a","seed":1,"suite":"s","subset":"","example":"e","cluster":"c","candidate":"a","baseline":"base","preference":0.5}"#.to_owned() + "\n",
            _ => "arm,method,trial,values,status,note\nkto,kto,0,,done,\n".to_owned(),
        };
        all.push([&[i as u8][..], text.as_bytes()].concat());
    }
    all
}

pub fn judgments() -> Vec<Vec<u8>> {
    let annotation = json!([{"index": 0, "preference": 1.5, "output_1": "a", "output_2": "b", "generator_1": "base", "generator_2": "kto"}]);
    let line = json!({"id": "1", "candidate": "kto", "baseline": "base", "preference": 1.0, "candidate_length": 3, "baseline_length": 4});
    vec![annotation.to_string().into_bytes(), lines(&[line.clone(), line])]
}

/// Two steps of a run of the tiny model.
pub fn checkpoint() -> Vec<Vec<u8>> {
    let mut policy = tiny();
    let start = tiny();
    let sequence = |id: u32| Sequence { ids: vec![3, id, 4, 0].into(), prompt_len: 2 };
    let pairs: Vec<TokenizedPair> = (0..4)
        .map(|i| TokenizedPair {
            id: i.to_string(),
            subset: String::new(),
            chosen: sequence(5 + i),
            rejected: sequence(9 + i),
        })
        .collect();
    let plan = Plan::parse(SMALL_PLAN, "p.toml", &Overrides::default()).unwrap();
    let Method::Kto(_) = &plan.arms[0].method else { panic!("the first arm is kto") };
    let cache = ReferenceCache::open(&start.weights_hash().unwrap(), None);
    let job = Job {
        method: &plan.arms[0].method,
        spec: &kto_eval::plan::TrainSpec { batch_size: 4, ..plan.arms[0].train.clone() },
        budget: kto_eval::plan::Budget::Steps(2),
        seed: 1,
        max_length: 16,
        data: TrainData::Paired(&pairs),
        reference: Some(Reference::new(&start, &cache)),
    };
    let dir = tempfile::tempdir().unwrap();
    let checkpoints = Checkpoints { folder: dir.path().to_owned(), every: Interval::Steps(1) };
    let mut hooks = Hooks { step: &mut |_| Ok(()), progress: &mut |_| (), abort: &AtomicBool::new(false) };
    train_from(&mut policy, &job, &mut hooks, None, Some(&checkpoints)).unwrap();
    vec![read(&dir, "step-0000000001.safetensors"), read(&dir, "step-0000000002.safetensors")]
}

pub fn metrics() -> Vec<Vec<u8>> {
    let row = json!({"step": 1, "loss": 0.5, "grad_norm": 1.0, "learning_rate": 1e-4, "kl": 0.1, "margin": 0.2,
                     "policy_tokens": 100, "desirable": 4, "undesirable": 4, "seconds": 0.1, "own": [1]});
    vec![lines(&[row.clone(), row]), b"{\"step\": 2, \"loss\": NaN, \"grad_norm\": -Infinity}\n".to_vec()]
}

pub fn gate() -> Vec<Vec<u8>> {
    vec![b"alarm = 0.005\ninconclusive = \"warn\"\n[quality]\nenabled = true\ntolerance = 0.02\nmetrics = [\"x\"]\n[quality.tolerances]\nwin_rate_base = 0.05\n[throughput]\ntolerance = 0.05\n[trajectory]\nsteps = 20\n".to_vec()]
}
