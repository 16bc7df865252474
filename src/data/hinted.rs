//! An error with a remedy, where there is no `Result` yet to attach it to.

use std::convert::Infallible;

use crate::base::error::{HintExt, Result};

pub fn hinted(error: anyhow::Error, hint: impl Into<String>) -> anyhow::Error {
    let failed: Result<Infallible> = Err(error);
    match failed.hint(hint) {
        Err(error) => error,
        Ok(never) => match never {},
    }
}
