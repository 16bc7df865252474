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
    "suites/preference/heldout-labels.toml",
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
    use crate::data::pick;

    #[test]
    fn every_file_of_the_folders_is_shipped_and_named_after_itself() {
        let root = Path::new(env!("CARGO_MANIFEST_DIR"));
        for folder in ["preference", "generation"] {
            for entry in std::fs::read_dir(root.join("suites").join(folder)).unwrap() {
                let file = entry.unwrap().file_name().into_string().unwrap();
                let name = file.strip_suffix(".toml").unwrap();
                let suite = find(name, folder).unwrap();
                assert_eq!((suite.name.as_str(), suite.kind.folder()), (name, folder), "{folder}/{file}");
            }
        }
        assert_eq!(shipped().unwrap().len(), SHIPPED.len());
    }

    #[test]
    fn a_wrong_name_lists_the_right_ones_and_a_wrong_key_its_line() {
        let text = render(&find("heldot", "preference").unwrap_err());
        assert!(
            text.contains("unknown preference suite `heldot` (known: heldout, heldout-labels, hh-harmless"),
            "{text}"
        );
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

    #[test]
    fn a_key_that_nothing_reads_is_refused_and_so_is_an_answer_that_is_missing() {
        let text_of = |name: &str| show(name).unwrap().remove(0).1;
        let (shp, gsm8k, heldout) = (text_of("shp"), text_of("gsm8k"), text_of("heldout-prompts"));
        let before =
            |text: &str, line: &str| text.replacen("metrics = [", &format!("{line}\nmetrics = ["), 1);
        for (text, says) in [
            (before(&shp, "chat = true"), "`chat` belongs to a generation suite"),
            (before(&shp, "columns = { answer = \"a\" }"), "`columns` belongs to a generation suite"),
            (before(&shp, "decoding = { temperature = 1.0 }"), "`decoding` belongs to a generation suite"),
            (before(&shp, "format = \"trl-paired\""), "`format` stands beside `[pair]`"),
            (shp.replace("{{ history }}", "{{ history"), "template `\n\nHuman: {{ history"),
            (before(&heldout, "chat = true"), "`chat` is for rows of the suite's own"),
            (
                before(
                    &heldout,
                    "few_shot = { split = \"train\", count = 1, template = \"\", separator = \"\" }",
                ),
                "`few_shot` is for rows of the suite's own",
            ),
            (before(&gsm8k, "format = \"trl-paired\""), "`format` belongs to a preference suite"),
            (gsm8k.replace(", answer = \"answer\" }\n", " }\n"), "`columns.answer` is not set"),
            (gsm8k.replace("#### (", "#### (("), "answer rule"),
            (gsm8k.replace("Question: {{ question }}\\nAnswer:\"", "{% if %}\""), "template `{% if %}`"),
        ] {
            let refused = Suite::parse(&text, "t.toml").map(|_| text).unwrap_err();
            assert!(render(&refused).contains(says), "{says}: {}", render(&refused));
        }
    }

    /// The files of the repositories, as their pages list them, less what holds no rows.
    fn repository(source: &str) -> Vec<String> {
        let split = |folder: &str, splits: &[&str]| -> Vec<String> {
            splits.iter().map(|s| format!("{folder}{s}-00000-of-00001.parquet")).collect()
        };
        let list = |files: &[&str]| files.iter().map(|f| (*f).to_owned()).collect();
        match source {
            "Anthropic/hh-rlhf" => {
                ["harmless-base", "helpful-base", "helpful-online", "helpful-rejection-sampled"]
                    .iter()
                    .flat_map(|d| ["test", "train"].map(|s| format!("{d}/{s}.jsonl.gz")))
                    .chain(["red-team-attempts/red_team_attempts.jsonl.gz".to_owned()])
                    .collect()
            }
            "allenai/reward-bench" => split("data/", &["filtered", "raw"]),
            "stanfordnlp/SHP" => ["askacademia", "askculinary", "legaladvice"]
                .iter()
                .flat_map(|d| ["test", "train", "validation"].map(|s| format!("{d}/{s}.json")))
                .collect(),
            "HuggingFaceH4/ultrafeedback_binarized" => split(
                "data/",
                &["test_gen", "test_prefs", "test_sft", "train_gen", "train_prefs", "train_sft"],
            ),
            "tatsu-lab/alpaca_eval" => list(&[
                "alpaca_eval.json",
                "alpaca_eval_all_outputs.json",
                "alpaca_eval_annotations_alpaca_eval_gpt4.json",
                "alpaca_eval_gpt4_baseline.json",
            ]),
            "openai/gsm8k" => {
                [split("main/", &["test", "train"]), split("socratic/", &["test", "train"])].concat()
            }
            "google/IFEval" => list(&["ifeval_input_data.jsonl"]),
            "HuggingFaceH4/mt_bench_prompts" => {
                [list(&["raw/question.jsonl"]), split("data/", &["train"])].concat()
            }
            _ => panic!("{source}: no list of its files here"),
        }
    }

    #[test]
    fn every_suite_finds_its_split_in_the_repository_that_it_names() {
        for ListedSuite { origin, suite } in shipped().unwrap() {
            if ["plan", "world"].contains(&suite.source.as_str()) {
                continue;
            }
            let files = repository(&suite.source);
            let found = |split: &str| pick(&files, &suite.config, split, &suite.source);
            let files = found(&suite.split).unwrap_or_else(|e| panic!("{origin}: {}", render(&e))).files;
            assert_eq!(files.len(), if suite.name == "shp" { 3 } else { 1 }, "{origin}: {files:?}");
            if let Some(few) = &suite.few_shot {
                assert_ne!(found(&few.split).unwrap().files, files, "{origin}");
            }
        }
    }
}
