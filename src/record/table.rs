//! One file of rows: appended and flushed as they are made, filtered when a folder is opened again.

use std::fs::{self, File, OpenOptions};
use std::io::{Read, Write};
use std::path::{Path, PathBuf};

use serde::Serialize;
use serde::de::DeserializeOwned;

use super::folder::files;
use crate::base::atomic::{remove, write_held};
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
            let (bytes, whole) = (encode(rowfile.form, rows, header)?, file.metadata()?.len());
            // One write a call: a reader never sees half a row.
            if let Err(e) = file.write_all(&bytes) {
                // On a full disk half a row may be there; the next one must not continue its line.
                let _ = file.set_len(whole);
                return Err(e.into());
            }
            rowfile.file = Some(file);
            Ok(())
        };
        write(self).with_context(|| format!("writing {}", self.path.display()))
    }

    /// Replaces the file's rows.
    pub fn write_all<R: Serialize>(&mut self, rows: &[R]) -> Result<()> {
        self.file = None;
        write_held(&self.path, &encode(self.form, rows, true)?)?;
        remove(&packed(&self.path))
    }

    /// Replaces the file's rows; without a row there is no file.
    pub fn replace_or_remove<R: Serialize>(&mut self, rows: &[R]) -> Result<()> {
        if !rows.is_empty() {
            return self.write_all(rows);
        }
        self.file = None;
        remove(&self.path)?;
        remove(&packed(&self.path))
    }

    /// All rows; none where there is no file. A last line without its end is left out where a process of ours had the
    /// folder, which was killed then; elsewhere it is a row where nothing of it is missing.
    ///
    /// # Errors
    /// With path and line, where a row does not fit the schema.
    pub fn read<R: DeserializeOwned>(&self) -> Result<Vec<R>> {
        let Some(text) = self.text()? else { return Ok(vec![]) };
        match self.parse(&text) {
            Err(_) if !text.ends_with('\n') => self.parse(&text[..whole_rows(text.as_bytes(), self.form)]),
            rows => rows,
        }
    }

    fn parse<R: DeserializeOwned>(&self, text: &str) -> Result<Vec<R>> {
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

    /// Keeps the rows that `rank` gives a place, in order of it; rows of one place keep theirs.
    pub fn arrange(&mut self, rank: &mut dyn FnMut(RowOf<'_>) -> Option<Rank>) -> Result<()> {
        self.file = None;
        merge(&self.path, std::slice::from_ref(&self.path), &mut |_, row| rank(row))
    }

    /// Drops the rows of `run` whose `step` is `from` or later. CSV only.
    pub fn cut(&mut self, run: &str, from: u64) -> Result<()> {
        let Some(text) = self.text()? else { return Ok(()) };
        self.file = None;
        let kept = cut_csv(&text, run, from).with_context(|| format!("reading {}", self.path.display()))?;
        if kept == text.as_bytes() { Ok(()) } else { write_held(&self.path, &kept) }
    }

    /// Ends the line of a last row that lacks its end, and of which nothing is missing.
    pub fn end_line(&self) -> Result<()> {
        match self.text_up_to(all_rows)? {
            Some(text) if !text.ends_with('\n') => write_held(&self.path, (text + "\n").as_bytes()),
            _ => Ok(()),
        }
    }

    pub fn close(&mut self) {
        self.file = None;
    }

    /// Has the disk take what was appended.
    pub fn sync(&self) -> Result<()> {
        let synced = self.file.as_ref().map_or(Ok(()), File::sync_data);
        synced.with_context(|| format!("writing {}", self.path.display()))
    }

    /// The bytes of the file, or of the one of its name with `.gz` where it is packed.
    fn bytes(&self) -> std::io::Result<Vec<u8>> {
        let packed = match fs::read(&self.path) {
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => File::open(packed(&self.path))?,
            read => return read,
        };
        let mut bytes = vec![];
        flate2::read::MultiGzDecoder::new(packed).read_to_end(&mut bytes)?;
        Ok(bytes)
    }

    /// The file up to the end of its last row; `None`: no file, or nothing in it.
    fn text(&self) -> Result<Option<String>> {
        // Our writer ends every line and takes the lock: where there is a lock file, a line without end is half a row.
        let ours = self.path.with_file_name(files::LOCK).exists();
        self.text_up_to(if ours { whole_rows } else { all_rows })
    }

    fn text_up_to(&self, end: fn(&[u8], Form) -> usize) -> Result<Option<String>> {
        match self.bytes() {
            Ok(mut bytes) => {
                bytes.truncate(written(&bytes));
                bytes.truncate(end(&bytes, self.form));
                let text = String::from_utf8(bytes)
                    .with_context(|| format!("{} is no UTF-8 text", self.path.display()))?;
                Ok(Some(text).filter(|t| !t.is_empty()))
            }
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(None),
            Err(e) => Err(e).with_context(|| format!("reading {}", self.path.display())),
        }
    }
}

/// Bytes without the zeros, and line ends among them, that a machine which lost power leaves at the end.
fn written(bytes: &[u8]) -> usize {
    let text = bytes.iter().rposition(|b| !matches!(b, 0 | b'\n')).map_or(0, |i| i + 1);
    text + usize::from(bytes.get(text) == Some(&b'\n'))
}

/// Bytes up to the end of the last whole row. A writer that was killed leaves half a row (perhaps half a
/// character, or half a quoted field with line ends in it).
fn whole_rows(bytes: &[u8], form: Form) -> usize {
    let (mut end, mut quoted) = (0, false);
    for (i, byte) in bytes.iter().enumerate() {
        match byte {
            b'"' if form == Form::Csv => quoted = !quoted,
            b'\n' if !quoted => end = i + 1,
            _ => {}
        }
    }
    end
}

/// The same with a last line that lacks its end, as `'\n'.join(rows)` leaves it, where nothing of the row is missing.
fn all_rows(bytes: &[u8], form: Form) -> usize {
    let end = whole_rows(bytes, form);
    let (rows, last) = bytes.split_at(end);
    let whole = match form {
        Form::JsonLines => serde_json::from_slice::<serde::de::IgnoredAny>(last).is_ok(),
        Form::Csv => {
            let fields = |bytes: &[u8]| {
                let mut reader = csv::ReaderBuilder::new().has_headers(false).from_reader(bytes);
                reader.records().next().and_then(std::result::Result::ok).map(|row| row.len())
            };
            let closed = last.iter().filter(|b| **b == b'"').count() % 2 == 0;
            closed && fields(last).is_some() && fields(last) == fields(rows)
        }
    };
    if whole { bytes.len() } else { end }
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

fn cut_csv(text: &str, run: &str, from: u64) -> Result<Vec<u8>> {
    let mut reader = csv::Reader::from_reader(text.as_bytes());
    let header = reader.headers()?.clone();
    let column =
        |name: &str| header.iter().position(|h| h == name).ok_or_else(|| anyhow!("no column `{name}`"));
    let (of, at) = (column("run")?, column("step")?);
    let mut writer = csv::Writer::from_writer(vec![]);
    writer.write_record(&header)?;
    for row in reader.records() {
        let row = row?;
        let late = row.get(at).and_then(|s| s.parse::<u64>().ok()).is_none_or(|step| step >= from);
        if row.get(of) != Some(run) || !late {
            writer.write_record(&row)?;
        }
    }
    writer.into_inner().map_err(|e| anyhow!("{e}"))
}

/// What a row says of itself, wherever it is kept.
#[derive(Clone, Copy)]
pub(super) struct RowOf<'a> {
    pub run: &'a str,
    pub seed: u64,
    /// Empty where the file has no such column.
    pub suite: &'a str,
    /// 0 where the file has no such column.
    pub step: u64,
}

/// A row's place among others; rows of one place keep their order.
pub(super) type Rank = (usize, usize, usize);

/// Writes the rows of several files of one kind into one, those that `rank` (given the index of the file)
/// leaves out excepted.
pub(super) fn merge(
    to: &Path,
    from: &[PathBuf],
    rank: &mut dyn FnMut(usize, RowOf<'_>) -> Option<Rank>,
) -> Result<()> {
    let (mut header, mut rows) = (None, vec![]);
    for (index, path) in from.iter().enumerate() {
        let file = RowFile::new(path.clone());
        let Some(mut text) = file.text()? else { continue };
        if !text.ends_with('\n') {
            text.push('\n');
        }
        let mut rank = |row: RowOf<'_>| rank(index, row);
        match file.form {
            Form::JsonLines => rank_lines(&text, &mut rank, &mut rows),
            Form::Csv => rank_csv(&text, &mut header, &mut rank, &mut rows),
        }
        .with_context(|| format!("reading {}", path.display()))?;
    }
    rows.sort_by_key(|(rank, _)| *rank);
    let mut bytes = if rows.is_empty() { vec![] } else { header.unwrap_or_default() };
    rows.into_iter().for_each(|(_, row)| bytes.extend(row));
    let unchanged = match fs::read(to) {
        Ok(there) => there == bytes,
        Err(_) => bytes.is_empty() && !to.exists(),
    };
    if !unchanged {
        write_held(to, &bytes)?;
    }
    // Rows that were packed are in the file now, or were left out.
    remove(&packed(to))
}

type RankedRows = Vec<(Rank, Vec<u8>)>;

fn csv_line(record: &csv::StringRecord) -> Result<Vec<u8>> {
    let mut writer = csv::Writer::from_writer(vec![]);
    writer.write_record(record)?;
    writer.into_inner().map_err(|e| anyhow!("{e}"))
}

fn rank_csv(
    text: &str,
    head: &mut Option<Vec<u8>>,
    rank: &mut dyn FnMut(RowOf<'_>) -> Option<Rank>,
    rows: &mut RankedRows,
) -> Result<()> {
    let mut reader = csv::Reader::from_reader(text.as_bytes());
    let header = reader.headers()?.clone();
    let line = csv_line(&header)?;
    if head.as_ref().is_some_and(|other| *other != line) {
        return Err(anyhow!("its columns are not those of the other folders: another version wrote it"));
    }
    *head = Some(line);
    let column = |name: &str| header.iter().position(|h| h == name);
    let need = |name: &str| column(name).ok_or_else(|| anyhow!("no column `{name}`"));
    let (run, seed, suite, step) = (need("run")?, need("seed")?, column("suite"), column("step"));
    for record in reader.records() {
        let record = record?;
        let cell = |i: usize| record.get(i).unwrap_or_default();
        let number =
            |what: &str, i: usize| cell(i).parse().map_err(|_| anyhow!("{what} `{}` is no number", cell(i)));
        let row = RowOf {
            run: cell(run),
            seed: number("seed", seed)?,
            suite: suite.map_or("", cell),
            step: step.map_or(Ok(0), |i| number("step", i))?,
        };
        if let Some(rank) = rank(row) {
            rows.push((rank, csv_line(&record)?));
        }
    }
    Ok(())
}

fn rank_lines(
    text: &str,
    rank: &mut dyn FnMut(RowOf<'_>) -> Option<Rank>,
    rows: &mut RankedRows,
) -> Result<()> {
    #[derive(serde::Deserialize)]
    struct Row {
        run: String,
        seed: u64,
        suite: String,
    }
    for (i, line) in text.lines().enumerate() {
        let row: Row = serde_json::from_str(line).map_err(|e| anyhow!("line {}: {e}", i + 1))?;
        if let Some(rank) = rank(RowOf { run: &row.run, seed: row.seed, suite: &row.suite, step: 0 }) {
            rows.push((rank, [line.as_bytes(), b"\n"].concat()));
        }
    }
    Ok(())
}

/// Where a row file stands that was packed with gzip: `examples.csv.gz`.
pub(super) fn packed(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".gz");
    name.into()
}

/// Path of a row file in a folder.
pub(super) fn row_file(dir: &Path, name: &str) -> RowFile {
    RowFile::new(dir.join(name))
}
