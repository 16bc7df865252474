//! A data set as a model will see it, and what a person should look at before training on it.

use crate::base::error::{Context, Result};
use crate::data::{
    Dataset, Inspection, Loaded, Others, Template, Tokenizer, carves, inspect, load_heldout, load_with,
    resolve_model,
};
use crate::model::read_config;
use crate::plan::DataSpec;
use crate::suite::{Suite, SuiteData};

/// What to look at.
#[derive(Clone, Debug)]
pub struct InspectRequest {
    pub data: DataSpec,
    /// Hub id or directory; its tokenizer and its chat template are used.
    pub model: String,
    pub revision: String,
    /// Whose prompts the data should not hold; the held-out split of the data is looked at in any case.
    pub suites: Vec<Suite>,
}

/// Reads the split `data.split` and looks at it through the model's tokenizer.
///
/// # Errors
/// A model, data or suite that cannot be read.
pub fn inspect_data(request: &InspectRequest) -> Result<(Loaded, Inspection)> {
    let dir = resolve_model(&request.model, &request.revision)?;
    let tokenizer = Tokenizer::load(&dir)?;
    // A folder with a tokenizer alone will do.
    let positions = read_config(&dir).ok().map(|config| config.max_positions);
    let (spec, template) = (&request.data, tokenizer.template());
    let mut loaded = load_with(spec, &spec.split, &template)?;
    let mut others = vec![];
    let heldout = heldout(spec, &template, &mut loaded.notes);
    if let Some(heldout) = &heldout {
        others.push(Others::of(&format!("split `{}`", spec.heldout_split), heldout));
    }
    let none = Dataset::Paired(vec![]);
    let from = SuiteData {
        tokenizer: &tokenizer,
        data: spec,
        heldout: heldout.as_ref().unwrap_or(&none),
        max_examples: 0,
    };
    for suite in &request.suites {
        if suite.source == "plan" && heldout.is_none() {
            let what = "asks about the held-out split, and there is none to compare with";
            loaded.notes.push(format!("suite `{}` {what}", suite.name));
            continue;
        }
        let prompts = from.prompts(suite).with_context(|| format!("suite {}", suite.name))?;
        others.push(Others { name: format!("suite `{}`", suite.name), prompts });
    }
    let found = inspect(&loaded.dataset, &others, &tokenizer, spec.max_length, positions)?;
    Ok((loaded, found))
}

/// The split that a comparison would ask about, where it is another one; data without one are no error here.
fn heldout(spec: &DataSpec, template: &Template, notes: &mut Vec<String>) -> Option<Dataset> {
    if spec.split == spec.heldout_split {
        return None;
    }
    if carves(spec) {
        let share = spec.heldout_fraction;
        notes.push(format!("one set: a comparison holds {share} of its prompts out (data.heldout_fraction)"));
        return None;
    }
    match load_heldout(spec, template) {
        Ok(heldout) => Some(heldout.dataset),
        Err(e) => {
            notes.push(format!("prompts are not compared with a held-out split: {e:#}"));
            None
        }
    }
}
