//! Writes a report beside the records that it is made from.

use std::fs;
use std::path::{Path, PathBuf};

use serde_json::Value;

use super::charts::{self, Drawing};
use super::figures::Figures;
use super::input::Input;
use super::svg::png;
use super::view::View;
use super::{html, markdown, tables};
use crate::base::error::{Context, HintExt, Result};
use crate::record::charts_of;

/// Where the parts of a report are.
#[derive(Clone, Debug)]
pub struct Paths {
    pub markdown: PathBuf,
    pub html: PathBuf,
    /// All figures with their rows, as JSON.
    pub figures: PathBuf,
    /// The SVGs; a PNG of the same name lies beside each.
    pub charts: Vec<PathBuf>,
    /// `comparisons.tex`, `verdicts.tex` and `arms.csv`.
    pub tables: Vec<PathBuf>,
}

/// The text files of a report as they are to be, by path under the output folder. PNGs follow from the SVGs.
pub(super) struct Rendered {
    pub drawings: Vec<Drawing>,
    pub figures: Figures,
    pub files: Vec<(String, String)>,
}

pub(super) fn render(input: &Input) -> Result<Rendered> {
    let view = View::new(input);
    let drawings = charts::draw_all(input)?;
    let figures = Figures::of(&view, &drawings);
    let json = json(&serde_json::to_value(&figures).context("figures as JSON")?);
    let mut files = vec![
        ("report.md".to_owned(), markdown::render(&view, &figures, &drawings)),
        ("report.html".to_owned(), html::render(&view, &figures, &drawings)?),
        ("report.json".to_owned(), json),
        ("tables/comparisons.tex".to_owned(), tables::comparisons_tex(&view, &figures)),
        ("tables/verdicts.tex".to_owned(), tables::verdicts_tex(&view, &figures)),
        ("tables/arms.csv".to_owned(), tables::arms_csv(&figures)?),
    ];
    files.extend(drawings.iter().map(|d| (format!("charts/{}.svg", d.name), d.svg.clone())));
    Ok(Rendered { drawings, figures, files })
}

/// Writes `report.md`, `report.html`, `report.json`, `charts/` and `tables/` into `dir`; charts of the
/// report that was there go. The same records give the same bytes.
///
/// # Errors
/// Where the folder cannot be written to.
pub fn write(input: &Input, dir: &Path) -> Result<Paths> {
    let rendered = render(input)?;
    for folder in ["charts", "tables"] {
        let path = dir.join(folder);
        let made = fs::create_dir_all(&path).with_context(|| format!("creating {}", path.display()));
        made.hint("the report is written beside the records; give a folder that can be written to")?;
    }
    // Before the list of them is overwritten.
    for stray in strays(&rendered.drawings, dir) {
        fs::remove_file(&stray).with_context(|| format!("deleting {}", stray.display()))?;
    }
    for (name, text) in &rendered.files {
        put(&dir.join(name), text.as_bytes())?;
    }
    for drawing in &rendered.drawings {
        put(&dir.join(format!("charts/{}.png", drawing.name)), &png::rasterise(&drawing.svg)?)?;
    }
    Ok(Paths {
        markdown: dir.join("report.md"),
        html: dir.join("report.html"),
        figures: dir.join("report.json"),
        charts: rendered.drawings.iter().map(|d| dir.join(format!("charts/{}.svg", d.name))).collect(),
        tables: ["comparisons.tex", "verdicts.tex", "arms.csv"].map(|t| dir.join("tables").join(t)).to_vec(),
    })
}

/// Charts that the `report.json` in `dir` names and that are none of these drawings, by name. What else lies among the
/// charts is somebody's own.
pub(super) fn strays(drawings: &[Drawing], dir: &Path) -> Vec<PathBuf> {
    let drawn = |path: &PathBuf| {
        drawings.iter().any(|d| path.file_stem().is_some_and(|stem| stem == d.name.as_str()))
    };
    let mut found: Vec<PathBuf> =
        charts_of(dir).into_iter().filter(|path| !drawn(path) && path.is_file()).collect();
    found.sort();
    found
}

/// JSON with an entry of each list of figures on a line of its own.
fn json(figures: &Value) -> String {
    let list = |value: &Value| match value {
        Value::Array(items) if !items.is_empty() => {
            let items: Vec<String> = items.iter().map(Value::to_string).collect();
            format!("[\n{}\n]", items.join(",\n"))
        }
        other => other.to_string(),
    };
    let fields = figures.as_object().into_iter().flatten();
    let fields: Vec<String> = fields.map(|(key, value)| format!("\"{key}\": {}", list(value))).collect();
    format!("{{\n{}\n}}\n", fields.join(",\n"))
}

fn put(path: &Path, bytes: &[u8]) -> Result<()> {
    fs::write(path, bytes).with_context(|| format!("writing {}", path.display()))
}
