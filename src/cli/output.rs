//! Data on stdout.

use std::io::{ErrorKind, IsTerminal, Write};

use serde::Serialize;

use crate::base::error::{Context, Result};

/// Prints text. A reader that has gone (`| head`) is no error.
pub fn print(text: &str) -> Result<()> {
    match std::io::stdout().write_all(text.as_bytes()).and_then(|()| std::io::stdout().flush()) {
        Err(e) if e.kind() != ErrorKind::BrokenPipe => Err(e).context("writing to stdout"),
        _ => Ok(()),
    }
}

/// Columns of the terminal that stdout is; `None`: a file or a pipe, where lines have no end.
pub fn width() -> Option<usize> {
    let size = std::io::stdout().is_terminal().then(terminal_size::terminal_size).flatten();
    size.map(|(width, _)| width.0.into())
}

/// The line, cut to the terminal's width with an ellipsis.
pub fn cut(line: &str, width: Option<usize>) -> String {
    match width {
        Some(width) if line.chars().count() > width => {
            line.chars().take(width.saturating_sub(1)).chain(['…']).collect()
        }
        _ => line.to_owned(),
    }
}

/// Prints a value as indented JSON.
pub fn print_json(value: &impl Serialize) -> Result<()> {
    print(&(serde_json::to_string_pretty(value)? + "\n"))
}

/// Rows in columns: left-aligned, two spaces between, the last one ragged.
pub fn table(rows: &[Vec<String>]) -> String {
    columns(rows, |_, cell, width| format!("{cell:<width$}"))
}

/// Rows in columns: the first left-aligned, the others, which hold numbers, right-aligned.
pub fn figures(rows: &[Vec<String>]) -> String {
    columns(rows, |i, cell, width| if i == 0 { format!("{cell:<width$}") } else { format!("{cell:>width$}") })
}

fn columns(rows: &[Vec<String>], pad: impl Fn(usize, &str, usize) -> String) -> String {
    let count = rows.iter().map(Vec::len).max().unwrap_or(0);
    let width = |i: usize| rows.iter().filter_map(|r| r.get(i)).map(|c| c.chars().count()).max().unwrap_or(0);
    let widths: Vec<usize> = (0..count).map(width).collect();
    let mut out = String::new();
    for row in rows {
        let cells: Vec<String> =
            row.iter().zip(&widths).enumerate().map(|(i, (c, &w))| pad(i, c, w)).collect();
        out += cells.join("  ").trim_end();
        out.push('\n');
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_cut_to_the_terminal_and_to_nothing_else() {
        assert_eq!(cut("kto − dpo", Some(6)), "kto −…");
        assert_eq!(cut("kto − dpo", Some(9)), "kto − dpo");
        assert_eq!(cut("kto − dpo", None), "kto − dpo");
    }
}
