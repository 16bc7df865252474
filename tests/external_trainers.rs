//! Arms that are commands: good ones are scored, bad ones are recorded, and none is left behind.

#![cfg(unix)]

mod cli;

use cli::Place;
use kto_eval::record::{Records, Status, TrainerRow};

/// A plan with an sft arm of this engine and one arm a script (name, body, more keys of its trainer).
fn plan(place: &Place, scripts: &[(&str, &str, &str)]) {
    let head = cli::PLAN.split("[[arm]]").next().unwrap().replacen("seeds = [1, 2]", "seeds = [1]", 1);
    let mut text = head + "[[arm]]\nmethod = \"sft\"\n";
    for (name, body, more) in scripts {
        place.write(&format!("{name}.sh"), body);
        text += &format!(
            "\n[[arm]]\nname = \"{name}\"\n[arm.trainer]\n{more}\n\
             command = [\"sh\", \"{name}.sh\", \"{{model}}\", \"{{data}}\", \"{{out}}\", \"{{seed}}\", \"{{budget.tokens}}\"]\n"
        );
    }
    place.write("trainers.toml", &text);
}

const GOOD: &str = "echo training with seed $4\ncp $1/* $3/\nhead -n 1 $2 > $3/first-row.json\n\
    for i in 1 2 3; do echo '{\"step\": '$i', \"loss\": 0.'$i', \"policy_tokens\": 1990, \"desirable\": 4, \"kl\": NaN}'; done \
    > $3/kto-eval-metrics.jsonl\n";

fn processes(words: &str) -> usize {
    let Ok(entries) = std::fs::read_dir("/proc") else { return 0 };
    let line = |e: std::fs::DirEntry| std::fs::read(e.path().join("cmdline")).unwrap_or_default();
    entries
        .flatten()
        .map(line)
        .filter(|l| String::from_utf8_lossy(l).replace('\0', " ").contains(words))
        .count()
}

fn trainer_rows(place: &Place, out: &str) -> Vec<TrainerRow> {
    let text = place.read(&format!("{out}/trainers.csv"));
    csv::Reader::from_reader(text.as_bytes()).deserialize().map(Result::unwrap).collect()
}

/// Copies the model with a change to one file.
fn spoil(place: &Place, name: &str, file: &str, change: impl Fn(Vec<u8>) -> Vec<u8>) {
    std::fs::create_dir(place.path(name)).unwrap();
    for entry in std::fs::read_dir(place.path("model")).unwrap() {
        let path = entry.unwrap().path();
        let mut bytes = std::fs::read(&path).unwrap();
        if path.ends_with(file) {
            bytes = change(bytes);
        }
        std::fs::write(place.path(name).join(path.file_name().unwrap()), bytes).unwrap();
    }
}

#[test]
fn a_bad_trainer_is_recorded_with_its_log_and_the_others_go_on() {
    let place = Place::new();
    // The last four bytes are a weight: a NaN there.
    spoil(&place, "nan-model", "model.safetensors", |mut b| {
        let end = b.len();
        b[end - 4..].copy_from_slice(&f32::NAN.to_le_bytes());
        b
    });
    spoil(&place, "other-model", "config.json", |b| {
        String::from_utf8(b)
            .unwrap()
            .replace("\"num_attention_heads\": 2", "\"num_attention_heads\": 4")
            .into_bytes()
    });
    let (nan, cut) = (place.path("nan-model"), place.path("model/model.safetensors"));
    let nan = format!("cp {}/* $3/\n", nan.display());
    let wide = "cp $1/* $3/\nsed -i 's/\"hidden_size\": 16/\"hidden_size\": 32/' $3/config.json\n";
    let truncated = format!("cp $1/* $3/\nhead -c 2000 {} > $3/model.safetensors\n", cut.display());
    plan(
        &place,
        &[
            ("good", GOOD, "keep_model = true"),
            ("exits", "echo loading\necho 'ValueError: bad data' >&2\nexit 3\n", ""),
            ("hangs", "echo started\nsetsid sleep 611.5 &\nsleep 611.5\n", "timeout_seconds = 1"),
            ("nothing", "echo done\n", ""),
            ("nans", &nan, ""),
            ("wide", wide, ""),
            ("cut", &truncated, ""),
            ("floods", "cp $1/* $3/\nyes a flood of log | head -c 40000000\n", "log_mib = 0.5"),
            ("adapter", "echo '{}' > $3/adapter_config.json\n", ""),
            ("garbles", "cp $1/* $3/\necho '{\"loss\": ' > $3/kto-eval-metrics.jsonl\n", ""),
        ],
    );
    let ran = place.run(&["compare", "trainers.toml", "--out", "out", "--quiet"]);
    assert_eq!(ran.code, 1, "{}{}", ran.out, ran.err);
    let records = Records::read(&place.path("out")).unwrap();
    let row =
        |arm: &str| records.runs.iter().find(|r| r.arm == arm).unwrap_or_else(|| panic!("{arm} has no row"));
    for (arm, says) in [
        ("exits", "exit 3"),
        ("exits", "ValueError: bad data"),
        ("hangs", "time limit of 1 s"),
        ("hangs", "started"),
        ("nothing", "left nothing in its {out}"),
        ("nans", "not finite"),
        ("wide", "shape"),
        ("cut", "model.safetensors"),
        ("adapter", "adapter"),
        ("garbles", "kto-eval-metrics.jsonl:1"),
    ] {
        assert_eq!(row(arm).status, Status::Failed, "{arm}: {}", row(arm).note);
        assert!(row(arm).note.contains(says), "{arm} lacks {says}: {}", row(arm).note);
    }
    for arm in ["sft", "good", "floods"] {
        assert_eq!(row(arm).status, Status::Done, "{}", row(arm).note);
        assert!(records.scores.iter().any(|s| s.arm == arm && s.metric == "reward_accuracy"), "{arm}");
    }
    let good = row("good");
    assert_eq!((good.method.as_str(), good.steps, good.policy_tokens), ("external", 3, 5970));
    assert!(
        (good.final_loss - 0.3).abs() < 1e-12 && good.train_seconds > 0.0 && good.peak_host_mib > 0.5,
        "{good:?}"
    );
    // The model is the starting checkpoint itself: its implicit reward is 0, so it ranks as a coin does.
    let accuracy = records.scores.iter().find(|s| s.arm == "good" && s.metric == "reward_accuracy").unwrap();
    assert_eq!(accuracy.value, 0.5);
    let steps: Vec<_> = records.steps.iter().filter(|s| s.arm == "good").collect();
    assert!(steps.len() == 3 && steps[1].loss == 0.2 && steps[1].kl.is_none(), "{steps:?}");

    let folder = place.path("out/external");
    let log = |arm: &str| std::fs::read_to_string(folder.join(format!("{}.log", row(arm).run))).unwrap();
    assert!(log("good").contains("training with seed 1"));
    assert!(log("floods").len() < 600_000 && log("floods").contains("the log is cut here"));
    let first: serde_json::Value =
        serde_json::from_slice(&std::fs::read(folder.join(&good.run).join("first-row.json")).unwrap())
            .unwrap();
    assert!(first["chosen"].is_string() && first["prompt"].is_string(), "{first}");
    assert!(folder.join(&good.run).join("model.safetensors").exists(), "keep_model");
    assert!(!folder.join(&row("floods").run).exists(), "a model that is not kept is deleted");
    let rows = trainer_rows(&place, "out");
    let ended = |arm: &str| rows.iter().find(|r| r.arm == arm).unwrap().ended.clone();
    assert_eq!(
        (ended("exits"), ended("hangs"), ended("good")),
        ("exit 3".into(), "time limit".into(), "exit 0".into())
    );
    assert!(rows.iter().find(|r| r.arm == "floods").unwrap().log_bytes >= 40_000_000);
    std::thread::sleep(std::time::Duration::from_millis(300));
    assert_eq!(processes("sleep 611.5"), 0, "a process was left behind");
    // The report is drawn with the arms that there are.
    assert!(place.read("out/report.md").contains("good"));
}

#[test]
fn an_interrupt_ends_the_trainer_too_and_the_same_command_goes_on() {
    let place = Place::new();
    plan(&place, &[("waits", "if [ -e go ]; then cp $1/* $3/; else sleep 612.5; fi\n", "")]);
    let arguments = ["compare", "trainers.toml", "--out", "out", "--quiet"];
    let mut child = place.command(&arguments).spawn().unwrap();
    let began = std::time::Instant::now();
    while processes("sleep 612.5") == 0 {
        assert!(began.elapsed().as_secs() < 120, "the trainer never started");
        std::thread::sleep(std::time::Duration::from_millis(50));
    }
    // SAFETY: the child is ours and lives.
    unsafe { libc::kill(child.id().cast_signed(), libc::SIGINT) };
    assert_eq!(child.wait().unwrap().code(), Some(130));
    std::thread::sleep(std::time::Duration::from_millis(300));
    assert_eq!(processes("sleep 612.5"), 0, "a process was left behind");
    place.write("go", "");
    place.run(&arguments).succeeds();
    let records = Records::read(&place.path("out")).unwrap();
    let waits = records.runs.iter().find(|r| r.arm == "waits").unwrap();
    assert_eq!(waits.status, Status::Done, "{}", waits.note);
}

/// What is swept is swept for a command too: its labels, its budget; its steps are told to those who watch.
#[test]
fn an_arm_of_a_sweep_gets_its_own_labels_and_budget() {
    let place = Place::new();
    let body = GOOD.to_owned()
        + "wc -l < $2 > $3/labels\ngrep -c '\"label\":true' $2 >> $3/labels\necho $5 >> $3/labels\n";
    plan(&place, &[("theirs", &body, "keep_model = true\ndata = \"trl-unpaired-jsonl\"")]);
    let text = place.read("trainers.toml").replacen("[[arm]]\nmethod = \"sft\"\n", "", 1);
    let text = text.replacen("tokens = 6000", "tokens = [3000, 5970]", 1);
    let text =
        text.replacen("[train]", "[data.feedback]\nfraction = [0.25, 1.0]\nimbalance = 0.5\n[train]", 1);
    place.write("swept.toml", &text);
    let ran = place.run(&["compare", "swept.toml", "--out", "out", "--quiet", "--tensorboard"]);
    let records = Records::read(&place.path("out")).unwrap();
    let told: Vec<(String, String)> = records
        .runs
        .iter()
        .map(|run| {
            assert_eq!(run.status, Status::Done, "{}{}", run.note, ran.err);
            let events = std::fs::read_dir(place.path("out/tensorboard").join(&run.run)).unwrap();
            let event = std::fs::read(events.into_iter().next().unwrap().unwrap().path()).unwrap();
            assert!(event.windows(10).any(|w| w == b"train/loss"), "{}", run.run);
            let labels = place.read(&format!("out/external/{}/labels", run.run));
            (run.arm.clone(), labels.split_whitespace().collect::<Vec<_>>().join(" "))
        })
        .collect();
    // 30 and 120 pairs; one desirable completion for two undesirable ones.
    let point = |fraction: &str, tokens: &str, says: &str| {
        let arm = told.iter().find(|(arm, _)| {
            arm.contains(&format!("@fraction={fraction}")) && arm.contains(&format!("@tokens={tokens}"))
        });
        assert_eq!(arm.unwrap_or_else(|| panic!("{told:?}")).1, says);
    };
    for tokens in ["3000", "5970"] {
        point("0.25", tokens, &format!("45 15 {tokens}"));
        point("1", tokens, &format!("180 60 {tokens}"));
    }
}

/// A trainer reads a folder with the whole model, and an adapter is none.
#[test]
fn a_command_cannot_start_from_an_adapter() {
    let place = Place::new();
    let train =
        "train --model model --data data --steps 1 --set train.lora.rank=4 --save-model adapter --quiet";
    place.line(train).succeeds();
    plan(&place, &[("good", GOOD, "")]);
    for verb in ["compare trainers.toml --out x", "verify trainers.toml"] {
        let ran = place.line(&format!("{verb} --model adapter"));
        ran.fails(2, &["arm good: the model is an adapter", "hint: merge it first (kto-eval merge)"]);
    }
}

#[test]
fn a_measurement_runs_under_the_seeds_that_are_asked_for() {
    let place = Place::new();
    let measure =
        "gate measure plan.toml --same --set budget.tokens=600 --seed 4 --rounds 2 --out gate --quiet --json";
    let ran = place.line(measure);
    let sides: serde_json::Value = serde_json::from_str(ran.succeeds()).unwrap();
    assert!(sides["baseline"].as_str().unwrap().ends_with("gate/baseline"), "{sides}");
    for folder in ["baseline", "candidate/repeats/02"] {
        let runs = Records::read(&place.path("gate").join(folder)).unwrap().runs;
        assert!(runs.len() == 3 && runs.iter().all(|r| r.seed == 4), "{folder}");
    }
}

#[test]
fn a_trainer_that_is_not_there_is_refused_before_anything_is_spent() {
    let place = Place::new();
    plan(&place, &[("good", GOOD, "")]);
    let text = place.read("trainers.toml");
    place.write("gone.toml", &text.replacen("[\"sh\"", "[\"no-such-program\"", 1));
    place
        .run(&["compare", "gone.toml", "--out", "x"])
        .fails(2, &["arm good", "`no-such-program` is not there", "PATH"]);
    place.write("typo.toml", &text.replacen("{seed}", "{sed}", 1));
    place.run(&["compare", "typo.toml"]).fails(2, &["typo.toml:", "{sed}", "known: {model}"]);
    let verified = place.run(&["verify", "trainers.toml", "--quiet"]);
    verified.succeeds();
}

/// Half the speed between two checkouts of a trainer: measured turn about, it is caught; against itself it is not.
#[test]
fn two_checkouts_of_a_trainer_are_measured_turn_about() {
    let place = Place::new();
    plan(&place, &[("ours", "", "")]);
    let text = place.read("trainers.toml").replacen("[[arm]]\nmethod = \"sft\"\n\n", "", 1);
    let text = text.replacen("source = \"model\"", &format!("source = {:?}", place.path("model")), 1);
    place.write(
        "trainers.toml",
        &text.replacen("source = \"data\"", &format!("source = {:?}", place.path("data")), 1),
    );
    for (checkout, pause) in [("old", "0.4"), ("new", "0.8")] {
        std::fs::create_dir(place.path(checkout)).unwrap();
        place.write(&format!("{checkout}/ours.sh"), &format!("cp $1/* $3/\nsleep {pause}\n"));
    }
    // A checkout against itself: only chance can part them.
    for sides in [
        "",
        "--baseline-dir old --candidate-dir ./old",
        "--candidate-set train.batch_size=8 --baseline-set train.batch_size=8",
    ] {
        let line = format!("gate measure trainers.toml --out none {sides}");
        place.line(&line).fails(2, &["are one program under one plan", "--candidate-dir", "--same"]);
    }
    assert!(!place.path("none").exists());
    let measure = |candidate: &str, out: &str| {
        let sides = [
            "--same",
            "--baseline-dir",
            "old",
            "--candidate-dir",
            candidate,
            "--rounds",
            "10",
            "--out",
            out,
            "--quiet",
        ];
        place.run(&[&["gate", "measure", "trainers.toml"][..], &sides].concat()).succeeds();
        let (b, c) = (format!("{out}/baseline"), format!("{out}/candidate"));
        let gated = place.run(&["gate", "--baseline", &b, "--candidate", &c, "--out", "judged"]);
        let json: serde_json::Value = serde_json::from_str(&place.read("judged/gate.json")).unwrap();
        let findings = json["findings"].as_array().unwrap().clone();
        let speed = findings.iter().find(|f| f["id"] == "throughput/ours").unwrap().clone();
        (gated.code, speed)
    };
    let (code, speed) = measure("new", "slow");
    assert_eq!((code, speed["verdict"].as_str()), (1, Some("regressed")), "{speed}");
    let change = speed["change"].as_f64().unwrap();
    assert!((-0.6..-0.3).contains(&change), "{speed}");
    let (code, speed) = measure("old", "same");
    assert_eq!(code, 0, "{speed}");
    assert_ne!(speed["verdict"], "regressed");
    place
        .run(&["gate", "measure", "trainers.toml", "--candidate-bin", "no/such"])
        .fails(2, &["no program", "no/such"]);
}

/// An arm that runs one of `suites/trainers`.
fn trl_arm(python: &str, name: &str, method: &str, data: &str, more: &[&str]) -> String {
    let script = format!("{}/suites/trainers/trl_{method}.py", env!("CARGO_MANIFEST_DIR"));
    let mut command =
        vec![python, script.as_str(), "--model", "{model}", "--data", "{data}", "--out", "{out}"];
    command.extend(["--seed", "{seed}", "--max-tokens", "{budget.tokens}", "--batch-size", "{batch_size}"]);
    command.extend([
        "--learning-rate",
        "{learning_rate}",
        "--schedule",
        "{schedule}",
        "--max-length",
        "{max_length}",
    ]);
    command.extend([
        "--warmup",
        "{warmup}",
        "--weight-decay",
        "{weight_decay}",
        "--max-grad-norm",
        "{max_grad_norm}",
    ]);
    if method != "sft" {
        command.extend(["--beta", "{beta}"]);
    }
    command.extend(more);
    format!(
        "\n[[arm]]\nname = \"{name}\"\nmethod = \"{method}\"\n[arm.trainer]\ndata = \"{data}\"\ntimeout_seconds = 900\n\
         keep_model = true\ncommand = {command:?}\n"
    )
}

/// Real TRL: `pip install torch trl peft` into an environment, then
/// `KTO_EVAL_PYTHON=/path/to/python cargo test --release --test external_trainers -- --ignored`.
#[test]
#[ignore = "needs Python with torch, trl and peft (pip install torch trl peft); KTO_EVAL_PYTHON names the interpreter"]
fn trl_trains_and_is_scored_beside_this_engine() {
    let python = std::env::var("KTO_EVAL_PYTHON").unwrap_or_else(|_| "python3".to_owned());
    let place = Place::new();
    // Prompts that fill the length: this engine leaves them out, and TRL would drop them after the list is cut.
    let train = place.read("data/train.jsonl");
    let long = train.lines().take(30).map(|line| {
        let mut row: serde_json::Value = serde_json::from_str(line).unwrap();
        row["prompt"] = row["prompt"].as_str().unwrap().repeat(30).into();
        format!("{row}\n")
    });
    place.write("data/train.jsonl", &(long.collect::<String>() + &train));
    let mut text = cli::PLAN.replacen("seeds = [1, 2]", "seeds = [1]", 1);
    let lora = ["--lora-rank", "4", "--lora-alpha", "8"];
    for (name, method, data, more) in [
        ("trl-kto", "kto", "trl-unpaired-jsonl", &[][..]),
        ("trl-dpo", "dpo", "trl-parquet", &[]),
        ("trl-sft", "sft", "trl-unpaired-parquet", &[]),
        ("trl-kto-lora", "kto", "trl-unpaired-jsonl", &lora),
    ] {
        text += &trl_arm(&python, name, method, data, more);
    }
    place.write("trl.toml", &text);
    let ran = place.run(&["compare", "trl.toml", "--out", "out", "--quiet"]);
    let records = Records::read(&place.path("out")).unwrap();
    for run in &records.runs {
        assert_eq!(run.status, Status::Done, "{}: {}", run.run, run.note);
        // The budget is met to within an example, as the trainer itself counts it.
        assert!((5_850..=6_000).contains(&run.policy_tokens), "{}: {} tokens", run.run, run.policy_tokens);
    }
    assert_eq!(ran.code, 0, "{}{}", ran.out, ran.err);
    let of = |arm: &str| records.runs.iter().find(|r| r.arm == arm).unwrap().clone();
    let scored = |arm: &str| records.scores.iter().any(|s| s.arm == arm && s.metric == "reward_accuracy");
    for method in ["kto", "dpo", "sft"] {
        let (ours, theirs) = (of(method), of(&format!("trl-{method}")));
        let steps: Vec<_> = records.steps.iter().filter(|s| s.arm == theirs.arm).collect();
        assert!(
            steps.len() >= 10 && steps.iter().all(|s| s.loss.is_finite() && s.policy_tokens > 0),
            "{method}"
        );
        assert_eq!(steps.iter().map(|s| s.policy_tokens).sum::<u64>(), theirs.policy_tokens);
        // Other orders of the same data at the same rates: losses end near each other.
        let apart = (ours.final_loss - theirs.final_loss).abs() / ours.final_loss.abs();
        println!("{method}: ours {} theirs {} apart {apart:.3}", ours.final_loss, theirs.final_loss);
        assert!(apart < 0.15, "{method}: {} and {}", ours.final_loss, theirs.final_loss);
        assert_ne!(theirs.weights, ours.weights);
        assert!(scored(&ours.arm) && scored(&theirs.arm), "{method}");
    }
    // The adapter is merged into the starting checkpoint and scored as the others are.
    let left = place.path("out/external").join(of("trl-kto-lora").run);
    assert!(left.join("adapter_config.json").exists() && !left.join("model.safetensors").exists());
    assert!(scored("trl-kto-lora") && of("trl-kto-lora").weights != of("trl-kto").weights);
    let costs = trainer_rows(&place, "out");
    assert!(costs.iter().all(|c| c.cpu_seconds > 1.0 && c.peak_tree_mib > 200.0), "{costs:?}");
    let report = place.read("out/report.md");
    assert!(
        ["trl-kto", "trl-dpo", "trl-sft", "trl-kto-lora"].iter().all(|arm| report.contains(arm)),
        "{report}"
    );
}
