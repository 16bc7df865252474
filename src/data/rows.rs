//! From a row of JSON to an example, in each of the known forms.

use serde_json::{Map, Value, json};

use crate::base::error::{Context, HintExt, Result, anyhow, bail};
use crate::plan::DataFormat;

use super::template::Template;
use super::types::{PreferencePair, UnpairedExample};

/// What a row turned out to be.
#[derive(Debug, PartialEq)]
pub enum Example {
    Pair(PreferencePair),
    Unpaired(UnpairedExample),
    /// The two transcripts are not about the same prompt.
    PromptsDiffer,
}

/// Reads `row` as `format`; conversations are rendered with `template`. The example's id is the row's own
/// (`id`), or `place`.
pub fn parse(row: &Value, format: DataFormat, template: &Template, place: String) -> Result<Example> {
    let Value::Object(row) = row else { bail!("a row must be an object, found {}", kind(row)) };
    let id = own_id(row)?.unwrap_or(place);
    let subset = match row.get("subset") {
        None | Some(Value::Null) => String::new(),
        Some(Value::String(s)) => s.clone(),
        Some(other) => bail!("`subset` must be a string, found {}", kind(other)),
    };
    let pair = |[prompt, chosen, rejected]: [String; 3]| {
        Example::Pair(PreferencePair { id: id.clone(), prompt, chosen, rejected, subset: subset.clone() })
    };
    Ok(match format {
        DataFormat::Auto => bail!("the form of the rows was not settled before reading"),
        DataFormat::HhTranscript => transcript(row)?.map_or(Example::PromptsDiffer, pair),
        DataFormat::TrlPaired => pair(explicit(row, template)?),
        DataFormat::TrlPairedImplicit => pair(implicit(row, template)?),
        DataFormat::TrlUnpaired => {
            let desirable = label(row)?;
            let [prompt, completion] = prompted(row, ["completion"], template)?;
            Example::Unpaired(UnpairedExample { id, prompt, completion, desirable, subset })
        }
        DataFormat::TrlPromptCompletion | DataFormat::TrlMessages => {
            if row.contains_key("label") {
                bail!("the row has a `label`, and the form of these rows has none: all are desirable");
            }
            let [prompt, completion] = match format {
                DataFormat::TrlMessages => conversation(row, template)?,
                _ => prompted(row, ["completion"], template)?,
            };
            Example::Unpaired(UnpairedExample { id, prompt, completion, desirable: true, subset })
        }
    })
}

/// HH: the prompt is everything up to and including the last `\n\nAssistant:`.
fn transcript(row: &Map<String, Value>) -> Result<Option<[String; 3]>> {
    let split = |key: &str| -> Result<(&str, &str)> {
        const TURN: &str = "\n\nAssistant:";
        let text = string(row, key)?;
        let at = text.rfind(TURN).ok_or_else(|| anyhow!("`{key}` has no \"\\n\\nAssistant:\" turn"))?;
        Ok(text.split_at(at + TURN.len()))
    };
    let ((prompt, chosen), (other, rejected)) = (split("chosen")?, split("rejected")?);
    Ok((prompt == other).then(|| [prompt, chosen, rejected].map(str::to_owned)))
}

/// TRL: `prompt`, `chosen`, `rejected`.
fn explicit(row: &Map<String, Value>, template: &Template) -> Result<[String; 3]> {
    prompted(row, ["chosen", "rejected"], template)
}

/// `prompt` and n completions, as text: `[prompt, completions…]` with M = n + 1.
fn prompted<const N: usize, const M: usize>(
    row: &Map<String, Value>,
    keys: [&str; N],
    template: &Template,
) -> Result<[String; M]> {
    let texts = match text(row, "prompt")? {
        Text::Plain(prompt) => {
            let mut texts = vec![prompt.to_owned()];
            for key in keys {
                match text(row, key)? {
                    Text::Plain(completion) => texts.push(completion.to_owned()),
                    Text::Chat(_) => {
                        bail!("`prompt` is a string and `{key}` a list of messages: both must be the same")
                    }
                }
            }
            texts
        }
        Text::Chat(prompt) => {
            let mut completions = Vec::new();
            for key in keys {
                completions.push(match text(row, key)? {
                    Text::Chat(messages) => messages.to_vec(),
                    Text::Plain(reply) => vec![json!({"role": "assistant", "content": reply})],
                });
            }
            render(prompt, &completions, template)?
        }
    };
    texts.try_into().map_err(|_| anyhow!("a row has a prompt and {N} completions"))
}

/// `messages`: the last one, which is the assistant's, and what stands before it.
fn conversation(row: &Map<String, Value>, template: &Template) -> Result<[String; 2]> {
    let Text::Chat(messages) = text(row, "messages")? else { bail!("`messages` must be a list of messages") };
    match messages.split_last() {
        Some((last, prompt)) if !prompt.is_empty() && last["role"] == "assistant" => {
            let texts = render(prompt, &[vec![last.clone()]], template)?;
            texts.try_into().map_err(|_| anyhow!("a conversation has a prompt and a completion"))
        }
        _ => bail!("`messages` must end in a message of the assistant that answers another one"),
    }
}

/// TRL: `chosen` and `rejected` share their beginning, which is the prompt.
fn implicit(row: &Map<String, Value>, template: &Template) -> Result<[String; 3]> {
    match (text(row, "chosen")?, text(row, "rejected")?) {
        (Text::Plain(chosen), Text::Plain(rejected)) => {
            let at = shared_text(chosen, rejected);
            Ok([&chosen[..at], &chosen[at..], &rejected[at..]].map(str::to_owned))
        }
        (Text::Chat(chosen), Text::Chat(rejected)) => {
            let same = chosen.iter().zip(rejected).take_while(|(a, b)| a == b).count();
            // Where one conversation is the beginning of the other, its last message is a completion.
            let at = same.min(chosen.len().min(rejected.len()) - 1);
            if at == 0 {
                bail!("`chosen` and `rejected` have no message in common, so there is no prompt");
            }
            let completions = [chosen[at..].to_vec(), rejected[at..].to_vec()];
            let texts = render(&chosen[..at], &completions, template)?;
            texts.try_into().map_err(|_| anyhow!("a pair has a prompt and two completions"))
        }
        _ => bail!("`chosen` and `rejected` must both be strings or both be lists of messages"),
    }
}

/// Where the texts part, in bytes; a space before that point belongs to the completions. TRL's rule, which leaves the
/// space to the prompt where one text is the beginning of the other.
fn shared_text(a: &str, b: &str) -> usize {
    let mut parts = a.char_indices().zip(b.chars()).find(|((_, x), y)| x != y).map(|((i, _), _)| i);
    if parts.is_none() {
        // One is a prefix of the other: the completions begin with the last shared character, so that neither is empty.
        let shorter = if a.len() <= b.len() { a } else { b };
        parts = shorter.char_indices().next_back().map(|(i, _)| i);
    }
    let at = parts.unwrap_or(0);
    if a[..at].ends_with(' ') { at - 1 } else { at }
}

/// A conversation as text: the prompt with the generation prompt, and what each completion adds to it.
fn render(prompt: &[Value], completions: &[Vec<Value>], template: &Template) -> Result<Vec<String>> {
    let answered = prompt.last().is_some_and(|m| m["role"] == "assistant");
    let mut opening = template.render(prompt, !answered)?;
    let mut whole = Vec::new();
    for completion in completions {
        let messages: Vec<Value> = prompt.iter().chain(completion).cloned().collect();
        whole.push(template.render(&messages, false)?);
    }
    // A template may write the generation prompt otherwise than the turn that follows it (an empty
    // reasoning block, say); the prompt is what they have in common.
    for text in &whole {
        let same =
            opening.chars().zip(text.chars()).take_while(|(a, b)| a == b).map(|(c, _)| c.len_utf8()).sum();
        opening.truncate(same);
    }
    let completions: Vec<String> = whole.iter().map(|text| text[opening.len()..].to_owned()).collect();
    Ok(std::iter::once(opening).chain(completions).collect())
}

/// A column that is plain text or a conversation.
enum Text<'a> {
    Plain(&'a str),
    Chat(&'a [Value]),
}

fn text<'a>(row: &'a Map<String, Value>, key: &str) -> Result<Text<'a>> {
    match row.get(key) {
        Some(Value::String(text)) => Ok(Text::Plain(text)),
        Some(Value::Array(messages)) => {
            check_messages(messages).with_context(|| format!("`{key}`"))?;
            Ok(Text::Chat(messages))
        }
        Some(other) => bail!("`{key}` must be a string or a list of messages, found {}", kind(other)),
        None => Err(missing(row, key)),
    }
}

fn string<'a>(row: &'a Map<String, Value>, key: &str) -> Result<&'a str> {
    match row.get(key) {
        Some(Value::String(text)) => Ok(text),
        Some(other) => bail!("`{key}` must be a string, found {}", kind(other)),
        None => Err(missing(row, key)),
    }
}

fn label(row: &Map<String, Value>) -> Result<bool> {
    match row.get("label") {
        Some(Value::Bool(label)) => Ok(*label),
        // What tables without truth values have for them; TRL takes these too.
        Some(Value::Number(label)) if label.as_f64() == Some(1.0) => Ok(true),
        Some(Value::Number(label)) if label.as_f64() == Some(0.0) => Ok(false),
        Some(other) => Err(anyhow!("`label` must be true or false, or 1 or 0, found {}", kind(other)))
            .hint("true: the completion is desirable; false: it is not"),
        None => Err(missing(row, "label")),
    }
}

fn own_id(row: &Map<String, Value>) -> Result<Option<String>> {
    match row.get("id") {
        None | Some(Value::Null) => Ok(None),
        Some(Value::String(id)) => Ok(Some(id.clone())),
        Some(Value::Number(id)) => Ok(Some(id.to_string())),
        Some(other) => bail!("`id` must be a string or a number, found {}", kind(other)),
    }
}

fn check_messages(messages: &[Value]) -> Result<()> {
    if messages.is_empty() {
        bail!("a conversation needs at least one message");
    }
    for (i, message) in messages.iter().enumerate() {
        for key in ["role", "content"] {
            match message.get(key) {
                Some(Value::String(_)) => {}
                // An assistant's tool call has no content of its own.
                Some(Value::Null) | None if key == "content" && message.get("tool_calls").is_some() => {}
                Some(other) => bail!("message {i}: `{key}` must be a string, found {}", kind(other)),
                None => bail!("message {i} has no `{key}` (a message is {{\"role\": …, \"content\": …}})"),
            }
        }
    }
    Ok(())
}

fn missing(row: &Map<String, Value>, key: &str) -> anyhow::Error {
    let columns: Vec<&str> = row.keys().map(String::as_str).collect();
    anyhow!("no column `{key}` (the row has `{}`)", columns.join("`, `"))
}

/// A value as an error names it; long ones are cut.
fn kind(value: &Value) -> String {
    let name = match value {
        Value::Null => return "null".to_owned(),
        Value::Bool(_) => "the boolean",
        Value::Number(_) => "the number",
        Value::String(_) => "the string",
        Value::Array(_) => return "a list".to_owned(),
        Value::Object(_) => return "an object".to_owned(),
    };
    let text: String = value.to_string().chars().take(40).collect();
    format!("{name} {text}")
}
