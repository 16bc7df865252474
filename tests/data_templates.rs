//! Chat templates against Jinja2 as transformers sets it up: `tests/templates/make.py` made the golden file.

use kto_eval::base::error::render;
use kto_eval::data::Template;
use serde_json::Value;

#[test]
fn constructs_of_chat_templates_render_as_in_jinja2() {
    let cases: Vec<Value> = serde_json::from_str(include_str!("templates/golden.json")).unwrap();
    assert!(cases.len() >= 12);
    assert_eq!(wrong(&cases), "");
}

/// What differs from the expected texts, as a report; empty where nothing does.
fn wrong(cases: &[Value]) -> String {
    let mut wrong = Vec::new();
    for case in cases {
        let messages = case["messages"].as_array().unwrap();
        let template = Template::parse(case["template"].as_str().unwrap(), "<s>", "</s>", "test");
        for (key, prompt) in [("without_prompt", false), ("with_prompt", true)] {
            let mine = match &template {
                Ok(template) => template.render(messages, prompt).map_err(|e| render(&e)),
                Err(error) => Err(render(error)),
            };
            let same = match (&mine, case[key].as_str()) {
                (Ok(text), Some(expected)) => text == expected,
                (Err(error), None) => error.contains(case["error"].as_str().unwrap()),
                _ => false,
            };
            if !same {
                let expected = &case[key];
                wrong.push(format!("{} {key}\n  mine:     {mine:?}\n  expected: {expected:?}", case["name"]));
            }
        }
    }
    wrong.join("\n")
}

/// `pip install trl transformers`, then `KTO_EVAL_PYTHON=…/python cargo test --test data_templates -- --ignored`.
#[test]
#[ignore = "needs Python with trl and transformers (see the comment above it)"]
fn every_template_that_trl_ships_renders_as_in_transformers() {
    let python = std::env::var("KTO_EVAL_PYTHON").unwrap_or_else(|_| "python3".to_owned());
    let script = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/templates/shipped_by_trl.py");
    let done = std::process::Command::new(python).arg(script).output().unwrap();
    assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
    let cases: Vec<Value> = serde_json::from_slice(&done.stdout).unwrap();
    assert!(cases.len() >= 30, "{} cases", cases.len());
    let wrong = wrong(&cases);
    println!("{} conversations under TRL's templates", cases.len());
    assert_eq!(wrong, "");
}

#[test]
fn a_template_that_does_not_parse_shows_its_line() {
    let error =
        Template::parse("{{ bos_token }}\n{% for m in messages %}\n{{ m.content }\n", "", "", "x.jinja");
    let text = render(&error.unwrap_err());
    assert!(text.contains("chat template (x.jinja), line 3"), "{text}");
    assert!(text.contains("the line reads: {{ m.content }"), "{text}");
}

#[test]
fn a_missing_field_is_an_error_and_not_silence() {
    let template = Template::parse("{{ messages[0].content.parts[0] }}", "", "", "x.jinja").unwrap();
    let messages = [serde_json::json!({"role": "user", "content": "hi"})];
    let text = render(&template.render(&messages, false).unwrap_err());
    assert!(text.contains("line 1"), "{text}");
}

#[test]
fn the_date_is_today_s() {
    let template = Template::parse("{{ strftime_now('%Y') }}", "", "", "x.jinja").unwrap();
    let year: i32 = template.render(&[], false).unwrap().parse().unwrap();
    assert!((2024..2200).contains(&year));
}
