//! Files that are the old ones or the new ones, never half of either.

use std::io::ErrorKind;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

use super::error::{Context, Result};

/// Written beside under a name that no other writer takes, flushed to the disk, then renamed: readers see the old file or
/// the new one, after a power cut too. Threads, processes and machines may write one file at the same time. The folder is
/// made where it is missing.
///
/// # Errors
/// A folder that cannot be written, a full disk; nothing stays behind then.
pub fn write(path: &Path, bytes: &[u8]) -> Result<()> {
    static WRITTEN: AtomicU64 = AtomicU64::new(0);
    let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |t| t.as_nanos());
    let writer = format!("{}-{}-{now}", std::process::id(), WRITTEN.fetch_add(1, Ordering::Relaxed));
    by_way_of(&format!(".{writer}.part"), path, |aside| Ok(std::fs::write(aside, bytes)?))
}

/// [`write`] for a folder that this process alone writes to: the name beside is always the same, so that what a killed
/// process left there is written over.
///
/// # Errors
/// See [`write`].
pub fn write_held(path: &Path, bytes: &[u8]) -> Result<()> {
    write_held_by(path, |aside| Ok(std::fs::write(aside, bytes)?))
}

/// [`write_held`] of a file that `fill` writes to the path that it is given.
///
/// # Errors
/// See [`write`]; what `fill` returns.
pub fn write_held_by(path: &Path, fill: impl FnOnce(&Path) -> Result<()>) -> Result<()> {
    by_way_of(".part", path, fill)
}

fn by_way_of(ending: &str, path: &Path, fill: impl FnOnce(&Path) -> Result<()>) -> Result<()> {
    let folder = path.parent().context("a file path has a folder")?;
    std::fs::create_dir_all(folder).with_context(|| format!("creating {}", folder.display()))?;
    // Of the whole name: two files of one stem do not share it.
    let mut aside = path.as_os_str().to_owned();
    aside.push(ending);
    let aside = Path::new(&aside);
    let written = fill(aside).and_then(|()| {
        std::fs::OpenOptions::new().write(true).open(aside)?.sync_all()?;
        Ok(std::fs::rename(aside, path)?)
    });
    if written.is_err() {
        // Nothing of ours stays behind on a full disk.
        let _ = std::fs::remove_file(aside);
    } else if let Ok(folder) = std::fs::File::open(folder) {
        // The file is in its place; some file systems flush no folder.
        let _ = folder.sync_all();
    }
    written.with_context(|| format!("writing {}", path.display()))
}

/// Deletes a file; one that is not there is no error.
///
/// # Errors
/// A file that stays.
pub fn remove(path: &Path) -> Result<()> {
    unless_missing(std::fs::remove_file(path), path)
}

/// Deletes a folder with all in it; one that is not there is no error.
///
/// # Errors
/// A folder of which something stays.
pub fn remove_folder(path: &Path) -> Result<()> {
    unless_missing(std::fs::remove_dir_all(path), path)
}

fn unless_missing(removed: std::io::Result<()>, path: &Path) -> Result<()> {
    match removed {
        Err(e) if e.kind() != ErrorKind::NotFound => {
            Err(e).with_context(|| format!("deleting {}", path.display()))
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_replaced_and_nothing_is_left_aside() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("deep/file.bin");
        write(&path, b"old").unwrap();
        write(&path, b"new").unwrap();
        assert_eq!(std::fs::read(&path).unwrap(), b"new");
        assert_eq!(std::fs::read_dir(path.parent().unwrap()).unwrap().count(), 1);
        // A folder where the file should go: the rename fails.
        let taken = folder.path().join("taken");
        std::fs::create_dir(&taken).unwrap();
        for write in [write, write_held] {
            let error = format!("{:#}", write(&taken, b"x").unwrap_err());
            assert!(error.contains("taken"), "{error}");
        }
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 2, "deep and taken");
    }

    #[test]
    fn writers_of_one_file_do_not_meet() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("reply.json");
        std::thread::scope(|threads| {
            for byte in b'a'..=b'h' {
                let path = &path;
                threads.spawn(move || (0..20).for_each(|_| write(path, &[byte; 5000]).unwrap()));
            }
        });
        let bytes = std::fs::read(&path).unwrap();
        assert!(bytes.len() == 5000 && bytes.iter().all(|b| *b == bytes[0]));
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1);
    }

    #[test]
    fn what_a_killed_process_left_is_written_over() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("m.csv");
        std::fs::write(folder.path().join("m.csv.part"), "half").unwrap();
        write_held(&path, b"rows").unwrap();
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1);
        // Two files of one stem are written by way of two names.
        std::fs::create_dir(folder.path().join("m.json.part")).unwrap();
        write_held(&path, b"other rows").unwrap();
        assert!(write_held(&folder.path().join("m.json"), b"{}").is_err(), "its own part is taken");
    }

    #[test]
    fn what_is_not_there_is_deleted_already() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a/b.csv");
        write(&path, b"x").unwrap();
        assert!(format!("{:#}", remove(path.parent().unwrap()).unwrap_err()).contains("deleting "));
        (0..2).for_each(|_| remove(&path).unwrap());
        (0..2).for_each(|_| remove_folder(path.parent().unwrap()).unwrap());
        assert!(!path.parent().unwrap().exists());
    }
}
