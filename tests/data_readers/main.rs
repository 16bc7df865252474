//! Reading data sets: every form and every layout, and what bad input is answered with.

mod fuzz;

use std::fs;
use std::io::Write;
use std::path::Path;

use kto_eval::base::error::render;
use kto_eval::data::{Dataset, Loaded, PreferencePair, Template, UnpairedExample, load, load_with};
use kto_eval::plan::{DataFormat, DataSpec, WorldSpec};
use tempfile::TempDir;

fn spec(source: &Path) -> DataSpec {
    DataSpec {
        source: source.display().to_string(),
        revision: "main".to_owned(),
        config: String::new(),
        split: "train".to_owned(),
        format: DataFormat::Auto,
        max_length: 512,
        max_examples: 0,
        world: WorldSpec { seed: 0, train_pairs: 12, heldout_pairs: 6, temperature: 0.2, flip: 0.0 },
        ..DataSpec::default()
    }
}

/// Loads `content` as a file `rows.jsonl`.
fn read(content: impl AsRef<[u8]>) -> Result<Loaded, String> {
    let dir = TempDir::new().unwrap();
    let path = dir.path().join("rows.jsonl");
    fs::write(&path, content).unwrap();
    let shown = dir.path().display().to_string();
    load(&spec(&path), "train").map_err(|e| render(&e).replace(&shown, "DIR"))
}

fn pairs(loaded: Loaded) -> Vec<PreferencePair> {
    let Dataset::Paired(pairs) = loaded.dataset else { panic!("paired data") };
    pairs
}

fn texts(pair: &PreferencePair) -> [&str; 3] {
    [&pair.prompt, &pair.chosen, &pair.rejected]
}

#[test]
fn an_hh_transcript_is_split_at_its_last_assistant_turn() {
    let content = r#"{"chosen": "\n\nHuman: a\n\nAssistant: b\n\nHuman: c\n\nAssistant: d", "rejected": "\n\nHuman: a\n\nAssistant: b\n\nHuman: c\n\nAssistant: e"}
{"chosen": "\n\nHuman: a\n\nAssistant: b", "rejected": "\n\nHuman: other\n\nAssistant: c"}"#;
    let loaded = read(content).unwrap();
    assert_eq!((loaded.format, loaded.rows), (DataFormat::HhTranscript, 2));
    assert!(loaded.notes.iter().any(|n| n.starts_with("1 of 2 pairs left out")), "{:?}", loaded.notes);
    let pairs = pairs(loaded);
    assert_eq!(texts(&pairs[0]), ["\n\nHuman: a\n\nAssistant: b\n\nHuman: c\n\nAssistant:", " d", " e"]);
    assert_eq!((pairs.len(), pairs[0].id.as_str()), (1, "rows.jsonl:1"));
}

#[test]
fn plain_forms_of_trl_are_read() {
    let explicit =
        read(r#"{"prompt": "p", "chosen": " a", "rejected": " b", "subset": "s", "id": 7}"#).unwrap();
    let pair = pairs(explicit).remove(0);
    assert_eq!((texts(&pair), pair.subset.as_str(), pair.id.as_str()), (["p", " a", " b"], "s", "7"));

    // The space before the first difference belongs to the completions, as in TRL.
    let implicit = read(r#"{"chosen": "The sky is blue.", "rejected": "The sky is green."}"#).unwrap();
    assert_eq!(implicit.format, DataFormat::TrlPairedImplicit);
    assert_eq!(texts(&pairs(implicit)[0]), ["The sky is", " blue.", " green."]);
    let beginning = read(r#"{"chosen": "abc", "rejected": "abcdé"}"#).unwrap();
    assert_eq!(texts(&pairs(beginning)[0]), ["ab", "c", "cdé"]);

    let unpaired = read(r#"{"prompt": "p", "completion": " a", "label": false}"#).unwrap();
    let example = UnpairedExample {
        id: "rows.jsonl:1".to_owned(),
        prompt: "p".to_owned(),
        completion: " a".to_owned(),
        desirable: false,
        subset: String::new(),
    };
    assert_eq!(unpaired.dataset, Dataset::Unpaired(vec![example]));
}

#[test]
fn conversations_are_rendered_by_the_template_given() {
    let rows = concat!(
        r#"{"prompt": [{"role": "user", "content": "hi"}], "chosen": [{"role": "assistant", "content": "good"}], "#,
        r#""rejected": [{"role": "assistant", "content": "bad"}]}"#
    );
    assert_eq!(texts(&pairs(read(rows).unwrap())[0]), ["\n\nHuman: hi\n\nAssistant:", " good", " bad"]);

    let dir = TempDir::new().unwrap();
    let path = dir.path().join("rows.jsonl");
    let implicit = concat!(
        r#"{"prompt": "hi", "chosen": [{"role": "user", "content": "hi"}, {"role": "assistant", "content": "good"}], "#,
        r#""rejected": [{"role": "user", "content": "hi"}, {"role": "assistant", "content": "bad"}]}"#
    );
    fs::write(&path, implicit).unwrap();
    // The generation prompt of this template says more than the turn that follows it begins with.
    let source = "{% for m in messages %}<{{ m.role }}>{{ m.content }}</s>\n{% endfor %}\
                  {% if add_generation_prompt %}<assistant><think></think>{% endif %}";
    let template = Template::parse(source, "<s>", "</s>", "test").unwrap();
    let loaded = load_with(&spec(&path), "train", &template).unwrap();
    assert_eq!(loaded.format, DataFormat::TrlPairedImplicit);
    assert_eq!(texts(&pairs(loaded)[0]), ["<user>hi</s>\n<assistant>", "good</s>\n", "bad</s>\n"]);
}

#[test]
fn arrays_gzip_blank_lines_and_byte_order_marks_are_read() {
    let row = |i: usize| format!(r#"{{"prompt": "p{i}", "completion": "c", "label": true}}"#);
    let lines = format!("\u{feff}\n{}\n\n  \n{}\n", row(1), row(2));
    let array = format!("  [\n{},\n{}\n]\n", row(1), row(2));
    let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    gzip.write_all(lines.as_bytes()).unwrap();
    let from_lines = read(&lines).unwrap();
    assert_eq!(from_lines.dataset.len(), 2);
    for content in [array.into_bytes(), gzip.finish().unwrap()] {
        assert_eq!(read(content).unwrap().hash, from_lines.hash, "the same examples have the same hash");
    }
}

#[test]
fn labels_of_tables_without_truth_values_are_read() {
    let row =
        |label: &str| format!("{{\"prompt\": \"p\", \"completion\": \"c{label}\", \"label\": {label}}}\n");
    let loaded = read(row("1") + &row("0") + &row("1.0") + &row("0.0")).unwrap();
    let Dataset::Unpaired(examples) = &loaded.dataset else { panic!("unpaired data") };
    assert_eq!(examples.iter().map(|e| e.desirable).collect::<Vec<_>>(), [true, false, true, false]);
    let note = "labels 1 and 0 are read as true (desirable) and false: 4 of 4 rows";
    assert!(loaded.notes.iter().any(|n| n == note), "{:?}", loaded.notes);
}

/// Slices as `datasets` has them are not silently the whole, nor is a misspelt split of a single file.
#[test]
fn a_split_that_is_none_is_refused() {
    let dir = TempDir::new().unwrap();
    let path = dir.path().join("prefs.jsonl");
    fs::write(&path, "{\"prompt\": \"p\", \"completion\": \"c\", \"label\": true}\n").unwrap();
    let error = |split: &str| render(&load(&spec(&path), split).unwrap_err());
    for slice in ["train[:10]", "train[:10%]", "train+test"] {
        let text = error(slice);
        assert!(
            text.contains(&format!("`{slice}` is a slice")) && text.contains("data.max_examples = 10"),
            "{text}"
        );
    }
    let text = error("trian");
    assert!(text.contains("unknown split `trian`") && text.contains("did you mean `train`?"), "{text}");
    for split in ["train", "test", "validation", "prefs"] {
        load(&spec(&path), split).unwrap();
    }
}

#[test]
fn a_folder_of_save_to_disk_is_told_how_to_become_one_of_rows() {
    let dir = TempDir::new().unwrap();
    fs::write(dir.path().join("dataset_dict.json"), "{\"splits\": [\"train\"]}").unwrap();
    let error = || render(&load(&spec(dir.path()), "train").unwrap_err());
    assert!(
        error().contains("was written by `save_to_disk`") && error().contains("['train'].to_parquet"),
        "{}",
        error()
    );
    fs::rename(dir.path().join("dataset_dict.json"), dir.path().join("state.json")).unwrap();
    assert!(error().contains("no file of rows"), "{}", error());
    fs::write(dir.path().join("data-00000-of-00001.arrow"), "").unwrap();
    assert!(error().contains("was written by `save_to_disk`"), "{}", error());
}

#[test]
fn a_file_that_is_missing_is_not_taken_for_a_hub_id() {
    let text = render(&load(&spec(Path::new("no-such-file.jsonl")), "train").unwrap_err());
    assert!(text.contains("no such file or directory: no-such-file.jsonl"), "{text}");
}

#[test]
fn malformed_rows_are_answered_with_their_place() {
    let good = r#"{"prompt": "p", "completion": "c", "label": true}"#;
    let cases: [(Vec<u8>, &[&str]); 12] = [
        (format!("{good}\n{{\"prompt\": ").into_bytes(), &["DIR/rows.jsonl:2: not JSON: EOF"]),
        (format!("{good}\nnot json").into_bytes(), &["rows.jsonl:2: not JSON", "column 2"]),
        (
            [format!("{good}\n").as_bytes(), b"{\"a\": \"\xff\"}"].concat(),
            &["rows.jsonl:2: byte 8 of the line is not UTF-8"],
        ),
        (format!("[{good},\n{good},\n oops]").into_bytes(), &["rows.jsonl:3: not JSON"]),
        (b"[1, 2]".to_vec(), &["rows.jsonl:1: a row must be an object"]),
        (b"\"text\"".to_vec(), &["rows.jsonl:1: a row must be an object"]),
        (
            good.replace("true", "-1").into_bytes(),
            &["rows.jsonl:1: `label` must be true or false, or 1 or 0, found the number -1"],
        ),
        (
            good.replace("true", "\"yes\"").into_bytes(),
            &["rows.jsonl:1: `label`", "\"yes\"", "hint: true: the completion"],
        ),
        (
            good.replace("\"c\"", "3").into_bytes(),
            &["rows.jsonl:1: `completion` must be a string or a list of messages"],
        ),
        (b"{\"question\": 1}".to_vec(), &["rows.jsonl:1: columns `question`", "known forms"]),
        (
            format!("{good}\n{{\"prompt\": \"p\", \"chosen\": \"a\", \"rejected\": \"b\"}}").into_bytes(),
            &["rows.jsonl:2: the row is trl-paired", "rows.jsonl:1 is trl-unpaired", "hint: name the form"],
        ),
        (b"\n \n".to_vec(), &["rows.jsonl: the split is empty"]),
    ];
    for (content, expected) in cases {
        let shown = String::from_utf8_lossy(&content).into_owned();
        let error = read(content).expect_err(&shown);
        for part in expected {
            assert!(error.contains(part), "{shown}\ngave: {error}\nwhich lacks: {part}");
        }
        let places: usize = expected.iter().map(|e| e.matches("rows.jsonl").count()).sum();
        assert_eq!(error.matches("rows.jsonl").count(), places, "a place is named once: {error}");
    }
}

#[test]
fn ids_that_are_no_names_are_replaced_by_places() {
    let row = |id: &str| {
        format!("{{\"id\": \"{id}\", \"prompt\": \"p\", \"chosen\": \"a\", \"rejected\": \"b\"}}\n")
    };
    let loaded = read(row("x") + &row("y") + &row("x") + &row("x")).unwrap();
    let says = "2 of 4 rows have an `id` that another one has: they are called by file and number";
    assert!(loaded.notes.iter().any(|n| n == says), "{:?}", loaded.notes);
    let ids: Vec<String> = pairs(loaded).into_iter().map(|p| p.id).collect();
    assert_eq!(ids, ["x", "y", "rows.jsonl:3", "rows.jsonl:4"]);

    // Files of one name in several folders.
    let dir = TempDir::new().unwrap();
    let plain = "{\"prompt\": \"p\", \"chosen\": \"a\", \"rejected\": \"b\"}\n";
    for folder in ["a", "b"] {
        fs::create_dir_all(dir.path().join("train").join(folder)).unwrap();
        fs::write(dir.path().join("train").join(folder).join("0.jsonl"), plain).unwrap();
    }
    let ids: Vec<String> =
        pairs(load(&spec(dir.path()), "train").unwrap()).into_iter().map(|p| p.id).collect();
    assert_eq!(ids, ["a/0.jsonl:1", "b/0.jsonl:1"]);
}

#[test]
fn messages_must_have_a_role_and_a_content() {
    let row = |message: &str| format!(r#"{{"prompt": [{message}], "completion": "c", "label": true}}"#);
    for (message, expected) in [
        (r#"{"role": "user"}"#, "`prompt`: message 0 has no `content`"),
        (r#"{"role": 1, "content": "x"}"#, "message 0: `role` must be a string"),
        (r#""hi""#, "message 0 has no `role`"),
        ("", "needs at least one message"),
    ] {
        let error = read(row(message)).unwrap_err();
        assert!(error.contains("rows.jsonl:1") && error.contains(expected), "{message}: {error}");
    }
}

#[test]
fn what_is_missing_is_answered_with_what_is_there() {
    let dir = TempDir::new().unwrap();
    let row = r#"{"prompt": "p", "completion": "c", "label": true}"#;
    fs::write(dir.path().join("train.jsonl"), row).unwrap();
    fs::write(dir.path().join("old.parquet"), b"PAR1").unwrap();
    let error = |source: &Path, split: &str| render(&load(&spec(source), split).unwrap_err());

    let text = error(&dir.path().join("trian.jsonl"), "train");
    assert!(
        text.contains("no such file or directory") && text.contains("holds: old.parquet, train.jsonl"),
        "{text}"
    );
    let text = error(dir.path(), "test");
    assert!(text.contains("unknown split `test` (known: old, train)"), "{text}");
    let text = error(&dir.path().join("train.jsonl"), "test");
    assert!(text.contains("is the split `train`, and `test` is asked for"), "{text}");
    let text = error(&dir.path().join("old.parquet"), "train");
    assert!(text.contains("not readable as Parquet") && text.contains("cut off or damaged"), "{text}");
    let text =
        render(&load(&DataSpec { source: "world".to_owned(), ..spec(dir.path()) }, "dev").unwrap_err());
    assert!(text.contains("unknown split `dev` (known: train, test)"), "{text}");
}

#[test]
fn a_directory_gives_the_split_and_no_more_examples_than_asked_for() {
    let dir = TempDir::new().unwrap();
    let rows: String = (0..50)
        .map(|i| format!("{{\"prompt\": \"p{i}\", \"completion\": \"c\", \"label\": true}}\n"))
        .collect();
    fs::create_dir(dir.path().join("harmless-base")).unwrap();
    fs::write(dir.path().join("harmless-base/train.jsonl"), &rows).unwrap();
    fs::write(dir.path().join("harmless-base/test-00000-of-00002.jsonl"), &rows).unwrap();
    fs::write(dir.path().join("harmless-base/test-00001-of-00002.jsonl"), &rows).unwrap();
    let mut spec = DataSpec { config: "harmless-base".to_owned(), ..spec(dir.path()) };
    assert_eq!(load(&spec, "train").unwrap().dataset.len(), 50);
    assert_eq!(load(&spec, "test").unwrap().dataset.len(), 100, "shards are read one after the other");
    for most in [1, 15, 16, 17, 40] {
        spec.max_examples = most;
        assert_eq!(load(&spec, "train").unwrap().dataset.len(), most);
    }
}

#[test]
fn the_world_is_a_data_set_like_any_other() {
    let spec = DataSpec { source: "world".to_owned(), ..spec(Path::new("world")) };
    let (train, test) = (load(&spec, "train").unwrap(), load(&spec, "test").unwrap());
    assert_eq!((train.dataset.len(), test.dataset.len()), (12, 6));
    assert!(train.notes[0].contains("planted-truth world, seed 0"), "{:?}", train.notes);
    assert_eq!(train.hash, load(&spec, "train").unwrap().hash);
    assert_ne!(train.hash, test.hash);
}

fn parquet(name: &str) -> std::path::PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("tests/data/parquet/{name}.parquet"))
}

#[test]
fn parquet_files_are_read_in_every_form_and_refused_with_what_is_wrong() {
    // What `make_parquet.py` wrote through Arrow's C++ library: lists of structs, row groups, version 2 pages, gzip.
    let loaded = load(&spec(&parquet("trl-pairs-1")), "train").unwrap();
    assert_eq!((loaded.rows, loaded.format), (5, DataFormat::TrlPairedImplicit));
    let first = &pairs(loaded)[0];
    assert_eq!(first.id, "trl-pairs-1.parquet:1");
    assert!(first.prompt.contains("question 3") && first.chosen.contains("good answer 3 é"), "{first:?}");
    let few = load(&DataSpec { max_examples: 2, ..spec(&parquet("trl-pairs-1")) }, "train").unwrap();
    assert_eq!(few.dataset.len(), 2);
    let recipe = load(&spec(&parquet("argilla")), "train").unwrap();
    assert!(
        recipe.notes.iter().any(|n| n.starts_with("columns read by the recipe argilla")),
        "{:?}",
        recipe.notes
    );

    let error = |path: &Path| render(&load(&spec(path), "train").unwrap_err());
    let text = error(&parquet("other"));
    assert!(
        text.contains("other.parquet:1: columns `question`, `answer`, `score` are of no known form"),
        "{text}"
    );
    assert!(text.contains("hint: known forms:"), "{text}");
    let numbers = load(&spec(&parquet("label")), "train").unwrap();
    assert!(
        numbers.notes.iter().any(|n| n.starts_with("labels 1 and 0 are read as true")),
        "{:?}",
        numbers.notes
    );
    let text = error(&parquet("zstd"));
    assert!(text.contains("zstd") && text.contains("Snappy, gzip or nothing"), "{text}");
    let dir = TempDir::new().unwrap();
    let whole = fs::read(parquet("trl-pairs-0")).unwrap();
    for cut in [4, 100, whole.len() / 2, whole.len() - 1] {
        let path = dir.path().join("cut.parquet");
        fs::write(&path, &whole[..cut]).unwrap();
        let text = error(&path);
        assert!(
            text.contains("cut.parquet: not readable as Parquet") && text.contains("fetch it again"),
            "{text}"
        );
    }
}

#[test]
fn a_preference_that_is_neither_is_refused_with_its_place() {
    let row = |labels: &str| {
        format!(
            "{{\"history\": \"h\", \"human_ref_A\": \"a\", \"human_ref_B\": \"b\", \"labels\": {labels}}}\n"
        )
    };
    let text = read(row("1") + &row("2")).unwrap_err();
    assert!(
        text.contains("DIR/rows.jsonl:2: `labels` is 2; it must be 1 (human_ref_A was preferred)"),
        "{text}"
    );
}
