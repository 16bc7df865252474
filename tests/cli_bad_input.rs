//! Bad input ends with a clear message and exit code 2, and what was written before is kept.

mod cli;

use cli::Place;

#[test]
fn usage_errors_exit_with_2_and_help_with_0() {
    let place = Place::empty();
    place.run(&["compare", "--nonsense"]).fails(2, &["--nonsense"]);
    place.run(&["frobnicate"]).fails(2, &["frobnicate"]);
    place.run(&["compare", "--device", "tpu"]).fails(2, &["unknown device `tpu` (known: auto, cpu, cuda"]);
    place.run(&["compare", "--threads", "0"]).fails(2, &["--threads"]);
    place.run(&["score"]).fails(2, &["--model"]);
    let help = place.run(&["--help"]);
    assert!(help.succeeds().contains("Exit codes:") && help.out.contains("130  interrupted"), "{}", help.out);
}

#[test]
fn an_option_that_would_do_nothing_is_refused() {
    let place = Place::empty();
    for (line, says) in [
        ("report x --set train.batch_size=8", "`kto-eval report` has no use for --set"),
        ("gather x --out y", "`kto-eval gather` has no use for --out"),
        ("gate --baseline a --candidate b --seed 1", "`kto-eval gate` has no use for --seed"),
        ("winrate x --threads 2", "`kto-eval winrate` has no use for --threads"),
        ("winrate x --model m", "of the options of all verbs it takes --seed, --json"),
        ("suites list --data d", "`kto-eval suites` has no use for --data"),
        ("merge x --out y --set train.batch_size=8", "`kto-eval merge` has no use for --set"),
        ("verify --out y", "`kto-eval verify` has no use for --out"),
        ("bench --out y", "`kto-eval bench` has no use for --out"),
        ("plan list --device cpu", "`kto-eval plan list` has no use for --device"),
        ("score --model m --data d --json", "`kto-eval score` has no use for --json"),
        ("score --model m --data d --judge-url http://h --judge-model m", "--judge-url names a judge"),
        ("score --model m --data d --force", "--suite"),
        ("score --model m --suite heldout --set train.warmup=0", "has no use for --set train.warmup=0"),
        (
            "reward --model m --data d --set data.feedback.flip=0.1",
            "has no use for --set data.feedback.flip=0.1",
        ),
        ("score --model m --data d --set data.split=train", "hint: it takes --split for that"),
        ("score --model m --data d --set data.max_length=64", "hint: it takes --max-length for that"),
        (
            "score --model m --data d --set data.heldout_fraction=0.5",
            "data., but for data.feedback, data.heldout",
        ),
        ("score --model m --data d --heldout", "--suite"),
        ("score --model m --data d --max-length 1", "error: --max-length 1: a sequence has"),
        (
            "score --model m --suite heldout --data d --judge-reward r",
            "--judge-reward names a judge, and no suite asks it",
        ),
        ("compare --judge-url http://h --judge-model m", "--judge-url names a judge, and no suite asks it"),
        ("verify --judge-reward m", "such as heldout-rewarded"),
        ("compare --model m --data d", "no plan is named, and `quickstart` is about the embedded world"),
        ("data inspect world --set data.source=x", "hint: it takes the argument SOURCE for that"),
        ("data inspect world --set budget.steps=3", "it takes keys that begin with data."),
        ("data inspect world --set data.world.flip=0.7", "--set data.world.flip=0.7: "),
        ("compare --launcher local --tensorboard", "--tensorboard"),
        ("train --seed 1,2 --data d --model m", "hint: give one seed: --seed 1"),
    ] {
        place.line(line).fails(2, &[says]);
    }
    // What a verb reads of the data is what it takes of them.
    let notes = |more: &str| place.line(&format!("data inspect world --json {more}")).succeeds().to_owned();
    assert_ne!(notes(""), notes("--set data.world.flip=0.3"));
    assert!(notes("--split test").contains("\"split\": \"test\""));
}

#[test]
fn metrics_that_nothing_measures_are_refused_before_anything_is_trained() {
    let place = Place::new();
    let verdict = |names: &str| format!("[verdict]\nprimary = [{names}]\n[suites]");
    place.refuses(
        cli::PLAN,
        &[
            (
                "[suites]",
                &verdict("\"win_rate\""),
                "verdict.primary: unknown metric with a direction `win_rate`",
            ),
            ("[suites]", &verdict("\"kl_sequence\""), "verdict.primary: unknown metric with a direction"),
            ("[suites]", &verdict("\"exact_match\""), "measure nothing of verdict.primary (exact_match)"),
        ],
    );
    let tuned = cli::PLAN.replace("method", "tune = { learning_rate = [1e-3, 1e-4] }\nmethod")
        + "[tune]\ntrials = 2\nsearch = \"grid\"\n";
    place.refuses(
        &tuned,
        &[
            ("trials = 2", "trials = 2\nmetric = \"accuracy\"", "tune.metric: unknown metric"),
            ("trials = 2", "trials = 2\nmetric = \"reward_chosen\"", "tune.metric: unknown metric"),
            ("trials = 2", "trials = 2\nsuite = \"rewardbench\"", "has questions of its own"),
            (
                "trials = 2",
                "trials = 2\nsuite = \"heldout-judged\"\nmetric = \"win_rate_base\"",
                "--judge-url",
            ),
        ],
    );
    assert!(!place.path("x/trials.csv").exists() && !place.path("x/steps.csv").exists());
}

#[test]
fn labels_have_no_preference_suite() {
    let place = Place::new();
    for split in ["train", "test"] {
        let rows: Vec<serde_json::Value> = place
            .read(&format!("data/{split}.jsonl"))
            .lines()
            .map(|l| serde_json::from_str(l).unwrap())
            .collect();
        let row = |(i, r): (usize, &serde_json::Value)| {
            let key = ["chosen", "rejected"][i % 2];
            let row = serde_json::json!({"prompt": r["prompt"], "completion": r[key], "label": i % 2 == 0});
            row.to_string() + "\n"
        };
        place.write(&format!("data/{split}.jsonl"), &rows.iter().enumerate().map(row).collect::<String>());
    }
    place.write("plan.toml", &cli::PLAN.replace("[[arm]]\nmethod = \"dpo\"\n", ""));
    let says = "suite `heldout` holds single completions, and a preference suite asks about pairs";
    for verb in ["verify", "compare"] {
        place.run(&[verb, "plan.toml"]).fails(2, &[says, "suites.generation = [\"heldout-prompts\"]"]);
    }
    let set = ["--set", "suites.preference=[]", "--set", "suites.generation=[\"heldout-prompts\"]"];
    let ran = place.run(&[&["verify", "plan.toml"][..], &set].concat());
    ran.succeeds();
    for part in ["every comparison would be exploratory", "heldout-judged", "heldout-rewarded"] {
        assert!(ran.err.contains(part), "lacks: {part}\n{}", ran.err);
    }
}

#[test]
fn a_plan_that_is_wrong_is_refused_with_its_line() {
    let place = Place::empty();
    place.run(&["compare", "nosuch.toml"]).fails(2, &["reading plan nosuch.toml", "hint:"]);
    place.run(&["compare", "quikstart"]).fails(2, &["unknown shipped plan `quikstart` (known: quickstart"]);
    for (from, to, says) in [
        (
            "\"kto\"",
            "\"kot\"",
            &["plan.toml:26: unknown method `kot` (known: sft, kto", "did you mean `kto`"][..],
        ),
        ("batch_size = 8", "batch_sizes = 8", &["plan.toml:13: unknown key in [train] `batch_sizes`"]),
        ("tokens = 6000", "tokens = 0", &["plan.toml:3: `budget.tokens` is 0"]),
        ("tokens = 6000", "tokens = ", &["plan.toml:3: "]),
        ("\"heldout\"", "\"heldot\"", &["unknown preference suite `heldot` (known: heldout"]),
        ("[\"heldout\"]", "[]", &["names no suite", "suites list"]),
    ] {
        assert!(cli::PLAN.contains(from), "the test replaces {from}");
        place.write("plan.toml", &cli::PLAN.replacen(from, to, 1));
        place.run(&["compare", "plan.toml"]).fails(2, says);
    }
    place.write("plan.toml", cli::PLAN);
    place
        .run(&["compare", "plan.toml", "--set", "train.lr=1"])
        .fails(2, &["--set train.lr=1", "learning_rate"]);
    place.run(&["compare", "plan.toml", "--set", "arm.kto.beta=-1"]).fails(2, &["--set arm.kto.beta=-1"]);
}

#[test]
fn data_that_cannot_be_used_is_refused_with_path_and_line() {
    let place = Place::new();
    let compare = |data: &str| place.run(&["compare", "plan.toml", "--data", data, "--out", "bad"]);
    compare("nowhere/at-all/x").fails(2, &["nowhere/at-all/x"]);
    compare("nothing.jsonl").fails(2, &["nothing.jsonl"]);
    let break_line = |name: &str, line: usize, text: &str| {
        std::fs::create_dir(place.path(name)).unwrap();
        let train = place.read("data/train.jsonl");
        let mut lines: Vec<&str> = train.lines().collect();
        lines[line - 1] = text;
        place.write(&format!("{name}/train.jsonl"), &(lines.join("\n") + "\n"));
        place.write(&format!("{name}/test.jsonl"), &place.read("data/test.jsonl"));
    };
    break_line("half", 31, "{\"prompt\": \"x\", \"chosen\":");
    compare("half").fails(2, &["half/train.jsonl:31"]);
    break_line("lacks", 40, "{\"prompt\": \"x\", \"chosen\": \"y\"}");
    compare("lacks").fails(2, &["lacks/train.jsonl:40", "rejected"]);
    std::fs::create_dir(place.path("void")).unwrap();
    place.write("void/train.jsonl", "");
    compare("void").fails(2, &["void/train.jsonl", "empty"]);
    std::fs::create_dir(place.path("untested")).unwrap();
    place.write("untested/train.jsonl", &place.read("data/train.jsonl"));
    compare("untested").fails(2, &["test", "untested"]);
    let labels = "{\"prompt\": \"a\", \"completion\": \" b\", \"label\": \"yes\"}\n";
    place.write("labels.jsonl", labels);
    compare("labels.jsonl").fails(2, &["labels.jsonl:1", "label"]);
    std::fs::create_dir(place.path("single")).unwrap();
    for split in ["train", "test"] {
        let row = labels.replace("\"yes\"", "true");
        place.write(&format!("single/{split}.jsonl"), &row.repeat(8));
    }
    place.write(
        "plan.toml",
        &cli::PLAN
            .replace("preference = [\"heldout\"]", "generation = [\"heldout-prompts\"]\npreference = []"),
    );
    compare("single").fails(2, &["arm dpo", "needs pairs"]);
}

#[test]
fn a_model_that_does_not_fit_is_refused_by_name() {
    let place = Place::new();
    let compare = |model: &str| place.run(&["compare", "plan.toml", "--model", model, "--out", "bad"]);
    compare("no/such/model").fails(2, &["no/such/model"]);
    let config = place.read("model/config.json");
    // Another vocabulary: the checkpoint's tensors and the tokenizer no longer fit.
    let copy = |name: &str| {
        std::fs::create_dir(place.path(name)).unwrap();
        for entry in std::fs::read_dir(place.path("model")).unwrap() {
            let path = entry.unwrap().path();
            std::fs::copy(&path, place.path(name).join(path.file_name().unwrap())).unwrap();
        }
    };
    copy("deeper");
    place
        .write("deeper/config.json", &config.replace("\"num_hidden_layers\": 1", "\"num_hidden_layers\": 2"));
    compare("deeper").fails(2, &["tensor model.layers.1", "is missing"]);
    copy("wider");
    place.write("wider/config.json", &config.replace("\"hidden_size\": 16", "\"hidden_size\": 32"));
    compare("wider").fails(2, &["tensor ", "shape"]);
    copy("strange");
    let tokenizer = place.read("strange/tokenizer.json").replacen("\"<unk>\": 2", "\"<unk>\": 99999", 1);
    let tokenizer = tokenizer.replacen("\"<unk>\":2", "\"<unk>\":99999", 1);
    assert_ne!(tokenizer, place.read("strange/tokenizer.json"), "the test moves <unk>");
    place.write("strange/tokenizer.json", &tokenizer);
    compare("strange").fails(2, &["tokenizer", "does not fit the model"]);
    copy("mute");
    std::fs::remove_file(place.path("mute/tokenizer.json")).unwrap();
    compare("mute").fails(2, &["no tokenizer.json in mute"]);
}

#[test]
fn an_output_folder_that_will_not_do_is_refused_before_anything_is_spent() {
    let place = Place::new();
    place.write("file", "");
    place
        .run(&["compare", "plan.toml", "--out", "file/inside"])
        .fails(2, &["creating the output folder", "--out"]);
    place.run(&["report", "nothing-here"]).fails(2, &["nothing-here/plan.toml", "hint:"]);
    std::fs::create_dir(place.path("other")).unwrap();
    let other = place.run(&["plan", "show", "plan.toml", "--set", "arm.kto.beta=0.5"]);
    place.write("other/plan.toml", other.succeeds());
    // A plan without a row binds nobody: the command that wrote it found something wrong first.
    place.write("other/scores.csv", "run,arm\n");
    let text = place.read("other/plan.toml");
    let refused = place.run(&["compare", "plan.toml", "--out", "other"]);
    refused.fails(2, &["another plan, plan `tiny`", "`beta = 0.5` there, `beta = 0.1` here", "--force"]);
    assert_eq!(place.read("other/plan.toml"), text, "what was there is kept");
}
