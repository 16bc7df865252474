//! TRL's three trajectories through the public command line: what a user types to hold this trainer against
//! another one. `golden_trajectories.rs` holds the same run closer, through the library.

mod golden;

use golden::{close, golden, shared};
use serde_json::Value;
use std::path::Path;
use std::process::Command;

const COMMON: &[&str] = &[
    "--quiet",
    "--order",
    "sequential",
    "--schedule",
    "constant",
    "--learning-rate",
    "5e-5",
    "--warmup",
    "0",
    "--adam-beta1",
    "0.9",
    "--adam-beta2",
    "0.999",
    "--adam-epsilon",
    "1e-8",
    "--weight-decay",
    "0",
    "--max-grad-norm",
    "1.0",
    "--batch-size",
    "4",
    "--steps",
    "30",
    "--max-length",
    "512",
];
const KTO: &[&str] = &[
    "--method",
    "kto",
    "--param",
    "beta=0.1",
    "--param",
    "z0=previous",
    "--param",
    "lambda_desirable=1.0",
    "--param",
    "lambda_undesirable=1.0",
];

/// Unpaired rows in the order that the golden run saw them.
fn unpaired(sides: &[(usize, bool)], rows: &[Value]) -> String {
    let line = |&(row, desirable): &(usize, bool)| {
        let completion = &rows[row][if desirable { "chosen" } else { "rejected" }];
        serde_json::json!({"prompt": rows[row]["prompt"], "completion": completion, "label": desirable})
            .to_string()
    };
    sides.iter().map(line).collect::<Vec<_>>().join("\n")
}

fn train(dir: &Path, data: &Path, method: &[&str]) -> Vec<csv::StringRecord> {
    let out = dir.join("out");
    let done = Command::new(env!("CARGO_BIN_EXE_kto-eval"))
        .arg("train")
        .args(COMMON)
        .args(method)
        .args(["--model".as_ref(), shared().join("models/golden-policy").as_os_str()])
        .args(["--data".as_ref(), data.as_os_str(), "--out".as_ref(), out.as_os_str()])
        .env("KTO_EVAL_CACHE", dir.join("cache"))
        .output()
        .unwrap();
    assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
    assert!(out.join("model/model.safetensors").exists(), "the trained model is left in Hugging Face form");
    let mut reader = csv::Reader::from_path(out.join("steps.csv")).unwrap();
    let header = reader.headers().unwrap().clone();
    std::iter::once(header).chain(reader.records().map(Result::unwrap)).collect()
}

fn agrees(file: &Value, steps: &[csv::StringRecord]) {
    let column =
        |name: &str| steps[0].iter().position(|c| c == name).unwrap_or_else(|| panic!("no column {name}"));
    let log = file["log"].as_array().unwrap();
    assert_eq!(steps.len() - 1, log.len());
    for (i, (row, want)) in steps[1..].iter().zip(log).enumerate() {
        let got = |name: &str| row[column(name)].parse::<f64>().unwrap();
        let wanted = |name: &str| want[name].as_f64().unwrap();
        let (loss, what) = (wanted("loss"), format!("step {}", i + 1));
        assert!((got("loss") - loss).abs() <= 1e-4, "{what}: loss {} for {loss}", got("loss"));
        // TRL logs its gradient norm in fp32.
        close(&what, got("grad_norm"), wanted("grad_norm"), 2e-4);
        close(&what, got("learning_rate"), wanted("learning_rate"), 1e-12);
        assert_eq!(got("policy_tokens"), file["batches"][i]["tokens"].as_f64().unwrap(), "{what}");
        if want["kl"].is_number() {
            assert!((got("kl") - wanted("kl")).abs() <= 2e-3, "{what}: kl");
            assert_eq!(got("kl"), got("kl_unclamped").max(0.0), "{what}: clamped at 0");
        }
    }
}

fn rows() -> Option<Vec<Value>> {
    let path = shared().join("golden/trl/traj_train.jsonl");
    let Ok(text) = std::fs::read_to_string(&path) else {
        println!("skipped: {} needs ../shared", path.display());
        return None;
    };
    Some(text.lines().map(|l| serde_json::from_str(l).unwrap()).collect())
}

fn kto(golden_file: &str, sides: impl Fn(usize) -> Vec<(usize, bool)>) {
    let (Some(file), Some(rows)) = (golden(golden_file), rows()) else { return };
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("train.jsonl");
    std::fs::write(&data, unpaired(&sides(rows.len()), &rows)).unwrap();
    agrees(&file, &train(dir.path(), &data, KTO));
}

#[test]
fn sft() {
    let Some(file) = golden("trl/traj_sft.json") else { return };
    let dir = tempfile::tempdir().unwrap();
    let steps = train(dir.path(), &shared().join("golden/trl/traj_train.jsonl"), &["--method", "sft"]);
    agrees(&file, &steps);
}

#[test]
fn kto_interleaved() {
    kto("trl/traj_kto.json", |_| (0..60).flat_map(|i| [(i, true), (i, false)]).collect());
}

#[test]
fn kto_on_paired_data_in_trls_own_order() {
    kto("trl/traj_kto_paired.json", |n| {
        (0..n).map(|i| (i, true)).chain((0..n).map(|i| (i, false))).collect()
    });
}
