//! Checkable instructions: the kinds of IFEval (arXiv 2311.07911) that need neither a language detector nor
//! a trained tokenizer, to the definitions of the official code (the regular expressions are the contract).

use std::sync::LazyLock;

use regex::Regex;
use serde_json::Value;

use crate::base::error::{Context, Result, anyhow, bail};

/// An expression that is compiled once.
macro_rules! fixed {
    ($expression:literal) => {{
        static REGEX: LazyLock<Regex> =
            LazyLock::new(|| Regex::new($expression).expect("a valid expression"));
        &*REGEX
    }};
}

/// Kinds of the official registry that are not implemented: they need a language detector (`langdetect`) or
/// NLTK's trained sentence tokenizer.
pub const NOT_IMPLEMENTED: [&str; 3] = [
    "language:response_language",
    "length_constraints:number_sentences",
    "change_case:capital_word_frequency",
];

/// `less than n` or `at least n`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Bound {
    LessThan(usize),
    AtLeast(usize),
}

impl Bound {
    fn holds(self, count: usize) -> bool {
        match self {
            Bound::LessThan(n) => count < n,
            Bound::AtLeast(n) => count >= n,
        }
    }
}

/// One instruction of a prompt, ready to be checked.
#[derive(Clone, Debug)]
pub struct Instruction(Check);

#[derive(Clone, Debug)]
enum Check {
    Keywords(Vec<Regex>),
    KeywordFrequency(Regex, Bound),
    ForbiddenWords(Vec<Regex>),
    LetterFrequency(char, Bound),
    Paragraphs(usize),
    Words(Bound),
    NthParagraphFirstWord { paragraphs: usize, nth: usize, word: String },
    Placeholders(usize),
    Postscript(Regex),
    Bullets(usize),
    OneOfThreeAnswers,
    Highlights(usize),
    Sections(Regex, usize),
    Json,
    Title,
    TwoResponses,
    RepeatPrompt(String),
    EndsWith(String),
    Uppercase,
    Lowercase,
    NoComma,
    Quoted,
}

impl Instruction {
    /// Reads an instruction as the data set has it: its id and its arguments. `None` for a kind that is
    /// [`NOT_IMPLEMENTED`].
    ///
    /// # Errors
    /// On an unknown kind, and on arguments that are missing or of the wrong type.
    pub fn parse(id: &str, arguments: &Value) -> Result<Option<Self>> {
        if NOT_IMPLEMENTED.contains(&id) {
            return Ok(None);
        }
        let args = Arguments(arguments);
        check(id, &args).map(|c| Some(Self(c))).with_context(|| format!("instruction `{id}`"))
    }

    /// Whether the response follows it; an empty response follows nothing.
    pub fn strict(&self, response: &str) -> bool {
        !response.trim().is_empty() && self.0.holds(response)
    }

    /// Whether the response, or it without its first line, its last line or both, each with and without
    /// asterisks, follows it.
    pub fn loose(&self, response: &str) -> bool {
        let lines: Vec<&str> = response.split('\n').collect();
        let n = lines.len();
        let cut =
            |from: usize, to: usize| lines.get(from..to).unwrap_or_default().join("\n").trim().to_owned();
        let variants = [response.to_owned(), cut(1, n), cut(0, n - 1), cut(1, n.saturating_sub(1))];
        variants.iter().any(|v| self.strict(v) || self.strict(&v.replace('*', "")))
    }
}

fn check(id: &str, args: &Arguments) -> Result<Check> {
    Ok(match id {
        "keywords:existence" => Check::Keywords(args.patterns("keywords", |k| k.to_owned())?),
        "keywords:frequency" => Check::KeywordFrequency(
            pattern(args.text("keyword")?.trim()),
            args.bound("relation", "frequency")?,
        ),
        "keywords:forbidden_words" => {
            Check::ForbiddenWords(args.patterns("forbidden_words", |w| format!(r"\b{w}\b"))?)
        }
        "keywords:letter_frequency" => {
            let letter = args.text("letter")?.to_lowercase();
            let letter = letter.trim().chars().next().ok_or_else(|| anyhow!("`letter` is empty"))?;
            Check::LetterFrequency(letter, args.bound("let_relation", "let_frequency")?)
        }
        "length_constraints:number_paragraphs" => Check::Paragraphs(args.count("num_paragraphs")?),
        "length_constraints:number_words" => Check::Words(args.bound("relation", "num_words")?),
        "length_constraints:nth_paragraph_first_word" => Check::NthParagraphFirstWord {
            paragraphs: args.count("num_paragraphs")?,
            nth: args.count("nth_paragraph")?,
            word: args.text("first_word")?.to_lowercase(),
        },
        "detectable_content:number_placeholders" => Check::Placeholders(args.count("num_placeholders")?),
        "detectable_content:postscript" => {
            Check::Postscript(postscript(args.text("postscript_marker")?.trim()))
        }
        "detectable_format:number_bullet_lists" => Check::Bullets(args.count("num_bullets")?),
        "detectable_format:constrained_response" => Check::OneOfThreeAnswers,
        "detectable_format:number_highlighted_sections" => Check::Highlights(args.count("num_highlights")?),
        "detectable_format:multiple_sections" => {
            let word = args.text("section_spliter")?.trim().to_owned();
            Check::Sections(compile(&format!(r"\s?{word}\s?\d+\s?"), &word), args.count("num_sections")?)
        }
        "detectable_format:json_format" => Check::Json,
        "detectable_format:title" => Check::Title,
        "combination:two_responses" => Check::TwoResponses,
        "combination:repeat_prompt" => {
            Check::RepeatPrompt(args.text("prompt_to_repeat")?.trim().to_lowercase())
        }
        "startend:end_checker" => Check::EndsWith(args.text("end_phrase")?.trim().to_lowercase()),
        "startend:quotation" => Check::Quoted,
        "change_case:english_capital" => Check::Uppercase,
        "change_case:english_lowercase" => Check::Lowercase,
        "punctuation:no_comma" => Check::NoComma,
        _ => bail!("unknown kind (the kinds of google/IFEval are known)"),
    })
}

impl Check {
    fn holds(&self, response: &str) -> bool {
        match self {
            Check::Keywords(words) => words.iter().all(|w| w.is_match(response)),
            Check::KeywordFrequency(word, bound) => bound.holds(word.find_iter(response).count()),
            Check::ForbiddenWords(words) => !words.iter().any(|w| w.is_match(response)),
            Check::LetterFrequency(letter, bound) => {
                bound.holds(response.to_lowercase().chars().filter(|c| c == letter).count())
            }
            Check::Paragraphs(n) => divided_paragraphs(response) == Some(*n),
            Check::Words(bound) => bound.holds(count(fixed!(r"\w+"), response)),
            Check::NthParagraphFirstWord { paragraphs, nth, word } => {
                nth_paragraph_first_word(response, *nth) == Some((*paragraphs, word.clone()))
            }
            Check::Placeholders(n) => count(fixed!(r"\[.*?\]"), response) >= *n,
            Check::Postscript(marker) => marker.is_match(&response.to_lowercase()),
            Check::Bullets(n) => {
                count(fixed!(r"(?m)^\s*\*[^\*].*$"), response) + count(fixed!(r"(?m)^\s*-.*$"), response)
                    == *n
            }
            Check::OneOfThreeAnswers => ["yes", "no", "maybe"]
                .iter()
                .any(|answer| response.contains(&format!("My answer is {answer}."))),
            Check::Highlights(n) => highlights(response) >= *n,
            Check::Sections(splitter, n) => splitter.find_iter(response).count() >= *n,
            Check::Json => is_json(response),
            Check::Title => fixed!(r"<<[^\n]+>>")
                .find_iter(response)
                .map(|m| m.as_str())
                .any(|t| !t.trim_start_matches('<').trim_end_matches('>').trim().is_empty()),
            Check::TwoResponses => two_responses(response),
            Check::RepeatPrompt(prompt) => response.trim().to_lowercase().starts_with(prompt),
            Check::EndsWith(phrase) => response.trim().trim_matches('"').to_lowercase().ends_with(phrase),
            Check::Uppercase => cased(response, char::is_lowercase),
            Check::Lowercase => cased(response, char::is_uppercase),
            Check::NoComma => !response.contains(','),
            Check::Quoted => {
                let r = response.trim();
                r.chars().count() > 1 && r.starts_with('"') && r.ends_with('"')
            }
        }
    }
}

/// A keyword is a regular expression where it can be one (as in the official code), else plain text.
fn compile(source: &str, fallback: &str) -> Regex {
    let literal = || Regex::new(&regex::escape(fallback)).expect("an escaped literal is a valid expression");
    Regex::new(source).unwrap_or_else(|_| literal())
}

fn pattern(keyword: &str) -> Regex {
    compile(&format!("(?i){keyword}"), keyword)
}

fn postscript(marker: &str) -> Regex {
    match marker {
        "P.P.S" => compile(r"(?m)\s*p\.\s?p\.\s?s.*$", marker),
        "P.S." => compile(r"(?m)\s*p\.\s?s\..*$", marker),
        other => compile(&format!(r"(?m)\s*{}.*$", other.to_lowercase()), &other.to_lowercase()),
    }
}

fn count(regex: &Regex, text: &str) -> usize {
    regex.find_iter(text).count()
}

/// Paragraphs between `***` dividers; `None` where an inner one is empty.
fn divided_paragraphs(response: &str) -> Option<usize> {
    let parts: Vec<&str> = fixed!(r"\s?\*\*\*\s?").split(response).collect();
    let last = parts.len() - 1;
    let empty = |i: &usize| parts[*i].trim().is_empty();
    if (1..last).any(|i| empty(&i)) {
        return None;
    }
    Some(parts.len() - [0, last].iter().filter(|i| empty(i)).count())
}

/// Paragraphs (separated by blank lines, empty ones not counted), and the first word of the nth.
fn nth_paragraph_first_word(response: &str, nth: usize) -> Option<(usize, String)> {
    let parts: Vec<&str> = response.split("\n\n").collect();
    let count = parts.iter().filter(|p| !p.trim().is_empty()).count();
    if nth == 0 || nth > count {
        return None;
    }
    // The official code indexes the parts with the empty ones still in.
    let word = parts[nth - 1].split_whitespace().next()?;
    let word = word.trim_start_matches('\'').trim_start_matches('"');
    let end = word.find(['.', ',', '?', '!', '\'', '"']).unwrap_or(word.len());
    Some((count, word[..end].to_lowercase()))
}

fn highlights(response: &str) -> usize {
    let single = fixed!(r"\*[^\n\*]*\*")
        .find_iter(response)
        .map(|m| m.as_str())
        .filter(|m| !m.trim_matches('*').trim().is_empty())
        .count();
    let double = fixed!(r"\*\*[^\n\*]*\*\*")
        .find_iter(response)
        .map(|m| m.as_str())
        .filter(|m| !m[2..m.len() - 2].trim().is_empty())
        .count();
    single + double
}

fn is_json(response: &str) -> bool {
    let mut text = response.trim();
    for prefix in ["```json", "```Json", "```JSON", "```"] {
        text = text.strip_prefix(prefix).unwrap_or(text);
    }
    let text = text.strip_suffix("```").unwrap_or(text).trim();
    serde_json::from_str::<Value>(text).is_ok()
}

fn two_responses(response: &str) -> bool {
    let parts: Vec<&str> = response.split("******").collect();
    let last = parts.len() - 1;
    if (1..last).any(|i| parts[i].trim().is_empty()) {
        return false;
    }
    let given: Vec<&str> = parts.iter().map(|p| p.trim()).filter(|p| !p.is_empty()).collect();
    given.len() == 2 && given[0] != given[1]
}

/// Has letters with a case, and none that `wrong` names (Python's `isupper` and `islower`).
fn cased(response: &str, wrong: fn(char) -> bool) -> bool {
    !response.chars().any(wrong) && response.chars().any(|c| c.is_uppercase() || c.is_lowercase())
}

/// The arguments of an instruction; `null` is the same as absent.
struct Arguments<'a>(&'a Value);

impl Arguments<'_> {
    fn text(&self, name: &str) -> Result<&str> {
        self.0.get(name).and_then(Value::as_str).ok_or_else(|| anyhow!("argument `{name}` must be a string"))
    }

    fn count(&self, name: &str) -> Result<usize> {
        // Some copies of the data hold counts as floats.
        let value = self.0.get(name).and_then(Value::as_f64).filter(|v| *v >= 0.0 && v.fract() == 0.0);
        value.map(|v| v as usize).ok_or_else(|| anyhow!("argument `{name}` must be a count"))
    }

    fn bound(&self, relation: &str, count: &str) -> Result<Bound> {
        let n = self.count(count)?;
        match self.text(relation)? {
            "less than" => Ok(Bound::LessThan(n)),
            "at least" => Ok(Bound::AtLeast(n)),
            other => bail!("argument `{relation}` is `{other}` (known: less than, at least)"),
        }
    }

    fn patterns(&self, name: &str, wrap: impl Fn(&str) -> String) -> Result<Vec<Regex>> {
        let list = self.0.get(name).and_then(Value::as_array);
        let list = list.ok_or_else(|| anyhow!("argument `{name}` must be a list of strings"))?;
        let text = |v: &Value| v.as_str().map(|w| pattern(&wrap(w)));
        list.iter()
            .map(text)
            .collect::<Option<_>>()
            .ok_or_else(|| anyhow!("`{name}` holds something else than strings"))
    }
}
