//! Two programs measured turn about, so that a slow hour of the machine meets both alike.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::AtomicBool;

use super::external::{Ended, Limits, run_tree};
use super::observer::Observer;
use crate::base::error::{Context, HintExt, Result, anyhow, bail};
use crate::gate::{REPEATS, SESSION, Session, Side};
use crate::plan::Plan;
use crate::record::{Environment, files};

/// One side's program, and where it runs.
#[derive(Clone, Debug)]
pub struct Program {
    pub binary: PathBuf,
    /// Folder that it starts in; commands of external trainers are found from there.
    pub dir: PathBuf,
    /// The plan's path, or a shipped name.
    pub plan: String,
    /// Options of `compare` for this side alone.
    pub options: Vec<String>,
}

/// What is measured.
#[derive(Clone, Debug)]
pub struct Measurement {
    pub baseline: Program,
    pub candidate: Program,
    pub rounds: usize,
    /// Options of `compare` for both sides (`--threads 2`).
    pub options: Vec<String>,
    /// Options of the timed rounds alone: what is timed is training, so few examples are scored.
    pub round_options: Vec<String>,
    pub timeout_seconds: f64,
}

/// Whether both sides run one program with one plan on one set of files, so that nothing but chance can part them.
/// `plans`: each side's, as its command resolves it.
pub fn are_one(baseline: &Program, candidate: &Program, plans: [&Plan; 2]) -> bool {
    let [plan, other] = plans;
    let dirs = [&baseline.dir, &candidate.dir];
    let one_dir = dirs[0].canonicalize().ok() == dirs[1].canonicalize().ok();
    // What is named by a relative path is looked for in each side's own folder.
    let Plan { model, data, judge, suites, .. } = plan;
    let named = [&model.source, &model.reference, &data.source, &judge.reward_model];
    let of_arms = plan.arms.iter().map(|arm| &arm.data.source);
    let named = named.into_iter().chain(of_arms).chain(&suites.preference).chain(&suites.generation);
    let own = |name: &String| {
        let path = Path::new(name);
        !name.is_empty() && path.is_relative() && dirs.iter().any(|dir| dir.join(path).exists())
    };
    let same_files =
        one_dir || (plan.arms.iter().all(|arm| arm.trainer.is_none()) && !named.into_iter().any(own));
    baseline.binary.canonicalize().ok() == candidate.binary.canonicalize().ok() && plan == other && same_files
}

/// Each side once in full (`out/baseline`, `out/candidate`), which also warms caches, then `rounds` timed rounds
/// in the order A B, B A, A B, … (`repeats/01`, …), so that drift that is linear in time cancels.
///
/// `false`: interrupted.
///
/// # Errors
/// A program that cannot be started, that fails, or that leaves no complete records.
pub fn measure(m: &Measurement, out: &Path, abort: &AtomicBool, observer: &mut dyn Observer) -> Result<bool> {
    let out = std::path::absolute(out).with_context(|| format!("resolving {}", out.display()))?;
    std::fs::create_dir_all(&out)
        .with_context(|| format!("creating the output folder {}", out.display()))
        .hint("name a folder that you may write to with --out")?;
    let sides = [("baseline", &m.baseline), ("candidate", &m.candidate)];
    for (name, program) in sides {
        observer.stage(&format!("{name}: the whole plan"));
        let folder = out.join(name);
        if !run(m, program, &folder, &[], &out.join(format!("{name}.log")), abort, observer)? {
            return Ok(false);
        }
        Side::read(&folder).with_context(|| format!("what the {name}'s program left"))?;
        // Rounds of an earlier measurement must not be paired with these.
        let repeats = folder.join(REPEATS);
        std::fs::remove_dir_all(&repeats).ok();
        std::fs::create_dir_all(&repeats).with_context(|| format!("creating {}", repeats.display()))?;
    }
    for round in 1..=m.rounds {
        let order = if round % 2 == 1 { [0, 1] } else { [1, 0] };
        for (name, program) in order.map(|i| sides[i]) {
            observer.stage(&format!("round {round} of {}: {name}", m.rounds));
            let folder = out.join(name).join(REPEATS).join(format!("{round:02}"));
            let log = out.join(format!("{name}.log"));
            if !run(m, program, &folder, &m.round_options, &log, abort, observer)? {
                return Ok(false);
            }
        }
    }
    let here = Environment::here("", 0);
    let id = format!("{}-{}", here.started, std::process::id());
    for (name, _) in sides {
        let session = Session { id: id.clone(), rounds: m.rounds };
        let path = out.join(name).join(REPEATS).join(SESSION);
        let text = serde_json::to_string(&session)? + "\n";
        std::fs::write(&path, text).with_context(|| format!("writing {}", path.display()))?;
    }
    Ok(true)
}

/// `PROGRAM compare PLAN --out FOLDER …`; a comparison that is invalid or lost an arm is for the gate to judge.
fn run(
    m: &Measurement,
    program: &Program,
    folder: &Path,
    more: &[String],
    log: &Path,
    abort: &AtomicBool,
    observer: &mut dyn Observer,
) -> Result<bool> {
    let mut command = Command::new(&program.binary);
    command
        .current_dir(&program.dir)
        .args(["compare", &program.plan, "--force", "--quiet", "--out"])
        .arg(folder);
    command.args(&m.options).args(&program.options).args(more);
    let limits = Limits { seconds: m.timeout_seconds, log_bytes: 16 << 20 };
    let ran = run_tree(&mut command, log, limits, abort, &mut |line| observer.stage(line))?;
    match ran.ended {
        Ended::Exited(0 | 1) if folder.join(files::RUNS).exists() => Ok(true),
        Ended::Interrupted => Ok(false),
        Ended::Exited(130) => Ok(false),
        ended => {
            let tail = ran.tail.lines().rev().take(6).collect::<Vec<_>>();
            let tail = tail.into_iter().rev().collect::<Vec<_>>().join(" | ");
            Err(anyhow!("{} ended with {ended}: {tail}", program.binary.display()))
                .hint(format!("the whole log is {}", log.display()))
        }
    }
}

impl Program {
    /// # Errors
    /// A binary or a folder that is not there.
    pub fn new(binary: PathBuf, dir: PathBuf, plan: String, options: Vec<String>) -> Result<Self> {
        let absolute =
            |p: &Path| std::path::absolute(p).with_context(|| format!("resolving {}", p.display()));
        let (binary, dir) = (absolute(&binary)?, absolute(&dir)?);
        if !binary.is_file() {
            bail!("no program {}", binary.display());
        }
        if !dir.is_dir() {
            bail!("no folder {}", dir.display());
        }
        Ok(Self { binary, dir, plan, options })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::Overrides;

    #[test]
    fn sides_are_one_where_only_chance_could_part_them() {
        let place = tempfile::tempdir().unwrap();
        for file in ["a/data/train.jsonl", "b/data/train.jsonl", "program", "other"] {
            let path = place.path().join(file);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, "").unwrap();
        }
        let side = |binary: &str, dir: &str| {
            let path = |name: &str| place.path().join(name);
            Program::new(path(binary), path(dir), "p.toml".to_owned(), vec![]).unwrap()
        };
        let plan = |options: &[&str]| {
            let set = options.iter().map(|s| (*s).to_owned()).collect();
            Plan::open("quickstart", &Overrides { set, ..Overrides::default() }).unwrap()
        };
        let (world, a) = (plan(&[]), side("program", "a"));
        let one = |other: &Program, plans: [&Plan; 2]| are_one(&a, other, plans);
        assert!(one(&side("program", "a/../a"), [&world, &world]));
        // Another checkout of nothing that the plan reads.
        assert!(one(&side("program", "b"), [&world, &world]));
        assert!(!one(&side("other", "a"), [&world, &world]));
        assert!(!one(&side("program", "a"), [&world, &plan(&["train.learning_rate=1e-3"])]));
        let own = plan(&["model.source=some/model", "data.source=data", "suites.preference=[\"heldout\"]"]);
        assert!(one(&side("program", "a"), [&own, &own]));
        assert!(!one(&side("program", "b"), [&own, &own]), "each has data of its own");
    }
}
