//! How each reader is called, and what must hold of what it gives.

use std::ops::ControlFlow;
use std::path::Path;

use candle_core::{DType, Device};
use kto_eval::base::error::render;
use kto_eval::data::{Template, Tokenizer, detect, load_with, read_from, read_rows};
use kto_eval::gate;
use kto_eval::launch::read_trainer_metrics;
use kto_eval::model::peft::read_adapter_config;
use kto_eval::model::{Decoder, read_config};
use kto_eval::plan::{DataFormat, DataSpec, Overrides, Plan};
use kto_eval::record::{Records, files};
use kto_eval::stats::winrate;
use kto_eval::suite::judge::llm::{JudgeTemplate, read_completion};
use kto_eval::suite::judge::{ExactMatch, Instructions, Judge, Task};
use kto_eval::suite::{JudgeKind, Suite};
use kto_eval::train::Saved;
use serde_json::{Value, json};

use crate::place::Place;
use crate::seeds;

/// An error says something.
fn said<T>(result: Result<T, anyhow::Error>) -> Option<T> {
    result.map_err(|e| assert!(!render(&e).trim().is_empty(), "an error without a word")).ok()
}

fn lossy(input: &[u8]) -> String {
    String::from_utf8_lossy(input).into_owned()
}

pub fn rows(_: &Place, input: &[u8]) {
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
        ..DataSpec::default()
    }
}

pub fn examples(place: &Place, input: &[u8]) {
    let path = place.write("rows.jsonl", input);
    if let Some(loaded) = said(load_with(&data_spec(&path), "train", &Template::default())) {
        assert!(loaded.rows <= input.len() && !loaded.dataset.is_empty());
    }
}

pub fn file_rows(place: &Place, input: &[u8]) {
    let path = place.write("rows", input);
    said(read_rows(&path, &mut |_, _| Ok(ControlFlow::Continue(()))));
}

pub fn weights(place: &Place, input: &[u8]) {
    place.write("model/model.safetensors", input);
    said(Decoder::load(&place.path("model"), DType::F32, &Device::Cpu));
}

pub fn index(place: &Place, input: &[u8]) {
    place.write("sharded/model.safetensors.index.json", input);
    said(Decoder::load(&place.path("sharded"), DType::F32, &Device::Cpu));
}

pub fn adapter(place: &Place, input: &[u8]) {
    place.write("adapter/adapter_config.json", input);
    if said(read_adapter_config(&place.path("adapter"))).is_some() {
        said(place.start.load_adapter(&place.path("adapter")));
    }
}

pub fn config(place: &Place, input: &[u8]) {
    place.write("configured/config.json", input);
    if let Some(config) = said(read_config(&place.path("configured"))) {
        assert!(config.heads > 0 && config.heads % config.kv_heads == 0 && !config.layers.is_empty());
        for rope in config.layers.iter().take(4).filter_map(|l| l.rope).filter(|r| r.width < 1 << 16) {
            assert_eq!(rope.inverse_frequencies().len(), rope.width.div_ceil(2));
        }
    }
}

pub fn tokenizer(place: &Place, input: &[u8]) {
    place.write("tokenizer/tokenizer.json", input);
    used(said(Tokenizer::load(&place.path("tokenizer"))));
}

pub fn tokenizer_config(place: &Place, input: &[u8]) {
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

pub fn template(_: &Place, input: &[u8]) {
    let Some(template) = said(Template::parse(&lossy(input), "<s>", "</s>", "fuzz")) else { return };
    said(template.render(&chat(), true));
    said(template.render(&[], false));
}

pub fn plan(_: &Place, input: &[u8]) {
    let Some(plan) = said(Plan::parse(&lossy(input), "p.toml", &Overrides::default())) else { return };
    assert_eq!(plan.runs().len(), plan.arms.len() * plan.seeds.len());
    let written = plan.to_toml();
    match Plan::parse(&written, "p.toml", &Overrides::default()) {
        Ok(again) => assert!(again.to_toml() == written && again.hash() == plan.hash(), "{written}"),
        Err(e) => panic!("a plan that parses is written as one that does not: {}\n{written}", render(&e)),
    }
}

pub fn set(_: &Place, input: &[u8]) {
    let set = lossy(input).lines().map(str::to_owned).collect();
    said(Plan::parse(seeds::SMALL_PLAN, "p.toml", &Overrides { set, ..Overrides::default() }));
}

pub fn suite(_: &Place, input: &[u8]) {
    let Some(suite) = said(Suite::parse(&lossy(input), "s.toml")) else { return };
    if let (JudgeKind::ExactMatch, Some(rule)) = (suite.judge, &suite.answer)
        && let Some(judge) = said(ExactMatch::new(rule))
    {
        let task = Task { answer: Some("#### 1,234.5".to_owned()), ..Task::default() };
        said(judge.grade(&task, "so 12 + 3 = 15 #### 1234.50"));
    }
}

pub fn judge(_: &Place, input: &[u8]) {
    let Some(template) = said(JudgeTemplate::parse(&lossy(input), "j.toml")) else { return };
    said(template.request("m", "ask {{ x }}", "one", "two"));
    template.read("A is better: [[A]]");
}

pub fn reply(place: &Place, input: &[u8]) {
    let body = lossy(input);
    let reply = read_completion(&body);
    let preference = place.judge.read(reply.as_ref().map_or(&body, |r| &r.text));
    assert!(preference.is_none_or(|p| [0.0, 0.5, 1.0].contains(&p)));
}

pub fn instructions(_: &Place, input: &[u8]) {
    let Ok(Value::Object(row)) = serde_json::from_slice(input) else { return };
    let task = Task { id: "x".to_owned(), row, ..Task::default() };
    if matches!(said(Instructions.refuses(&task)), Some(None)) {
        said(Instructions.grade(&task, "* One.\n\n***\n\nTwo \"words\", <<title>> P.S. [x] paragraph"));
    }
}

/// The first byte says which file it is.
pub fn records(place: &Place, input: &[u8]) {
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

pub fn judgments(_: &Place, input: &[u8]) {
    if let Some(parsed) = said(winrate::parse(&lossy(input), None)) {
        assert!(parsed.judgments.iter().all(|j| (0.0..=1.0).contains(&j.preference)));
    }
}

pub fn checkpoint(place: &Place, input: &[u8]) {
    place.write("checkpoint/step-0000000002.safetensors", input);
    let (saved, notes) = Saved::latest(&place.path("checkpoint"));
    assert!(saved.is_some() == notes.is_empty(), "{notes:?}");
}

pub fn metrics(place: &Place, input: &[u8]) {
    let path = place.write("metrics.jsonl", input);
    let run = seeds::run();
    if let Some(rows) = said(read_trainer_metrics(&path, &run)) {
        assert!(rows.len() <= input.len());
    }
}

pub fn gate_config(_: &Place, input: &[u8]) {
    said(gate::Config::parse(&lossy(input), "gate.toml"));
}
