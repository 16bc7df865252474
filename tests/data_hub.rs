//! Data sets and models by hub id, against a local stand-in of the hub's HTTP interface.
//!
//! One test: the environment variables under test belong to the whole process.

mod hub_server;

use std::io::Write;
use std::path::Path;
use std::sync::{Arc, Mutex};

use hub_server::{Hub, serve};
use kto_eval::base::error::render;
use kto_eval::data::{Dataset, load, recipes, resolve_dataset, resolve_model};
use kto_eval::plan::{DataFormat, DataSpec, WorldSpec};

/// Forgets a variable; see [`set`].
fn unset(variable: &str) {
    // SAFETY: as for `set`.
    unsafe { std::env::remove_var(variable) }
}

/// # Safety
/// No other thread may read the environment meanwhile; the stand-in's threads do not.
fn set(variable: &str, value: &str) {
    // SAFETY: see above; this binary has one test.
    unsafe { std::env::set_var(variable, value) }
}

fn spec(source: &str, config: &str) -> DataSpec {
    DataSpec {
        source: source.to_owned(),
        revision: "main".to_owned(),
        config: config.to_owned(),
        split: "train".to_owned(),
        format: DataFormat::Auto,
        max_length: 512,
        max_examples: 0,
        world: WorldSpec { seed: 0, train_pairs: 1, heldout_pairs: 1, temperature: 1.0, flip: 0.0 },
        ..DataSpec::default()
    }
}

fn gzip(text: &str) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(text.as_bytes()).unwrap();
    encoder.finish().unwrap()
}

/// Small files of the schemas and names that the data sets with a recipe have; `make_parquet.py` made them.
fn put_named_data_sets(put: &mut impl FnMut(&str, Vec<u8>)) {
    let parquet = |name: &str| {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/parquet");
        std::fs::read(folder.join(format!("{name}.parquet"))).unwrap()
    };
    let mut data_set = |name: &str, bytes: Vec<u8>| put(&format!("datasets/{name}"), bytes);
    data_set("trl-lib/ultrafeedback_binarized/README.md", b"# x".to_vec());
    data_set("trl-lib/ultrafeedback_binarized/data/train-00001-of-00002.parquet", parquet("trl-pairs-1"));
    data_set("trl-lib/ultrafeedback_binarized/data/train-00000-of-00002.parquet", parquet("trl-pairs-0"));
    data_set("trl-lib/ultrafeedback_binarized/data/test-00000-of-00001.parquet", parquet("trl-pairs-0"));
    data_set("trl-lib/kto-mix-14k/data/train-00000-of-00001.parquet", parquet("kto-mix"));
    data_set("HuggingFaceH4/ultrafeedback_binarized/data/train_prefs-00000-of-00001.parquet", parquet("h4"));
    data_set("HuggingFaceH4/ultrafeedback_binarized/data/test_prefs-00000-of-00001.parquet", parquet("h4"));
    data_set("HuggingFaceH4/ultrafeedback_binarized/data/train_sft-00000-of-00001.parquet", parquet("other"));
    let argilla = "argilla/ultrafeedback-binarized-preferences/data";
    data_set(&format!("{argilla}/train-00000-of-00001-ad860a47ccfa08f9.parquet"), parquet("argilla"));
    let oasst = "OpenAssistant/oasst1/data";
    data_set(&format!("{oasst}/train-00000-of-00001-b42a775f407cee45.parquet"), parquet("oasst"));
    data_set(&format!("{oasst}/validation-00000-of-00001-134b8fd0c89408b6.parquet"), parquet("oasst"));
    let post = |labels: i32| {
        let row = serde_json::json!({"post_id": "p", "domain": "askculinary_train", "upvote_ratio": 0.98,
            "history": format!("post {labels}"), "c_root_id_A": "a", "c_root_id_B": "b", "score_A": 340, "score_B": 166,
            "human_ref_A": "of A", "human_ref_B": "of B", "labels": labels, "score_ratio": 2.0});
        row.to_string() + "\n"
    };
    data_set("stanfordnlp/SHP/askculinary/train.json", (post(1) + &post(0)).into_bytes());
    data_set("stanfordnlp/SHP/askdocs/train.json", post(1).into_bytes());
    let row = serde_json::json!({"chosen": "\n\nHuman: q\n\nAssistant: yes", "rejected": "\n\nHuman: q\n\nAssistant: no"});
    data_set("Anthropic/hh-rlhf/harmless-base/train.jsonl.gz", gzip(&(row.to_string() + "\n")));
}

fn named_data_sets_are_read_by_their_recipes() {
    let read = |source: &str, config: &str, split: &str| {
        load(&spec(source, config), split).unwrap_or_else(|e| panic!("{source}: {}", render(&e)))
    };
    let pairs = |source: &str, config: &str, split: &str| -> Vec<[String; 3]> {
        let Dataset::Paired(pairs) = read(source, config, split).dataset else { panic!("{source}: pairs") };
        pairs.into_iter().map(|p| [p.prompt, p.chosen, p.rejected]).collect()
    };
    let sources: Vec<&str> = recipes().iter().map(|r| r.source.as_str()).collect();

    let trl = pairs("trl-lib/ultrafeedback_binarized", "", "train");
    assert_eq!(trl.len(), 8, "both shards, in order");
    for (i, [prompt, chosen, rejected]) in trl.iter().enumerate() {
        assert!(prompt.contains(&format!("question {i}")) && chosen.contains(&format!("good answer {i} é")));
        assert!(rejected.contains(&format!("bad answer {i}")), "{rejected}");
    }
    assert_eq!(pairs("trl-lib/ultrafeedback_binarized", "", "test").len(), 3);

    let Dataset::Unpaired(mix) = read("trl-lib/kto-mix-14k", "", "train").dataset else { panic!("labels") };
    assert_eq!(mix.iter().map(|e| e.desirable).collect::<Vec<_>>(), [true, false, true, false]);
    assert!(mix[2].prompt.contains("q2") && mix[2].completion.contains("a2"));

    let h4 = read("HuggingFaceH4/ultrafeedback_binarized", "", "train");
    assert_eq!(
        (h4.dataset.len(), h4.format),
        (3, DataFormat::TrlPairedImplicit),
        "train is train_prefs there"
    );
    assert_eq!(pairs("HuggingFaceH4/ultrafeedback_binarized", "", "test").len(), 3);

    let argilla = pairs("argilla/ultrafeedback-binarized-preferences", "", "train");
    assert_eq!(argilla[1], ["\n\nHuman: instruction 1\n\nAssistant:", " yes 1", " no 1"]);

    let shp = pairs("stanfordnlp/SHP", "askculinary", "train");
    let post = |n: usize| format!("\n\nHuman: post {n}\n\nAssistant:");
    assert_eq!(shp, [[&post(1), " of A", " of B"], [&post(0), " of B", " of A"]]);
    let all = read("stanfordnlp/SHP", "*", "train").dataset;
    let Dataset::Paired(all) = all else { panic!("pairs") };
    let ids: Vec<&str> = all.iter().map(|p| p.id.as_str()).collect();
    assert_eq!(ids, ["askculinary/train.json:1", "askculinary/train.json:2", "askdocs/train.json:1"]);

    let oasst = read("OpenAssistant/oasst1", "", "train");
    assert!(
        oasst.notes.iter().any(|n| n == "7 messages make 3 pairs of ranked answers"),
        "{:?}",
        oasst.notes
    );
    let oasst = pairs("OpenAssistant/oasst1", "", "test");
    assert!(
        oasst[0][0].contains("What is red?")
            && oasst[0][1].contains("A colour.")
            && oasst[0][2].contains("A number.")
    );
    assert!(
        oasst[1][0].contains("A colour.") && oasst[1][0].contains("Which one?"),
        "the whole thread is the prompt"
    );
    assert!(oasst[1][1].contains("of blood") && oasst[1][2].contains("sky") && oasst[2][2].contains("roses"));

    assert_eq!(pairs("Anthropic/hh-rlhf", "harmless-base", "train").len(), 1);
    for read in [
        "trl-lib/ultrafeedback_binarized",
        "trl-lib/kto-mix-14k",
        "HuggingFaceH4/ultrafeedback_binarized",
        "argilla/ultrafeedback-binarized-preferences",
        "stanfordnlp/SHP",
        "OpenAssistant/oasst1",
        "Anthropic/hh-rlhf",
    ] {
        assert!(sources.contains(&read), "{read} has a recipe");
    }
    assert_eq!(sources.len(), 7, "every recipe is tested here");
}

/// Where the cache keeps what a transfer has brought so far, and where the whole.
fn blob(home: &Path, name: &str, length: usize) -> std::path::PathBuf {
    let repo = name.rsplit_once('/').unwrap().0.replace('/', "--");
    home.join("hub").join(repo).join("blobs").join(format!("etag-{}", name.len() * 1000 + length))
}

fn transfers_that_fail_leave_the_cache_whole(hub: &Mutex<Hub>, home: &Path) {
    let rows: String = (0..400)
        .map(|i| format!("{{\"prompt\": \"q{i}\", \"chosen\": \"yes\", \"rejected\": \"no\"}}\n"))
        .collect();
    let put = |repo: &str| {
        let name = format!("datasets/Org/{repo}/train.jsonl");
        hub.lock().unwrap().files.insert(name.clone(), rows.clone().into_bytes());
        let blob = blob(home, &name, rows.len());
        (name, blob.clone(), blob.with_extension("part"))
    };
    let read = |repo: &str| load(&spec(&format!("Org/{repo}"), ""), "train").map(|l| l.dataset.len());
    let refused = |repo: &str| render(&read(repo).unwrap_err());

    // The hub fails: said as such, and nothing is kept.
    put("busy");
    hub.lock().unwrap().failing.insert("api/datasets/Org/busy".into(), (503, 1));
    let text = refused("busy");
    assert!(text.contains("status: 503") && text.contains("the hub itself is failing"), "{text}");
    assert_eq!(read("busy").unwrap(), 400);

    // A transfer that fails twice is tried again, whatever it had brought before.
    let (name, whole, part) = put("shaky");
    hub.lock().unwrap().failing.insert(name, (500, 2));
    assert_eq!(read("shaky").unwrap(), 400);
    assert!(whole.is_file() && !part.exists());

    // The branch moves between the shards of a split: both are taken from where it went.
    let shard = |i: usize| format!("datasets/Org/moving/train-0000{i}-of-00002.jsonl");
    for i in 0..2 {
        hub.lock().unwrap().files.insert(shard(i), rows.clone().into_bytes());
    }
    hub.lock().unwrap().cut.extend(std::iter::repeat_n(shard(1), 5));
    refused("moving");
    hub.lock().unwrap().cut.clear();
    hub.lock().unwrap().moved = true;
    let (files, _) = resolve_dataset("Org/moving", "main", "", "train").unwrap();
    let folders: Vec<_> = files.iter().map(|f| f.parent().unwrap()).collect();
    assert_eq!((folders.len(), folders[0]), (2, folders[1]), "one commit");
    hub.lock().unwrap().moved = false;

    // Cut at every attempt: what came is kept aside, and the next call goes on from there.
    let (name, whole, part) = put("cut");
    hub.lock().unwrap().cut.extend(std::iter::repeat_n(name, 5));
    let text = refused("cut");
    assert!(text.contains("train.jsonl") && text.contains("hint:"), "{text}");
    let kept = std::fs::metadata(&part).unwrap().len();
    assert!(!whole.exists() && kept > 0, "{kept}");
    hub.lock().unwrap().cut.clear();
    assert_eq!(read("cut").unwrap(), 400);
    let asked = hub.lock().unwrap().ranges.last().cloned().flatten().unwrap();
    assert_eq!(asked, format!("bytes={kept}-"), "taken up where it broke off");
    assert_eq!(std::fs::read(&whole).unwrap(), rows.as_bytes());

    // What came before is there, and the first attempt to go on brings nothing: the library asks for the whole and
    // adds it to what there was. Such a file is not kept.
    let (name, whole, part) = put("twice");
    std::fs::create_dir_all(part.parent().unwrap()).unwrap();
    std::fs::write(&part, &rows.as_bytes()[..1000]).unwrap();
    hub.lock().unwrap().failing.insert(name, (500, 1));
    assert_eq!(read("twice").unwrap(), 400);
    assert_eq!(std::fs::read(&whole).unwrap(), rows.as_bytes());

    // More than the whole file was left behind, by another version of it.
    let (_, whole, part) = put("beyond");
    std::fs::create_dir_all(part.parent().unwrap()).unwrap();
    std::fs::write(&part, vec![b'x'; rows.len() + 1]).unwrap();
    assert_eq!(read("beyond").unwrap(), 400);
    assert_eq!(std::fs::read(&whole).unwrap(), rows.as_bytes());

    // No space left: /dev/full says so of every write.
    #[cfg(target_os = "linux")]
    {
        let (_, whole, part) = put("full");
        std::fs::create_dir_all(part.parent().unwrap()).unwrap();
        std::os::unix::fs::symlink("/dev/full", &part).unwrap();
        let text = refused("full");
        assert!(text.contains("No space left") && text.contains("the disk of the cache is full"), "{text}");
        assert!(!whole.exists());
        std::fs::remove_file(&part).unwrap();
        assert_eq!(read("full").unwrap(), 400);
    }
}

fn revisions_are_kept_apart(hub: &Mutex<Hub>) {
    for file in ["config.json", "tokenizer.json"] {
        hub.lock().unwrap().files.insert(format!("Org/model@v2/{file}"), b"{\"of\": \"v2\"}".to_vec());
    }
    hub.lock().unwrap().files.insert("Org/model@v2/model.safetensors".into(), vec![9; 50]);
    let (main, v2) = (resolve_model("Org/model", "main").unwrap(), resolve_model("Org/model", "v2").unwrap());
    assert_ne!(main, v2);
    assert_eq!(std::fs::read(v2.join("model.safetensors")).unwrap(), vec![9; 50]);
    assert_eq!(std::fs::read(main.join("config.json")).unwrap(), b"{}");
    let text = render(&resolve_model("Org/model", "v3").unwrap_err());
    assert!(text.contains("no such repository, revision or file"), "{text}");
    let text = render(&resolve_model("Org/model", "../x").unwrap_err());
    assert!(text.contains("is no revision"), "{text}");
}

fn a_token_file_serves_as_the_variable_does(home: &Path) {
    unset("HF_TOKEN");
    let other = tempfile::TempDir::new().unwrap();
    set("HF_HOME", &other.path().display().to_string());
    let text = render(&load(&spec("Org/secret", ""), "train").unwrap_err());
    assert!(text.contains("set HF_TOKEN"), "{text}");
    std::fs::write(other.path().join("token"), "secret\n").unwrap();
    assert_eq!(load(&spec("Org/secret", ""), "train").unwrap().dataset.len(), 200);
    assert!(other.path().join("hub").is_dir(), "HF_HOME holds the cache");
    let cache = tempfile::TempDir::new().unwrap();
    set("HF_HUB_CACHE", &cache.path().display().to_string());
    resolve_model("Org/model", "main").unwrap();
    assert!(cache.path().join("models--Org--model").is_dir(), "HF_HUB_CACHE goes before HF_HOME");
    unset("HF_HUB_CACHE");
    set("HF_HOME", &home.display().to_string());
}

#[test]
fn data_sets_and_models_are_fetched_cached_and_refused_as_the_hub_answers() {
    let home = tempfile::TempDir::new().unwrap();
    let row = |i: usize| {
        let side = |word: &str| format!("\\n\\nHuman: q{i}\\n\\nAssistant: {word}");
        format!("{{\"chosen\": \"{}\", \"rejected\": \"{}\"}}\n", side("yes"), side("no"))
    };
    let rows: String = (0..200).map(row).collect();
    let mut hub = Hub::default();
    let mut put = |name: &str, bytes: Vec<u8>| drop(hub.files.insert(name.to_owned(), bytes));
    put("datasets/Org/hh/README.md", b"# hh".to_vec());
    put("datasets/Org/hh/harmless-base/train.jsonl.gz", gzip(&rows));
    put("datasets/Org/hh/harmless-base/test.jsonl.gz", gzip(&row(300)));
    put("datasets/Org/secret/train.jsonl", rows.clone().into_bytes());
    for file in ["config.json", "tokenizer.json", "README.md", "pytorch_model.bin"] {
        put(&format!("Org/model/{file}"), b"{}".to_vec());
    }
    put("Org/model/model-00001-of-00001.safetensors", vec![7; 5000]);
    put("Org/pickle/config.json", b"{}".to_vec());
    put("Org/pickle/pytorch_model.bin", b"x".to_vec());
    put_named_data_sets(&mut put);
    hub.redirected.push("Org/model/model-00001-of-00001.safetensors".to_owned());
    hub.gated.push("datasets/Org/secret".to_owned());
    hub.cut.push("datasets/Org/hh/harmless-base/train.jsonl.gz".to_owned());
    let hub = Arc::new(Mutex::new(hub));
    set("HF_HOME", &home.path().display().to_string());
    set("HF_ENDPOINT", &serve(Arc::clone(&hub)));

    // A configuration of a data set, compressed; its first transfer breaks off and is taken up again.
    let loaded = load(&spec("Org/hh", "harmless-base"), "train").unwrap();
    assert_eq!((loaded.dataset.len(), loaded.format), (200, DataFormat::HhTranscript));
    assert!(hub.lock().unwrap().cut.is_empty());
    let before = hub.lock().unwrap().log.len();
    assert_eq!(load(&spec("Org/hh", "harmless-base"), "train").unwrap().hash, loaded.hash);
    assert_eq!(
        hub.lock().unwrap().log.len(),
        before + 1,
        "the second time only the list of files is asked for"
    );

    let text = render(&load(&spec("Org/hh", "harmless"), "train").unwrap_err());
    assert!(text.contains("unknown configuration `harmless` (known: harmless-base)"), "{text}");
    let text = render(&load(&spec("Org/none", ""), "train").unwrap_err());
    assert!(text.contains("taken as a hub id") && text.contains("check the spelling"), "{text}");

    // Gated: refused without a token, and with it the token goes along.
    let text = render(&load(&spec("Org/secret", ""), "train").unwrap_err());
    assert!(text.contains("set HF_TOKEN"), "{text}");
    set("HF_TOKEN", "secret");
    assert_eq!(load(&spec("Org/secret", ""), "train").unwrap().dataset.len(), 200);
    assert!(hub.lock().unwrap().tokens.iter().any(|t| t.as_deref() == Some("Bearer secret")));

    // A model: what it needs and nothing else, through a redirect.
    let dir = resolve_model("Org/model", "main").unwrap();
    assert!(dir.join("config.json").is_file() && dir.join("tokenizer.json").is_file());
    assert_eq!(std::fs::read(dir.join("model-00001-of-00001.safetensors")).unwrap(), vec![7; 5000]);
    assert!(!dir.join("pytorch_model.bin").exists() && !dir.join("README.md").exists());
    let text = render(&resolve_model("Org/pickle", "main").unwrap_err());
    assert!(text.contains("no safetensors weights"), "{text}");
    let text = render(&resolve_model("../no/such/dir", "main").unwrap_err());
    assert!(text.contains("no such model directory"), "{text}");
    assert_eq!(resolve_model(&home.path().display().to_string(), "main").unwrap(), home.path());

    named_data_sets_are_read_by_their_recipes();
    transfers_that_fail_leave_the_cache_whole(&hub, home.path());
    revisions_are_kept_apart(&hub);
    a_token_file_serves_as_the_variable_does(home.path());

    // Nobody answers: the cache serves what it has too.
    let endpoint = std::env::var("HF_ENDPOINT").unwrap();
    set("HF_ENDPOINT", "http://127.0.0.1:9");
    assert_eq!(load(&spec("Org/hh", "harmless-base"), "train").unwrap().hash, loaded.hash);
    assert_eq!(resolve_model("Org/model", "main").unwrap(), dir);
    for (source, split, says) in [
        ("Org/hh", "test", "could not be reached, and these are the files that the cache has"),
        ("Org/other", "train", "check the network"),
    ] {
        let text = render(&load(&spec(source, "harmless-base"), split).unwrap_err());
        assert!(text.contains(says), "{text}");
    }
    set("HF_ENDPOINT", &endpoint);

    // Offline: the cache serves what it has, and nothing is asked.
    set("HF_HUB_OFFLINE", "1");
    let before = hub.lock().unwrap().log.len();
    assert_eq!(load(&spec("Org/hh", "harmless-base"), "train").unwrap().hash, loaded.hash);
    assert_eq!(resolve_model("Org/model", "main").unwrap(), dir);
    for (source, config, split) in [("Org/hh", "harmless-base", "test"), ("Org/other", "", "train")] {
        let text = render(&load(&spec(source, config), split).unwrap_err());
        assert!(
            text.contains("HF_HUB_OFFLINE") || text.contains("unknown split `test` (known: train)"),
            "{text}"
        );
    }
    assert_eq!(hub.lock().unwrap().log.len(), before);
    assert!(Path::new(&dir).starts_with(home.path()));
}
