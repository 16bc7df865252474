//! The methods of Python's strings and dicts that chat templates call.

use minijinja::value::{ValueKind, from_args};
use minijinja::{Error, ErrorKind, State, Value};

use super::env::bounded;
use super::python;

pub fn call(_: &mut State, value: &Value, method: &str, args: &[Value]) -> Result<Value, Error> {
    let found = match value.kind() {
        ValueKind::String => string(value.as_str().unwrap_or_default(), method, args)?,
        ValueKind::Map => dict(value, method, args)?,
        ValueKind::Seq => list(value, method, args)?,
        _ => None,
    };
    found.ok_or_else(|| {
        Error::new(ErrorKind::UnknownMethod, format!("{} has no method `{method}`", value.kind()))
    })
}

fn string(text: &str, method: &str, args: &[Value]) -> Result<Option<Value>, Error> {
    Ok(Some(match method {
        "strip" | "lstrip" | "rstrip" => strip(text, method, args)?,
        "startswith" | "endswith" => {
            let (affix,): (&Value,) = from_args(args)?;
            let affixes =
                if affix.kind() == ValueKind::String { vec![affix.clone()] } else { python::items(affix) };
            let holds = |a: &Value| {
                let a = a.as_str().unwrap_or_default();
                if method == "startswith" { text.starts_with(a) } else { text.ends_with(a) }
            };
            Value::from(affixes.iter().any(holds))
        }
        "split" | "rsplit" => split(text, method, args)?,
        "splitlines" => owned(text.lines()),
        "upper" => Value::from(text.to_uppercase()),
        "lower" => Value::from(text.to_lowercase()),
        "title" => Value::from(title(text)),
        "capitalize" => Value::from(capitalize(text)),
        "replace" => {
            let (old, new, count): (&str, &str, Option<i64>) = from_args(args)?;
            let times = text.matches(old).count();
            bounded(new.len().checked_mul(times).and_then(|n| n.checked_add(text.len())))?;
            match count.and_then(|n| usize::try_from(n).ok()) {
                Some(n) => Value::from(text.replacen(old, new, n)),
                None => Value::from(text.replace(old, new)),
            }
        }
        "find" | "rfind" => {
            let (part,): (&str,) = from_args(args)?;
            let at = if method == "find" { text.find(part) } else { text.rfind(part) };
            Value::from(at.map_or(-1, |at| text[..at].chars().count() as i64))
        }
        "count" => {
            let (part,): (&str,) = from_args(args)?;
            Value::from(text.matches(part).count())
        }
        "join" => {
            let (parts,): (&Value,) = from_args(args)?;
            let parts: Vec<String> = python::items(parts).iter().map(python::display).collect();
            let own: usize = parts.iter().map(String::len).sum();
            bounded(text.len().checked_mul(parts.len()).and_then(|n| n.checked_add(own)))?;
            Value::from(parts.join(text))
        }
        "removeprefix" | "removesuffix" => {
            let (part,): (&str,) = from_args(args)?;
            let cut =
                if method == "removeprefix" { text.strip_prefix(part) } else { text.strip_suffix(part) };
            Value::from(cut.unwrap_or(text))
        }
        "isdigit" => Value::from(!text.is_empty() && text.chars().all(|c| c.is_ascii_digit())),
        "isalpha" => Value::from(!text.is_empty() && text.chars().all(char::is_alphabetic)),
        _ => return Ok(None),
    }))
}

fn strip(text: &str, method: &str, args: &[Value]) -> Result<Value, Error> {
    let (chars,): (Option<&str>,) = from_args(args)?;
    let goes = |c: char| chars.map_or(c.is_whitespace(), |set| set.contains(c));
    Ok(Value::from(match method {
        "lstrip" => text.trim_start_matches(goes),
        "rstrip" => text.trim_end_matches(goes),
        _ => text.trim_matches(goes),
    }))
}

fn split(text: &str, method: &str, args: &[Value]) -> Result<Value, Error> {
    let (separator, most): (Option<&str>, Option<i64>) = from_args(args)?;
    let most = most.and_then(|n| usize::try_from(n).ok()).map_or(usize::MAX, |n| n.saturating_add(1));
    let parts: Vec<&str> = match separator {
        None => text.split_whitespace().collect(),
        Some("") => return Err(Error::new(ErrorKind::InvalidOperation, "split: empty separator")),
        Some(separator) if method == "split" => text.splitn(most, separator).collect(),
        Some(separator) => {
            let mut parts: Vec<_> = text.rsplitn(most, separator).collect();
            parts.reverse();
            parts
        }
    };
    Ok(owned(parts))
}

fn owned<'a>(parts: impl IntoIterator<Item = &'a str>) -> Value {
    Value::from(parts.into_iter().map(Value::from).collect::<Vec<_>>())
}

fn dict(value: &Value, method: &str, args: &[Value]) -> Result<Option<Value>, Error> {
    let get = |key: &Value| value.get_item(key).unwrap_or_default();
    Ok(Some(match method {
        "keys" => Value::from(python::items(value)),
        "values" => Value::from(python::items(value).iter().map(get).collect::<Vec<_>>()),
        "items" => {
            let pairs = python::items(value).into_iter().map(|k| Value::from(vec![k.clone(), get(&k)]));
            Value::from(pairs.collect::<Vec<_>>())
        }
        "get" => {
            let (key, default): (&Value, Option<Value>) = from_args(args)?;
            let found = get(key);
            if found.is_undefined() { default.unwrap_or_else(|| Value::from(())) } else { found }
        }
        _ => return Ok(None),
    }))
}

fn list(value: &Value, method: &str, args: &[Value]) -> Result<Option<Value>, Error> {
    Ok(Some(match method {
        "count" => {
            let (item,): (&Value,) = from_args(args)?;
            Value::from(python::items(value).iter().filter(|v| *v == item).count())
        }
        "index" => {
            let (item,): (&Value,) = from_args(args)?;
            let at = python::items(value).iter().position(|v| v == item);
            Value::from(at.ok_or_else(|| Error::new(ErrorKind::InvalidOperation, "index: not in the list"))?)
        }
        _ => return Ok(None),
    }))
}

fn capitalize(text: &str) -> String {
    let mut chars = text.chars();
    let first = chars.next().into_iter().flat_map(char::to_uppercase);
    first.chain(chars.flat_map(char::to_lowercase)).collect()
}

/// Python's `str.title`: a letter that follows no letter is raised, every other one lowered.
fn title(text: &str) -> String {
    let mut inside = false;
    let mut out = String::new();
    for c in text.chars() {
        if inside {
            out.extend(c.to_lowercase());
        } else {
            out.extend(c.to_uppercase());
        }
        inside = c.is_alphabetic();
    }
    out
}
