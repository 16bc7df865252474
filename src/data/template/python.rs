//! Values as Python shows them: templates are written for Jinja2, whose text is Python's.

use std::sync::Arc;

use minijinja::Value;
use minijinja::value::{Enumerator, Object, ObjectRepr, ValueKind};

/// A JSON object that keeps the order of its keys, as a Python dict does.
#[derive(Debug)]
struct Dict(Vec<(String, Value)>);

impl Object for Dict {
    fn repr(self: &Arc<Self>) -> ObjectRepr {
        ObjectRepr::Map
    }

    fn get_value(self: &Arc<Self>, key: &Value) -> Option<Value> {
        let key = key.as_str()?;
        self.0.iter().find(|(k, _)| k == key).map(|(_, v)| v.clone())
    }

    fn enumerate(self: &Arc<Self>) -> Enumerator {
        Enumerator::Values(self.0.iter().map(|(k, _)| Value::from(k.clone())).collect())
    }
}

/// A JSON value for a template.
pub fn value(json: &serde_json::Value) -> Value {
    match json {
        serde_json::Value::Null => Value::from(()),
        serde_json::Value::Bool(b) => Value::from(*b),
        serde_json::Value::Number(n) => match (n.as_i64(), n.as_u64(), n.as_f64()) {
            (Some(i), ..) => Value::from(i),
            (_, Some(u), _) => Value::from(u),
            (.., f) => Value::from(f.unwrap_or(f64::NAN)),
        },
        serde_json::Value::String(s) => Value::from(s.as_str()),
        serde_json::Value::Array(items) => Value::from(items.iter().map(value).collect::<Vec<_>>()),
        serde_json::Value::Object(map) => {
            Value::from_object(Dict(map.iter().map(|(k, v)| (k.clone(), value(v))).collect()))
        }
    }
}

/// `str(value)`.
pub fn display(value: &Value) -> String {
    match value.kind() {
        ValueKind::Undefined => String::new(),
        ValueKind::String => value.to_string(),
        _ => repr(value),
    }
}

/// `repr(value)`.
fn repr(value: &Value) -> String {
    match value.kind() {
        ValueKind::Undefined => "Undefined".to_owned(),
        ValueKind::None => "None".to_owned(),
        ValueKind::Bool => if value.is_true() { "True" } else { "False" }.to_owned(),
        ValueKind::String => quoted(value.as_str().unwrap_or_default()),
        ValueKind::Seq => format!("[{}]", items(value).iter().map(repr).collect::<Vec<_>>().join(", ")),
        ValueKind::Map => {
            let entry = |k: &Value| format!("{}: {}", repr(k), repr(&value.get_item(k).unwrap_or_default()));
            format!("{{{}}}", items(value).iter().map(entry).collect::<Vec<_>>().join(", "))
        }
        _ => value.to_string(),
    }
}

/// Python prefers single quotes, and takes double ones where the text holds single ones alone.
fn quoted(text: &str) -> String {
    let quote = if text.contains('\'') && !text.contains('"') { '"' } else { '\'' };
    let mut out = String::from(quote);
    for c in text.chars() {
        match c {
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            '\\' => out.push_str("\\\\"),
            c if c == quote => out.extend(['\\', c]),
            c => out.push(c),
        }
    }
    out.push(quote);
    out
}

/// The arguments of `json.dumps`; `separators` stand between items, and between a key and its value.
pub struct Style {
    pub indent: Option<usize>,
    pub ascii: bool,
    pub sort_keys: bool,
    pub separators: [String; 2],
}

/// `json.dumps(value, …)`.
pub fn json(value: &Value, style: &Style) -> String {
    let mut out = String::new();
    write_json(value, style, 0, &mut out);
    out
}

fn write_json(value: &Value, style: &Style, depth: usize, out: &mut String) {
    let newline = |out: &mut String, depth: usize| {
        if let Some(width) = style.indent {
            out.push('\n');
            out.extend(std::iter::repeat_n(' ', width * depth));
        }
    };
    let [between, colon] = &style.separators;
    match value.kind() {
        ValueKind::Undefined | ValueKind::None => out.push_str("null"),
        ValueKind::Bool => out.push_str(if value.is_true() { "true" } else { "false" }),
        ValueKind::Seq | ValueKind::Map => {
            let is_map = value.kind() == ValueKind::Map;
            let (open, close) = if is_map { ('{', '}') } else { ('[', ']') };
            out.push(open);
            let mut items = items(value);
            if is_map && style.sort_keys {
                items.sort_by_key(display);
            }
            for (i, item) in items.iter().enumerate() {
                if i > 0 {
                    out.push_str(between);
                }
                newline(out, depth + 1);
                if is_map {
                    write_json(&Value::from(display(item)), style, depth + 1, out);
                    out.push_str(colon);
                    write_json(&value.get_item(item).unwrap_or_default(), style, depth + 1, out);
                } else {
                    write_json(item, style, depth + 1, out);
                }
            }
            if !items.is_empty() {
                newline(out, depth);
            }
            out.push(close);
        }
        ValueKind::Number => out.push_str(&value.to_string()),
        _ => {
            let text = serde_json::Value::from(value.to_string()).to_string();
            for c in text.chars() {
                if style.ascii && !c.is_ascii() {
                    let units = c.encode_utf16(&mut [0; 2]).to_vec();
                    out.extend(units.iter().map(|unit| format!("\\u{unit:04x}")));
                } else {
                    out.push(c);
                }
            }
        }
    }
}

/// The members of a list, the keys of a dict.
pub fn items(value: &Value) -> Vec<Value> {
    value.try_iter().map(Iterator::collect).unwrap_or_default()
}
