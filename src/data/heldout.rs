//! What is trained on and what is held out, where a data set is not in two parts already.

use std::collections::BTreeSet;
use std::path::Path;

use rand::RngExt;

use super::feedback::only;
use super::layout;
use super::load::{Loaded, load_with};
use super::template::Template;
use super::types::Dataset;
use crate::base::error::{HintExt, Result, anyhow};
use crate::base::seed;
use crate::plan::DataSpec;

/// Whether training and held-out split are the same rows, so that a share of the prompts is held out.
pub fn carves(spec: &DataSpec) -> bool {
    let path = Path::new(&spec.source);
    // A file named after the training split is still one file: it has no held-out split beside it.
    let one_file = path.is_file() && layout::split_of(path).is_none_or(|own| own == spec.split);
    one_file || layout::is_rows(&spec.config) || spec.split == spec.heldout_split
}

/// Reads what `spec` trains on: its split, less what is held out of it. `parted`: the questions are held out of the plan's
/// own data ([`carves`] of that); where they are a split of their own, nothing need be held out of an arm's.
///
/// # Errors
/// See [`load_with`]; a set of fewer than two prompts that is to be parted.
pub fn load_training(spec: &DataSpec, parted: bool, template: &Template) -> Result<Loaded> {
    if !parted || !carves(spec) || spec.heldout_fraction == 0.0 {
        return load_with(spec, &spec.split, template);
    }
    let whole = load_with(&DataSpec { max_examples: 0, ..spec.clone() }, &spec.split, template)?;
    let (kept, held) = hold_out(&whole.dataset, spec)?;
    let note = format!(
        "{}: {} of {} rows are held out, which is all of {} prompts (data.heldout_fraction = {})",
        spec.source,
        held.len(),
        whole.dataset.len(),
        prompts(&held).collect::<BTreeSet<_>>().len(),
        spec.heldout_fraction
    );
    let most = if spec.max_examples == 0 { kept.len() } else { spec.max_examples };
    Ok(part(only(kept, &(0..most).collect()), whole, note))
}

/// Reads what suites on the plan's own data ask about, all of it: the held-out split, or what [`load_training`] leaves
/// out.
///
/// # Errors
/// As there; the same rows to be trained on and to be asked about.
pub fn load_heldout(spec: &DataSpec, template: &Template) -> Result<Loaded> {
    let spec = DataSpec { max_examples: 0, ..spec.clone() };
    if !carves(&spec) {
        return load_with(&spec, &spec.heldout_split, template).hint(
            "data.heldout_split names the split that is asked about; where it is the one that is trained on, a share of \
             its prompts is held out",
        );
    }
    if spec.heldout_fraction == 0.0 {
        return Err(anyhow!("{} is one set of rows: nothing of it is held out", spec.source)).hint(
            "set data.heldout_fraction (0.1 holds a tenth of the prompts out), or give a directory with train and test",
        );
    }
    let whole = load_with(&spec, &spec.split, template)?;
    let (_, held) = hold_out(&whole.dataset, &spec)?;
    let note = format!("{} rows of {}, whose prompts are not trained on", held.len(), spec.source);
    Ok(part(held, whole, note))
}

fn part(dataset: Dataset, whole: Loaded, note: String) -> Loaded {
    let hash = dataset.hash();
    let notes = whole.notes.into_iter().chain([note]).collect();
    Loaded { dataset, hash, notes, ..whole }
}

/// The rows to train on and those held out. Whether a prompt is held out is drawn by its text alone: the same prompts
/// in another file, in another order or with other labels, are held out there too. At least one is, and one is not.
fn hold_out(dataset: &Dataset, spec: &DataSpec) -> Result<(Dataset, Dataset)> {
    let draw = |prompt: &str| seed::rng(0, &format!("data/heldout/{prompt}")).random::<f64>();
    let distinct: BTreeSet<&str> = prompts(dataset).collect();
    let mut drawn: Vec<(f64, &str)> = distinct.into_iter().map(|p| (draw(p), p)).collect();
    drawn.sort_by(|a, b| a.0.total_cmp(&b.0));
    if drawn.len() < 2 {
        return Err(anyhow!(
            "{}: {} prompts cannot be parted into training and held-out ones",
            spec.source,
            drawn.len()
        ))
        .hint("give a directory with train and test");
    }
    let count = drawn.iter().filter(|(u, _)| *u < spec.heldout_fraction).count().clamp(1, drawn.len() - 1);
    let held: BTreeSet<&str> = drawn[..count].iter().map(|(_, p)| *p).collect();
    let of_row: Vec<&str> = prompts(dataset).collect();
    let (out, rest): (BTreeSet<usize>, BTreeSet<usize>) =
        (0..of_row.len()).partition(|&i| held.contains(of_row[i]));
    Ok((only(dataset.clone(), &rest), only(dataset.clone(), &out)))
}

/// The prompt of each row.
pub fn prompts(dataset: &Dataset) -> Box<dyn Iterator<Item = &str> + '_> {
    match dataset {
        Dataset::Paired(pairs) => Box::new(pairs.iter().map(|p| p.prompt.as_str())),
        Dataset::Unpaired(examples) => Box::new(examples.iter().map(|e| e.prompt.as_str())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn write(dir: &Path, name: &str, rows: &[usize], good: &str) -> DataSpec {
        let row = |i: &usize| {
            format!("{{\"prompt\": \"p{}\", \"chosen\": \"{good}{i}\", \"rejected\": \"b\"}}\n", i % 300)
        };
        let path = dir.join(name);
        std::fs::write(&path, rows.iter().map(row).collect::<String>()).unwrap();
        DataSpec { source: path.display().to_string(), ..DataSpec::default() }
    }

    fn parts(spec: &DataSpec) -> (Loaded, Loaded) {
        let template = Template::default();
        (load_training(spec, true, &template).unwrap(), load_heldout(spec, &template).unwrap())
    }

    fn of(loaded: &Loaded) -> BTreeSet<String> {
        prompts(&loaded.dataset).map(str::to_owned).collect()
    }

    #[test]
    fn one_file_is_parted_by_its_prompts() {
        let dir = tempfile::tempdir().unwrap();
        let spec = write(dir.path(), "feedback.jsonl", &(0..400).collect::<Vec<_>>(), "a");
        let (training, heldout) = parts(&spec);
        assert!(of(&training).is_disjoint(&of(&heldout)));
        assert_eq!(training.dataset.len() + heldout.dataset.len(), 400);
        // Binomial(300, 0.1): five standard deviations.
        assert!((of(&heldout).len() as f64 - 30.0).abs() < 26.0, "{}", of(&heldout).len());
        let says = format!("which is all of {} prompts (data.heldout_fraction = 0.1)", of(&heldout).len());
        assert!(training.notes.iter().any(|n| n.ends_with(&says)), "{:?}", training.notes);
        let few = DataSpec { max_examples: 7, ..spec.clone() };
        let few = load_training(&few, true, &Template::default()).unwrap();
        assert_eq!((few.dataset.len(), of(&few).is_disjoint(&of(&heldout))), (7, true));

        // Other labels, fewer rows, another order: what is trained on there is not asked about here.
        let other = write(dir.path(), "other.jsonl", &(0..200).rev().collect::<Vec<_>>(), "c");
        assert!(of(&parts(&other).0).is_disjoint(&of(&heldout)));
        let named = write(dir.path(), "train.jsonl", &(0..400).collect::<Vec<_>>(), "a");
        assert_eq!(of(&parts(&named).1), of(&heldout), "whatever the file calls itself");
        let two = write(dir.path(), "two.jsonl", &[1, 2], "a");
        assert_eq!(of(&parts(&two).1).len(), 1, "at least one prompt is held out");
        let one = write(dir.path(), "one.jsonl", &[1, 1], "a");
        assert!(load_training(&one, true, &Template::default()).is_err());
    }

    #[test]
    fn nothing_is_held_out_unasked_or_twice() {
        let dir = tempfile::tempdir().unwrap();
        let template = Template::default();
        let spec = write(dir.path(), "feedback.jsonl", &(0..40).collect::<Vec<_>>(), "a");
        // An arm's own file where the plan's data have a split for the questions.
        assert_eq!(load_training(&spec, false, &template).unwrap().dataset.len(), 40);
        let whole = DataSpec { heldout_fraction: 0.0, ..spec };
        assert_eq!(load_training(&whole, true, &template).unwrap().dataset.len(), 40);
        let text = crate::base::error::render(&load_heldout(&whole, &template).unwrap_err());
        assert!(
            text.contains("nothing of it is held out") && text.contains("set data.heldout_fraction"),
            "{text}"
        );

        // A directory has its two splits, whatever they are called; one of them for both is parted.
        write(dir.path(), "train.jsonl", &(0..40).collect::<Vec<_>>(), "a");
        write(dir.path(), "validation.jsonl", &[100, 101], "a");
        let source = dir.path().display().to_string();
        let split =
            DataSpec { source: source.clone(), heldout_split: "validation".into(), ..DataSpec::default() };
        assert_eq!(parts(&split).0.dataset.len(), 40);
        assert_eq!(of(&parts(&split).1), ["p100", "p101"].map(str::to_owned).into());
        let same = DataSpec { source, heldout_split: "train".into(), ..DataSpec::default() };
        assert!(of(&parts(&same).0).is_disjoint(&of(&parts(&same).1)));
    }
}
