//! Models, adapters and data that will not do: exit code 2, what is wrong and where, caches left whole.

mod cli;

use cli::{Place, ran};
use std::io::{BufRead, BufReader, Write};
use std::net::TcpListener;
use std::path::Path;

fn copy(place: &Place, from: &str, to: &str) {
    std::fs::create_dir(place.path(to)).unwrap();
    for entry in std::fs::read_dir(place.path(from)).unwrap() {
        let path = entry.unwrap().path();
        std::fs::copy(&path, place.path(to).join(path.file_name().unwrap())).unwrap();
    }
}

/// `place/<name>` is the model with its `config.json` changed.
fn variant(place: &Place, name: &str, from: &str, to: &str) {
    copy(place, "model", name);
    let config = place.read("model/config.json");
    assert!(config.contains(from), "{config}");
    place.write(&format!("{name}/config.json"), &config.replacen(from, to, 1));
}

#[test]
fn models_that_will_not_do_are_refused_by_name() {
    let place = Place::new();
    let refused = |model: &str, says: &[&str]| {
        place.run(&["compare", "plan.toml", "--model", model, "--out", "bad"]).fails(2, says);
        place.run(&["score", "--model", model, "--data", "data"]).fails(2, says);
    };
    variant(&place, "mamba", "\"llama\"", "\"mamba\"");
    refused(
        "mamba",
        &[
            "unsupported model family `mamba` (supported: llama, mistral, qwen2, qwen3, gpt_neox, gpt2, gemma2, \
           gemma3_text, olmo2)",
            "mamba/config.json",
            "hint:",
        ],
    );
    variant(
        &place,
        "yarn",
        "\"rope_theta\": 10000.0",
        "\"rope_theta\": 1e4, \"rope_scaling\": {\"rope_type\": \"yarn\"}",
    );
    refused("yarn", &["unsupported rotary scaling `yarn` (known: default, linear, llama3)"]);
    variant(&place, "typo", "\"hidden_size\": 16", "\"hidden_size\": \"16\"");
    refused("typo", &["typo/config.json", "hidden_size is \"16\", expected a whole number"]);
    variant(&place, "wider", "\"intermediate_size\": 32", "\"intermediate_size\": 48");
    refused(
        "wider",
        &["tensor model.layers.0.mlp.gate_proj.weight has shape [32, 16], config.json asks for [48, 16]"],
    );
    place
        .line("train --model model --data data --method reward --set budget.steps=1 --out trained")
        .succeeds();
    refused("trained/model", &["trained/model is a reward model", "kto-eval reward --model"]);
    copy(&place, "model", "cut");
    let weights = std::fs::read(place.path("cut/model.safetensors")).unwrap();
    std::fs::write(place.path("cut/model.safetensors"), &weights[..weights.len() - 1000]).unwrap();
    refused("cut", &["cut/model.safetensors", "hint: the file may be cut off"]);
    std::fs::write(place.path("cut/model.safetensors"), &weights[..5]).unwrap();
    refused("cut", &["cut/model.safetensors", "hint: the file may be cut off"]);
    std::fs::remove_file(place.path("cut/model.safetensors")).unwrap();
    refused("cut", &["holds neither model.safetensors nor model.safetensors.index.json", "save_pretrained"]);
    place.write(
        "cut/model.safetensors.index.json",
        r#"{"weight_map": {"x": "model-00001-of-00001.safetensors"}}"#,
    );
    refused("cut", &["names model-00001-of-00001.safetensors, which is not there"]);
    place.write("cut/model.safetensors.index.json", r#"{"weight_map": {"x": "../elsewhere"}}"#);
    refused("cut", &["`../elsewhere` is no name of a file in the folder"]);
}

#[test]
fn a_chat_template_that_does_not_parse_is_shown_with_its_line() {
    let place = Place::new();
    copy(&place, "model", "chat");
    place.write(
        "chat/chat_template.jinja",
        "{{ bos_token }}\n{% for m in messages %}\n{{ m.content }\n{% endfor %}\n",
    );
    for arguments in [
        &["compare", "plan.toml", "--model", "chat", "--out", "bad"][..],
        &["data", "inspect", "data", "--model", "chat"],
    ] {
        place
            .run(arguments)
            .fails(2, &["chat/chat_template.jinja), line 3", "the line reads: {{ m.content }"]);
    }
    // One that parses and fails on a conversation names the row too.
    place.write(
        "chat/chat_template.jinja",
        "{% for m in messages %}{{ raise_exception('no ' + m.role) }}{% endfor %}",
    );
    std::fs::create_dir(place.path("talks")).unwrap();
    let row = r#"{"prompt": [{"role": "user", "content": "q"}], "completion": [{"role": "assistant", "content": "a"}], "label": true}"#;
    place.write("talks/train.jsonl", &format!("{row}\n"));
    place
        .run(&["data", "inspect", "talks", "--model", "chat"])
        .fails(2, &["talks/train.jsonl:1", "line 1", "no user"]);
}

#[test]
fn parquet_of_another_schema_or_cut_off_is_refused() {
    let place = Place::new();
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/parquet");
    for name in ["other", "kto-mix"] {
        std::fs::create_dir(place.path(name)).unwrap();
        let bytes = std::fs::read(folder.join(format!("{name}.parquet"))).unwrap();
        let bytes = if name == "other" { &bytes[..] } else { &bytes[..bytes.len() / 2] };
        for split in ["train", "test"] {
            std::fs::write(place.path(&format!("{name}/{split}.parquet")), bytes).unwrap();
        }
    }
    let refused = |data: &str, says: &[&str]| {
        place.run(&["compare", "plan.toml", "--data", data, "--out", "bad"]).fails(2, says);
        place.run(&["data", "inspect", data]).fails(2, says);
    };
    refused("other", &["other/train.parquet:1", "columns", "hint:"]);
    refused("kto-mix", &["kto-mix/train.parquet: not readable as Parquet", "cut off or damaged"]);
}

#[test]
fn an_adapter_for_another_base_is_refused_with_tensor_and_shapes() {
    let place = Place::new();
    place
        .line(
            "train --method sft --model model --data data --steps 1 --set train.lora.rank=2 --save-model \
             adapter",
        )
        .succeeds();
    let config = place.read("adapter/adapter_config.json");
    let base = place.path("model").canonicalize().unwrap().display().to_string();
    let name = |to: &str| place.write("adapter/adapter_config.json", &config.replace(&base, to));
    assert!(config.contains(&base), "{config}");
    let size = kto_eval::model::Size {
        vocab: 150,
        hidden: 24,
        layers: 1,
        heads: 2,
        kv_heads: 2,
        intermediate: 32,
        context: 96,
    };
    let other = kto_eval::model::DecoderConfig::llama(size).unwrap();
    kto_eval::model::Decoder::random(other, 1, candle_core::DType::F32, &candle_core::Device::Cpu)
        .unwrap()
        .save(&place.path("other"))
        .unwrap();
    let refused = |says: &[&str]| {
        place.run(&["score", "--model", "adapter", "--data", "data"]).fails(2, says);
        place.run(&["merge", "adapter", "--out", "merged"]).fails(2, says);
        place.run(&["compare", "plan.toml", "--model", "adapter", "--out", "bad"]).fails(2, says);
    };
    name(&place.path("other").display().to_string());
    refused(&[
        "the adapter adapter does not fit its base",
        "q_proj.lora_A.weight has shape [2, 16], the base asks for [2, 24]",
    ]);
    name("nobody/nothing");
    refused(&["the base of the adapter adapter", "HF_HUB_OFFLINE is set"]);
    name("");
    refused(&["no base_model_name_or_path"]);
}

/// Answers every request with `status`; the endpoint's address.
fn answering(status: &'static str) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = format!("http://{}", listener.local_addr().unwrap());
    std::thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            let mut lines = BufReader::new(stream.try_clone().unwrap()).lines();
            while lines.next().is_some_and(|line| line.is_ok_and(|line| !line.is_empty())) {}
            let _ = write!(stream, "HTTP/1.1 {status}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n");
        }
    });
    address
}

#[test]
fn hub_answers_that_refuse_end_with_2_and_leave_no_trace_in_the_cache() {
    let place = Place::new();
    let try_at = |endpoint: &str, arguments: &[&str], says: &[&str]| {
        let mut command = place.command(arguments);
        command.env_remove("HF_HUB_OFFLINE").env_remove("HF_TOKEN").env("HF_ENDPOINT", endpoint);
        ran(command.output().unwrap()).fails(2, says);
    };
    let model = ["score", "--model", "Org/gated", "--data", "data"];
    let data = ["compare", "plan.toml", "--data", "Org/gated", "--out", "bad"];
    for arguments in [&model[..], &data[..]] {
        let gated = ["`Org/gated` is no", "status: 401", "it is gated or private: set HF_TOKEN"];
        try_at(&answering("401 Unauthorized"), arguments, &gated);
        try_at(&answering("403 Forbidden"), arguments, &["status: 403", "set HF_TOKEN"]);
        try_at(&answering("404 Not Found"), arguments, &["status: 404", "check the spelling"]);
        try_at(
            &answering("503 Service Unavailable"),
            arguments,
            &["status: 503", "the hub itself is failing"],
        );
        try_at("http://127.0.0.1:1", arguments, &["http://127.0.0.1:1", "check the network"]);
        try_at(
            "127.0.0.1:1",
            arguments,
            &["HF_ENDPOINT is `127.0.0.1:1`; it must begin with https:// or http://"],
        );
    }
    let mut left = vec![];
    let mut folders = vec![place.path("hub")];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
            if entry.path().is_dir() { folders.push(entry.path()) } else { left.push(entry.path()) }
        }
    }
    assert_eq!(left, Vec::<std::path::PathBuf>::new());
}

/// A cache that cannot be written to (here: its folder is a file) costs the next comparison time, and this one nothing.
#[test]
fn a_comparison_without_a_cache_says_so_and_is_the_same() {
    let place = Place::new();
    place.run(&["compare", "plan.toml", "--out", "a"]).succeeds();
    place.write("full", "");
    let mut command = place.command(&["compare", "plan.toml", "--out", "b"]);
    command.env("KTO_EVAL_CACHE", place.path("full"));
    let ran = ran(command.output().unwrap());
    ran.succeeds();
    for part in ["reference log-probs are not kept for the next time", "KTO_EVAL_CACHE names another folder"]
    {
        assert!(ran.err.contains(part), "{}", ran.err);
    }
    assert_eq!(place.read("full"), "", "what lay there is untouched");
    place.assert_same_rows("a", "b");
}

/// One that gives out later (here: a folder stands in the file's place; a full disk fails there too) ends the command.
#[test]
fn reference_log_probs_that_cannot_be_kept_are_said_and_the_command_goes_on_once_they_can() {
    let place = Place::new();
    place.run(&["compare", "plan.toml", "--out", "a"]).succeeds();
    let kept = std::fs::read_dir(place.path("cache/reference")).unwrap().next().unwrap().unwrap().path();
    std::fs::remove_file(&kept).unwrap();
    std::fs::create_dir(&kept).unwrap();
    let again = || place.run(&["compare", "plan.toml", "--out", "b"]);
    again().fails(2, &["saving reference log-probs to", "KTO_EVAL_CACHE names another folder"]);
    std::fs::remove_dir(&kept).unwrap();
    again().succeeds();
    place.assert_same_rows("a", "b");
}

#[test]
fn data_inspect_looks_through_the_models_tokenizer() {
    let place = Place::new();
    std::fs::create_dir(place.path("odd")).unwrap();
    let row = |prompt: &str, chosen: &str| {
        serde_json::json!({"prompt": prompt, "chosen": chosen, "rejected": " um"}).to_string() + "\n"
    };
    let rows = row("sort a b :", " a b .")
        + &row("sort a b :", " a <eos><eos>")
        + &row("count a :", "")
        + &row("add 1 :", " zebra");
    place.write("odd/train.jsonl", &rows);
    place.write("odd/test.jsonl", &row("count a :", " 1 ."));
    let ran = place.line("data inspect odd --model model --max-length 8 --suite generation/world");
    let text = ran.succeeds();
    for part in [
        "4 pairs: 4 desirable and 4 undesirable completions",
        "5 %   50 %   95 %   99 %   most",
        "1  EOS twice at the end",
        "1  dropped: the completion (or the prompt) is empty (train.jsonl:3)",
        "1  prompt stands in an earlier example too (train.jsonl:2)",
        "1  holds the unknown token (train.jsonl:4)",
        "prompt stands too in split `test` (train.jsonl:3)",
        "train.jsonl:1 (desirable)\n⟦sort a b :⟧a·b·.·<eos>",
    ] {
        assert!(text.contains(part), "lacks: {part}\n{text}");
    }
    let json: serde_json::Value =
        serde_json::from_str(place.run(&["data", "inspect", "odd", "--model", "model", "--json"]).succeeds())
            .unwrap();
    assert_eq!(json["inspection"]["examples"], 4);
    place
        .run(&["data", "inspect", "odd", "--suite", "generation/world"])
        .fails(2, &["--suite needs --model"]);
}
