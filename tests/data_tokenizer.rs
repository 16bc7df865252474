//! Tokenization with a tokenizer whose every token can be read off: special tokens, cutting, merging, and
//! the linter that reports them.

use std::fs;
use std::path::Path;

use kto_eval::base::error::render;
use kto_eval::data::{
    Dataset, Others, PreferencePair, Tokenizer, UnpairedExample, inspect, tokenize_pairs, tokenize_unpaired,
};
use serde_json::{Value, json};
use tempfile::TempDir;

/// Characters as tokens, but `ab` is one of its own; with BOS before a text, as Llama's tokenizers have it.
fn write_tokenizer(dir: &Path, bos: bool, config: Value) {
    let mut vocab = serde_json::Map::new();
    for (id, token) in ["<s>", "</s>", "<pad>", "<unk>", "a", "b", "c", " ", "\n", "ab"].iter().enumerate() {
        vocab.insert((*token).to_owned(), json!(id));
    }
    let special = |id: u32, content: &str| {
        json!({"id": id, "content": content, "single_word": false, "lstrip": false, "rstrip": false,
               "normalized": false, "special": true})
    };
    let processor = json!({
        "type": "TemplateProcessing",
        "single": [{"SpecialToken": {"id": "<s>", "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}}],
        "pair": [{"Sequence": {"id": "A", "type_id": 0}}, {"Sequence": {"id": "B", "type_id": 1}}],
        "special_tokens": {"<s>": {"id": "<s>", "ids": [0], "tokens": ["<s>"]}},
    });
    let tokenizer = json!({
        "version": "1.0",
        "truncation": {"direction": "Right", "max_length": 2, "strategy": "LongestFirst", "stride": 0},
        "padding": null,
        "added_tokens": [special(0, "<s>"), special(1, "</s>"), special(2, "<pad>"), special(3, "<unk>")],
        "normalizer": null, "pre_tokenizer": null,
        "post_processor": if bos { processor } else { Value::Null },
        "decoder": {"type": "Fuse"},
        "model": {"type": "BPE", "dropout": null, "unk_token": "<unk>", "continuing_subword_prefix": null,
                  "end_of_word_suffix": null, "fuse_unk": false, "byte_fallback": false, "vocab": vocab,
                  "merges": [["a", "b"]]},
    });
    fs::write(dir.join("tokenizer.json"), tokenizer.to_string()).unwrap();
    fs::write(dir.join("tokenizer_config.json"), config.to_string()).unwrap();
}

fn tokenizer(bos: bool) -> (TempDir, Tokenizer) {
    let dir = TempDir::new().unwrap();
    let config = json!({"bos_token": "<s>", "eos_token": {"content": "</s>"}, "pad_token": "<pad>", "unk_token": "<unk>"});
    write_tokenizer(dir.path(), bos, config);
    let tokenizer = Tokenizer::load(dir.path()).unwrap();
    (dir, tokenizer)
}

fn example(prompt: &str, completion: &str) -> UnpairedExample {
    let [id, prompt, completion] = ["x", prompt, completion].map(str::to_owned);
    UnpairedExample { id, prompt, completion, desirable: true, subset: String::new() }
}

fn pair(prompt: &str, chosen: &str, rejected: &str) -> PreferencePair {
    let [id, prompt, chosen, rejected] = ["x", prompt, chosen, rejected].map(str::to_owned);
    PreferencePair { id, prompt, chosen, rejected, subset: String::new() }
}

/// Ids and the length of the prompt, or `None` where the example is dropped.
fn ids(tokenizer: &Tokenizer, prompt: &str, completion: &str, most: usize) -> Option<(Vec<u32>, usize)> {
    let (kept, _) = tokenize_unpaired(&[example(prompt, completion)], tokenizer, most).ok()?;
    Some((kept[0].sequence.ids.to_vec(), kept[0].sequence.prompt_len))
}

#[test]
fn eos_is_appended_once_and_bos_stands_once() {
    let (_dir, with_bos) = tokenizer(true);
    let (_other, plain) = tokenizer(false);
    assert_eq!(ids(&plain, "a", "c", 9), Some((vec![4, 6, 1], 1)));
    assert_eq!(ids(&with_bos, "a", "c", 9), Some((vec![0, 4, 6, 1], 2)));
    assert_eq!(ids(&with_bos, "<s>a", "c", 9), Some((vec![0, 4, 6, 1], 2)), "a template wrote BOS");
    assert_eq!(ids(&plain, "a", "c</s>", 9), Some((vec![4, 6, 1], 1)));
    assert_eq!(
        ids(&plain, "a", "c</s>\n", 9),
        Some((vec![4, 6, 1, 8], 1)),
        "templates end a turn with a line break"
    );
    assert_eq!(ids(&plain, "a", "</s>c", 9), Some((vec![4, 1, 6, 1], 1)));
    assert_eq!(ids(&with_bos, "", "c", 9), Some((vec![0, 6, 1], 1)), "BOS predicts the first token");
    assert_eq!(ids(&plain, "", "c", 9), None, "nothing predicts the first token");
}

#[test]
fn what_is_cut_loses_its_eos_and_what_has_nothing_left_is_dropped() {
    let (_dir, tokenizer) = tokenizer(false);
    let examples = [example("ac", "ccc"), example("ac", "c"), example("acaca", "c"), example("a", "")];
    let (kept, stats) = tokenize_unpaired(&examples, &tokenizer, 4).unwrap();
    assert_eq!((stats.examples, stats.cut, stats.dropped), (2, 1, 2));
    assert_eq!((stats.prompt_tokens, stats.completion_tokens), (4, 4));
    assert_eq!((&kept[0].sequence.ids[..], kept[0].sequence.prompt_len), (&[4, 6, 6, 6][..], 2));
    assert_eq!(kept[1].sequence.ids[..], [4, 6, 6, 1]);
    // A pair goes if one side has nothing left.
    let pairs = [pair("ca", "c", ""), pair("ca", "c", "b c")];
    let (kept, stats) = tokenize_pairs(&pairs, &tokenizer, 9).unwrap();
    assert_eq!((kept.len(), stats.dropped, stats.boundary_merges), (1, 1, 1));
    let error = render(&tokenize_unpaired(&examples[2..], &tokenizer, 4).unwrap_err());
    assert!(error.contains("all 2 examples were dropped") && error.contains("max_length = 4"), "{error}");
}

#[test]
fn a_merge_across_the_boundary_moves_it_back() {
    let (_dir, tokenizer) = tokenizer(false);
    let (kept, stats) = tokenize_unpaired(&[example("ca", "bc")], &tokenizer, 9).unwrap();
    assert_eq!((&kept[0].sequence.ids[..], kept[0].sequence.prompt_len), (&[6, 9, 6, 1][..], 1));
    assert_eq!(stats.boundary_merges, 1);
}

#[test]
fn a_tokenizer_that_does_not_fit_or_does_not_say_enough_is_refused() {
    let (dir, tokenizer) = tokenizer(true);
    assert_eq!(
        (tokenizer.vocab_size(), tokenizer.bos(), tokenizer.eos(), tokenizer.pad()),
        (10, Some(0), 1, 2)
    );
    tokenizer.check_fits(10).unwrap();
    tokenizer.check_fits(64).unwrap();
    let error = render(&tokenizer.check_fits(9).unwrap_err());
    assert!(error.contains("ids go up to 9 (`ab`), the model's vocabulary is 9"), "{error}");
    let names: Vec<_> = tokenizer.files().iter().map(|p| p.file_name().unwrap().to_owned()).collect();
    assert_eq!(names, ["tokenizer.json", "tokenizer_config.json"]);

    let load = || render(&Tokenizer::load(dir.path()).unwrap_err());
    fs::write(dir.path().join("tokenizer_config.json"), "{}").unwrap();
    assert!(load().contains("names no EOS token"), "{}", load());
    fs::write(dir.path().join("generation_config.json"), r#"{"eos_token_id": [1, 5]}"#).unwrap();
    let from_generation = Tokenizer::load(dir.path()).unwrap();
    assert_eq!((from_generation.eos(), from_generation.pad(), from_generation.stops()), (1, 1, &[1, 5][..]));
    fs::write(dir.path().join("tokenizer_config.json"), "{\n\n oops").unwrap();
    assert!(load().contains("tokenizer_config.json:3: not JSON"), "{}", load());
    fs::write(dir.path().join("tokenizer.json"), "{}").unwrap();
    assert!(load().contains("tokenizer.json: "), "{}", load());
    fs::remove_file(dir.path().join("tokenizer.json")).unwrap();
    assert!(load().contains("no tokenizer.json in"), "{}", load());
}

#[test]
fn a_bos_that_the_tokenizer_denies_is_none() {
    // As Qwen2.5 has it: null in the tokenizer's configuration, an id in the model's.
    let dir = TempDir::new().unwrap();
    let template = "{{ bos_token }}{{ messages[0].content }}";
    let config = json!({"bos_token": null, "eos_token": "</s>", "chat_template": template});
    write_tokenizer(dir.path(), false, config);
    fs::write(dir.path().join("config.json"), r#"{"bos_token_id": 0, "eos_token_id": 1}"#).unwrap();
    let denied = Tokenizer::load(dir.path()).unwrap();
    assert_eq!(denied.bos(), None);
    let hi = [json!({"role": "user", "content": "hi"})];
    assert_eq!(denied.template().render(&hi, false).unwrap(), "hi");
    // Where nothing is said of it, it is the model's (GPT-2's repository).
    write_tokenizer(dir.path(), false, json!({"eos_token": "</s>"}));
    assert_eq!(Tokenizer::load(dir.path()).unwrap().bos(), Some(0));
    write_tokenizer(dir.path(), false, json!({"eos_token": null}));
    assert_eq!(Tokenizer::load(dir.path()).unwrap().eos(), 1);
}

#[test]
fn the_chat_template_is_found_where_transformers_looks_for_it() {
    let dir = TempDir::new().unwrap();
    let hi = [json!({"role": "user", "content": "hi"})];
    let config =
        |template: Value| json!({"bos_token": "<s>", "eos_token": "</s>", "chat_template": template});
    let rendered = |config: Value| {
        write_tokenizer(dir.path(), true, config);
        Tokenizer::load(dir.path()).unwrap().template().render(&hi, false).unwrap()
    };
    assert_eq!(rendered(config(Value::Null)), "\n\nHuman: hi");
    assert_eq!(
        rendered(config(json!("{{ bos_token }}{{ messages[0].content }}{{ eos_token }}"))),
        "<s>hi</s>"
    );
    let named = json!([{"name": "tool_use", "template": "tools"}, {"name": "default", "template": "plain"}]);
    assert_eq!(rendered(config(named)), "plain");
    fs::write(dir.path().join("chat_template.jinja"), "from the file").unwrap();
    assert_eq!(rendered(config(json!("from the configuration"))), "from the file");
    fs::write(dir.path().join("chat_template.jinja"), "{% for %}").unwrap();
    let error = render(&Tokenizer::load(dir.path()).unwrap_err());
    assert!(error.contains("chat_template.jinja), line 1"), "{error}");
}

#[test]
fn the_linter_names_what_it_finds() {
    let (_dir, tokenizer) = tokenizer(true);
    let mut pairs = vec![
        pair("c", "a", "b"),
        pair("c", "c", "c"),
        pair("<s><s>cc", "c", "a"),
        pair("ccc", "a</s>b", "c"),
        pair("cb", "cccccccc", "a"),
        pair("bbbbbbbbbbbb", "a", "b"),
        pair("cca", "b", ""),
        pair("bb", "x", "a"),
        pair("aa", "a</s></s>", "b</s>"),
    ];
    for (i, pair) in pairs.iter_mut().enumerate() {
        pair.id = format!("row:{i}");
    }
    let alone = Dataset::Paired(vec![pair("cb", "cccccccc", "a")]);
    let beyond = inspect(&alone, &[], &tokenizer, 8, Some(7)).unwrap().findings;
    assert!(
        beyond.iter().any(|f| f.what.starts_with("longer than the positions") && f.count == 1),
        "{beyond:?}"
    );
    let heldout = Others::of("split `test`", &Dataset::Paired(vec![pair("cb", "a", "b")]));
    let suite = Others { name: "suite `s`".into(), prompts: vec!["c ".into(), "other".into()] };
    let report = inspect(&Dataset::Paired(pairs), &[heldout, suite], &tokenizer, 8, Some(8)).unwrap();
    let found: Vec<(usize, String)> = report
        .findings
        .iter()
        .map(|f| {
            (
                f.count,
                format!("{} {}", f.what.split(' ').take(3).collect::<Vec<_>>().join(" "), f.ids.join(",")),
            )
        })
        .collect();
    let expected = [
        (2, "BOS twice at row:2"),
        (1, "EOS twice at row:8"),
        (1, "EOS before the row:3"),
        (1, "cut at max_length, row:4"),
        (1, "dropped: the prompt row:5"),
        (1, "dropped: the completion row:6"),
        (2, "tokens merge across row:6,row:8"),
        (1, "chosen and rejected row:1"),
        (1, "prompt stands in row:1"),
        (1, "holds the unknown row:7"),
        (2, "prompt stands too row:0,row:1"),
        (1, "prompt stands too row:4"),
    ];
    assert_eq!(found, expected.map(|(n, text)| (n, text.to_owned())));
    assert_eq!((report.examples, report.desirable, report.undesirable), (9, 9, 9));
    assert_eq!((report.stats.examples, report.stats.dropped), (7, 2));
    let text = report.to_string();
    for part in
        ["9 pairs: 9 desirable and 9 undesirable", "7 kept, 2 dropped", "row:0 (desirable)\n⟦<s>c⟧a·</s>"]
    {
        assert!(text.contains(part), "{text}\nlacks: {part}");
    }
}
