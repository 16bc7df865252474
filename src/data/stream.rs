//! Rows from a file, one at a time: JSON, one object a line or one array of objects, plain or gzip; Parquet.

use std::cell::Cell;
use std::fs::File;
use std::io::{self, BufRead, BufReader, Read};
use std::ops::ControlFlow;
use std::path::Path;
use std::rc::Rc;

use flate2::bufread::MultiGzDecoder;
use serde::Deserializer as _;
use serde::de::{SeqAccess, Visitor};
use serde_json::Value;

use crate::base::error::{Context, Result, anyhow, bail, render};

use super::bomb::Unpacked;
use super::hinted::hinted;

/// A line, or an element of an array, longer than this is not a row: most likely the file is something else.
const MAX_LINE: usize = 64 << 20;

/// Where a row stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    /// The line on which it ends.
    pub line: usize,
    /// Its number within the file: for rows that are lines, the line; in an array, 1 for the first element.
    pub number: usize,
}

/// Takes a row, and says whether more are wanted.
pub type OnRow<'a> = dyn FnMut(Place, Value) -> Result<ControlFlow<()>> + 'a;

/// Reads the rows of `path` in order until the end or until `on_row` breaks.
///
/// # Errors
/// With `path:line` where a line is not UTF-8 or not JSON; if the file cannot be read; what `on_row` returns.
pub fn read_rows(path: &Path, on_row: &mut OnRow) -> Result<()> {
    let shown = path.display();
    let file = File::open(path).with_context(|| format!("opening {shown}"))?;
    let size = file.metadata().with_context(|| format!("reading {shown}"))?.len();
    let mut raw = BufReader::with_capacity(1 << 16, file);
    let head = raw.fill_buf().with_context(|| format!("reading {shown}"))?;
    if head.starts_with(b"PAR1") {
        let file = raw.into_inner();
        return super::parquet::read_rows(file, path, on_row);
    }
    let packed = head.starts_with(&GZIP);
    read_from(unpacked(raw, packed, size), &shown.to_string(), on_row)
}

/// The text of a file, plain or packed with gzip.
///
/// # Errors
/// A file that cannot be read, is no UTF-8 text, or unpacks without end.
pub fn read_text(path: &Path) -> Result<String> {
    let file = File::open(path)?;
    let size = file.metadata()?.len();
    let mut raw = BufReader::with_capacity(1 << 16, file);
    let (packed, mut text) = (raw.fill_buf()?.starts_with(&GZIP), String::new());
    unpacked(raw, packed, size).read_to_string(&mut text)?;
    Ok(text)
}

/// First bytes of a gzip file.
const GZIP: [u8; 2] = [0x1f, 0x8b];

/// What a file of `size` bytes holds, its unpacking held against that.
fn unpacked(raw: BufReader<File>, packed: bool, size: u64) -> Box<dyn BufRead> {
    if !packed {
        return Box::new(raw);
    }
    let checked = Checked { inner: MultiGzDecoder::new(raw), unpacked: Unpacked::of(size) };
    Box::new(BufReader::with_capacity(1 << 16, checked))
}

/// A decoder whose output is held against the size of its file.
struct Checked<R> {
    inner: R,
    unpacked: Unpacked,
}

impl<R: Read> Read for Checked<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let n = self.inner.read(buffer)?;
        self.unpacked.take(n as u64).map_err(|e| io::Error::other(render(&e)))?;
        Ok(n)
    }
}

/// As [`read_rows`], from any reader; `shown` names it in errors.
pub fn read_from(mut reader: impl BufRead, shown: &str, on_row: &mut OnRow) -> Result<()> {
    skip_byte_order_mark(&mut reader).with_context(|| format!("reading {shown}"))?;
    let mut blank_lines = 0;
    loop {
        let head = reader.fill_buf().with_context(|| format!("reading {shown}"))?;
        match head.first() {
            Some(b'[') => return read_array(reader, shown, blank_lines + 1, on_row),
            Some(byte) if byte.is_ascii_whitespace() => {
                blank_lines += usize::from(*byte == b'\n');
                reader.consume(1);
            }
            _ => return read_lines(reader, shown, blank_lines + 1, on_row),
        }
    }
}

fn skip_byte_order_mark(reader: &mut impl BufRead) -> io::Result<()> {
    if reader.fill_buf()?.starts_with("\u{feff}".as_bytes()) {
        reader.consume(3);
    }
    Ok(())
}

fn read_lines(mut reader: impl BufRead, shown: &str, first: usize, on_row: &mut OnRow) -> Result<()> {
    let mut bytes = Vec::new();
    for line in first.. {
        bytes.clear();
        let limit = MAX_LINE as u64 + 1;
        let read = reader.by_ref().take(limit).read_until(b'\n', &mut bytes);
        if read.with_context(|| format!("{shown}:{line}"))? == 0 {
            break;
        }
        if bytes.len() > MAX_LINE {
            bail!("{shown}:{line}: the line is longer than {} MiB: is this a file of rows?", MAX_LINE >> 20);
        }
        let text = std::str::from_utf8(&bytes)
            .map_err(|e| anyhow!("{shown}:{line}: byte {} of the line is not UTF-8", e.valid_up_to() + 1))?;
        if text.trim().is_empty() {
            continue;
        }
        let row = serde_json::from_str(text).map_err(|e| malformed(&e, shown, line))?;
        if on_row(Place { line, number: line }, row)?.is_break() {
            break;
        }
    }
    Ok(())
}

/// serde_json counts lines from where it began; within one line only the column says anything.
fn malformed(error: &serde_json::Error, shown: &str, line: usize) -> anyhow::Error {
    let text = error.to_string();
    let what = text.split(" at line ").next().unwrap_or(&text);
    let failed = anyhow!("{shown}:{line}: not JSON: {what}, column {}", error.column());
    hinted(failed, "a file holds one object a line, or one array of objects")
}

fn read_array(reader: impl BufRead, shown: &str, first: usize, on_row: &mut OnRow) -> Result<()> {
    let (line, left) = (Rc::new(Cell::new(first)), Rc::new(Cell::new(MAX_LINE)));
    let counted = LineCounter { inner: reader, line: Rc::clone(&line), left: Rc::clone(&left) };
    let mut outcome = Ok(());
    let elements = Elements { line: &line, left: &left, on_row, outcome: &mut outcome };
    let mut deserializer = serde_json::Deserializer::from_reader(counted);
    let parsed = deserializer.deserialize_seq(elements);
    // A callback that broke or failed stops the parser with an error of its own, which says nothing.
    outcome?;
    match parsed {
        Ok(()) => deserializer.end().map_err(|e| at(shown, &line, &e)),
        Err(e) if e.to_string().starts_with(STOPPED) => Ok(()),
        Err(e) => Err(at(shown, &line, &e)),
    }
}

const STOPPED: &str = "stopped by the caller";

fn at(shown: &str, line: &Cell<usize>, error: &serde_json::Error) -> anyhow::Error {
    let text = error.to_string();
    let what = text.split(" at line ").next().unwrap_or(&text).to_owned();
    anyhow!("{shown}:{}: not JSON: {what}", line.get())
}

struct Elements<'a, 'b> {
    line: &'a Cell<usize>,
    /// Bytes that the element under way may still have.
    left: &'a Cell<usize>,
    on_row: &'a mut OnRow<'b>,
    outcome: &'a mut Result<()>,
}

impl<'de> Visitor<'de> for Elements<'_, '_> {
    type Value = ();

    fn expecting(&self, f: &mut std::fmt::Formatter) -> std::fmt::Result {
        f.write_str("an array of rows")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> std::result::Result<(), A::Error> {
        let mut number = 0;
        while let Some(row) = seq.next_element::<Value>()? {
            number += 1;
            self.left.set(MAX_LINE);
            match (self.on_row)(Place { line: self.line.get(), number }, row) {
                Ok(ControlFlow::Continue(())) => {}
                stopped => {
                    *self.outcome = stopped.map(|_| ());
                    return Err(serde::de::Error::custom(STOPPED));
                }
            }
        }
        Ok(())
    }
}

/// Counts the lines that have been consumed, for errors, and the bytes of an element, which end; serde_json reads byte
/// by byte.
struct LineCounter<R> {
    inner: R,
    line: Rc<Cell<usize>>,
    left: Rc<Cell<usize>>,
}

impl<R: Read> Read for LineCounter<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let n = self.inner.read(buffer)?;
        let newlines = buffer[..n].iter().filter(|&&b| b == b'\n').count();
        self.line.set(self.line.get() + newlines);
        let left = self.left.get().checked_sub(n);
        let too_long = || {
            io::Error::other(format!(
                "an element is longer than {} MiB: is this a file of rows?",
                MAX_LINE >> 20
            ))
        };
        self.left.set(left.ok_or_else(too_long)?);
        Ok(n)
    }
}
