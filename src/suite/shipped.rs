//! The suites that come with the binary, and how a plan's names find them.

use std::path::Path;

use super::definition::Suite;
use crate::base::error::{Result, anyhow, unknown};

/// A suite file that is built in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ShippedSuite {
    /// Path within the repository.
    pub path: &'static str,
    pub text: &'static str,
}

macro_rules! shipped {
    ($($path:literal),* $(,)?) => {
        /// Every shipped suite file; a test holds that the folder holds no other.
        pub const SHIPPED: &[ShippedSuite] = &[
            $(ShippedSuite { path: $path, text: include_str!(concat!("../../", $path)) }),*
        ];
    };
}

shipped![
    "suites/preference/heldout.toml",
    "suites/preference/hh-harmless.toml",
    "suites/preference/hh-helpful.toml",
    "suites/preference/rewardbench.toml",
    "suites/preference/shp.toml",
    "suites/preference/ultrafeedback.toml",
    "suites/preference/world.toml",
    "suites/generation/alpaca-eval.toml",
    "suites/generation/gsm8k.toml",
    "suites/generation/heldout-gold.toml",
    "suites/generation/heldout-judged.toml",
    "suites/generation/heldout-rewarded.toml",
    "suites/generation/heldout-prompts.toml",
    "suites/generation/ifeval.toml",
    "suites/generation/mt-bench.toml",
    "suites/generation/world.toml",
];

/// A suite and the file that defines it.
#[derive(Clone, Debug, PartialEq)]
pub struct ListedSuite {
    pub origin: String,
    pub suite: Suite,
}

/// All shipped suites, parsed, preference first, by name.
pub fn shipped() -> Result<Vec<ListedSuite>> {
    SHIPPED
        .iter()
        .map(|s| Ok(ListedSuite { origin: s.path.to_owned(), suite: Suite::parse(s.text, s.path)? }))
        .collect()
}

/// The suite that a plan names: a path to a TOML file, or the name of a shipped suite of this `folder`
/// (`preference` or `generation`).
///
/// # Errors
/// Where the name is neither; the known names are listed.
pub fn find(name: &str, folder: &str) -> Result<Suite> {
    if name.ends_with(".toml") {
        return Suite::read(Path::new(name));
    }
    match SHIPPED.iter().find(|s| in_folder(s, folder) == Some(name)) {
        Some(s) => Suite::parse(s.text, s.path),
        None => {
            let known: Vec<&str> = SHIPPED.iter().filter_map(|s| in_folder(s, folder)).collect();
            Err(unknown(&format!("{folder} suite"), name, &known))
        }
    }
}

/// The suite of this name, whatever its kind: `world` may be both, `preference/world` is one.
///
/// # Errors
/// Where no suite has the name, or two do.
pub fn find_any(name: &str) -> Result<Suite> {
    if name.ends_with(".toml") {
        return Suite::read(Path::new(name));
    }
    let named = |s: &&ShippedSuite| stem(s) == name || full(s) == name;
    let found: Vec<&ShippedSuite> = SHIPPED.iter().filter(named).collect();
    match found[..] {
        [s] => Suite::parse(s.text, s.path),
        [] => Err(unknown("suite", name, &SHIPPED.iter().map(full).collect::<Vec<_>>())),
        _ => {
            let names: Vec<&str> = found.into_iter().map(full).collect();
            Err(anyhow!("two suites are named `{name}`: say `{}`", names.join("` or `")))
        }
    }
}

/// The text of every shipped suite of that name (a preference and a generation suite may share one), for
/// `suites show`; for a path, the file's text.
pub fn show(name: &str) -> Result<Vec<(String, String)>> {
    if name.ends_with(".toml") {
        let text = std::fs::read_to_string(name).map_err(|e| anyhow!("reading suite {name}: {e}"))?;
        return Ok(vec![(name.to_owned(), text)]);
    }
    let found: Vec<_> = SHIPPED
        .iter()
        .filter(|s| stem(s) == name || full(s) == name)
        .map(|s| (s.path.to_owned(), s.text.to_owned()))
        .collect();
    if found.is_empty() {
        let mut known: Vec<&str> = SHIPPED.iter().map(stem).collect();
        known.dedup();
        return Err(unknown("suite", name, &known));
    }
    Ok(found)
}

/// `preference/world`.
fn full(s: &ShippedSuite) -> &'static str {
    s.path.trim_start_matches("suites/").trim_end_matches(".toml")
}

fn stem(s: &ShippedSuite) -> &'static str {
    let file = s.path.rsplit('/').next().unwrap_or(s.path);
    file.trim_end_matches(".toml")
}

fn in_folder(s: &ShippedSuite, folder: &str) -> Option<&'static str> {
    s.path.strip_prefix("suites/")?.strip_prefix(folder)?.strip_prefix('/')?.strip_suffix(".toml")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::error::render;
    use crate::suite::definition::Kind;

    #[test]
    fn every_file_of_the_folders_is_shipped_and_named_after_itself() {
        let root = Path::new(env!("CARGO_MANIFEST_DIR"));
        for (folder, kind) in [("preference", Kind::Preference), ("generation", Kind::Generation)] {
            for entry in std::fs::read_dir(root.join("suites").join(folder)).unwrap() {
                let file = entry.unwrap().file_name().into_string().unwrap();
                let name = file.strip_suffix(".toml").unwrap();
                let suite = find(name, folder).unwrap();
                assert_eq!((suite.name.as_str(), suite.kind), (name, kind), "{folder}/{file}");
            }
        }
        assert_eq!(shipped().unwrap().len(), SHIPPED.len());
    }

    #[test]
    fn a_wrong_name_lists_the_right_ones_and_a_wrong_key_its_line() {
        let text = render(&find("heldot", "preference").unwrap_err());
        assert!(text.contains("unknown preference suite `heldot` (known: heldout, hh-harmless"), "{text}");
        assert!(text.contains("did you mean `heldout`"), "{text}");
        let edited = SHIPPED[0].text.replace("licence", "license");
        let text = render(&Suite::parse(&edited, "my.toml").unwrap_err());
        assert!(text.contains("my.toml") && text.contains("license") && text.contains("line"), "{text}");
        assert!(show("world").unwrap().len() == 2 && show("generation/world").unwrap().len() == 1);
        assert!(show("none").is_err());
    }

    #[test]
    fn settings_that_contradict_each_other_are_refused() {
        let world = SHIPPED.iter().find(|s| s.path == "suites/generation/world.toml").unwrap().text;
        for (from, to, says) in [
            ("judge = \"gold\"", "judge = \"none\"", "needs judge"),
            ("[\"base\", \"chosen\"]", "[\"base\"]", "`chosen` among the opponents"),
            ("\"gold_reward\"", "\"margin\"", "no metric of this kind"),
            ("\"gold_reward\"", "\"win_rate_base\"", "listed twice"),
        ] {
            assert!(world.contains(from), "the test replaces {from}");
            let text = render(&Suite::parse(&world.replace(from, to), "w.toml").unwrap_err());
            assert!(text.contains(says), "{text}");
        }
    }
}
