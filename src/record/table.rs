//! One file of rows: appended and flushed as they are made, filtered when a folder is opened again.

use std::fs::{self, File, OpenOptions};
use std::io::Write;
use std::path::{Path, PathBuf};

use serde::Serialize;
use serde::de::DeserializeOwned;

use super::folder::{remove, replace};
use crate::base::error::{Context, Result, anyhow};

/// How a file keeps its rows.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Form {
    /// A header line, then a line a row.
    Csv,
    /// An object a line.
    JsonLines,
}

/// A file of rows, open for appending from its first row on.
pub(super) struct RowFile {
    path: PathBuf,
    form: Form,
    file: Option<File>,
}

impl RowFile {
    pub fn new(path: PathBuf) -> Self {
        let form = if path.extension().is_some_and(|e| e == "jsonl") { Form::JsonLines } else { Form::Csv };
        Self { path, form, file: None }
    }

    /// Appends rows; they are with the operating system when this returns.
    pub fn append<R: Serialize>(&mut self, rows: &[R]) -> Result<()> {
        if rows.is_empty() {
            return Ok(());
        }
        let write = |rowfile: &mut Self| -> Result<()> {
            let mut file = match rowfile.file.take() {
                Some(file) => file,
                None => OpenOptions::new().create(true).append(true).open(&rowfile.path)?,
            };
            let header = file.metadata()?.len() == 0;
            // One write a call: a reader never sees half a row.
            file.write_all(&encode(rowfile.form, rows, header)?)?;
            rowfile.file = Some(file);
            Ok(())
        };
        write(self).with_context(|| format!("writing {}", self.path.display()))
    }

    /// Replaces the file's rows.
    pub fn write_all<R: Serialize>(&mut self, rows: &[R]) -> Result<()> {
        self.file = None;
        replace(&self.path, &encode(self.form, rows, true)?)
    }

    /// Replaces the file's rows; without a row there is no file.
    pub fn replace_or_remove<R: Serialize>(&mut self, rows: &[R]) -> Result<()> {
        if !rows.is_empty() {
            return self.write_all(rows);
        }
        self.file = None;
        remove(&self.path)
    }

    /// All rows; none where there is no file. A last line without its end is left out: its writer was killed.
    ///
    /// # Errors
    /// With path and line, where a row does not fit the schema.
    pub fn read<R: DeserializeOwned>(&self) -> Result<Vec<R>> {
        let Some(text) = self.text()? else { return Ok(vec![]) };
        let place = |line: u64| format!("{}:{line}", self.path.display());
        match self.form {
            Form::JsonLines => text
                .lines()
                .enumerate()
                .map(|(i, line)| {
                    serde_json::from_str(line).map_err(|e| anyhow!("{}: {e}", place(1 + i as u64)))
                })
                .collect(),
            Form::Csv => csv::Reader::from_reader(text.as_bytes())
                .deserialize()
                .map(|row| row.map_err(|e| csv_error(&e, place)))
                .collect(),
        }
    }

    /// Keeps the rows for which `rank` of their run is `Some`, in order of rank; rows of one run keep theirs.
    pub fn arrange(&mut self, rank: impl Fn(&str) -> Option<usize>) -> Result<()> {
        let Some(text) = self.text()? else { return Ok(()) };
        self.file = None;
        let sorted = match self.form {
            Form::JsonLines => arrange_lines(&text, rank),
            Form::Csv => arrange_csv(&text, rank),
        }
        .with_context(|| format!("reading {}", self.path.display()))?;
        let unchanged = fs::read(&self.path).is_ok_and(|old| old == sorted);
        if unchanged { Ok(()) } else { replace(&self.path, &sorted) }
    }

    fn text(&self) -> Result<Option<String>> {
        match fs::read_to_string(&self.path) {
            Ok(mut text) => {
                text.truncate(text.rfind('\n').map_or(0, |end| end + 1));
                Ok(Some(text).filter(|t| !t.is_empty()))
            }
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(None),
            Err(e) => Err(e).with_context(|| format!("reading {}", self.path.display())),
        }
    }
}

fn encode<R: Serialize>(form: Form, rows: &[R], header: bool) -> Result<Vec<u8>> {
    match form {
        Form::JsonLines => {
            let mut out = vec![];
            for row in rows {
                serde_json::to_writer(&mut out, row)?;
                out.push(b'\n');
            }
            Ok(out)
        }
        Form::Csv => {
            let mut writer = csv::WriterBuilder::new().has_headers(header).from_writer(vec![]);
            for row in rows {
                writer.serialize(row)?;
            }
            writer.into_inner().map_err(|e| anyhow!("{e}"))
        }
    }
}

fn csv_error(e: &csv::Error, place: impl Fn(u64) -> String) -> anyhow::Error {
    let at = place(e.position().map_or(1, csv::Position::line));
    match e.kind() {
        csv::ErrorKind::Deserialize { err, .. } => anyhow!("{at}: {err}"),
        csv::ErrorKind::UnequalLengths { expected_len, len, .. } => {
            anyhow!("{at}: {len} columns, but the header has {expected_len}")
        }
        _ => anyhow!("{at}: {e}"),
    }
}

fn arrange_csv(text: &str, rank: impl Fn(&str) -> Option<usize>) -> Result<Vec<u8>> {
    let mut reader = csv::Reader::from_reader(text.as_bytes());
    let header = reader.headers()?.clone();
    let run = header.iter().position(|h| h == "run").ok_or_else(|| anyhow!("no column `run`"))?;
    let mut rows = vec![];
    for row in reader.records() {
        let row = row?;
        if let Some(rank) = row.get(run).and_then(&rank) {
            rows.push((rank, row));
        }
    }
    rows.sort_by_key(|(rank, _)| *rank);
    if rows.is_empty() {
        return Ok(vec![]);
    }
    let mut writer = csv::Writer::from_writer(vec![]);
    writer.write_record(&header)?;
    for (_, row) in &rows {
        writer.write_record(row)?;
    }
    writer.into_inner().map_err(|e| anyhow!("{e}"))
}

fn arrange_lines(text: &str, rank: impl Fn(&str) -> Option<usize>) -> Result<Vec<u8>> {
    #[derive(serde::Deserialize)]
    struct Run {
        run: String,
    }
    let mut rows = vec![];
    for (i, line) in text.lines().enumerate() {
        let row: Run = serde_json::from_str(line).map_err(|e| anyhow!("line {}: {e}", i + 1))?;
        if let Some(rank) = rank(&row.run) {
            rows.push((rank, line));
        }
    }
    rows.sort_by_key(|(rank, _)| *rank);
    Ok(rows.iter().flat_map(|(_, line)| line.bytes().chain([b'\n'])).collect())
}

/// Path of a row file in a folder.
pub(super) fn row_file(dir: &Path, name: &str) -> RowFile {
    RowFile::new(dir.join(name))
}
