//! Whose a folder is, what is dropped when it is opened, and shards.

use super::*;

#[test]
fn a_folder_belongs_to_one_plan_and_one_process() {
    let (dir, first) = (tempfile::tempdir().unwrap(), plan(&[]));
    let refusal = |plan: &Plan| match RecordWriter::open(dir.path(), plan, false) {
        Ok(_) => panic!("opened"),
        Err(e) => render(&e),
    };
    let writer = RecordWriter::open(dir.path(), &first, false).unwrap();
    let text = refusal(&first);
    assert!(text.contains("another process (pid") && text.contains("--out"), "{text}");
    drop(writer);
    complete(dir.path(), &first);
    let text = refusal(&plan(&["arm.kto.beta=0.5", "analysis=other words"]));
    assert!(text.contains("another plan, plan `quickstart`"), "{text}");
    assert!(text.contains("`beta = 0.1` there, `beta = 0.5` here") && text.contains("--force"), "{text}");
    // Other words alone make no other plan.
    drop(RecordWriter::open(dir.path(), &plan(&["analysis=other words"]), false).unwrap());
    std::fs::write(dir.path().join("mine.txt"), "kept").unwrap();
    let second = plan(&["seeds=[7]"]);
    let writer = RecordWriter::open(dir.path(), &second, true).unwrap();
    assert!(!writer.has_base_of(0, "world") && Records::read(dir.path()).unwrap().runs.is_empty());
    assert!(dir.path().join("mine.txt").exists());
}

#[test]
fn force_deletes_what_a_comparison_wrote_and_nothing_else() {
    let (dir, plan) = (tempfile::tempdir().unwrap(), plan(&["seeds=[1]"]));
    let write = |name: &str| {
        let path = dir.path().join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, "x").unwrap();
    };
    let there = |name: &str| dir.path().join(name).exists();
    let mine =
        ["shards/part-00000.parquet", "shards/2-of-3/data", "charts/logo.svg", ".checkpoints/mine/step"];
    mine.iter().for_each(|name| write(name));
    let ours = ["charts/scores.svg", "charts/scores.png", "tables/arms.csv", "report.html"];
    let run = format!(".checkpoints/{}/step-1.safetensors", plan.runs()[0].id);
    let launched = ["shards/1-of-2.log", "shards/slurm.json", "shards/plan.toml", "shards/1-of-2/plan.toml"];
    // In a folder that holds no comparison only shards of one, each of which says whose it is.
    ours.iter().chain(&launched).for_each(|name| write(name));
    drop(RecordHold::take(dir.path(), &plan, true).unwrap().open().unwrap());
    assert!(
        mine.iter().chain(&ours).all(|name| there(name))
            && !there("shards/1-of-2")
            && there("shards/plan.toml")
    );
    complete(dir.path(), &plan);
    write("shards/1-of-2/plan.toml");
    write(&run);
    std::fs::write(dir.path().join("report.json"), r#"{"charts": [{"name": "scores"}]}"#).unwrap();
    drop(RecordHold::take(dir.path(), &plan, true).unwrap().open().unwrap());
    assert!(mine.iter().all(|name| there(name)), "{mine:?}");
    let more = [run.as_str(), "report.json", "shards/1-of-2", "tables"];
    let gone = ours.iter().chain(&launched).chain(&more);
    let left: Vec<_> = gone.filter(|name| there(name)).collect();
    assert!(left.is_empty() && Records::read(dir.path()).unwrap().runs.is_empty(), "{left:?}");

    let other = tempfile::tempdir().unwrap();
    std::fs::write(other.path().join(files::RUNS), "theirs\n").unwrap();
    for force in [false, true] {
        let text = render(&RecordWriter::open(other.path(), &plan, force).err().expect("refused"));
        assert!(text.contains("holds runs.csv but no plan.toml: no comparison wrote it"), "{text}");
    }
    assert_eq!(std::fs::read(other.path().join(files::RUNS)).unwrap(), b"theirs\n");
}

#[test]
fn a_comparison_goes_on_with_more_seeds() {
    let (dir, whole) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let (two, three) = (plan(&["seeds=[1, 2]"]), plan(&["seeds=[1, 2, 3]"]));
    complete(dir.path(), &two);
    let before = contents(dir.path());
    for other in [&["seeds=[2, 1, 3]"][..], &["seeds=[1]"], &["seeds=[1, 2, 3]", "arm.kto.beta=0.5"]] {
        let text = render(&RecordWriter::open(dir.path(), &plan(other), false).err().expect("another plan"));
        let seeds_alone = other.len() == 1;
        assert_eq!(text.contains("goes on with more seeds after those that it has"), seeds_alone, "{text}");
        assert!(contents(dir.path()) == before);
    }
    let writer = RecordWriter::open(dir.path(), &three, false).unwrap();
    let finished: Vec<bool> = three.runs().iter().map(|run| writer.finished(&run.id).is_some()).collect();
    assert_eq!(finished.iter().filter(|f| **f).count(), two.runs().len());
    drop(writer);
    complete(dir.path(), &three);
    complete(whole.path(), &three);
    assert!(bytes(dir.path()) == bytes(whole.path()));
    assert_eq!(Records::read(dir.path()).unwrap().plan.seeds, [1, 2, 3]);
}

#[test]
fn a_folder_goes_on_only_with_the_data_and_model_that_it_began_with() {
    let (dir, plan) = (tempfile::tempdir().unwrap(), plan(&[]));
    let environment = |data: &str, started: &str| Environment {
        data_hash: data.into(),
        started: started.into(),
        ..Environment::here("cpu", 2)
    };
    RecordWriter::open(dir.path(), &plan, false).unwrap().environment(&environment("a", "then")).unwrap();
    complete(dir.path(), &plan);
    let mut writer = RecordWriter::open(dir.path(), &plan, false).unwrap();
    let text = render(&writer.environment(&environment("b", "now")).unwrap_err());
    assert!(text.contains("the data has changed since (a there, b here)"), "{text}");
    writer.environment(&environment("a", "now")).unwrap();
    assert_eq!(Records::read(dir.path()).unwrap().environment.started, "then");
}

#[test]
fn which_card_of_a_machine_it_was_is_no_other_device() {
    let (dir, plan) = (tempfile::tempdir().unwrap(), plan(&["seeds=[1]"]));
    let on = |device: &str| Environment::here(device, 2);
    RecordWriter::open(dir.path(), &plan, false).unwrap().environment(&on("cuda:2")).unwrap();
    complete(dir.path(), &plan);
    let mut writer = RecordWriter::open(dir.path(), &plan, false).unwrap();
    writer.environment(&on("cuda:0")).unwrap();
    let text = render(&writer.environment(&on("cpu")).unwrap_err());
    assert!(text.contains("the device has changed since (cuda there, cpu here)"), "{text}");
}

/// All files of a folder but its lock.
fn contents(dir: &Path) -> Vec<(std::path::PathBuf, Vec<u8>)> {
    let paths = std::fs::read_dir(dir).unwrap().map(|e| e.unwrap().path());
    let mut files: Vec<_> = paths.filter(|p| !p.ends_with(files::LOCK)).collect();
    files.sort();
    files.into_iter().map(|path| (path.clone(), std::fs::read(path).unwrap())).collect()
}

#[test]
fn rows_of_another_version_are_refused_and_stay() {
    let (dir, plan) = (tempfile::tempdir().unwrap(), plan(&["seeds=[1]"]));
    complete(dir.path(), &plan);
    let id = &plan.runs()[1].id;
    for name in [files::RUNS, files::STEPS] {
        // As a version with other keys in its ids called it.
        let path = dir.path().join(name);
        let text = std::fs::read_to_string(&path).unwrap();
        std::fs::write(&path, text.replace(id.as_str(), "dpo-s1-0ld1d5")).unwrap();
        let before = contents(dir.path());
        let text_of = |e: Option<crate::base::error::Error>| render(&e.expect("refused"));
        let refused = text_of(RecordWriter::open(dir.path(), &plan, false).err());
        assert!(refused.contains("another version of kto-eval, `dpo-s1-0ld1d5`"), "{refused}");
        let elsewhere = tempfile::tempdir().unwrap();
        let mut writer = RecordWriter::open(elsewhere.path(), &plan, false).unwrap();
        let refused = text_of(writer.gather(&plan, &[dir.path().to_owned()]).err());
        assert!(refused.contains("--force"), "{refused}");
        assert!(contents(dir.path()) == before, "{name}");
        std::fs::write(&path, text).unwrap();
    }
}

#[test]
fn a_folder_is_as_it_was_until_it_is_opened() {
    let (dir, plan) = (tempfile::tempdir().unwrap(), plan(&["seeds=[1]"]));
    complete(dir.path(), &plan);
    let mut writer = RecordWriter::open(dir.path(), &plan, false).unwrap();
    writer.step(&step_row(&plan.runs()[0], 9)).unwrap();
    drop(writer);
    let (before, other) = (contents(dir.path()), self::plan(&["seeds=[7]"]));
    for (plan, force) in [(&plan, false), (&plan, true), (&other, true)] {
        let hold = RecordHold::take(dir.path(), plan, force).unwrap();
        assert!(RecordHold::take(dir.path(), plan, force).is_err(), "it is held");
        drop(hold);
        assert!(contents(dir.path()) == before);
    }
    RecordHold::take(dir.path(), &other, true).unwrap().open().unwrap();
    assert_eq!(Records::read(dir.path()).unwrap().plan, other);
}

#[test]
fn runs_that_failed_are_left_where_that_is_asked() {
    let (dir, plan) = (tempfile::tempdir().unwrap(), plan(&["seeds=[1]"]));
    let runs = plan.runs();
    let mut writer = RecordWriter::open(dir.path(), &plan, false).unwrap();
    base(&mut writer);
    record(&mut writer, &runs[0], Some(Status::Failed));
    record(&mut writer, &runs[1], None);
    drop(writer);
    let hold = RecordHold::take(dir.path(), &plan, false).unwrap().leave_failed(true);
    let mut writer = hold.open().unwrap();
    assert!(writer.finished(&runs[0].id).is_some() && writer.finished(&runs[1].id).is_none());
    let scored = |dir: &Path| Records::read(dir).unwrap().scores.iter().any(|s| s.run == runs[0].id);
    assert!(scored(dir.path()));
    writer.forget_failed().unwrap();
    assert!(writer.finished(&runs[0].id).is_none() && !scored(dir.path()));
}

/// Runs turn about in two shards, as two machines write them.
fn shards(dir: &Path, plan: &Plan) -> Vec<std::path::PathBuf> {
    let shard = |which: usize| {
        let folder = dir.join(format!("{}-of-2", which + 1));
        let mut writer = RecordWriter::open(&folder, plan, false).unwrap();
        base(&mut writer);
        for spec in plan.runs().iter().skip(which).step_by(2) {
            record(&mut writer, spec, Some(Status::Done));
        }
        writer.arrange().unwrap();
        folder
    };
    (0..2).map(shard).collect()
}

#[test]
fn a_gathering_cut_short_loses_nothing() {
    let (dir, plan) = (tempfile::tempdir().unwrap(), plan(&["seeds=[1, 2]"]));
    let shards = shards(dir.path(), &plan);
    let gather =
        |out: &str| RecordWriter::open(&dir.path().join(out), &plan, false).unwrap().gather(&plan, &shards);
    assert_eq!(gather("whole").unwrap().runs, plan.runs().len());
    // Steps are there already when a file cannot be read, or written.
    let samples = shards[1].join(files::SAMPLES);
    let sound = std::fs::read(&samples).unwrap();
    std::fs::write(&samples, "no row\n").unwrap();
    gather("cut").unwrap_err();
    assert!(dir.path().join("cut").join(files::STEPS).exists());
    std::fs::write(&samples, sound).unwrap();
    assert_eq!(gather("cut").unwrap().runs, plan.runs().len());
    assert!(bytes(&dir.path().join("cut")) == bytes(&dir.path().join("whole")));
}

#[test]
fn packed_rows_of_another_plan_are_not_written_over() {
    let (dir, plan) = (tempfile::tempdir().unwrap(), plan(&[]));
    complete(dir.path(), &plan);
    let unpacked = contents(dir.path());
    for name in [files::RUNS, files::STEPS, files::SCORES, files::SAMPLES] {
        let path = dir.path().join(name);
        let file = std::fs::File::create(path.with_file_name(format!("{name}.gz"))).unwrap();
        let mut packed = flate2::write::GzEncoder::new(file, flate2::Compression::fast());
        std::io::Write::write_all(&mut packed, &std::fs::read(&path).unwrap()).unwrap();
        packed.finish().unwrap();
        std::fs::remove_file(path).unwrap();
    }
    let other = self::plan(&["seeds=[7]"]);
    let text = render(&RecordWriter::open(dir.path(), &other, false).err().expect("another plan's folder"));
    assert!(text.contains("another plan") && text.contains("--force"), "{text}");
    // The plan's own process goes on with what was packed, and leaves no second copy of it.
    drop(RecordWriter::open(dir.path(), &plan, false).unwrap());
    let rows = |all: Vec<(std::path::PathBuf, Vec<u8>)>| {
        all.into_iter().filter(|(_, bytes)| !bytes.is_empty()).collect::<Vec<_>>()
    };
    assert!(rows(contents(dir.path())) == rows(unpacked));
}
