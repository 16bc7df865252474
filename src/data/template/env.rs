//! The environment that transformers gives a chat template.

use minijinja::syntax::SyntaxConfig;
use minijinja::value::Kwargs;
use minijinja::{Environment, Error, ErrorKind, Value};

use super::{methods, python};

/// What a template may spend on one text, in the engine's units: one an instruction, and one for 64 bytes that are made or
/// looked at: a chat of 100 kB takes a few tens of thousands. A template that loops without end, or doubles a string over
/// and over, comes to a stop after a fraction of a second or 256 MiB. Lists that are added or shown are not counted:
/// `apart` bounds those.
pub const FUEL: u64 = 4_000_000;

/// Most bytes that one call of a method or of `tojson` may make: these are ours, and the engine does not count them.
const LONGEST: usize = 64 << 20;

/// # Errors
/// `bytes` is more than one call may make.
pub fn bounded(bytes: Option<usize>) -> Result<(), Error> {
    match bytes {
        Some(bytes) if bytes <= LONGEST => Ok(()),
        _ => Err(Error::new(ErrorKind::InvalidOperation, format!("makes more than {} MiB", LONGEST >> 20))),
    }
}

/// Jinja as transformers sets it up: blocks trimmed, Python's methods on values, `raise_exception`,
/// `strftime_now`, and a `tojson` that escapes nothing for HTML.
pub fn environment() -> Environment<'static> {
    let mut env = Environment::new();
    env.set_syntax(syntax());
    env.set_fuel(Some(FUEL));
    env.set_auto_escape_callback(|_| minijinja::AutoEscape::None);
    env.set_formatter(|out, _, value| Ok(out.write_str(&python::display(value))?));
    env.set_unknown_method_callback(methods::call);
    env.add_filter("tojson", to_json);
    env.add_test("iterable", is_iterable);
    env.add_function("raise_exception", raise_exception);
    env.add_function("strftime_now", strftime_now);
    env
}

/// Blocks stand on lines of their own without leaving a trace of them.
fn syntax() -> SyntaxConfig {
    let built = SyntaxConfig::builder().trim_blocks(true).lstrip_blocks(true).build();
    built.expect("the delimiters are Jinja's own")
}

/// `{% generation %} … {% endgeneration %}` marks what the assistant wrote; it changes no text, so it
/// becomes a block that is always taken, with the same trimming.
pub fn without_generation_blocks(source: &str) -> String {
    let mut out = String::with_capacity(source.len());
    let mut rest = source;
    while let Some(start) = rest.find("{%") {
        let Some(len) = rest[start..].find("%}").map(|end| end + 2) else { break };
        let tag = &rest[start..start + len];
        let word = tag.trim_start_matches("{%").trim_end_matches("%}").trim_matches(['-', '+']).trim();
        out.push_str(&rest[..start]);
        match word {
            "generation" => out.push_str(&tag.replace("generation", "if true")),
            "endgeneration" => out.push_str(&tag.replace("endgeneration", "endif")),
            _ => out.push_str(tag),
        }
        rest = &rest[start + len..];
    }
    out + rest
}

/// As `iter(value)` of Python decides, which takes an undefined value for an empty list and refuses none.
fn is_iterable(value: &Value) -> bool {
    value.is_undefined() || (!value.is_none() && value.try_iter().is_ok())
}

fn raise_exception(message: String) -> Result<Value, Error> {
    Err(Error::new(ErrorKind::InvalidOperation, message))
}

/// Widest indent of `tojson`.
const MOST_INDENT: usize = 64;

/// `json.dumps` with the arguments that transformers lets through; non-ASCII characters stay unless one says otherwise.
fn to_json(value: &Value, kwargs: Kwargs) -> Result<Value, Error> {
    let indent: Option<usize> = kwargs.get("indent")?;
    let is_set = |name: &str| Ok::<_, Error>(kwargs.get::<Option<Value>>(name)?.is_some_and(|v| v.is_true()));
    let (ascii, sort_keys) = (is_set("ensure_ascii")?, is_set("sort_keys")?);
    let separators = match kwargs.get::<Option<Value>>("separators")?.filter(|v| !v.is_none()) {
        None => [if indent.is_some() { "," } else { ", " }, ": "].map(str::to_owned),
        Some(given) => <[Value; 2]>::try_from(python::items(&given))
            .map_err(|_| Error::new(ErrorKind::InvalidOperation, "tojson: separators are two texts"))?
            .map(|v| python::display(&v)),
    };
    kwargs.assert_all_used()?;
    if let Some(width) = indent.filter(|width| *width > MOST_INDENT) {
        let message = format!("tojson: an indent of {width} (at most {MOST_INDENT})");
        return Err(Error::new(ErrorKind::InvalidOperation, message));
    }
    Ok(Value::from(python::json(value, &python::Style { indent, ascii, sort_keys, separators })))
}

/// The local time, as `datetime.now().strftime(format)`: a template that calls it renders differently
/// tomorrow.
fn strftime_now(format: &str) -> Result<String, Error> {
    let invalid = || Error::new(ErrorKind::InvalidOperation, "strftime_now: the format holds a NUL");
    let format = std::ffi::CString::new(format).map_err(|_| invalid())?;
    let mut buffer = [0u8; 256];
    // SAFETY: `time` takes a null pointer; `localtime_r` fills `now`; `strftime` writes at most the
    // buffer's length and returns how much it wrote.
    let written = unsafe {
        let seconds = libc::time(std::ptr::null_mut());
        let mut now: libc::tm = std::mem::zeroed();
        libc::localtime_r(&seconds, &mut now);
        libc::strftime(buffer.as_mut_ptr().cast(), buffer.len(), format.as_ptr(), &now)
    };
    Ok(String::from_utf8_lossy(&buffer[..written]).into_owned())
}
