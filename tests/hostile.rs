//! Model folders and data that mean harm: they cannot write outside the folders that they were given, run anything, read
//! the environment, or fill the memory.
#![cfg(unix)]

mod cli;

use std::collections::BTreeMap;
use std::io::Write;
use std::path::Path;

use cli::Place;
use flate2::Compression;
use flate2::write::GzEncoder;
use kto_eval::base::error::render;
use kto_eval::data::Template;
use serde_json::{Value, json};

/// Every file below, with its size and a hash of its bytes; without the folders that are named.
fn snapshot(dir: &Path, without: &[&str]) -> BTreeMap<String, String> {
    let mut found = BTreeMap::new();
    let mut folders = vec![dir.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(&folder).unwrap().map(Result::unwrap) {
            let (path, kind) = (entry.path(), entry.file_type().unwrap());
            let name = path.strip_prefix(dir).unwrap().display().to_string();
            if without.contains(&name.as_str()) {
                continue;
            }
            let what = match kind {
                _ if kind.is_dir() => "folder".to_owned(),
                _ if kind.is_symlink() => format!("link to {}", std::fs::read_link(&path).unwrap().display()),
                _ => kto_eval::base::hash::Hasher::new("").part(&std::fs::read(&path).unwrap()).hex(),
            };
            if kind.is_dir() {
                folders.push(path);
            }
            found.insert(name, what);
        }
    }
    found
}

/// Compares with what lies in the folder, which must be refused with these words and leave all else as it was.
#[track_caller]
fn refused(place: &Place, says: &[&str]) {
    let before = snapshot(place.dir(), &["out", "cache"]);
    let ran = place.run(&["compare", "plan.toml", "--out", "out", "--threads", "1"]);
    ran.fails(2, says);
    assert_eq!(snapshot(place.dir(), &["out", "cache"]), before, "something was written elsewhere");
}

fn index(place: &Place, shard: &str) {
    let map = json!({"weight_map": {"model.embed_tokens.weight": shard}});
    place.write("model/model.safetensors.index.json", &map.to_string());
    let _ = std::fs::remove_file(place.path("model/model.safetensors"));
}

#[test]
fn weights_lie_in_the_models_own_folder() {
    let place = Place::new();
    std::fs::copy(place.path("model/model.safetensors"), place.path("outside.safetensors")).unwrap();
    let absolute = place.path("outside.safetensors").display().to_string();
    for shard in ["../outside.safetensors", &absolute, "..", "", "sub/../../outside.safetensors"] {
        index(&place, shard);
        refused(&place, &["is no name of a file in the folder"]);
    }
}

/// A safetensors file with this header and no data.
fn header(tensors: &Value) -> Vec<u8> {
    let text = tensors.to_string();
    [&(text.len() as u64).to_le_bytes()[..], text.as_bytes()].concat()
}

#[test]
fn sizes_that_no_file_holds_are_refused_before_they_are_asked_for() {
    let place = Place::new();
    let huge = 1u64 << 40;
    for (tensors, says) in [
        (json!({"a": {"dtype": "F32", "shape": [huge, huge], "data_offsets": [0, 8]}}), "model.safetensors"),
        (json!({"a": {"dtype": "F32", "shape": [huge], "data_offsets": [0, huge * 4]}}), "model.safetensors"),
        (json!({"a": {"dtype": "F32", "shape": [2], "data_offsets": [u64::MAX, 8]}}), "model.safetensors"),
    ] {
        std::fs::write(place.path("model/model.safetensors"), header(&tensors)).unwrap();
        refused(&place, &[says, "hint:"]);
    }
    std::fs::write(place.path("model/model.safetensors"), u64::MAX.to_le_bytes()).unwrap();
    refused(&place, &["model.safetensors"]);

    let place = Place::new();
    let config: Value = serde_json::from_str(&place.read("model/config.json")).unwrap();
    for (key, value, says) in [
        ("num_hidden_layers", json!(u64::MAX), "at most 100000"),
        ("hidden_size", json!(u64::MAX), "at most 1073741824"),
        ("vocab_size", json!(u64::MAX), "at most 1073741824"),
        ("num_attention_heads", json!(1 << 30), "heads of width"),
        ("num_hidden_layers", json!(99_999), "is missing"),
    ] {
        let mut changed = config.clone();
        changed[key] = value;
        if key == "num_attention_heads" {
            changed["head_dim"] = json!(1 << 20);
        }
        place.write("model/config.json", &changed.to_string());
        refused(&place, &[says]);
    }
}

#[test]
fn an_adapter_cannot_name_a_place_to_write_to() {
    let place = Place::new();
    std::fs::remove_file(place.path("model/config.json")).unwrap();
    for base in ["../../../etc", "/nowhere/at/all", "a/../../b", "https://example.org/x", "$(touch pwned)"] {
        let config = json!({"peft_type": "LORA", "base_model_name_or_path": base, "r": 2, "target_modules": ["q_proj"]});
        place.write("model/adapter_config.json", &config.to_string());
        refused(&place, &["hint:"]);
    }
}

#[test]
fn names_in_a_plan_are_no_paths() {
    let place = Place::new();
    let plan = place.read("plan.toml");
    for name in ["../evil", "/tmp/evil", "a/b", "..", "a\\\\b"] {
        place.write(
            "plan.toml",
            &plan.replacen("method = \"sft\"", &format!("method = \"sft\"\nname = \"{name}\""), 1),
        );
        refused(&place, &["an arm's name is made of letters, digits"]);
    }
    // A plan's name is a folder's below `out`, whatever it is called.
    for (name, folder) in [("../../evil", "..-..-evil"), ("..", "--"), ("/evil", "-evil")] {
        place.write("plan.toml", &plan.replace("name = \"tiny\"", &format!("name = \"{name}\"")));
        let before = snapshot(place.dir(), &["out", "cache"]);
        place.run(&["compare", "plan.toml", "--threads", "1"]).succeeds();
        assert!(place.path("out").join(folder).join("runs.csv").exists(), "{name}");
        assert_eq!(snapshot(place.dir(), &["out", "cache"]), before);
    }
    for name in ["../evil", "/tmp/evil", ".hidden", ""] {
        let ran = place.run(&["baseline", "save", "out/..-..-evil", "--name", name]);
        ran.fails(2, &["no name for a baseline"]);
    }
}

#[test]
fn links_within_an_output_folder_lead_nothing_out_of_it() {
    let place = Place::new();
    std::fs::create_dir_all(place.path("elsewhere/keep")).unwrap();
    place.write("elsewhere/keep/step-1.safetensors", "mine");
    place.write("elsewhere/keep/x.svg", "mine");
    std::fs::create_dir(place.path("out")).unwrap();
    for link in [".checkpoints", "shards"] {
        std::os::unix::fs::symlink(place.path("elsewhere"), place.path("out").join(link)).unwrap();
    }
    let before = snapshot(&place.path("elsewhere"), &[]);
    let arguments = ["compare", "plan.toml", "--out", "out", "--threads", "1", "--force"];
    place.run(&arguments).succeeds();
    assert_eq!(snapshot(&place.path("elsewhere"), &[]), before, "--force follows no link");
}

fn rendered(source: &str) -> Result<String, String> {
    let template = Template::parse(source, "<s>", "</s>", "hostile").map_err(|e| render(&e))?;
    template.render(&[json!({"role": "user", "content": "hi"})], true).map_err(|e| render(&e))
}

#[test]
fn a_chat_template_sees_messages_and_nothing_else() {
    // What stands in every process's environment, and what a file holds.
    let path = std::env::var("PATH").unwrap();
    for source in [
        "{{ env }}{{ environ }}{{ os }}{{ self }}{{ PATH }}",
        "{{ env('PATH') }}",
        "{{ os.environ['PATH'] }}",
        "{{ ''.__class__.__mro__[1].__subclasses__() }}",
        "{{ messages.__class__.__init__.__globals__ }}",
        "{{ cycler.__init__.__globals__.os.popen('id').read() }}",
        "{{ lipsum.__globals__['os'].popen('id').read() }}",
        "{% include '/etc/passwd' %}",
        "{% import '/etc/passwd' as x %}{{ x }}",
        "{% extends '../../../etc/passwd' %}",
        "{{ open('/etc/passwd').read() }}",
        "{{ get_flashed_messages() }}{{ url_for('x') }}{{ config }}",
        "{{ debug() }}",
    ] {
        if let Ok(text) = rendered(source) {
            assert!(!text.contains(&path) && !text.contains("root:"), "{source} gives {text}");
            assert!(!text.contains("uid=") && !text.contains("subclasses"), "{source} gives {text}");
        }
    }
}

#[test]
fn a_chat_template_comes_to_an_end() {
    for source in [
        "{% for i in range(99999) %}{% for j in range(99999) %}{% endfor %}{% endfor %}",
        "{% set ns = namespace(s='xxxxxxxx') %}{% for i in range(60) %}{% set ns.s = ns.s ~ ns.s %}{% endfor %}{{ ns.s }}",
        "{% set ns = namespace(s='xxxxxxxx') %}{% for i in range(60) %}{% set ns.s = ns.s.replace('x', 'xxxx') %}{% endfor %}",
        "{% macro f(x) %}{{ f(x) }}{% endmacro %}{{ f(1) }}",
        "{{ messages | tojson(indent=999999999999) }}",
        "{{ ('x' * 9999999).join(range(9999)) }}",
    ] {
        let error = rendered(source).expect_err(source);
        assert!(error.contains("chat template (hostile)"), "{error}");
    }
    // What templates do is far from the limit.
    let long =
        "{% for i in range(2000) %}{% for m in messages %}{{ m.content | trim }} {% endfor %}{% endfor %}";
    assert_eq!(rendered(long).unwrap().len(), 6000);
}

/// The program on a model whose chat template this is, and on a conversation.
fn inspected(template: &str) -> cli::Ran {
    let place = Place::new();
    place.write("model/chat_template.jinja", template);
    let row = json!({"prompt": [{"role": "user", "content": "hi"}], "chosen": [{"role": "assistant", "content": "a"}],
                     "rejected": [{"role": "assistant", "content": "b"}]});
    place.write("chats.jsonl", &format!("{row}\n"));
    place.run(&["data", "inspect", "chats.jsonl", "--model", "model"])
}

#[test]
fn a_chat_template_fills_neither_memory_nor_stack() {
    let grow = |with: &str| {
        format!(
            "{{% set ns = namespace(l=[1]) %}}{{% for i in range(60) %}}{{% set ns.l = {with} %}}{{% endfor %}}"
        )
    };
    let folded = format!("{{{{ ({}) | length }}}}", ["[0] * 100000000"; 40].join(" + "));
    for (source, says) in [
        (grow("ns.l + ns.l"), "takes more than"),
        // Made while the template is compiled.
        (folded, "takes more than"),
        ("{{ 'x' * 9999999 }}".repeat(40), "fuel"),
        ("{{ [0] * 99999999 }}".to_owned(), "takes more than"),
        // Values that hold one another: small, and without end where they are shown.
        (grow("[ns.l, ns.l]") + "{{ ns.l }}", "takes more than"),
        (grow("[ns.l, ns.l]") + "{{ ns.l ~ '' }}", "takes more than"),
        (grow("[ns.l, ns.l]") + "{{ ns.l | tojson }}", "takes more than"),
        (grow("[ns.l, ns.l]") + &grow("[ns.l, ns.l]").replace("ns", "other") + "{{ ns.l == other.l }}", "takes more than"),
        (
            "{% set ns = namespace(l=[]) %}{% for i in range(20) %}{% for i in range(9999) %}{% set ns.l = [ns.l] %}{% endfor %}{% endfor %}"
                .to_owned(),
            "nests values deeper than the stack",
        ),
    ] {
        let ran = inspected(&source);
        let short: String = source.chars().take(120).collect();
        assert!(ran.err.contains(says), "{short}\n{}", ran.err);
        ran.fails(2, &["chat template (", "chat_template.jinja"]);
    }
    // A template that means no harm is rendered.
    let ran = inspected("{% for m in messages %}<{{ m.role }}>{{ m.content }}{{ eos_token }}{% endfor %}");
    assert!(
        ran.succeeds().contains("rendered with the chat template model/chat_template.jinja"),
        "{}",
        ran.out
    );
    // What a process would have said of a line, it says through the pipe.
    inspected("{{ bos_token }}\n{{ raise_exception('no such role') }}")
        .fails(2, &["line 2: no such role", "hint: the line reads: {{ raise_exception('no such role') }}"]);
    inspected("{{ bos_token }}\n{% if %}").fails(2, &["line 2", "hint: the line reads: {% if %}"]);
}

#[test]
fn the_process_of_a_template_answers_until_its_input_ends() {
    let place = Place::empty();
    let mut command = place.command(&["--render-a-chat-template"]);
    command.stdin(std::process::Stdio::piped());
    let mut child = command.stdout(std::process::Stdio::piped()).spawn().unwrap();
    let opening = json!({"source": "{{ messages | length }}", "bos": "", "eos": "", "origin": "x"});
    let request = json!({"messages": [{"role": "user", "content": "hi"}], "add_generation_prompt": false});
    child.stdin.take().unwrap().write_all(format!("{opening}\n{request}\nno JSON\n").as_bytes()).unwrap();
    let done = child.wait_with_output().unwrap();
    assert!(done.status.success());
    let replies = String::from_utf8(done.stdout).unwrap();
    let replies: Vec<Value> = replies.lines().map(|l| serde_json::from_str(l).unwrap()).collect();
    assert_eq!(replies[..2], [json!({"Text": ""}), json!({"Text": "1"})]);
    assert!(replies[2]["Error"].is_string() && replies.len() == 3);
}

/// A gzip file that unpacks to `rows` of a MiB each.
fn bomb(path: &Path, open: &str, between: &str, rows: usize) {
    let mut file = GzEncoder::new(std::fs::File::create(path).unwrap(), Compression::fast());
    let long = "a".repeat(1 << 20);
    file.write_all(open.as_bytes()).unwrap();
    for i in 0..rows {
        let row = json!({"prompt": i.to_string(), "chosen": long, "rejected": "b"}).to_string();
        file.write_all((row + between).as_bytes()).unwrap();
    }
    file.finish().unwrap();
}

#[test]
fn what_unpacks_without_end_is_refused_before_the_memory_is_full() {
    let place = Place::empty();
    bomb(&place.path("lines.jsonl.gz"), "", "\n", 400);
    bomb(&place.path("array.json.gz"), "[", ",", 400);
    // One element, one line, without an end.
    let mut one =
        GzEncoder::new(std::fs::File::create(place.path("one.json.gz")).unwrap(), Compression::fast());
    one.write_all(b"[\"").unwrap();
    (0..100).for_each(|_| one.write_all(&vec![b'a'; 1 << 20]).unwrap());
    one.finish().unwrap();
    for (file, says) in [
        ("lines.jsonl.gz", "it unpacks to more than"),
        ("array.json.gz", "it unpacks to more than"),
        ("one.json.gz", "an element is longer than 64 MiB"),
    ] {
        // Within three GiB of addresses, of which the allocator takes its share.
        let program = place.command(&[]).get_program().to_owned();
        let mut command = std::process::Command::new("sh");
        command.args(["-c", "ulimit -v 3145728; exec \"$0\" \"$@\""]).arg(program);
        command.args(["data", "inspect", file]).current_dir(place.dir());
        let ran = cli::ran(command.output().unwrap());
        ran.fails(2, &[says, file]);
    }
}
