//! Errors that say what, where, which values would do, and what to do.
//!
//! The crate uses [`anyhow::Error`] throughout: nothing above a room ever branches on the kind of a
//! failure, people read it. A remedy is attached with [`HintExt::hint`] and is printed on a line of its own.

use std::fmt;

pub use anyhow::{Context, anyhow, bail, ensure};

/// The crate's result type.
pub type Result<T> = anyhow::Result<T>;

/// An error with a remedy; made by [`HintExt::hint`].
#[derive(Debug)]
struct Hinted {
    hint: String,
    source: anyhow::Error,
}

impl fmt::Display for Hinted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.source)
    }
}

impl std::error::Error for Hinted {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.source.source()
    }
}

/// Attaches a remedy to an error.
pub trait HintExt<T> {
    /// Adds a line that says what to do; [`render`] prints it as `hint: …`.
    fn hint(self, hint: impl Into<String>) -> Result<T>;
}

impl<T, E: Into<anyhow::Error>> HintExt<T> for std::result::Result<T, E> {
    fn hint(self, hint: impl Into<String>) -> Result<T> {
        self.map_err(|e| {
            let (source, hint) = (e.into(), hint.into());
            anyhow::Error::new(Hinted { hint, source })
        })
    }
}

/// The error as a person reads it: the chain on one line, then a `hint:` line for each remedy.
pub fn render(error: &anyhow::Error) -> String {
    let mut message = String::new();
    for cause in error.chain() {
        let text = cause.to_string();
        // A wrapper that repeats its source's text adds nothing.
        if !message.ends_with(&text) {
            if !message.is_empty() {
                message.push_str(": ");
            }
            message.push_str(&text);
        }
    }
    for cause in error.chain() {
        let mut hints = vec![];
        let mut hinted = cause.downcast_ref::<Hinted>();
        while let Some(Hinted { hint, source }) = hinted {
            hints.push(hint);
            // What is hinted at twice stands in the chain once.
            hinted = source.chain().next().and_then(|top| top.downcast_ref());
        }
        for hint in hints.iter().rev() {
            message.push_str("\nhint: ");
            message.push_str(hint);
        }
    }
    message
}

/// `unknown <what> `name` (known: a, b, c)`, with a "did you mean" where one is close.
pub fn unknown(what: &str, name: &str, known: &[&str]) -> anyhow::Error {
    let close = known.iter().map(|k| (distance(name, k), *k)).filter(|(d, k)| *d <= 2 && *d < k.len()).min();
    let error = anyhow!("unknown {what} `{name}` (known: {})", known.join(", "));
    match close {
        Some((_, k)) => {
            let hinted: Result<()> = Err(error).hint(format!("did you mean `{k}`?"));
            hinted.expect_err("built from an error")
        }
        None => error,
    }
}

/// Edit distance (insert, delete, replace, swap neighbours), for "did you mean".
fn distance(a: &str, b: &str) -> usize {
    let (a, b): (Vec<char>, Vec<char>) = (a.chars().collect(), b.chars().collect());
    let mut d = vec![vec![0usize; b.len() + 1]; a.len() + 1];
    for (i, row) in d.iter_mut().enumerate() {
        row[0] = i;
    }
    d[0] = (0..=b.len()).collect();
    for i in 1..=a.len() {
        for j in 1..=b.len() {
            let replace = d[i - 1][j - 1] + usize::from(a[i - 1] != b[j - 1]);
            d[i][j] = replace.min(d[i - 1][j] + 1).min(d[i][j - 1] + 1);
            if i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1] {
                d[i][j] = d[i][j].min(d[i - 2][j - 2] + 1);
            }
        }
    }
    d[a.len()][b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_lists_what_is_known_and_guesses_what_was_meant() {
        let text = render(&unknown("method", "kot", &["kto", "dpo", "sft"]));
        assert_eq!(text, "unknown method `kot` (known: kto, dpo, sft)\nhint: did you mean `kto`?");
        let twice: Result<()> = Err(unknown("method", "kot", &["kto"])).hint("see `kto-eval methods`");
        let text = render(&twice.context("plan.toml").unwrap_err());
        assert!(text.ends_with("\nhint: did you mean `kto`?\nhint: see `kto-eval methods`"), "{text}");
        assert!(!render(&unknown("method", "xyzzy", &["kto"])).contains("hint"));
    }

    #[test]
    fn hints_survive_further_context_and_nothing_is_said_twice() {
        let inner: Result<()> = Err(anyhow!("no such file")).hint("check the path");
        let outer = inner.context("reading plan.toml").unwrap_err();
        assert_eq!(render(&outer), "reading plan.toml: no such file\nhint: check the path");
    }
}
