//! Data through the command line: what is held out, and files of every form.

mod cli;

use cli::Place;
use kto_eval::record::Records;

#[test]
fn what_is_trained_on_is_not_asked_about() {
    let place = Place::new();
    place.write("feedback.jsonl", &place.read("data/train.jsonl"));
    let plan = cli::PLAN.replace("source = \"data\"", "source = \"feedback.jsonl\"");
    place.write("plan.toml", &plan.replace("seeds = [1, 2]", "seeds = [1]"));
    let ran = place.run(&["compare", "plan.toml", "--out", "one"]);
    ran.succeeds();
    assert!(ran.err.contains("prompts (data.heldout_fraction = 0.1)"), "{}", ran.err);
    let records = Records::read(&place.path("one")).unwrap();
    let overlap = &records.environment.contamination[0];
    assert_eq!((overlap.identical, overlap.prompts > 0), (0, true), "{overlap:?}");
    let run = |set: &[&str]| place.run(&[&["compare", "plan.toml", "--out", "refused"][..], set].concat());
    run(&["--set", "data.heldout_fraction=0"])
        .fails(2, &["nothing of it is held out", "hint: set data.heldout_fraction"]);

    place.write("plan.toml", cli::PLAN);
    // An arm's own file, where the questions are a split of their own: nothing of it is held out.
    place.write("own.toml", &(cli::PLAN.to_owned() + "[arm.data]\nsource = \"feedback.jsonl\"\n"));
    let own = place.run(&["compare", "own.toml", "--out", "own", "--set", "seeds=[1]"]);
    own.succeeds();
    assert!(own.err.contains("feedback.jsonl (train): 120 examples"), "{}", own.err);
    // One file by two names.
    let named = "[arm.data]\nsource = \"./data\"\nsplit = \"test\"\n";
    place.write("named.toml", &(cli::PLAN.to_owned() + named));
    let named = place.run(&["compare", "named.toml", "--out", "refused"]);
    named.fails(2, &["arm kto trains on", "test.jsonl, which is to be held out"]);
    place.write("swapped.toml", &(cli::PLAN.to_owned() + "[arm.data]\nsplit = \"test\"\n"));
    let swapped = place.run(&["compare", "swapped.toml", "--out", "refused"]);
    swapped.fails(2, &["arm kto trains on", "test.jsonl, which is to be held out"]);
    run(&["--set", "data.heldout_split=validation"])
        .fails(2, &["unknown split `validation` (known: test, train)", "data.heldout_split names the split"]);
    run(&["--set", "data.heldout_fraction=1"]).fails(2, &["data.heldout_fraction"]);
    std::fs::rename(place.path("data/test.jsonl"), place.path("data/validation.jsonl")).unwrap();
    let renamed = [
        "compare",
        "plan.toml",
        "--out",
        "v",
        "--set",
        "data.heldout_split=validation",
        "--set",
        "seeds=[1]",
    ];
    place.run(&renamed).succeeds();
}

#[test]
fn one_file_is_read_whatever_it_calls_itself() {
    let place = Place::new();
    std::fs::rename(place.path("data/train.jsonl"), place.path("train.jsonl")).unwrap();
    let ran =
        place.line("compare plan.toml --data train.jsonl --set seeds=[1] --set budget.steps=2 --out one");
    ran.succeeds();
    assert!(ran.err.contains("prompts (data.heldout_fraction = 0.1)"), "{}", ran.err);
    let scored = |more: &str| {
        let line =
            "score --model model --reference model --suite heldout --data train.jsonl --max-length 64 --json";
        let ran = place.line(&format!("{line} --force {more}"));
        let rows: Vec<serde_json::Value> = serde_json::from_str(ran.succeeds()).unwrap();
        let accuracy = rows.iter().find(|r| r["metric"] == "reward_accuracy").unwrap();
        (accuracy["n"].as_u64().unwrap(), ran.err.contains("all of train.jsonl is asked about"))
    };
    assert_eq!(scored(""), (120, true));
    let asked = Records::read(&place.path("one")).unwrap();
    let rows = asked.scores.iter().find(|s| s.run == "base" && s.metric == "reward_accuracy").unwrap();
    assert_eq!(scored("--heldout"), (rows.n, false), "the same as the comparison asks about");
    assert!(scored("--heldout --set data.heldout_fraction=0.5").0 > rows.n);
    // The split is what the file says, where none is asked for.
    place.line("score --model model --data train.jsonl --max-length 64").succeeds();
    place.line("score --model model --data train.jsonl --split test").fails(2, &["is the split `train`"]);
    let json = place.line("data inspect data/test.jsonl --json");
    assert!(json.succeeds().contains("\"split\": \"test\""));
    let text = place.line("data inspect train.jsonl --model model --suite heldout");
    assert!(text.succeeds().contains("suite `heldout` asks about the held-out split, and there is none"));
    let text = place
        .line("data inspect data --split test --model model --suite heldout --set data.heldout_split=test");
    assert!(text.succeeds().contains("suite `heldout` asks about the held-out split, and there is none"));
}

#[test]
fn completions_without_labels_are_desirable() {
    let place = Place::new();
    let pairs: Vec<serde_json::Value> =
        place.read("data/train.jsonl").lines().map(|l| serde_json::from_str(l).unwrap()).collect();
    let rows = |row: &dyn Fn(&serde_json::Value) -> serde_json::Value| {
        pairs.iter().map(|p| row(p).to_string() + "\n").collect::<String>()
    };
    place.write(
        "sft.jsonl",
        &rows(&|p| serde_json::json!({"prompt": p["prompt"], "completion": p["chosen"]})),
    );
    place.write(
        "talks.jsonl",
        &rows(&|p| {
            let message = |role: &str, key: &str| serde_json::json!({"role": role, "content": p[key]});
            serde_json::json!({"messages": [message("user", "prompt"), message("assistant", "chosen")]})
        }),
    );
    for (file, form) in [("sft.jsonl", "trl-prompt-completion"), ("talks.jsonl", "trl-messages")] {
        let ran = place.line(&format!("data inspect {file} --show 1"));
        for part in
            ["120 labelled completions of 120 rows", form, "\"desirable\": true", "taken as desirable"]
        {
            assert!(ran.succeeds().contains(part), "lacks: {part}\n{}", ran.out);
        }
    }
    let first = |of: &str| place.line(of).succeeds().to_owned();
    assert!(first("data inspect talks.jsonl --show 1").contains("\"prompt\": \""));
    place
        .line("train --method sft --model model --data sft.jsonl --steps 2 --max-length 64 --out t")
        .succeeds();
    place
        .line("train --method dpo --model model --data sft.jsonl --steps 2 --out u")
        .fails(2, &["the method needs pairs"]);
    // Nothing is wrong with such a run, and it is seldom what was meant.
    let says = ": every completion is desirable; nothing shows what to avoid";
    for (method, noted) in [("kto", true), ("bco", true), ("sft", false)] {
        let ran = place.line(&format!(
            "train --method {method} --model model --data sft.jsonl --steps 1 --out {method}-one-sided"
        ));
        ran.succeeds();
        assert_eq!(ran.err.contains(&format!("{method}{says}")), noted, "{method}: {}", ran.err);
    }
    place.write("mixed.jsonl", "{\"prompt\": \"a\", \"completion\": \"b\"}\n{\"messages\": [{\"role\": \"user\", \"content\": \"a\"}]}\n");
    place.line("data inspect mixed.jsonl").fails(2, &["mixed.jsonl:2"]);
    place.write("alone.jsonl", "{\"messages\": [{\"role\": \"user\", \"content\": \"a\"}]}\n");
    place
        .line("data inspect alone.jsonl")
        .fails(2, &["alone.jsonl:1", "must end in a message of the assistant"]);
    place.write(
        "late.jsonl",
        &(rows(&|p| serde_json::json!({"prompt": p["prompt"], "completion": p["chosen"]}))
            + "{\"prompt\": \"a\", \"completion\": \"b\", \"label\": false}\n"),
    );
    place.line("data inspect late.jsonl").fails(2, &["late.jsonl:121", "has a `label`"]);
}
