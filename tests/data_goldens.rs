//! Token ids, prompt lengths and batches against TRL 1.16 (`../shared/golden`).

use std::path::{Path, PathBuf};

use kto_eval::data::{
    Dataset, PreferencePair, Tokenizer, UnpairedExample, load, tokenize_pairs, tokenize_unpaired,
};
use kto_eval::plan::{DataFormat, DataSpec, WorldSpec};
use serde_json::Value;

/// The folder with the golden numbers, or `None` with a line that says so.
fn shared(test: &str) -> Option<PathBuf> {
    let beside = Path::new(env!("CARGO_MANIFEST_DIR")).join("../shared");
    let root = std::env::var_os("KTO_EVAL_SHARED").map_or(beside, PathBuf::from);
    if root.join("golden").is_dir() {
        return Some(root);
    }
    println!("skipped: {test} needs ../shared");
    None
}

fn json(path: PathBuf) -> Value {
    serde_json::from_str(&std::fs::read_to_string(&path).unwrap()).unwrap()
}

fn spec(source: &Path) -> DataSpec {
    let world = WorldSpec { seed: 0, train_pairs: 1, heldout_pairs: 1, temperature: 1.0, flip: 0.0 };
    DataSpec {
        source: source.display().to_string(),
        revision: "main".to_owned(),
        config: "harmless-base".to_owned(),
        split: "train".to_owned(),
        format: DataFormat::Auto,
        max_length: 512,
        max_examples: 0,
        world,
        ..DataSpec::default()
    }
}

fn text(value: &Value) -> String {
    value.as_str().unwrap().to_owned()
}

fn ids(value: &Value) -> Vec<u32> {
    serde_json::from_value(value.clone()).unwrap()
}

#[test]
fn the_fixed_batch_has_trl_s_ids() {
    let Some(root) = shared("the_fixed_batch_has_trl_s_ids") else { return };
    let tokenizer = Tokenizer::load(&root.join("models/golden-policy")).unwrap();
    let golden = json(root.join("golden/trl/batch8.json"));
    assert_eq!((tokenizer.eos(), tokenizer.pad()), (0, 1));
    let rows = golden["pairs"].as_array().unwrap();
    let pairs: Vec<_> = rows
        .iter()
        .map(|r| PreferencePair {
            id: r["pair"].to_string(),
            prompt: text(&r["prompt"]),
            chosen: text(&r["chosen"]),
            rejected: text(&r["rejected"]),
            subset: String::new(),
        })
        .collect();
    let (tokenized, stats) = tokenize_pairs(&pairs, &tokenizer, 512).unwrap();
    assert_eq!((stats.examples, stats.dropped, stats.cut), (8, 0, 0));
    for (row, pair) in rows.iter().zip(&tokenized) {
        for (side, sequence) in [("chosen", &pair.chosen), ("rejected", &pair.rejected)] {
            assert_eq!(sequence.prompt(), ids(&row["prompt_ids"]), "{side} of {}", pair.id);
            assert_eq!(sequence.completion(), ids(&row[format!("{side}_ids")]), "{side} of {}", pair.id);
        }
    }
}

#[test]
fn the_lengths_of_prompts_are_trl_s() {
    let Some(root) = shared("the_lengths_of_prompts_are_trl_s") else { return };
    let tokenizer = Tokenizer::load(&root.join("models/golden-policy")).unwrap();
    let golden = json(root.join("golden/trl/forward_golden-policy.json"));
    let rows = golden["sequences"].as_array().unwrap();
    let example = |row: &Value| {
        let text = text(&row["text"]);
        let (prompt, completion) = text.split_at(text.rfind("Assistant:").unwrap() + "Assistant:".len());
        let (prompt, completion) = (prompt.to_owned(), completion.to_owned());
        UnpairedExample {
            id: row["pair"].to_string(),
            prompt,
            completion,
            desirable: true,
            subset: String::new(),
        }
    };
    let examples: Vec<_> = rows.iter().map(example).collect();
    let (tokenized, stats) = tokenize_unpaired(&examples, &tokenizer, 512).unwrap();
    assert_eq!(stats.examples, rows.len());
    for (row, mine) in rows.iter().zip(&tokenized) {
        assert_eq!(mine.sequence.ids[..], ids(&row["ids"]), "{}", mine.id);
        assert_eq!(mine.sequence.prompt_len as u64, row["n_prompt"].as_u64().unwrap(), "{}", mine.id);
    }
}

#[test]
fn the_batches_of_the_trajectories_are_trl_s() {
    let Some(root) = shared("the_batches_of_the_trajectories_are_trl_s") else { return };
    let tokenizer = Tokenizer::load(&root.join("models/golden-policy")).unwrap();
    let data = load(&spec(&root.join("golden/trl/traj_train.jsonl")), "train").unwrap();
    assert_eq!(data.format, DataFormat::TrlPaired);
    let Dataset::Paired(pairs) = data.dataset else { panic!("the file is paired") };
    let chosen: Vec<UnpairedExample> = all(&pairs).into_iter().step_by(2).collect();
    for (file, examples) in
        [("traj_sft", chosen.clone()), ("traj_kto", all(&pairs)), ("traj_kto_paired", chosen)]
    {
        let golden = json(root.join(format!("golden/trl/{file}.json")));
        let (tokenized, stats) = tokenize_unpaired(&examples, &tokenizer, 512).unwrap();
        assert_eq!(stats.dropped, 0);
        let batches = golden["batches"].as_array().unwrap();
        assert_eq!(batches.len(), 30);
        for (step, (batch, mine)) in batches.iter().zip(tokenized.chunks(4)).enumerate() {
            let tokens: usize = mine.iter().map(|e| e.sequence.ids.len()).sum();
            assert_eq!(tokens as u64, batch["tokens"].as_u64().unwrap(), "{file}, step {step}");
            assert_eq!(mine[0].sequence.ids[..8], ids(&batch["first_ids"])[..8], "{file}, step {step}");
            if let Some(labels) = batch["labels"].as_array() {
                let mine: Vec<Value> = mine.iter().map(|e| Value::Bool(e.desirable)).collect();
                assert_eq!(&mine, labels, "{file}, step {step}");
            }
        }
    }
}

fn all(pairs: &[PreferencePair]) -> Vec<UnpairedExample> {
    let Dataset::Unpaired(examples) = Dataset::Paired(pairs.to_vec()).to_unpaired() else {
        panic!("to_unpaired gives unpaired examples")
    };
    examples
}

#[test]
fn hh_transcripts_are_read_and_pairs_about_different_prompts_left_out() {
    let Some(root) = shared("hh_transcripts_are_read") else { return };
    for (split, rows, left_out) in [("train", 1599, 3), ("test", 369, 1)] {
        let data = load(&spec(&root.join("data/hh-harmless")), split).unwrap();
        assert_eq!(data.format, DataFormat::HhTranscript);
        assert_eq!((data.rows, data.dataset.len()), (rows, rows - left_out));
        let note = format!("{left_out} of {rows} pairs left out");
        assert!(data.notes.iter().any(|n| n.starts_with(&note)), "{:?}", data.notes);
        let Dataset::Paired(pairs) = data.dataset else { panic!("HH is paired") };
        assert!(pairs.iter().all(|p| p.prompt.ends_with("\n\nAssistant:") && p.prompt.contains("Human:")));
        assert_eq!(pairs[0].id, format!("{split}.jsonl:1"));
    }
}
