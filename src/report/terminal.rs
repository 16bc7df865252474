//! What `compare` prints at the end: the table of arms and the verdicts, aligned for a terminal.

use super::content::{self, Cell};
use super::figures::Figures;
use super::input::Input;

use super::view::View;

/// The arms with their scores (mean ± standard error over seeds), then the verdict sentences.
pub fn terminal_summary(input: &Input) -> String {
    let view = View::new(input);
    let figures = Figures::of(&view, &[]);
    let mut out = String::new();
    for suite in view.suites() {
        let table = content::metric_table(&view, &figures, &suite);
        out.push_str(&format!("{suite}\n{}\n", aligned(&table)));
    }
    out.push_str(&format!("cost\n{}\n", aligned(&content::ledger_table(&figures))));
    if let Some(banner) = content::banner(&figures) {
        out.push_str(&format!("{banner}\n\n"));
    }
    for claim in super::sweep::found(input) {
        out.push_str(&format!("▸ {}\n", claim.words));
    }
    for row in content::headlines(&view, &figures) {
        out.push_str(&format!("• {}\n", row.words));
    }
    out
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
    use super::aligned;
    use crate::report::content::Cell;

    #[test]
    fn columns_line_up() {
        let rows = [["arm", "win"], ["kto", "61.2 %"], ["base", "50 %"]];
        let rows: Vec<Vec<Cell>> = rows.iter().map(|r| r.iter().map(|c| Cell::text(*c)).collect()).collect();
        assert_eq!(aligned(&rows), "  arm      win\n  kto   61.2 %\n  base    50 %\n");
    }
}
