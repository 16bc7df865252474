//! Data flows one way: a room uses only rooms to its left.

use std::fs;
use std::path::{Path, PathBuf};

/// The rooms in order, as `src/lib.rs` draws them.
const ROOMS: [&str; 14] = [
    "base",
    "plan",
    "data",
    "kernels",
    "model",
    "objective",
    "train",
    "suite",
    "record",
    "stats",
    "report",
    "gate",
    "launch",
    "cli",
];

fn files(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            files(&path, found);
        } else if path.extension().is_some_and(|e| e == "rs") {
            found.push(path);
        }
    }
}

/// Rooms named as `crate::<room>` in the code of a file; comments and test modules may look anywhere.
fn used(text: &str) -> Vec<(usize, &str)> {
    let mut used = vec![];
    for (number, line) in text.lines().enumerate() {
        if line.trim_start().starts_with("#[cfg(test)]") || line.trim_start().starts_with("#[cfg(all(test") {
            break;
        }
        let code = line.split("//").next().unwrap_or_default();
        for rest in code.split("crate::").skip(1) {
            let end = rest.find(|c: char| !c.is_ascii_lowercase()).unwrap_or(rest.len());
            used.push((number + 1, &rest[..end]));
        }
    }
    used
}

#[test]
fn rooms_use_only_rooms_to_their_left() {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut wrong = vec![];
    let mut edges = 0;
    for (place, room) in ROOMS.iter().enumerate() {
        let mut found = vec![];
        files(&source.join(room), &mut found);
        assert!(!found.is_empty(), "{room} is empty");
        for file in found.iter().filter(|f| f.file_name().is_some_and(|n| n != "tests.rs")) {
            let text = fs::read_to_string(file).unwrap();
            for (line, other) in used(&text) {
                let Some(other_place) = ROOMS.iter().position(|r| *r == other) else {
                    wrong.push(format!("{}:{line} uses crate::{other}, which is no room", file.display()));
                    continue;
                };
                edges += usize::from(other_place < place);
                if other_place > place {
                    wrong.push(format!("{}:{line}: {room} uses {other}, to its right", file.display()));
                }
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert!(edges > 100, "the test has read {edges} uses only: it looks in the wrong place");
}

#[test]
fn the_test_sees_what_it_looks_for() {
    let text =
        "use crate::base::x;\n// crate::cli\nfn f() { crate::launch::g() }\n#[cfg(test)]\nuse crate::cli::y;";
    assert_eq!(used(text), [(1, "base"), (3, "launch")]);
}
