//! `build.rs`: the commit that a build names, in checkouts of all kinds.
#![cfg(unix)]

use std::path::Path;
use std::process::Command;

/// Runs a command in the folder; `None`: it cannot be started or fails.
fn run(folder: &Path, words: &[&str], environment: &[(&str, &str)]) -> Option<String> {
    let mut command = Command::new(words[0]);
    command.args(&words[1..]).current_dir(folder).env_remove("KTO_EVAL_COMMIT");
    command.env("CARGO_MANIFEST_DIR", folder).envs(environment.iter().copied());
    let out = command.output().ok().filter(|out| out.status.success())?;
    Some(String::from_utf8(out.stdout).unwrap())
}

#[test]
fn a_build_names_its_commit_and_whether_its_sources_were_changed() {
    let place = tempfile::tempdir().unwrap();
    let (tools, repository) = (place.path(), place.path().join("repository"));
    std::fs::create_dir_all(repository.join("src")).unwrap();
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("build.rs").display().to_string();
    if run(tools, &["rustc", "--edition=2024", &script, "-o", "script"], &[]).is_none() {
        return eprintln!("skipped: no rustc on the PATH");
    }
    let script = tools.join("script").display().to_string();
    let git = |words: &[&str]| {
        let who =
            ["git", "-c", "user.name=t", "-c", "user.email=t@example.org", "-c", "commit.gpgsign=false"];
        run(&repository, &[&who, words].concat(), &[])
    };
    let write = |name: &str, text: &str| std::fs::write(repository.join(name), text).unwrap();
    ["src/lib.rs", "README.md", "Cargo.toml"].iter().for_each(|name| write(name, "one"));
    if git(&["init", "--quiet"]).is_none() {
        return eprintln!("skipped: no git");
    }
    let commit = || {
        git(&["add", "."]).unwrap();
        git(&["commit", "--quiet", "-m", "m"]).unwrap();
        git(&["rev-parse", "HEAD"]).unwrap().trim().to_owned()
    };
    let said = |environment: &[(&str, &str)]| run(&repository, &[&script], environment).unwrap();
    let named = |said: &str| {
        let line = said.lines().find_map(|l| l.strip_prefix("cargo:rustc-env=KTO_EVAL_COMMIT="));
        line.unwrap().to_owned()
    };
    let first = commit();
    assert_eq!(named(&said(&[])), first);
    write("README.md", "no source");
    assert_eq!(named(&said(&[])), first, "words are no part of the program");
    assert_eq!(named(&said(&[("GIT_DIR", "/nowhere")])), first, "a hook of another repository");
    assert_eq!(named(&said(&[("KTO_EVAL_COMMIT", "given")])), "given");

    write("src/lib.rs", "two");
    let dirty = said(&[]);
    assert_eq!(named(&dirty), format!("{first}-dirty"));
    // The commit that takes it in changes no source: cargo watches where HEAD has been.
    let watched = |said: &str| {
        let mut paths =
            said.lines().filter_map(|l| l.strip_prefix("cargo:rerun-if-changed=")).map(str::to_owned);
        paths.find(|path| path.ends_with("logs/HEAD"))
    };
    let log = watched(&dirty).expect("HEAD is watched");
    let before = std::fs::read(&log).unwrap();
    let second = commit();
    assert_ne!(std::fs::read(&log).unwrap(), before);
    let clean = said(&[]);
    assert_eq!((named(&clean), watched(&clean)), (second, None));

    std::fs::rename(repository.join(".git"), tools.join("git")).unwrap();
    assert_eq!(named(&said(&[])), "");
    write(".cargo_vcs_info.json", "{\n  \"git\": {\n    \"sha1\": \"abc\"\n  },\n  \"path_in_vcs\": \"\"\n}");
    assert_eq!(named(&said(&[])), "abc");
    write(".cargo_vcs_info.json", "{\"git\": {\"sha1\": \"abc\", \"dirty\": true}}");
    assert_eq!(named(&said(&[])), "abc-dirty");
}
