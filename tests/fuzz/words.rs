//! Words of each reader's own language.

pub const ROWS: &[&str] = &[
    "\"prompt\"", "\"chosen\"", "\"rejected\"", "\"completion\"", "\"label\"", "\"role\"", "\"content\"", "\"id\"",
    "\"subset\"", "\"messages\"", "\"assistant\"", "\"user\"", "\\n\\nHuman: ", "\\n\\nAssistant: ", "\\ud800",
    "\"preference\"", "null", ",", ":", "\n", "\n\n", "\"rank\"", "\"parent_id\"",
];

pub const TENSORS: &[&str] = &[
    "\"F32\"", "\"BF16\"", "\"F8_E4M3\"", "\"I64\"", "\"BOOL\"", "\"shape\"", "\"data_offsets\"", "\"dtype\"",
    "\"__metadata__\"", "[0,0]", "[1,18446744073709551615]", "[4294967296,4294967296]", "\"model.norm.weight\"",
    "\"weight_map\"", "\"../x\"", "\"model-00001-of-00002.safetensors\"",
];

pub const ADAPTER: &[&str] = &[
    "\"r\"", "\"lora_alpha\"", "\"LORA\"", "\"peft_type\"", "\"target_modules\"", "\"all-linear\"", "\"q_proj\"",
    "\"rank_pattern\"", "\"alpha_pattern\"", "\"layers_to_transform\"", "\"use_rslora\"", "\"modules_to_save\"",
    "\".*(a+)+$\"", "\"base_model_name_or_path\"", "\"fan_in_fan_out\"",
];

pub const CONFIG: &[&str] = &[
    "\"llama\"", "\"gpt2\"", "\"gpt_neox\"", "\"gemma3_text\"", "\"qwen3\"", "\"num_hidden_layers\"", "\"n_layer\"",
    "\"hidden_size\"", "\"head_dim\"", "\"rope_scaling\"", "\"rope_parameters\"", "\"factor\"", "\"layer_types\"",
    "\"sliding_window\"", "\"num_key_value_heads\"", "\"partial_rotary_factor\"", "\"id2label\"", "\"n_inner\"",
];

pub const TOKENIZER: &[&str] = &[
    "\"BPE\"", "\"Unigram\"", "\"WordLevel\"", "\"WordPiece\"", "\"vocab\"", "\"merges\"", "\"added_tokens\"",
    "\"Split\"", "\"Regex\"", "\"(a|a)*b\"", "\"ByteLevel\"", "\"TemplateProcessing\"", "\"Metaspace\"", "\"Precompiled\"",
    "\"special\"", "\"content\"", "\"eos_token\"", "\"chat_template\"", "\"Strip\"", "\"Fuse\"", "\"Truncate\"",
];

pub const TEMPLATE: &[&str] = &[
    "{% for m in messages %}", "{% endfor %}", "{% if x is defined %}", "{% else %}", "{% endif %}", "{{ messages }}",
    "{% set ns = namespace(s='x') %}", "{% set ns.s = ns.s ~ ns.s %}", "{% for i in range(99999) %}",
    "{% macro f(x) %}{{ f(x) }}{% endmacro %}{{ f(1) }}", " | tojson(indent=9)", " | tojson", " | length", " | trim",
    ".strip()", ".split('x')", ".replace('', 'xxxxxxxx')", ".join(messages)", "[::-1]", "[-1:]", "[1:0:0]",
    "raise_exception('x')", "strftime_now('%Y %%')", "{%- generation %}", "{% endgeneration %}", "loop.index0",
    "loop(messages)", "{% break %}", "{% include 'chat template' %}", "{% extends 'chat template' %}",
    "{% import 'chat template' as t %}", "{#", "#}", "{% raw %}", " * 99999999", " ** 99", " // 0", " % 0", "self",
    " | indent(9999)", " | center(99)", " | format(1)", "'%99999999d' | format(1)", " | batch(2)", " | slice(0)",
    " | dictsort", " | sort", " | map('upper')", " | selectattr('role')", "{% call f() %}", "recursive", " ~ ",
];

pub const PLAN: &[&str] = &[
    "[[arm]]", "[train]", "[data]", "[data.feedback]", "[sweep]", "[tune]", "[judge]", "[slurm]", "[arm.trainer]",
    "method = \"kto\"", "method = \"sft\"", "method = \"ppo\"", "beta", "learning_rate", "[0.1, 0.2]", "[1, 2, 3, 4, 5]",
    "seeds", "budget", "tokens", "flops", "sft_first = [0.0, 0.5]", "z0 = [\"next\", \"zero\"]", "lora = { rank = 4 }",
    "claim", "against", "arms", "point", "tune = { beta = [0.1] }", "{ from = 1e-5, to = 1e-3, log = true }", "@",
    "fraction", "flip", "imbalance", "one_completion", "name = \"../x\"", "1979-05-27T07:32:00Z", "=", ".", "lambda_desirable",
];

pub const SUITE: &[&str] = &[
    "kind = \"generation\"", "kind = \"preference\"", "judge = \"exact-match\"", "judge = \"llm\"", "metrics", "opponents",
    "[answer]", "strict = '(a|a)*$'", "flexible = '(-?[0-9.,]+)'", "ignore", "[decoding]", "temperature", "max_new_tokens",
    "[sections]", "[pair]", "few_shot", "template = \"{{ x }}\"", "verdict = '('", "{{ prompt }}", "(?P<a>", "{9999999}",
    "source = \"/etc/passwd\"", "\\p{L}{1000}", "win_rate_base",
];

pub const REPLY: &[&str] = &[
    "[[A]]", "[[B]]", "[[C]]", "[[D]]", "[[", "]]", "\"choices\"", "\"message\"", "\"content\"", "\"usage\"",
    "\"prompt_tokens\"", "\"error\"", "[]", "{}", "null",
];

pub const INSTRUCTIONS: &[&str] = &[
    "\"num_sentences\"", "\"relation\"", "\"at least\"", "\"less than\"", "\"keywords\"", "\"frequency\"", "\"letter\"",
    "\"num_paragraphs\"", "\"nth_paragraph\"", "\"first_word\"", "\"forbidden_words\"", "\"section_spliter\"",
    "\"num_sections\"", "\"end_phrase\"", "\"language\"", "\"postscript_marker\"", "\"prompt_to_repeat\"",
    "\"keywords:frequency\"", "\"length_constraints:number_words\"", "\"detectable_format:json_format\"",
    "\"punctuation:no_comma\"", "\"combination:repeat_prompt\"", "\"(\"", "\"\\\\\"", "\"\"", "null",
];

pub const RECORDS: &[&str] = &[
    "run", "arm", "seed", "step", "suite", "metric", "done", "diverged", "failed", "primary", "higher", ",", "\"", "\"\"",
    "\n", "NaN", "inf", "-Infinity", "schema", "better", "\"loss\"", "\"step\"", "\"policy_tokens\"", "[quality]", "alarm",
];

pub const CHECKPOINT: &[&str] = &[
    "fingerprint", "start", "loss", "nan", "inf", "[sampler]", "epoch", "position", "[ledger]", "[watch]", "steps",
    "updates", "reward_count", "\"param.00000\"", "\"first.00000\"", "\"state\"", "\"checksum\"", "\"F16\"", "[0]",
];
