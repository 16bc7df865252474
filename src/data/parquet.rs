//! Rows of a Parquet file as JSON objects, and JSON objects as rows of one.

use std::fs::File;
use std::path::Path;
use std::sync::Arc;

use parquet::basic::Compression;
use parquet::column::page::Page;
use parquet::data_type::{BoolType, ByteArray, ByteArrayType};
use parquet::file::properties::WriterProperties;
use parquet::file::reader::{FileReader, SerializedFileReader};
use parquet::file::writer::{SerializedFileWriter, SerializedRowGroupWriter};
use parquet::record::{Field, Row};
use parquet::schema::parser::parse_message_type;
use serde_json::{Map, Value};

use crate::base::caught::caught;
use crate::base::error::{Context, HintExt, Result, anyhow};

use super::bomb::Unpacked;
use super::stream::{OnRow, Place};

/// What asking for a row gives.
type Read = Option<std::result::Result<Row, parquet::errors::ParquetError>>;

/// Reads the rows of `path` in order until the end or until `on_row` breaks; a place's line is the row's number.
///
/// Lists of structs (a conversation's messages) become arrays of objects. Snappy, gzip and uncompressed files are
/// read.
///
/// # Errors
/// A file that is cut off or damaged, a compression that is not read, a column that has no counterpart in JSON;
/// what `on_row` returns.
pub(super) fn read_rows(file: File, path: &Path, on_row: &mut OnRow) -> Result<()> {
    let shown = path.display();
    let mut unpacked = Unpacked::of(file.metadata().with_context(|| format!("reading {shown}"))?.len());
    let broken = |e: parquet::errors::ParquetError, row: usize| {
        let text = e.to_string();
        let hint = if text.contains("Disabled feature") {
            "files compressed with Snappy, gzip or nothing are read: write it again with one of these (in polars or pandas \
             compression=\"snappy\")"
        } else {
            "the file may be cut off or damaged: fetch it again"
        };
        let place = if row == 0 { shown.to_string() } else { format!("{shown}:{row}") };
        Err::<(), _>(anyhow!("{place}: not readable as Parquet: {text}")).hint(hint)
    };
    // The library trusts what a damaged file says of itself, and panics where it finds otherwise.
    let guarded = |read: &mut dyn FnMut() -> Read| {
        caught(read).unwrap_or_else(|panic| Some(Err(parquet::errors::ParquetError::General(panic))))
    };
    let reader = match caught(|| SerializedFileReader::new(file)) {
        Ok(Ok(reader)) => reader,
        Ok(Err(e)) => return broken(e, 0),
        Err(panic) => return broken(parquet::errors::ParquetError::General(panic), 0),
    };
    match caught(|| check_dictionaries(&reader)) {
        Ok(Ok(())) => {}
        Ok(Err(e)) => return broken(e, 0),
        Err(panic) => return broken(parquet::errors::ParquetError::General(panic), 0),
    }
    let mut rows = match caught(|| reader.get_row_iter(None)) {
        Ok(Ok(rows)) => rows,
        Ok(Err(e)) => return broken(e, 0),
        Err(panic) => return broken(parquet::errors::ParquetError::General(panic), 0),
    };
    for number in 1.. {
        let row = match guarded(&mut || rows.next()) {
            None => break,
            Some(Ok(row)) => row,
            Some(Err(e)) => return broken(e, number),
        };
        let place = Place { line: number, number };
        let row = object(row).map_err(|e| e.context(format!("{shown}:{number}")))?;
        unpacked.take(row.values().map(size).sum()).with_context(|| format!("{shown}:{number}"))?;
        if on_row(place, Value::Object(row))?.is_break() {
            return Ok(());
        }
    }
    Ok(())
}

/// The library makes room for as many values as a column's dictionary says that it has before it reads one, and memory that
/// cannot be had ends the process. A value takes a byte at the least.
fn check_dictionaries(
    reader: &SerializedFileReader<File>,
) -> std::result::Result<(), parquet::errors::ParquetError> {
    for group in 0..reader.num_row_groups() {
        let group = reader.get_row_group(group)?;
        for column in 0..group.num_columns() {
            let mut pages = group.get_column_page_reader(column)?;
            if !pages.peek_next_page()?.is_some_and(|page| page.is_dict) {
                continue;
            }
            if let Some(Page::DictionaryPage { buf, num_values, .. }) = pages.get_next_page()?
                && num_values as usize > buf.len()
            {
                let message = format!("a dictionary of {num_values} values in {} bytes", buf.len());
                return Err(parquet::errors::ParquetError::General(message));
            }
        }
    }
    Ok(())
}

/// Rows of a group of the files that are written.
const GROUP: usize = 10_000;

/// Writes objects of texts and truth values, all with the columns of the first, compressed with Snappy.
///
/// # Errors
/// No row, a row with other columns, a value of another kind, a file that cannot be written.
pub fn write_rows(path: &Path, rows: impl Iterator<Item = Value>) -> Result<()> {
    let mut rows = rows.peekable();
    let first = rows.peek().and_then(Value::as_object).ok_or_else(|| anyhow!("no rows to write"))?;
    let kind = |value: &Value| if value.is_boolean() { "boolean" } else { "binary" };
    let text = |value: &Value| if value.is_boolean() { "" } else { " (UTF8)" };
    let columns: Vec<(String, bool)> = first.iter().map(|(name, v)| (name.clone(), v.is_boolean())).collect();
    let fields = first.iter().map(|(name, v)| format!("required {} {name}{};", kind(v), text(v)));
    let schema = parse_message_type(&format!("message rows {{ {} }}", fields.collect::<String>()))?;
    let properties = WriterProperties::builder().set_compression(Compression::SNAPPY).build();
    let file = File::create(path)?;
    let mut writer = SerializedFileWriter::new(file, Arc::new(schema), Arc::new(properties))?;
    loop {
        let group: Vec<Value> = rows.by_ref().take(GROUP).collect();
        if group.is_empty() {
            break;
        }
        let mut written = writer.next_row_group()?;
        for (name, truth) in &columns {
            write_column(&mut written, &group, name, *truth)?;
        }
        written.close()?;
    }
    writer.close()?;
    Ok(())
}

fn write_column(
    group: &mut SerializedRowGroupWriter<'_, File>,
    rows: &[Value],
    name: &str,
    truth: bool,
) -> Result<()> {
    let wrong = |row: &Value| anyhow!("column `{name}` has no value of its kind in {row}");
    let Some(mut column) = group.next_column()? else { return Err(anyhow!("no column `{name}`")) };
    if truth {
        let values = rows.iter().map(|r| r[name].as_bool().ok_or_else(|| wrong(r)));
        column.typed::<BoolType>().write_batch(&values.collect::<Result<Vec<_>>>()?, None, None)?;
    } else {
        let values = rows.iter().map(|r| r[name].as_str().map(ByteArray::from).ok_or_else(|| wrong(r)));
        column.typed::<ByteArrayType>().write_batch(&values.collect::<Result<Vec<_>>>()?, None, None)?;
    }
    column.close()?;
    Ok(())
}

/// About how many bytes a value takes as JSON.
fn size(value: &Value) -> u64 {
    match value {
        Value::String(text) => text.len() as u64,
        Value::Array(values) => 2 + values.iter().map(size).sum::<u64>(),
        Value::Object(columns) => columns.iter().map(|(name, v)| name.len() as u64 + size(v)).sum(),
        _ => 4,
    }
}

fn object(row: Row) -> Result<Map<String, Value>> {
    let column = |(name, field): (String, Field)| {
        let value = value(field).map_err(|e| e.context(format!("column `{name}`")))?;
        Ok((name, value))
    };
    row.into_columns().into_iter().map(column).collect()
}

fn value(field: Field) -> Result<Value> {
    Ok(match field {
        Field::Null => Value::Null,
        Field::Bool(x) => x.into(),
        Field::Byte(x) => x.into(),
        Field::Short(x) => x.into(),
        Field::Int(x) | Field::Date(x) | Field::TimeMillis(x) => x.into(),
        Field::Long(x) | Field::TimeMicros(x) | Field::TimestampMillis(x) | Field::TimestampMicros(x) => {
            x.into()
        }
        Field::UByte(x) => x.into(),
        Field::UShort(x) => x.into(),
        Field::UInt(x) => x.into(),
        Field::ULong(x) => x.into(),
        Field::Float16(x) => f64::from(x).into(),
        Field::Float(x) => f64::from(x).into(),
        Field::Double(x) => x.into(),
        Field::Str(text) => text.into(),
        // Old writers leave out the mark that says that bytes are text.
        Field::Bytes(bytes) => match bytes.as_utf8() {
            Ok(text) => text.into(),
            Err(_) => return Err(anyhow!("bytes that are not UTF-8")),
        },
        Field::Decimal(_) => return Err(anyhow!("decimal numbers are not read")),
        Field::Group(row) => Value::Object(object(row)?),
        Field::ListInternal(list) => list.elements().iter().cloned().map(value).collect::<Result<_>>()?,
        Field::MapInternal(map) => {
            let entry = |(key, field): &(Field, Field)| match key {
                Field::Str(key) => Ok((key.clone(), value(field.clone())?)),
                other => Err(anyhow!("a map whose keys are not text ({other})")),
            };
            Value::Object(map.entries().iter().map(entry).collect::<Result<_>>()?)
        }
    })
}

#[cfg(test)]
mod tests {
    use std::ops::ControlFlow;

    use serde_json::json;

    use super::*;

    #[test]
    fn rows_that_are_written_read_back() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("x.parquet");
        let row =
            |i: usize| json!({"prompt": format!("é{i}\n"), "completion": "", "label": i.is_multiple_of(3)});
        // Beyond one group.
        let rows: Vec<Value> = (0..GROUP + 7).map(row).collect();
        write_rows(&path, rows.iter().cloned()).unwrap();
        let mut read = vec![];
        let mut on_row = |_: Place, value: Value| {
            read.push(value);
            Ok(ControlFlow::Continue(()))
        };
        read_rows(File::open(&path).unwrap(), &path, &mut on_row).unwrap();
        assert!(read == rows, "{} rows of {}", read.len(), rows.len());
        assert!(write_rows(&path, std::iter::empty()).is_err());
        assert!(write_rows(&path, [json!({"a": "x"}), json!({"a": 1})].into_iter()).is_err());
    }
}
