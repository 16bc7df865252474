//! What `compare` prints at the end: the table of arms and the verdicts, aligned for a terminal.

use std::ops::Range;

use super::content::{self, Cell};
use super::figures::Figures;
use super::input::Input;
use super::view::View;

/// The arms with their scores (mean ± standard error over seeds), the ledger, the verdict sentences, and in short
/// how each arm stands against the starting checkpoint. Tables wider than `width` columns go on below.
pub fn terminal_summary(input: &Input, width: Option<usize>) -> String {
    let view = View::new(input);
    let figures = Figures::of(&view, &[]);
    let mut out = String::new();
    for suite in view.suites() {
        let table = content::metric_table(&view, &figures, &suite);
        let note = content::base_note(&view, &suite).map(|n| format!("  {n}\n")).unwrap_or_default();
        out.push_str(&format!("{suite}\n{}{note}\n", fitted(&table, width)));
    }
    out.push_str(&format!("cost\n{}", fitted(&content::ledger_table(&figures), width)));
    out.push_str(&format!("  {}\n\n", content::ledger_words(&figures)));
    if let Some(banner) = content::banner(&figures) {
        out.push_str(&format!("{banner}\n\n"));
    }
    for warning in content::lost_arms(&figures) {
        out.push_str(&format!("{warning}\n\n"));
    }
    for claim in super::sweep::found(input) {
        out.push_str(&format!("▸ {}\n", claim.words));
    }
    if let Some(exploratory) = content::exploratory(&view, &figures) {
        out.push_str(&format!("{exploratory}\n\n"));
    }
    out.push_str("verdicts\n");
    let rows = content::headlines(&view, &figures);
    let wide = rows.iter().map(|r| content::beside_words(r).len()).max().unwrap_or(0);
    for row in rows {
        out.push_str(&format!("  {:wide$}  {}\n", content::beside_words(row), row.words));
    }
    let base = content::base_lines(&view, &figures);
    if !base.is_empty() {
        out.push_str("\nagainst the starting checkpoint\n");
    }
    for line in base {
        out.push_str(&format!("  {line}\n"));
    }
    out
}

/// The table, where it is wider than `width` in parts below each other, each with the first column; the way round that
/// takes fewer lines.
fn fitted(rows: &[Vec<Cell>], width: Option<usize>) -> String {
    let Some(width) = width else { return aligned(rows) };
    let turned = turned(rows);
    let ways = [rows, &turned[..]].map(|rows| (parts(rows, width), rows));
    let lines = |(parts, rows): &(Vec<Range<usize>>, &[Vec<Cell>])| parts.len() * (rows.len() + 1);
    let (parts, rows) = ways.into_iter().min_by_key(lines).expect("there are two");
    let part = |columns: Range<usize>| {
        let cells = |row: &Vec<Cell>| {
            let others = row.get(columns.clone()).unwrap_or_default();
            row.first().into_iter().chain(others).cloned().collect::<Vec<_>>()
        };
        aligned(&rows.iter().map(cells).collect::<Vec<_>>())
    };
    parts.into_iter().map(part).collect::<Vec<_>>().join("\n")
}

/// Ranges of columns that fit `width` beside the first, one column each at least.
fn parts(rows: &[Vec<Cell>], width: usize) -> Vec<Range<usize>> {
    let columns = rows.iter().map(Vec::len).max().unwrap_or(0);
    let wide =
        |i: usize| rows.iter().filter_map(|r| r.get(i)).map(|c| c.text.chars().count()).max().unwrap_or(0);
    // Each line begins with two spaces.
    let first = 2 + wide(0);
    let (mut parts, mut start, mut taken) = (vec![], 1, first);
    for column in 1..columns {
        let more = 2 + wide(column);
        if column > start && taken + more > width {
            parts.push(start..column);
            (start, taken) = (column, first);
        }
        taken += more;
    }
    parts.push(start..columns.max(start));
    parts
}

/// Rows as columns.
fn turned(rows: &[Vec<Cell>]) -> Vec<Vec<Cell>> {
    let columns = rows.iter().map(Vec::len).max().unwrap_or(0);
    let cell = |row: &Vec<Cell>, i: usize| row.get(i).cloned().unwrap_or_else(|| Cell::text(""));
    (0..columns).map(|i| rows.iter().map(|row| cell(row, i)).collect()).collect()
}

/// First column left-aligned, the others right-aligned, two spaces between.
fn aligned(rows: &[Vec<Cell>]) -> String {
    let columns = rows.iter().map(Vec::len).max().unwrap_or(0);
    let width =
        |i: usize| rows.iter().filter_map(|r| r.get(i)).map(|c| c.text.chars().count()).max().unwrap_or(0);
    let widths: Vec<_> = (0..columns).map(width).collect();
    let mut out = String::new();
    for row in rows {
        let cell = |(i, Cell { text, .. }): (usize, &Cell)| {
            let pad = " ".repeat(widths[i] - text.chars().count());
            if i == 0 { format!("{text}{pad}") } else { format!("{pad}{text}") }
        };
        let line = row.iter().enumerate().map(cell).collect::<Vec<_>>().join("  ");
        out.push_str(&format!("  {}\n", line.trim_end()));
    }
    out
}

#[cfg(test)]
mod tests {
    use super::{aligned, fitted};
    use crate::report::content::Cell;

    #[test]
    fn columns_line_up() {
        let rows = [["arm", "win"], ["kto", "61.2 %"], ["base", "50 %"]];
        let rows: Vec<Vec<Cell>> = rows.iter().map(|r| r.iter().map(|c| Cell::text(*c)).collect()).collect();
        assert_eq!(aligned(&rows), "  arm      win\n  kto   61.2 %\n  base    50 %\n");
    }

    #[test]
    fn a_table_wider_than_the_terminal_goes_on_below() {
        let arms = ["kto@fraction=0.1", "kto@fraction=0.3", "dpo@fraction=0.1", "dpo@fraction=0.3"];
        let row = |name: &str, cells: [&str; 4]| {
            [name].into_iter().chain(cells).map(Cell::text).collect::<Vec<Cell>>()
        };
        let table = [row("mean", arms), row("accuracy", ["61 %", "62 %", "63 %", "64 %"])];
        assert_eq!(fitted(&table, None), aligned(&table));
        assert_eq!(fitted(&table, Some(200)), aligned(&table));
        let narrow = fitted(&table, Some(40));
        assert!(narrow.lines().all(|line| line.chars().count() <= 40), "{narrow}");
        // Two columns, a row an arm: five lines in place of six.
        assert_eq!(narrow.lines().count(), 5, "{narrow}");
        assert!(narrow.contains("kto@fraction=0.3      62 %"), "{narrow}");
        let wordy = [row("m", arms), row("a", arms), row("b", arms), row("c", arms)];
        let parted = fitted(&wordy, Some(44));
        assert!(parted.lines().all(|line| line.chars().count() <= 44), "{parted}");
        assert_eq!(parted.lines().filter(|line| line.trim().is_empty()).count(), 1, "{parted}");
    }
}
