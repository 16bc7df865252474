//! Files that are the old ones or the new ones, never half of either.

use std::io::Write;
use std::path::Path;

use super::error::{Context, Result};

/// Written beside (`<name>.<pid>.part`), flushed to the disk, then renamed: readers see the old file or the new one, after a
/// power cut too. The folder is made where it is missing.
///
/// # Errors
/// A folder that cannot be written, a full disk; nothing stays behind then.
pub fn write(path: &Path, bytes: &[u8]) -> Result<()> {
    let folder = path.parent().context("a file path has a folder")?;
    std::fs::create_dir_all(folder).with_context(|| format!("creating {}", folder.display()))?;
    // Of the whole name: two files of one stem do not share it.
    let mut aside = path.as_os_str().to_owned();
    aside.push(format!(".{}.part", std::process::id()));
    let aside = Path::new(&aside);
    let written = (|| -> std::io::Result<()> {
        let mut file = std::fs::File::create(aside)?;
        file.write_all(bytes)?;
        file.sync_all()?;
        std::fs::rename(aside, path)
    })();
    if written.is_err() {
        // Nothing of ours stays behind on a full disk.
        let _ = std::fs::remove_file(aside);
    } else if let Ok(folder) = std::fs::File::open(folder) {
        // The file is in its place; some file systems flush no folder.
        let _ = folder.sync_all();
    }
    written.with_context(|| format!("writing {}", path.display()))
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
        // Two files of one stem, written at once, are two.
        std::fs::create_dir(folder.path().join(format!("m.json.{}.part", std::process::id()))).unwrap();
        write(&folder.path().join("m.safetensors"), b"weights").unwrap();
        assert!(write(&folder.path().join("m.json"), b"{}").is_err(), "its own part is taken");
        // A folder where the file should go: the rename fails.
        let taken = folder.path().join("taken");
        std::fs::create_dir(&taken).unwrap();
        let error = format!("{:#}", write(&taken, b"x").unwrap_err());
        assert!(error.contains("taken"), "{error}");
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 4, "deep, m and taken");
    }
}
