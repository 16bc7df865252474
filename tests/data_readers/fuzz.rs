//! Bytes, scraps of JSON and rows of any types: nothing makes a reader panic.

use super::read;
use proptest::prelude::*;

/// Pieces that rows are made of, in no good order.
fn scrap() -> impl Strategy<Value = String> {
    let known = [
        "{",
        "}",
        "[",
        "]",
        ":",
        ",",
        "\n",
        "\"",
        "\\",
        "\\u00e9",
        "\\ud800",
        "true",
        "null",
        "1e999",
        "-",
        "\"prompt\":",
        "\"chosen\":",
        "\"rejected\":",
        "\"completion\":",
        "\"label\":",
        "\"id\":",
        "\"role\":\"user\"",
        "\"content\":",
        "\"\\n\\nHuman: a\\n\\nAssistant: b\"",
        "é",
        "\u{feff}",
        "\u{0}",
    ];
    prop::collection::vec(prop::sample::select(known.to_vec()), 0..40).prop_map(|parts| parts.concat())
}

/// A value where a string, a list or a boolean is expected.
fn value() -> impl Strategy<Value = serde_json::Value> {
    let message = serde_json::json!({"role": "user", "content": "é"});
    let leaves = prop_oneof![
        Just(serde_json::json!(null)),
        any::<bool>().prop_map(Into::into),
        any::<i64>().prop_map(Into::into),
        "\\PC{0,12}".prop_map(Into::into),
        "(\n\nHuman: .{0,3}\n\nAssistant: .{0,3}){0,2}".prop_map(Into::into),
        Just(serde_json::json!([])),
        Just(message.clone()),
        Just(serde_json::json!([message.clone()])),
        Just(serde_json::json!([message.clone(), {"role": "assistant", "content": ""}])),
    ];
    leaves.boxed()
}

fn row() -> impl Strategy<Value = String> {
    let key =
        prop::sample::select(vec!["prompt", "chosen", "rejected", "completion", "label", "id", "subset"]);
    prop::collection::hash_map(key, value(), 0..7).prop_map(|row| serde_json::to_string(&row).unwrap())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn no_bytes_make_a_reader_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        let _ = read(bytes);
    }

    #[test]
    fn no_scraps_of_json_make_a_reader_panic(text in scrap()) {
        let _ = read(text);
    }

    #[test]
    fn rows_of_any_types_are_read_or_refused_with_a_place(rows in prop::collection::vec(row(), 1..4), array in any::<bool>()) {
        let text = if array { format!("[{}]", rows.join(",\n")) } else { rows.join("\n") };
        if let Err(error) = read(text) {
            prop_assert!(error.contains("rows.jsonl"), "{error}");
        }
    }

    #[test]
    fn a_damaged_gzip_stream_is_refused(cut in 1usize..60, flip in any::<u8>()) {
        use std::io::Write;
        let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        gzip.write_all(br#"{"prompt": "p", "completion": "c", "label": true}"#).unwrap();
        let mut bytes = gzip.finish().unwrap();
        let at = bytes.len().saturating_sub(cut).max(2);
        bytes[at.min(70)] ^= flip | 1;
        bytes.truncate(bytes.len() - 1);
        prop_assert!(read(bytes).is_err());
    }
}
