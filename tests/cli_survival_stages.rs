//! Runs in more than one stage, with adapters, that sample, or that another program makes: killed in the middle, and gone
//! on with to the same rows.
#![cfg(unix)]

mod cli;

use std::path::Path;
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use cli::{Place, Ran, ran};
use kto_eval::record::{Records, Status, files};

/// The tiny plan with these arms and one seed.
fn place(tokens: u64, arms: &str) -> Place {
    let place = Place::new();
    let (sections, _) = cli::PLAN.split_once("[[arm]]").unwrap();
    let plan =
        format!("{sections}\n{arms}").replace("= 6000", &format!("= {tokens}")).replace("[1, 2]", "[1]");
    place.write("plan.toml", &plan);
    place
}

fn arguments(out: &str) -> [&str; 8] {
    ["compare", "plan.toml", "--out", out, "--threads", "1", "--checkpoint-every", "2"]
}

fn lines(path: &Path) -> usize {
    std::fs::read(path).map_or(0, |bytes| bytes.iter().filter(|b| **b == b'\n').count())
}

/// Starts the comparison and kills it once it has this many rows of steps.
fn killed(place: &Place, out: &str, rows: usize) {
    let mut command = place.command(&arguments(out));
    let mut child: Child = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    let began = Instant::now();
    while lines(&place.path(out).join(files::STEPS)) <= rows {
        assert!(child.try_wait().unwrap().is_none(), "it ended before it was killed");
        assert!(began.elapsed() < Duration::from_secs(300), "no rows come");
        std::thread::sleep(Duration::from_millis(1));
    }
    // SAFETY: the child is ours and has not been waited for, so that its id is still its own.
    unsafe { libc::kill(child.id().try_into().unwrap(), libc::SIGKILL) };
    ran(child.wait_with_output().unwrap());
}

/// Kills at each of `rows` rows, ends it, and holds it against a comparison that nothing happened to.
fn killed_at(place: &Place, rows: &[usize]) -> Vec<Ran> {
    place.run(&arguments("whole")).succeeds();
    let goes_on = |n: &usize| {
        let out = format!("cut-{n}");
        killed(place, &out, *n);
        let last = place.run(&arguments(&out));
        last.succeeds();
        place.assert_same_rows("whole", &out);
        last
    };
    rows.iter().map(goes_on).collect()
}

/// The step that a run went on from.
fn went_on(ran: &Ran) -> Vec<usize> {
    let said = ran.err.lines().filter_map(|l| l.split("goes on after step ").nth(1));
    said.map(|n| n.trim().parse().unwrap()).collect()
}

#[test]
fn a_run_with_sft_first_goes_on_within_either_stage() {
    let place = place(8_000, "[[arm]]\nmethod = \"kto\"\nsft_first = 0.4\n");
    let ran = killed_at(&place, &[12, 60]);
    let steps = Records::read(&place.path("whole")).unwrap().steps;
    let first = steps.iter().filter(|s| s.reward_chosen.is_none() && s.reward_rejected.is_none()).count();
    assert!((20..45).contains(&first) && steps.len() > 75, "{first} of {} steps are SFT", steps.len());
    // In the first stage, from there; in the second, from the end of the first and then from the last checkpoint.
    let within = went_on(&ran[0]);
    assert!(within.len() == 1 && within[0] >= 10 && within[0] < first, "{within:?}");
    let after = went_on(&ran[1]);
    assert!(after.len() == 2 && after[0] == first && after[1] >= 58, "{after:?} of {first}");
    assert!(!ran[1].err.contains("passed over"), "{}", ran[1].err);
}

#[test]
fn a_run_with_an_adapter_goes_on_alone_and_after_sft() {
    let lora = "lora = { rank = 4, dropout = 0.1 }\n";
    let arms = format!("[[arm]]\nmethod = \"dpo\"\nsft_first = 0.3\n{lora}");
    let place = place(12_000, &arms);
    let ran = killed_at(&place, &[9, 60]);
    assert!(ran.iter().all(|r| !went_on(r).is_empty()), "{}", ran[0].err);
    let rows = Records::read(&place.path("whole")).unwrap().runs;
    assert!(
        rows[0].trained_parameters < 20_000,
        "{} parameters are the adapter's",
        rows[0].trained_parameters
    );
}

#[test]
fn a_run_that_samples_goes_on_within_its_reward_model_and_its_rollouts() {
    // Without a critic, and with one that learns beside a KL penalty that follows its target.
    for arm in ["rloo\"\nsamples = 2", "ppo\"\nepochs = 2\nkl_target = 0.5"] {
        let place =
            place(8_000, &format!("[[arm]]\nmethod = \"{arm}\nmax_new_tokens = 8\nreward_share = 0.3\n"));
        let rows = |out: &str, table: &str| cli::stable(&place.read(&format!("{out}/{table}")));
        let ran = killed_at(&place, &[6, 30]);
        let first = went_on(&ran[0]);
        assert!(first.len() == 1 && first[0] >= 4, "{arm}: {first:?}");
        let after = went_on(&ran[1]);
        assert!(after.len() == 2 && after[0] > 6 && after[0] < 26 && after[1] >= 26, "{arm}: {after:?}");
        for table in [files::ROLLOUTS, files::PHASES] {
            assert_eq!(rows("whole", table), rows("cut-30", table), "{arm}: {table}");
            assert!(!rows("whole", table).is_empty());
        }
        assert!(ran.iter().all(|r| !r.err.contains("passed over")), "{arm}: {}", ran[1].err);
    }
}

/// Waits, so that it can be killed, and leaves the model that it was given.
const TRAINER: &str = r#"[[arm]]
name = "other"
method = "sft"
[arm.trainer]
data = "trl-jsonl"
command = ["sh", "-c", "echo begun >> begun.log; sleep $(printenv KTO_TEST_SLEEP || echo 0); cp {model}/* {out}/"]

[[arm]]
method = "kto"
"#;

#[test]
fn another_trainer_begins_anew_and_what_was_finished_stays() {
    let place = place(4_000, TRAINER);
    let mut command = place.command(&arguments("cut"));
    command.env("KTO_TEST_SLEEP", "60").stdout(Stdio::null()).stderr(Stdio::null());
    let mut child = command.spawn().unwrap();
    let began = Instant::now();
    while !place.path("begun.log").exists() {
        assert!(child.try_wait().unwrap().is_none(), "it ended before the trainer began");
        assert!(began.elapsed() < Duration::from_secs(300), "the trainer does not begin");
        std::thread::sleep(Duration::from_millis(5));
    }
    // SAFETY: as above.
    unsafe { libc::kill(child.id().try_into().unwrap(), libc::SIGKILL) };
    ran(child.wait_with_output().unwrap());
    place.run(&arguments("cut")).succeeds();
    place.run(&arguments("whole")).succeeds();
    place.assert_same_rows("whole", "cut");
    assert_eq!(
        place.read("begun.log").lines().count(),
        3,
        "once for the kill, once again, once for the whole"
    );
    let trainers = cli::stable(&place.read("cut/trainers.csv"));
    assert_eq!(trainers.len(), 1, "no row of the trainer that was killed: {trainers:?}");
    assert_eq!(Records::read(&place.path("cut")).unwrap().runs[0].status, Status::Done);
}
