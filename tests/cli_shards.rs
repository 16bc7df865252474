//! A plan's runs as items of work: shards, processes side by side, a Slurm array. In the end the records are
//! those of one process.
#![cfg(unix)]

mod cli;

use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use cli::{Place, Ran, ran};

const WHOLE: [&str; 6] = ["compare", "plan.toml", "--threads", "1", "--out", "whole"];

/// Its generation suite writes samples, under each seed.
fn place() -> Place {
    let place = Place::new();
    let suites = "generation = [\"heldout-prompts\"]\nmax_examples = 6\n\n[[arm]]";
    place.write("plan.toml", &cli::PLAN.replacen("\n[[arm]]", suites, 1));
    place
}

#[test]
fn shards_gather_to_the_records_of_one_process() {
    let place = place();
    place.run(&WHOLE).succeeds();
    let shard = |which: &str| {
        place.run(&["compare", "plan.toml", "--threads", "1", "--out", "apart", "--shard", which])
    };
    for which in ["3/4", "1/4", "2/4"] {
        assert!(shard(which).succeeds().contains(&format!("shard {which}: ")));
    }
    place.run(&["gather", "apart"]).fails(2, &["1 runs have no row yet: ", "hint: run their shards again"]);
    place.run(&["gather", "apart", "--partial"]).fails(1, &[]);
    // What is gathered is not done again by a shard of another division.
    let rest = place.run(&["compare", "plan.toml", "--threads", "1", "--out", "apart", "--shard", "1/1"]);
    assert!(rest.succeeds().contains("shard 1/1: 1 runs done"), "{}", rest.out);
    place.run(&["gather", "apart"]).succeeds();
    place.assert_same_rows("whole", "apart");
    place.run(&["report", "apart", "--check"]).succeeds();

    // Elsewhere, from folders that are named; an incomplete folder is completed by the plain command.
    place.run(&["gather", "named", "apart/shards/2-of-4", "apart/shards/1-of-4", "--partial"]).fails(1, &[]);
    place.run(&["compare", "plan.toml", "--threads", "1", "--out", "named"]).succeeds();
    place.assert_same_rows("whole", "named");

    place.run(&["gather", "nothing"]).fails(2, &["nothing holds no shards"]);
    place.run(&["compare", "plan.toml", "--shard", "3/2"]).fails(2, &["`3/2` is no shard", "such as 2/8"]);
    let other = ["compare", "plan.toml", "--set", "arm.kto.beta=0.3", "--out", "apart", "--shard", "1/9"];
    place.run(&other).succeeds();
    place.run(&["gather", "apart"]).fails(2, &["another plan"]);
}

const TUNED: &str = r#"
[tune]
trials = 1
validation = 0.2

[[arm]]
method = "kto"
tune = { learning_rate = [1e-4, 3e-3] }

[[arm]]
method = "rloo"
samples = 2
max_new_tokens = 8
tune = { learning_rate = [1e-4, 3e-3] }
"#;

#[test]
fn trials_and_rollouts_of_shards_are_gathered_too() {
    let place = place();
    let (sections, _) = cli::PLAN.split_once("[[arm]]").unwrap();
    place.write("plan.toml", &format!("{sections}{TUNED}"));
    place.run(&WHOLE).succeeds();
    for shard in ["2/2", "1/2"] {
        let arguments = ["compare", "plan.toml", "--threads", "1", "--out", "apart", "--shard", shard];
        place.run(&arguments).succeeds();
    }
    // The runs stand turn about, so that each shard has one arm, and tunes that one alone.
    let trials = |folder: &str| cli::stable(&place.read(&format!("{folder}/trials.csv")));
    assert_eq!((trials("apart/shards/1-of-2").len(), trials("whole").len()), (2, 4));
    for _ in 0..2 {
        place.run(&["gather", "apart"]).succeeds();
        place.assert_same_rows("whole", "apart");
        for table in ["trials.csv", "rollouts.csv", "phases.csv"] {
            let rows = |out: &str| cli::stable(&place.read(&format!("{out}/{table}")));
            assert_eq!(rows("whole"), rows("apart"), "{table}");
        }
    }
}

#[test]
fn processes_side_by_side_give_the_records_of_one() {
    let place = place();
    place.run(&WHOLE).succeeds();
    let local = |out: &'static str| {
        let common = ["--launcher", "local", "--jobs", "2", "--checkpoint-every", "2"];
        [&["compare", "plan.toml", "--threads", "2", "--out", out][..], &common].concat()
    };
    place.run(&local("side")).succeeds();
    place.assert_same_rows("whole", "side");
    assert!(!place.path("side/shards").exists(), "nothing is kept twice");

    // Told to end in the middle, and gone on with; then one item is killed, and begun again by itself.
    let mut child =
        place.command(&local("cut")).stderr(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    wait_for(&place.path("cut/shards/2-of-2/steps.csv"), &mut child);
    signal(child.id(), libc::SIGINT);
    ran(child.wait_with_output().unwrap()).fails(130, &["the same command goes on from here"]);
    let mut child =
        place.command(&local("cut")).stderr(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    wait_for(&place.path("cut/shards/1-of-2/steps.csv"), &mut child);
    let item = place.read("cut/shards/1-of-2/.lock");
    if let Some(pid) = item.trim().strip_prefix("pid ").and_then(|pid| pid.parse().ok()) {
        signal(pid, libc::SIGKILL);
    }
    ran(child.wait_with_output().unwrap()).succeeds();
    place.assert_same_rows("whole", "cut");

    // What the plan itself shows is said before any process starts, the rest by whoever comes upon it.
    let bad = |set: &'static str| [&local("bad")[..], &["--set", set]].concat();
    let known = place.run(&bad("suites.preference=[\"nope\"]"));
    known.fails(2, &["unknown preference suite `nope`"]);
    assert!(!known.err.contains("shard"), "{}", known.err);
    let nowhere = ["shard 1/2 ended with", "no such model directory: /nowhere/model"];
    place.run(&bad("model.source=/nowhere/model")).fails(2, &nowhere);
}

/// As without a launcher (`records_stay_until_others_can_be_made`).
#[test]
fn records_stay_until_it_is_known_that_shards_can_make_others() {
    let place = place();
    pretended_slurm(&place);
    place.line("compare plan.toml --out out --set seeds=[1]").succeeds();
    let rows = || ["runs.csv", "steps.csv", "report.md"].map(|name| place.read(&format!("out/{name}")));
    let before = rows();
    let forced = |launcher: &str, set: &str| {
        let line = "compare plan.toml --out out --force --set seeds=[1] --jobs 1 --threads 1";
        let arguments = format!("{line} --launcher {launcher} --set {set}");
        with_slurm(place.command(&arguments.split(' ').collect::<Vec<_>>()), &place)
    };
    for launcher in ["local", "slurm"] {
        let refused = forced(launcher, "model.source=/nowhere");
        refused.fails(2, &["no such model directory: /nowhere", "the records in out stay as they are"]);
        forced(launcher, "data.source=gone").fails(2, &["gone", "stay as they are"]);
        assert_eq!(rows(), before, "{launcher}");
    }
    // What the plan names is in the container's sight, and this machine's says nothing of it.
    forced("slurm", "model.source=/nowhere --set slurm.container=contain").fails(2, &["still missing"]);
    assert!(!place.path("out/runs.csv").exists());
    forced("local", "train.batch_size=4").succeeds();
    assert_ne!(rows()[0], before[0]);
}

fn signal(pid: u32, signal: libc::c_int) {
    // SAFETY: kill has no effect on this process's memory; the process is one that this test started.
    unsafe { libc::kill(pid.try_into().unwrap(), signal) };
}

fn wait_for(path: &Path, child: &mut std::process::Child) {
    let began = Instant::now();
    while !path.exists() && child.try_wait().unwrap().is_none() {
        assert!(began.elapsed() < Duration::from_secs(300), "{} does not come", path.display());
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// Slurm's commands as scripts: `sbatch` does an array's tasks at once, one after another.
fn pretended_slurm(place: &Place) {
    use std::os::unix::fs::PermissionsExt;
    let sbatch = r#"echo x >> submitted
array=$(sed -n 's/^#SBATCH --array=\([^%]*\).*/\1/p' "$2")
log=$(sed -n 's/^#SBATCH --output=//p' "$2")
for task in $(echo "$array" | tr ',' ' '); do
  for i in $(seq "${task%-*}" "${task#*-}"); do
    SLURM_ARRAY_TASK_ID=$i bash "$2" >> "$(echo "$log" | sed "s/%a/$i/")" 2>&1
  done
done
echo 7"#;
    let srun = "if [ -e dies ]; then rm dies; exit 1; fi\nshift\nexec \"$@\"";
    std::fs::create_dir(place.path("bin")).unwrap();
    for (name, body) in [("sbatch", sbatch), ("squeue", ""), ("sacct", ""), ("srun", srun)] {
        let path = place.path("bin").join(name);
        std::fs::write(&path, format!("#!/bin/bash\n{body}\n")).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
    }
}

/// Runs a command that finds [`pretended_slurm`].
fn with_slurm(mut command: Command, place: &Place) -> Ran {
    let path = std::env::var("PATH").unwrap();
    ran(command.env("PATH", format!("{}:{path}", place.path("bin").display())).output().unwrap())
}

#[test]
fn an_array_sets_up_its_environment_and_does_not_try_again_what_failed() {
    let place = place();
    pretended_slurm(&place);
    place.write("fails.sh", "echo tried >> tried\nexit 3\n");
    // As conda's and the modules' scripts do: a variable that is not set.
    let slurm = "[slurm]\nenvironment = [\"export SET_UP=$NOT_SET_BY_ANYBODY\"]\n\n[[arm]]\nname = \"theirs\"\n\
                 [arm.trainer]\ncommand = [\"sh\", \"fails.sh\", \"{out}\"]\n\n[[arm]]";
    let plan = place.read("plan.toml").replacen("[[arm]]", slurm, 1).replacen("[1, 2]", "[1]", 1);
    place.write("plan.toml", &plan);
    let command = |out: &str| {
        let arguments =
            ["compare", "plan.toml", "--launcher", "slurm", "--jobs", "2", "--threads", "1", "--out", out];
        with_slurm(place.command(&arguments), &place)
    };
    let first = command("array");
    first.fails(1, &["submitted job 7: shards 1-2"]);
    assert_eq!((place.read("submitted").lines().count(), place.read("tried").lines().count()), (1, 1));
    let runs = kto_eval::record::Records::read(&place.path("array")).unwrap().runs;
    let failed: Vec<&str> = runs
        .iter()
        .filter(|r| r.status == kto_eval::record::Status::Failed)
        .map(|r| r.arm.as_str())
        .collect();
    assert_eq!((runs.len(), failed), (4, vec!["theirs"]));
    // A later command tries it once more, and that shard alone.
    let second = command("array");
    second.fails(1, &["submitted job 7: shards 1\n"]);
    assert_eq!((place.read("submitted").lines().count(), place.read("tried").lines().count()), (2, 2));
    // What an earlier command left of a run says nothing of a task that dies before it has begun.
    place.write("dies", "");
    command("array").fails(1, &["submitted job 7: shards 1\n"]);
    assert_eq!((place.read("submitted").lines().count(), place.read("tried").lines().count()), (4, 3));
    let json = place.line("compare plan.toml --threads 1 --out apart --shard 2/4 --json");
    let shard: serde_json::Value = serde_json::from_str(json.succeeds()).unwrap();
    assert!(shard["shard"] == "2/4" && shard["done"] == 1 && shard["lost"] == 0, "{shard}");
}

/// One of the shard's runs fails, the next one takes the task with it.
#[test]
fn a_shard_that_is_begun_again_does_not_try_again_what_failed() {
    let place = place();
    pretended_slurm(&place);
    place.write("fails.sh", "echo tried >> tried\nexit 3\n");
    place.write("kills.sh", "[ -e killed ] && exit 3\ntouch killed\nkill -9 $PPID\nsleep 60\n");
    let arm = |name: &str| {
        let command = format!("command = [\"sh\", \"{name}.sh\", \"{{out}}\"]");
        format!("[[arm]]\nname = \"{name}\"\n[arm.trainer]\n{command}\n\n")
    };
    let plan = place.read("plan.toml").replacen("[1, 2]", "[1]", 1);
    place.write("plan.toml", &plan.replacen("[[arm]]", &(arm("fails") + &arm("kills") + "[[arm]]"), 1));
    for launcher in ["slurm", "local"] {
        let arguments = [
            "compare",
            "plan.toml",
            "--launcher",
            launcher,
            "--jobs",
            "1",
            "--threads",
            "1",
            "--out",
            launcher,
        ];
        let mut command = place.command(&arguments);
        let path = std::env::var("PATH").unwrap();
        let path = format!("{}:{path}", place.path("bin").display());
        ran(command.env("PATH", path).output().unwrap()).fails(1, &[]);
        assert_eq!(place.read("tried").lines().count(), 1, "{launcher}");
        let runs = kto_eval::record::Records::read(&place.path(launcher)).unwrap().runs;
        let lost = runs.iter().filter(|r| r.status == kto_eval::record::Status::Failed).count();
        assert_eq!((runs.len(), lost), (5, 2), "{launcher}");
        std::fs::remove_file(place.path("tried")).unwrap();
        std::fs::remove_file(place.path("killed")).unwrap();
    }
}

/// A Slurm of this machine's own; ended when dropped.
struct Cluster<'a>(&'a Place);

impl<'a> Cluster<'a> {
    fn start(place: &'a Place) -> Self {
        let cluster = Self(place);
        cluster.script(&["start"]);
        cluster
    }

    fn script(&self, words: &[&str]) {
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/slurm/cluster.sh");
        let log = std::fs::File::create(self.0.path("cluster.log")).unwrap();
        let mut command = Command::new(script);
        command.arg(words[0]).arg(self.0.path("slurm")).args(&words[1..]);
        // The daemons keep what they are given: files, or this test would wait for a pipe of theirs.
        let status = command.stdin(Stdio::null()).stdout(log.try_clone().unwrap()).stderr(log).status();
        assert!(status.unwrap().success(), "{words:?}: {}", self.0.read("cluster.log"));
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = self.0.command(arguments);
        command.env("SLURM_CONF", self.0.path("slurm/slurm.conf"));
        command
    }

    fn queue(&self) -> String {
        let mut squeue = Command::new("squeue");
        squeue.args(["-h", "-r", "-o", "%i %T %N"]).env("SLURM_CONF", self.0.path("slurm/slurm.conf"));
        String::from_utf8(squeue.output().unwrap().stdout).unwrap()
    }
}

impl Drop for Cluster<'_> {
    fn drop(&mut self) {
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/slurm/cluster.sh");
        let _ = Command::new(script).arg("stop").arg(self.0.path("slurm")).status();
    }
}

#[test]
#[ignore = "needs Slurm, as root: apt-get install -y slurm-wlm munge; cargo test --test cli_shards -- --ignored slurm"]
fn a_slurm_array_survives_the_loss_of_a_node_and_gives_the_records_of_one_process() {
    let place = place();
    let plan = place.read("plan.toml");
    let slurm =
        "[slurm]\npartition = \"test\"\ntime = \"10\"\nenvironment = [\"export KTO_TEST=1\"]\n\n[[arm]]";
    place.write("plan.toml", &plan.replacen("[[arm]]", slurm, 1).replace("= 6000", "= 60000"));
    place.run(&WHOLE).succeeds();
    let cluster = Cluster::start(&place);
    let arguments = [
        "compare",
        "plan.toml",
        "--out",
        "array",
        "--launcher",
        "slurm",
        "--jobs",
        "3",
        "--threads",
        "1",
        "--checkpoint-every",
        "2",
    ];
    let child = |piped: bool| {
        let mut command = cluster.command(&arguments);
        if piped {
            command.stdout(Stdio::piped()).stderr(Stdio::piped());
        }
        command.spawn().unwrap()
    };
    // The launcher may go: the job goes on, and the same command follows it again.
    let mut first = child(true);
    wait_for(&place.path("array/shards/1-of-3/steps.csv"), &mut first);
    signal(first.id(), libc::SIGINT);
    let left = ran(first.wait_with_output().unwrap());
    left.fails(130, &["submitted job", "the job goes on", "the same command goes on from here"]);

    // A node fails while it computes, and comes back later.
    let queue = cluster.queue();
    let node = queue.lines().find(|l| l.contains("RUNNING")).and_then(|l| l.split(' ').nth(2));
    let node = node.unwrap_or_else(|| panic!("no task runs: {queue}")).to_owned();
    cluster.script(&["kill-node", &node]);
    let again = child(true);
    std::thread::sleep(Duration::from_secs(20));
    cluster.script(&["start-node", &node]);
    let ended: Ran = ran(again.wait_with_output().unwrap());
    ended.succeeds();
    assert!(ended.err.contains("following job"), "{}", ended.err);
    place.assert_same_rows("whole", "array");

    // A shard that cannot work says why, and is not tried for ever.
    let wrong = [&arguments[..], &["--set", "suites.preference=[\"nope\"]"]].concat();
    let wrong: Vec<&str> = wrong.iter().map(|w| if *w == "array" { "wrong" } else { *w }).collect();
    let refused = ran(cluster.command(&wrong).output().unwrap());
    refused.fails(2, &["unknown preference suite `nope`"]);
}
