//! Reads pairs of completions that are still to be judged: the files of [`super::parse`] that hold texts.

use serde_json::Value;

use super::parse::{annotation_id, name, text_of};
use crate::base::error::{Context, HintExt, Result, anyhow};

const FORMS: &str = "a JSON list of AlpacaEval annotations (instruction, output_1, output_2, generator_1, generator_2), \
                     or JSON lines {id, candidate, baseline, prompt, candidate_text, baseline_text}";

/// Two completions of one prompt, and who wrote them.
#[derive(Clone, Debug, PartialEq)]
pub struct Texts {
    pub id: String,
    pub candidate: String,
    pub baseline: String,
    pub prompt: String,
    pub candidate_text: String,
    pub baseline_text: String,
}

/// A text that begins with `[` is AlpacaEval's list, where `generator_2` is the candidate; anything else is read
/// as JSON lines. A preference that stands in the file is not looked at.
///
/// # Errors
/// With the line (JSON lines) or the number of the annotation.
pub fn texts(text: &str) -> Result<Vec<Texts>> {
    let text = text.trim_start_matches('\u{feff}');
    let found = if text.trim_start().starts_with('[') {
        let rows: Vec<Value> = serde_json::from_str(text).context("reading AlpacaEval annotations")?;
        let read = |(k, row)| annotation(row, k).with_context(|| format!("annotation {}", k + 1));
        rows.iter().enumerate().map(read).collect::<Result<Vec<_>>>()
    } else {
        let filled = text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty());
        let read = |(k, line)| {
            let row: Result<Value> = serde_json::from_str(line).map_err(Into::into);
            row.and_then(|row| plain(&row)).with_context(|| format!("line {}", k + 1))
        };
        filled.map(read).collect()
    };
    let found = found.hint(format!("with a judge the file takes {FORMS}"))?;
    if found.is_empty() {
        return Err(anyhow!("no completions in the file")).hint(format!("it takes {FORMS}"));
    }
    Ok(found)
}

fn annotation(row: &Value, k: usize) -> Result<Texts> {
    let text = |field: &str| text_of(row, field).map(str::to_owned);
    Ok(Texts {
        id: annotation_id(row, k),
        candidate: text("generator_2")?,
        baseline: text("generator_1")?,
        prompt: text("instruction")?,
        candidate_text: text("output_2")?,
        baseline_text: text("output_1")?,
    })
}

fn plain(row: &Value) -> Result<Texts> {
    let text = |field: &str| text_of(row, field).map(str::to_owned);
    Ok(Texts {
        id: row.get("id").map(name).ok_or_else(|| anyhow!("`id` is missing"))?,
        candidate: text("candidate")?,
        baseline: text("baseline")?,
        prompt: text("prompt")?,
        candidate_text: text("candidate_text")?,
        baseline_text: text("baseline_text")?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_forms_name_the_candidate_and_an_error_names_the_place() {
        let list = r#"[{"instruction": "q", "output_1": "b", "output_2": "c", "generator_1": "B", "generator_2": "C"}]"#;
        let line = r#"{"id": "q", "prompt": "q", "candidate": "C", "baseline": "B", "candidate_text": "c", "baseline_text": "b"}"#;
        let found = texts(list).unwrap();
        assert_eq!(found, texts(&format!("\n{line}\n")).unwrap());
        let Texts { candidate, baseline, candidate_text, baseline_text, .. } = &found[0];
        assert_eq!([candidate, baseline, candidate_text, baseline_text], ["C", "B", "c", "b"]);
        let error = format!("{:#}", texts(&format!("{line}\n{{\"id\": 1}}")).unwrap_err());
        assert!(error.contains("line 2") && error.contains("`candidate`"), "{error}");
        assert!(texts("").is_err());
    }
}
