//! A reward model as the judge of a generation suite and of completions made elsewhere.

mod cli;

use std::collections::BTreeMap;

use candle_core::{DType, Device};
use cli::Place;
use kto_eval::data::{Sequence, Tokenizer, tokenizer_files};
use kto_eval::model::{Decoder, DecoderConfig, RewardModel, Size};
use serde_json::{Value, json};

/// A place with a reward model `rm/` whose context holds `context` tokens.
fn judged_place(context: usize) -> Place {
    let place = Place::new();
    let tokenizer = Tokenizer::load(&place.path("model")).unwrap();
    let size = Size {
        vocab: tokenizer.vocab_size(),
        hidden: 16,
        layers: 1,
        heads: 2,
        kv_heads: 2,
        intermediate: 32,
        context,
    };
    let start = Decoder::random(DecoderConfig::llama(size).unwrap(), 9, DType::F32, &Device::Cpu).unwrap();
    let model = RewardModel::from_start(&start, tokenizer.pad(), 5).unwrap();
    model.decoder().save(&place.path("rm")).unwrap();
    for file in tokenizer_files(&place.path("model")) {
        std::fs::copy(&file, place.path("rm").join(file.file_name().unwrap())).unwrap();
    }
    place
}

/// Scores a prompt and its completion by themselves, tokenized together and closed with EOS.
fn scorer(place: &Place) -> impl Fn(&str, &str) -> f64 {
    let dir = place.path("rm");
    let (model, tokenizer) =
        (RewardModel::load(&dir, DType::F32, &Device::Cpu).unwrap(), Tokenizer::load(&dir).unwrap());
    move |prompt, said| {
        let mut ids = tokenizer.encode(&format!("{prompt}{said}")).unwrap();
        if ids.last() != Some(&tokenizer.eos()) {
            ids.push(tokenizer.eos());
        }
        model.scores(&[&Sequence { ids: ids.into(), prompt_len: 1 }]).unwrap()[0]
    }
}

fn beats(a: f64, b: f64) -> f64 {
    f64::from(u8::from(a > b))
}

fn rows(text: &str) -> Vec<Value> {
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

#[test]
fn the_higher_score_wins_and_the_same_text_ties() {
    let place = judged_place(96);
    let score = scorer(&place);
    let from =
        ["score", "--model", "model", "--reference", "model", "--data", "data", "--max-examples", "16"];
    let judge = ["--suite", "heldout-rewarded", "--judge-reward", "rm", "--out", "out"];
    let ran = place.run(&[&from[..], &judge].concat());
    assert!(ran.succeeds().contains("judge_reward"), "{}", ran.out);
    let data: BTreeMap<String, String> = rows(&place.read("data/test.jsonl"))
        .into_iter()
        .rev()
        .map(|r| (r["prompt"].as_str().unwrap().to_owned(), r["chosen"].as_str().unwrap().to_owned()))
        .collect();
    let (mut rewards, mut wins) = (Vec::new(), Vec::new());
    for sample in rows(&place.read("out/samples.jsonl")).iter().filter(|s| s["run"] == "model") {
        let (prompt, said) = (sample["prompt"].as_str().unwrap(), sample["completion"].as_str().unwrap());
        let reward = score(prompt, said);
        assert!((sample["reward"].as_f64().unwrap() - reward).abs() < 1e-4, "{sample}");
        rewards.push(reward);
        wins.push(beats(reward, score(prompt, &data[prompt])));
    }
    assert!(rewards.len() > 8);
    let mean = |x: &[f64]| x.iter().sum::<f64>() / x.len() as f64;
    let mut reader = csv::Reader::from_path(place.path("out/scores.csv")).unwrap();
    let header = reader.headers().unwrap().clone();
    let column = |name: &str| header.iter().position(|h| h == name).unwrap();
    let scores: Vec<csv::StringRecord> = reader.records().map(Result::unwrap).collect();
    let value = |metric: &str| -> f64 {
        let row = |r: &&csv::StringRecord| &r[column("metric")] == metric && &r[column("run")] == "model";
        scores.iter().find(row).unwrap()[column("value")].parse().unwrap()
    };
    assert!((value("judge_reward") - mean(&rewards)).abs() < 1e-4);
    assert_eq!(value("win_rate_base"), 0.5, "model and base say the same, so they tie");
    assert!((value("win_rate_chosen") - mean(&wins)).abs() < 1e-9);
    assert!(mean(&wins) > 0.0 && mean(&wins) < 1.0, "a judge that prefers one side proves nothing");

    // Sentinels played on the base's scores, and each example has its row.
    assert!(place.read("out/judgments.jsonl").contains("sentinel-longest"));
    assert!(place.read("out/examples.csv").contains("judge_reward"));
}

#[test]
fn texts_beyond_the_judges_context_are_counted_and_a_missing_judge_is_an_error() {
    let place = judged_place(8);
    let from = ["score", "--model", "model", "--data", "data", "--suite", "heldout-rewarded", "--out", "out"];
    let run = |more: &[&str]| place.run(&[&from[..], more].concat());
    run(&[]).fails(
        2,
        &["suite `heldout-rewarded` is judged by a reward model, and none is named", "--judge-reward"],
    );
    run(&["--judge-reward", "model"]).fails(2, &["reward model model", "holds no reward model"]);
    run(&["--judge-reward", "nowhere/at-all"]).fails(2, &["nowhere/at-all"]);
    let ran = run(&["--judge-reward", "rm"]);
    ran.succeeds();
    assert!(ran.err.contains("longer than the reward model's context"), "{}", ran.err);
}

#[test]
fn completions_made_elsewhere_are_judged_pair_by_pair() {
    let place = judged_place(24);
    let score = scorer(&place);
    let texts = [
        ("reverse a b c :", " c b a .", " a b c ."),
        ("add 1 2 :", " 3 .", " 9 9 9 ."),
        ("sort 3 1 :", " 1 3 .", " 1 3 ."),
    ];
    let row = |(i, (prompt, a, b)): (usize, &(&str, &str, &str))| json!({"id": i, "candidate": "A", "baseline": "B", "prompt": prompt, "candidate_text": a, "baseline_text": b});
    let mut lines: Vec<Value> = texts.iter().enumerate().map(row).collect();
    lines.push(row((3, &("add 1 2 :", &" a".repeat(40), " 3 ."))));
    let file: Vec<String> = lines.iter().map(Value::to_string).collect();
    place.write("texts.jsonl", &file.join("\n"));
    let ran = place.run(&["winrate", "texts.jsonl", "--judge-reward", "rm", "--json"]);
    let found: Value = serde_json::from_str(ran.succeeds()).unwrap();
    assert_eq!(found["invalid"], 1, "one text is longer than the context");
    let wins: f64 = texts[..2].iter().map(|(p, a, b)| beats(score(p, a), score(p, b))).sum();
    let rate = &found["win_rates"][0];
    assert_eq!((rate["ties"].as_u64(), rate["wins"].as_u64()), (Some(1), Some(wins as u64)));
    assert!((rate["win_rate"].as_f64().unwrap() - (wins + 0.5) / 3.0).abs() < 1e-12);

    // Packed, and of contestants whom nothing joins.
    let row = |a, b, won| json!({"id": "1", "candidate": a, "baseline": b, "preference": won}).to_string();
    let file = std::fs::File::create(place.path("judged.jsonl.gz")).unwrap();
    let mut packed = flate2::write::GzEncoder::new(file, flate2::Compression::fast());
    let rows = format!("{}\n{}\n", row("a", "b", 1), row("d", "e", 0));
    std::io::Write::write_all(&mut packed, rows.as_bytes()).unwrap();
    packed.finish().unwrap();
    let said = place.run(&["winrate", "judged.jsonl.gz"]);
    assert!(said.succeeds().contains("they do not compare"), "{}", said.out);
    assert_eq!(said.out.matches("Bradley-Terry").count(), 2, "{}", said.out);

    place.write("bare.jsonl", "{\"id\": 1, \"candidate\": \"A\", \"baseline\": \"B\", \"preference\": 1}\n");
    place
        .run(&["winrate", "bare.jsonl", "--judge-reward", "rm"])
        .fails(2, &["line 1", "`prompt` is missing"]);
}
