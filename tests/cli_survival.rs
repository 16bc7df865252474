//! Runs that survive: killed at random points, interrupted, out of disk, with damaged checkpoints. The same
//! command goes on, and the rows in the end are those of a comparison that nothing happened to.
#![cfg(unix)]

mod cli;

use std::io::{BufRead, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use cli::{Place, Ran, ran};
use kto_eval::base::seed;
use kto_eval::record::{Records, Status, files};
use rand::RngExt;

/// A comparison into `out`, a checkpoint at every second step.
fn arguments(out: &str) -> Vec<&str> {
    vec!["compare", "plan.toml", "--out", out, "--threads", "1", "--checkpoint-every", "2"]
}

fn spawn(place: &Place, arguments: &[&str]) -> Child {
    place.command(arguments).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
}

fn signal(child: &Child, signal: libc::c_int) {
    // SAFETY: the child is ours and has not been waited for, so that its id is still its own.
    unsafe { libc::kill(child.id().try_into().unwrap(), signal) };
}

fn wait(child: Child) -> Ran {
    ran(child.wait_with_output().unwrap())
}

/// Waits until `is_so`, or the child has ended.
fn until(child: &mut Child, is_so: impl Fn() -> bool) {
    let began = Instant::now();
    while !is_so() && child.try_wait().unwrap().is_none() {
        assert!(began.elapsed() < Duration::from_secs(300), "nothing happens");
        std::thread::sleep(Duration::from_millis(2));
    }
}

fn lines(path: &Path) -> usize {
    std::fs::read(path).map_or(0, |bytes| bytes.iter().filter(|b| **b == b'\n').count())
}

fn checkpoints(out: &Path) -> Vec<PathBuf> {
    let runs = std::fs::read_dir(out.join(files::CHECKPOINTS)).into_iter().flatten().flatten();
    let mut found: Vec<PathBuf> = runs
        .flat_map(|run| std::fs::read_dir(run.path()).into_iter().flatten().flatten())
        .map(|file| file.path())
        .filter(|path| path.extension().is_some_and(|e| e == "safetensors"))
        .collect();
    found.sort();
    found
}

/// What a killed writer may leave: half a row, cut within a character or a quoted field, or zeros.
fn tear(out: &Path, rng: &mut impl RngExt) {
    let name = [files::STEPS, files::SCORES, files::EXAMPLES, files::RUNS][rng.random_range(0..4)];
    let torn: [&[u8]; 4] =
        [b"kto-s1-", b"kto-s1-abc,\"a\nb", &[b'x', 0xF0, 0x9F], &[0, 0, 0, b'\n', 0, b'\n']];
    let path = out.join(name);
    // Nothing is appended before it is mended, so that a file is torn at one place at a time.
    let is_torn = |bytes: &[u8]| torn.iter().any(|t| bytes.ends_with(t));
    if lines(&path) > 0 && !std::fs::read(&path).is_ok_and(|bytes| is_torn(&bytes)) {
        let mut file = std::fs::OpenOptions::new().append(true).open(path).unwrap();
        file.write_all(torn[rng.random_range(0..torn.len())]).unwrap();
    }
}

/// Kills a comparison `kills` times at random points, sometimes tears a file besides, and lets it end.
fn kill_and_go_on(kills: usize, name: &str) {
    let place = Place::new();
    // Long enough runs that most of the time is training, not reading.
    place.write("plan.toml", &place.read("plan.toml").replace("tokens = 6000", "tokens = 40000"));
    let began = Instant::now();
    place.run(&arguments("whole")).succeeds();
    let whole = began.elapsed().as_secs_f64();
    let mut rng = seed::rng(1, name);
    let (mut went_on, mut killed) = (0, 0);
    let mut kept: Vec<String> = vec![];
    let out = place.path("cut");
    while killed < kills {
        let mut child = spawn(&place, &arguments("cut"));
        // Half of them early, so that some hit the reading and the repair of what the last one left.
        let longest = if rng.random_range(0..2) == 0 { 0.1 } else { 0.6 };
        std::thread::sleep(Duration::from_secs_f64(whole * rng.random_range(0.0..longest)));
        if child.try_wait().unwrap().is_some() {
            // It came to its end: begin another, and kill that.
            wait(child).succeeds();
            place.assert_same_rows("whole", "cut");
            std::fs::remove_dir_all(&out).unwrap();
            kept.clear();
            continue;
        }
        signal(&child, libc::SIGKILL);
        let ran = wait(child);
        assert_eq!(ran.code, -1, "killed: {}", ran.err);
        went_on += usize::from(ran.err.contains("goes on after step"));
        killed += 1;
        // A finished run is never lost.
        if out.join(files::PLAN).exists() {
            let now: Vec<String> = Records::read(&out).unwrap().runs.into_iter().map(|r| r.run).collect();
            assert!(kept.iter().all(|run| now.contains(run)), "{kept:?} became {now:?}");
            kept = now;
        }
        if rng.random_range(0..2) == 0 {
            tear(&out, &mut rng);
        }
    }
    let last = place.run(&arguments("cut"));
    last.succeeds();
    went_on += usize::from(last.err.contains("goes on after step"));
    place.assert_same_rows("whole", "cut");
    assert!(went_on > 0, "no kill hit a run in the middle");
    eprintln!("{killed} kills, {went_on} of them went on from a checkpoint; nothing lost");
}

#[test]
fn a_comparison_killed_at_random_points_loses_nothing() {
    kill_and_go_on(8, "test/kills");
}

#[test]
#[ignore = "minutes: cargo test --test cli_survival -- --ignored fifty"]
fn a_comparison_killed_fifty_times_loses_nothing() {
    kill_and_go_on(50, "test/fifty kills");
}

#[test]
fn a_signal_ends_the_step_and_saves_and_the_same_command_goes_on() {
    let place = Place::new();
    let long = ["--set", "budget.tokens=30000", "--set", "seeds=[1]", "--checkpoint-every", "1h"];
    let command =
        |out: &'static str| [&["compare", "plan.toml", "--out", out, "--threads", "1"][..], &long].concat();
    place.run(&command("whole")).succeeds();
    for (signal_number, out) in [(libc::SIGINT, "int"), (libc::SIGTERM, "term")] {
        let mut child = spawn(&place, &command(out));
        until(&mut child, || lines(&place.path(out).join(files::STEPS)) > 4);
        signal(&child, signal_number);
        let ran = wait(child);
        ran.fails(130, &["finishing the step and saving", "the same command goes on from here"]);
        assert_eq!(checkpoints(&place.path(out)).len(), 1, "saved, though no checkpoint was due");
        let resumed = place.run(&["compare", "--resume", out, "--threads", "1"]);
        resumed.succeeds();
        assert!(resumed.err.contains("goes on after step"), "{}", resumed.err);
        place.assert_same_rows("whole", out);
    }
    // A second signal ends at once: within the step, so without a checkpoint or with one.
    let mut child = spawn(&place, &command("twice"));
    until(&mut child, || lines(&place.path("twice").join(files::STEPS)) > 4);
    signal(&child, libc::SIGINT);
    signal(&child, libc::SIGTERM);
    wait(child).fails(130, &[]);
    place.run(&command("twice")).succeeds();
    place.assert_same_rows("whole", "twice");
    place.run(&["compare", "--resume", "nowhere"]).fails(2, &["nowhere holds no comparison", "hint:"]);
    place
        .run(&["compare", "--resume", "int", "--set", "train.batch_size=4"])
        .fails(2, &["goes on with the folder's own plan"]);
}

#[test]
fn train_goes_on_after_a_kill_to_the_same_weights() {
    let place = Place::new();
    let train = |out: &'static str| {
        let data = ["--model", "model", "--data", "data", "--steps", "60", "--batch-size", "4"];
        let rest = ["--out", out, "--threads", "1", "--checkpoint-every", "2"];
        [&["train", "--method", "kto"][..], &data, &rest].concat()
    };
    place.run(&train("whole")).succeeds();
    let mut child = spawn(&place, &train("cut"));
    until(&mut child, || lines(&place.path("cut").join(files::STEPS)) > 20);
    signal(&child, libc::SIGKILL);
    wait(child);
    let last = place.run(&train("cut"));
    last.succeeds();
    assert!(last.err.contains("goes on after step"), "{}", last.err);
    for table in [files::RUNS, files::STEPS] {
        let read = |out| cli::stable(&place.read(&format!("{out}/{table}")));
        assert_eq!(read("whole"), read("cut"), "{table}");
    }
    let model = |out: &str| std::fs::read(place.path(out).join("model/model.safetensors")).unwrap();
    assert!(model("whole") == model("cut"), "the same weights");
}

#[test]
fn a_damaged_checkpoint_costs_the_steps_since_the_one_before() {
    let place = Place::new();
    place.run(&arguments("whole")).succeeds();
    for damage in ["flip", "cut", "all"] {
        let out = place.path(damage);
        let mut child = spawn(&place, &arguments(damage));
        until(&mut child, || checkpoints(&out).len() >= 2);
        signal(&child, libc::SIGKILL);
        wait(child);
        let found = checkpoints(&out);
        assert!(!found.is_empty(), "{damage}: it ended before it was killed");
        let newest = found.last().unwrap();
        let mut bytes = std::fs::read(newest).unwrap();
        match damage {
            "flip" => {
                let middle = bytes.len() / 2;
                bytes[middle] ^= 4;
            }
            _ => bytes.truncate(bytes.len() / 3),
        }
        std::fs::write(newest, &bytes).unwrap();
        if damage == "all" {
            found.iter().for_each(|path| std::fs::write(path, "no checkpoint").unwrap());
        }
        let last = place.run(&arguments(damage));
        last.succeeds();
        assert!(last.err.contains("is not usable and was passed over"), "{}", last.err);
        place.assert_same_rows("whole", damage);
    }
}

/// Runs the program where no file may grow beyond `blocks` of 512 bytes: writes fail as on a full disk.
fn cramped(place: &Place, blocks: u32, arguments: &[&str]) -> Ran {
    let program = place.command(&[]).get_program().to_owned();
    // The signal that the limit sends is ignored, and so stays over `exec`; the write then fails.
    let script = format!("trap '' XFSZ; ulimit -f {blocks}; exec \"$0\" \"$@\"");
    let mut command = std::process::Command::new("sh");
    command.args(["-c", &script]).arg(program).args(arguments).current_dir(place.dir());
    command.env("KTO_EVAL_CACHE", place.path("cache")).env("HF_HUB_OFFLINE", "1");
    ran(command.output().unwrap())
}

#[test]
fn a_full_disk_ends_the_comparison_with_a_message_and_nothing_is_lost() {
    let place = Place::new();
    let compare = |out: &'static str, every: &'static str| {
        vec!["compare", "plan.toml", "--out", out, "--threads", "1", "--checkpoint-every", every]
    };
    place.run(&compare("whole", "2")).succeeds();
    // In a row file, at several sizes; then in a checkpoint, which is the first large file.
    for (out, every, blocks) in [("a", "off", 12), ("b", "off", 40), ("c", "2", 72)] {
        let full = cramped(&place, blocks, &compare(out, every));
        full.fails(2, &["error: "]);
        let says = if every == "off" { "writing " } else { "saving the checkpoint" };
        assert!(full.err.contains(says), "{out}: {}", full.err);
        let runs = Records::read(&place.path(out)).unwrap().runs;
        assert!(runs.iter().all(|r| r.status == Status::Done), "{out}: no run is to blame: {runs:?}");
        place.run(&compare(out, every)).succeeds();
        place.assert_same_rows("whole", out);
    }
}

#[test]
fn a_folder_that_cannot_be_written_or_is_taken_is_refused() {
    let place = Place::new();
    if cfg!(target_os = "linux") {
        // Not even root may make a folder here.
        place
            .run(&["compare", "plan.toml", "--out", "/sys/kto-eval"])
            .fails(2, &["creating the output folder /sys/kto-eval", "hint: name a folder"]);
    }
    let mut child = spawn(&place, &arguments("out"));
    until(&mut child, || lines(&place.path("out").join(files::STEPS)) > 0);
    let second = place.run(&arguments("out"));
    second.fails(2, &["another process (pid ", "writes here", "--out"]);
    wait(child).succeeds();
    place.run(&arguments("out")).succeeds();
}

#[test]
fn two_processes_share_a_cache() {
    let place = Place::new();
    place.run(&arguments("whole")).succeeds();
    std::fs::remove_dir_all(place.path("cache")).unwrap();
    let (a, b) = (spawn(&place, &arguments("a")), spawn(&place, &arguments("b")));
    wait(a).succeeds();
    wait(b).succeeds();
    place.assert_same_rows("whole", "a");
    place.assert_same_rows("whole", "b");
}

/// Two verbs that leave nothing behind: what they print of a part is said to be one.
#[test]
fn an_interrupted_verify_or_bench_says_so() {
    let place = Place::new();
    let (sections, _) = cli::PLAN.split_once("[[arm]]").unwrap();
    let arm = |i: usize| format!("[[arm]]\nname = \"kto-{i}\"\nmethod = \"kto\"\nbatch_size = 240\n");
    place.write("plan.toml", &(sections.to_owned() + &(0..40).map(arm).collect::<String>()));
    for verb in ["verify", "bench"] {
        let stdout = std::fs::File::create(place.path("stdout")).unwrap();
        let mut command = place.command(&[verb, "plan.toml", "--threads", "1"]);
        let mut child = command.stdout(stdout).stderr(Stdio::piped()).spawn().unwrap();
        let mut said = std::io::BufReader::new(child.stderr.take().unwrap()).lines();
        assert!(said.by_ref().any(|line| line.unwrap().contains("of kto-0")), "{verb} begins with kto-0");
        signal(&child, libc::SIGINT);
        let rest: Vec<String> = said.map(Result::unwrap).collect();
        assert_eq!(child.wait().unwrap().code(), Some(130), "{verb}: {rest:?}");
        assert!(rest.iter().any(|line| line.contains("interrupted: the")), "{verb}: {rest:?}");
        assert!(!place.read("stdout").contains("kto-39"), "{verb}");
    }
}
