//! Every reader of what others wrote, on input that is damaged at random: an answer or an error, never a
//! panic. Seeded, so that a failure comes again; `KTO_EVAL_FUZZ=<factor>` multiplies the number of inputs
//! (`reports/robustness.md` records a run of more than ten million).

use std::ops::ControlFlow;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};

use candle_core::{DType, Device};
use kto_eval::base::seed;
use kto_eval::data::world::World;
use kto_eval::data::{Template, Tokenizer, load, read_from};
use kto_eval::model::{Decoder, DecoderConfig, Size, read_config};
use kto_eval::plan::{DataSpec, Overrides, Plan, WorldSpec};
use kto_eval::record::{Records, files};
use kto_eval::stats::winrate;
use kto_eval::suite::Suite;
use kto_eval::suite::judge::llm::JudgeTemplate;
use rand::RngExt;

/// What tends to break readers of text.
const TOKENS: [&[u8]; 36] = [
    b"{",
    b"}",
    b"[",
    b"]",
    b"\"",
    b"'",
    b"\\",
    b"\\u",
    b"\\ud800",
    b",",
    b":",
    b"\n",
    b"\r\n",
    b"\0",
    b"null",
    b"true",
    b"-1",
    b"0",
    b"1e999",
    b"NaN",
    b"18446744073709551616",
    b"9223372036854775807",
    b"0.1",
    b"\xff\xfe",
    b"\xf0\x9f\x98\x80",
    b"\xef\xbb\xbf",
    b"{{",
    b"}}",
    b"{%",
    b"%}",
    b"= ",
    b"[[",
    b"../",
    b"'''",
    b"((((",
    b"e",
];

/// `seed` with one to eight small damages.
fn damaged(whole: &[u8], rng: &mut impl RngExt) -> Vec<u8> {
    let mut bytes = whole.to_vec();
    for _ in 0..rng.random_range(1..9) {
        let at = rng.random_range(0..=bytes.len());
        let to = rng.random_range(at..=bytes.len().min(at + 24));
        match rng.random_range(0..6) {
            0 if at < bytes.len() => bytes[at] ^= 1 << rng.random_range(0..8),
            1 => drop(bytes.drain(at..to)),
            2 => {
                let token = TOKENS[rng.random_range(0..TOKENS.len())];
                drop(bytes.splice(at..at, token.iter().copied()));
            }
            3 => {
                let copy = bytes[at..to].to_vec();
                let place = rng.random_range(0..=bytes.len());
                drop(bytes.splice(place..place, copy));
            }
            4 => {
                let token = TOKENS[rng.random_range(0..TOKENS.len())];
                drop(bytes.splice(at..to, token.iter().copied()));
            }
            _ if rng.random_range(0..8) == 0 => bytes.truncate(at),
            _ => {}
        }
    }
    bytes
}

/// Feeds `inputs` (times the factor) damaged forms of `seeds` to `read`; whether it found the input good.
fn fuzz(name: &str, inputs: u64, seeds: &[Vec<u8>], read: impl Fn(&[u8]) -> bool) {
    let factor = std::env::var("KTO_EVAL_FUZZ").ok().and_then(|f| f.parse().ok()).unwrap_or(1u64);
    for whole in seeds {
        assert!(read(whole), "{name}: the undamaged input is good: {}", String::from_utf8_lossy(whole));
    }
    let (mut good, total) = (0u64, inputs * factor);
    for index in 0..total {
        let mut rng = seed::rng_at(7, name, index);
        let bytes = damaged(&seeds[rng.random_range(0..seeds.len())], &mut rng);
        match catch_unwind(AssertUnwindSafe(|| read(&bytes))) {
            Ok(accepted) => good += u64::from(accepted),
            Err(_) => panic!("{name}: input {index} panics: {:?}", String::from_utf8_lossy(&bytes)),
        }
    }
    eprintln!("{name}: {total} inputs, {good} of them good");
    assert!(good < total, "{name}: the damage does something");
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

fn seeds(texts: &[&str]) -> Vec<Vec<u8>> {
    texts.iter().map(|t| t.as_bytes().to_vec()).collect()
}

/// In memory where the system has such a place.
fn scratch() -> tempfile::TempDir {
    let memory = Path::new("/dev/shm");
    if memory.is_dir() { tempfile::tempdir_in(memory).unwrap() } else { tempfile::tempdir().unwrap() }
}

#[test]
fn json_lines() {
    let rows = seeds(&[
        "{\"prompt\": \"a\", \"chosen\": \" b\", \"rejected\": \"c\"}\n{\"x\": [1, 2.5, null, {\"y\": \"\\u00e9\"}]}\n",
        "[{\"a\": 1},\n {\"b\": [true]}]",
    ]);
    fuzz("jsonl", 40_000, &rows, |bytes| {
        read_from(bytes, "fuzz", &mut |_, _| Ok(ControlFlow::Continue(()))).is_ok()
    });
}

#[test]
fn data_files() {
    let dir = scratch();
    let path = dir.path().join("train.jsonl");
    let spec = DataSpec { source: path.display().to_string(), ..DataSpec::default() };
    let rows = seeds(&[
        "{\"prompt\": \"a\", \"completion\": \" b\", \"label\": true}\n",
        "{\"chosen\": \"\\n\\nHuman: a\\n\\nAssistant: b\", \"rejected\": \"\\n\\nHuman: a\\n\\nAssistant: c\"}\n",
        "{\"prompt\": [{\"role\": \"user\", \"content\": \"a\"}], \"chosen\": [{\"role\": \"assistant\", \"content\": \"b\"}], \
         \"rejected\": [{\"role\": \"assistant\", \"content\": \"c\"}]}\n",
    ]);
    fuzz("data files", 3_000, &rows, |bytes| {
        std::fs::write(&path, bytes).unwrap();
        load(&spec, "train").is_ok()
    });
}

#[test]
fn plans() {
    let shipped = Plan::open("quickstart", &Overrides::default()).unwrap().to_toml();
    let small = "seeds = [1]\nbudget = { tokens = 10 }\n[model]\nsource = \"m\"\n[data]\nsource = \"d\"\n\
                 [slurm]\ntime = \"1\"\n[[arm]]\nmethod = \"kto\"\nbeta = 0.1\n";
    fuzz("plan", 3_000, &seeds(&[small, &shipped]), |bytes| {
        Plan::parse(&text(bytes), "fuzz.toml", &Overrides::default()).is_ok()
    });
}

#[test]
fn plan_options() {
    let small = "seeds = [1]\nbudget = { tokens = 10 }\n[model]\nsource = \"m\"\n[data]\nsource = \"d\"\n\
                 [[arm]]\nmethod = \"kto\"\n";
    let options =
        seeds(&["arm.kto.beta=0.5", "train.learning_rate=1e-5", "seeds=[1, 2]", "data.world.flip=0.1"]);
    fuzz("--set", 3_000, &options, |bytes| {
        let overrides = Overrides { set: vec![text(bytes)], ..Overrides::default() };
        Plan::parse(small, "fuzz.toml", &overrides).is_ok()
    });
}

#[test]
fn suites() {
    let shipped = include_str!("../suites/generation/gsm8k.toml");
    fuzz("suite", 3_000, &seeds(&[shipped]), |bytes| Suite::parse(&text(bytes), "fuzz.toml").is_ok());
}

#[test]
fn chat_templates() {
    let templates = seeds(&[
        "{{ bos_token }}{% for m in messages %}{{ m['role'] + ': ' + m.content | trim }}{% endfor %}",
        "{% set x = namespace(n=0) %}{% if messages[0].role == 'system' %}{{ messages[0]['content'].upper() }}{% endif %}",
    ]);
    let messages = [serde_json::json!({"role": "user", "content": "hello"})];
    fuzz("chat template", 6_000, &templates, |bytes| {
        let parsed = Template::parse(&text(bytes), "<s>", "</s>", "fuzz");
        parsed.is_ok_and(|template| template.render(&messages, true).is_ok())
    });
}

#[test]
fn judge_replies() {
    let template = JudgeTemplate::pairwise().unwrap();
    let replies = seeds(&["Both are fine, the first is better. [[A]]", "[[C]]", "a\nb [[B]]\n"]);
    fuzz("judge reply", 6_000, &replies, |bytes| template.read(&text(bytes)).is_some());
}

#[test]
fn judgments() {
    let files = seeds(&[
        "[{\"instruction\": \"i\", \"output_1\": \"a\", \"output_2\": \"b\", \"generator_1\": \"x\", \
                         \"generator_2\": \"y\", \"preference\": 1.5}]",
    ]);
    fuzz("judgments", 12_000, &files, |bytes| winrate::parse(&text(bytes)).is_ok());
}

/// A model of the world's vocabulary, small enough to be read a thousand times a second.
fn model(dir: &Path) {
    let spec = WorldSpec { train_pairs: 2, heldout_pairs: 2, ..WorldSpec::default() };
    let world = World::new(&spec).unwrap();
    let size = Size {
        vocab: world.vocab_size(),
        hidden: 4,
        layers: 1,
        heads: 1,
        kv_heads: 1,
        intermediate: 4,
        context: 16,
    };
    let config = DecoderConfig::llama(size).unwrap();
    Decoder::random(config, 1, DType::F32, &Device::Cpu).unwrap().save(dir).unwrap();
    world.write_tokenizer(dir).unwrap();
}

/// Damages one file of a model directory.
fn fuzz_file(inputs: u64, file: &str, read: impl Fn(&Path) -> bool) {
    let dir = scratch();
    model(dir.path());
    let path = dir.path().join(file);
    let whole = std::fs::read(&path).unwrap();
    fuzz(file, inputs, &[whole], |bytes| {
        std::fs::write(&path, bytes).unwrap();
        read(dir.path())
    });
}

#[test]
fn model_configurations() {
    fuzz_file(6_000, "config.json", |dir| read_config(dir).is_ok());
}

#[test]
fn tokenizers() {
    fuzz_file(200, "tokenizer.json", |dir| Tokenizer::load(dir).is_ok_and(|t| t.encode("a b").is_ok()));
}

#[test]
fn tokenizer_configurations() {
    fuzz_file(200, "tokenizer_config.json", |dir| Tokenizer::load(dir).is_ok());
}

#[test]
fn weights() {
    // Only the header is damaged: what follows it is numbers.
    let dir = scratch();
    model(dir.path());
    let path = dir.path().join("model.safetensors");
    let whole = std::fs::read(&path).unwrap();
    let header = 8 + u64::from_le_bytes(whole[..8].try_into().unwrap()) as usize;
    fuzz("safetensors header", 1_500, &[whole[..header].to_vec()], |bytes| {
        let mut file = bytes.to_vec();
        file.extend(&whole[header..]);
        std::fs::write(&path, file).unwrap();
        Decoder::load(dir.path(), DType::F32, &Device::Cpu).is_ok()
    });
}

/// A folder of records with a few rows of each kind.
fn records(dir: &Path) -> Vec<PathBuf> {
    let plan = Plan::open("quickstart", &Overrides::default()).unwrap();
    std::fs::write(dir.join(files::PLAN), plan.to_toml()).unwrap();
    let steps = "run,arm,seed,step,loss,grad_norm,learning_rate,reward_chosen,reward_rejected,margin,accuracy,kl_unclamped,kl,\
                 desirable,undesirable,logp_chosen,logp_rejected,policy_tokens,completion_tokens,kl_tokens,total_policy_tokens,\
                 seconds\nkto-s1-a,kto,1,1,0.5,1,1e-4,0,0,0,0,0,0,4,4,-1,-1,100,50,50,100,0.1\n";
    let scores = "run,arm,seed,suite,subset,metric,value,n,standard_error,unit,direction\n\
                  base,base,1,heldout,all,reward_accuracy,0.5,10,0.1,share,higher\n";
    let examples = "run,arm,seed,suite,subset,example,cluster,metric,value\n\
                    base,base,1,heldout,,\"a\"\"\nb\",c,reward_accuracy,0.5\n";
    let samples = "{\"run\":\"base\",\"arm\":\"base\",\"seed\":1,\"suite\":\"w\",\"subset\":\"\",\"example\":\"e\",\"prompt\":\"p\",\
                   \"completion\":\"c\",\"tokens\":1,\"finished\":true,\"reward\":null,\"opponents\":[]}\n";
    let all = [
        (files::STEPS, steps),
        (files::SCORES, scores),
        (files::EXAMPLES, examples),
        (files::SAMPLES, samples),
    ];
    for (name, text) in all {
        std::fs::write(dir.join(name), text).unwrap();
    }
    all.iter().map(|(name, _)| dir.join(name)).collect()
}

#[test]
fn record_folders() {
    let dir = scratch();
    for path in records(dir.path()) {
        let whole = std::fs::read(&path).unwrap();
        let name = path.file_name().unwrap().to_str().unwrap();
        fuzz(name, 400, std::slice::from_ref(&whole), |bytes| {
            std::fs::write(&path, bytes).unwrap();
            Records::read(dir.path()).is_ok()
        });
        std::fs::write(&path, &whole).unwrap();
    }
}
