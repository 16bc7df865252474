//! Which form a row has.

use serde_json::{Map, Value};

use crate::base::error::{HintExt, Result, anyhow};
use crate::plan::DataFormat;

/// The form of one row, by its columns and the types in them.
///
/// # Errors
/// If the columns are those of no known form; the error lists both.
pub fn detect(row: &Map<String, Value>) -> Result<DataFormat> {
    let has = |key: &str| row.contains_key(key);
    if has("chosen") && has("rejected") {
        return Ok(match (row.get("prompt"), row.get("chosen")) {
            // A prompt column beside whole conversations repeats what they begin with.
            (Some(Value::String(_)), Some(Value::Array(_))) => DataFormat::TrlPairedImplicit,
            (Some(_), _) => DataFormat::TrlPaired,
            (None, Some(Value::String(text))) if is_transcript(text) => DataFormat::HhTranscript,
            (None, _) => DataFormat::TrlPairedImplicit,
        });
    }
    if has("prompt") && has("completion") {
        return Ok(if has("label") { DataFormat::TrlUnpaired } else { DataFormat::TrlPromptCompletion });
    }
    if has("messages") {
        return Ok(DataFormat::TrlMessages);
    }
    let columns: Vec<&str> = row.keys().map(String::as_str).collect();
    Err(anyhow!("columns `{}` are of no known form", columns.join("`, `"))).hint(
        "known forms: `chosen`, `rejected` (transcripts, or texts with a common beginning); `prompt`, `chosen`, \
         `rejected`; `prompt`, `completion`, `label`; for SFT `prompt`, `completion` and `messages`. A `text` alone does \
         not say where its completion begins",
    )
}

/// `\n\nHuman: …\n\nAssistant: …`, as Anthropic's hh-rlhf has it.
fn is_transcript(text: &str) -> bool {
    text.trim_start().starts_with("Human:") && text.contains("\n\nAssistant:")
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn of(row: Value) -> Result<DataFormat> {
        detect(row.as_object().expect("a test row is an object"))
    }

    #[test]
    fn each_form_is_told_by_its_columns() {
        let hh = "\n\nHuman: hi\n\nAssistant: hello";
        let chat = json!([{"role": "user", "content": "hi"}]);
        let cases = [
            (json!({"chosen": hh, "rejected": hh}), DataFormat::HhTranscript),
            (json!({"chosen": "hi there", "rejected": "hi you"}), DataFormat::TrlPairedImplicit),
            (json!({"chosen": chat, "rejected": chat}), DataFormat::TrlPairedImplicit),
            (json!({"prompt": "hi", "chosen": chat, "rejected": chat}), DataFormat::TrlPairedImplicit),
            (json!({"prompt": chat, "chosen": chat, "rejected": chat}), DataFormat::TrlPaired),
            (json!({"prompt": "p", "chosen": "a", "rejected": "b"}), DataFormat::TrlPaired),
            (json!({"prompt": "p", "completion": "a", "label": true}), DataFormat::TrlUnpaired),
            (json!({"prompt": "p", "completion": "a"}), DataFormat::TrlPromptCompletion),
            (json!({"prompt": "p", "messages": chat}), DataFormat::TrlMessages),
        ];
        for (row, format) in cases {
            assert_eq!(of(row.clone()).unwrap(), format, "{row}");
        }
    }

    #[test]
    fn unknown_columns_are_listed() {
        let error = of(json!({"question": "?", "answer": "!"})).unwrap_err();
        let text = crate::base::error::render(&error);
        assert!(text.contains("`question`, `answer`") && text.contains("`label`"), "{text}");
    }
}
