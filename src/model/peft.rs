//! Adapters as PEFT writes them: `adapter_config.json` with `adapter_model.safetensors`.

use candle_core::{Device, Tensor};
use serde_json::{Map, Value, json};
use std::collections::{BTreeMap, HashMap};
use std::path::Path as FilePath;

use super::adapter::{Path, Target, last_names};
use super::checkpoint::torch_name;
use super::decoder::Decoder;
use crate::base::atomic;
use crate::base::error::{Context, HintExt, Result, anyhow, bail, ensure};
use crate::plan::LoraSpec;

const CONFIG: &str = "adapter_config.json";
const WEIGHTS: &str = "adapter_model.safetensors";

/// What PEFT can do and this crate cannot: key, the value that means "not used".
const UNSUPPORTED: [(&str, &str); 14] = [
    ("use_dora", "false"),
    ("use_bdlora", "null"),
    ("use_qalora", "false"),
    ("lora_bias", "false"),
    ("bias", "\"none\""),
    ("modules_to_save", "null"),
    ("target_parameters", "null"),
    ("trainable_token_indices", "null"),
    ("layer_replication", "null"),
    ("alora_invocation_tokens", "null"),
    ("megatron_config", "null"),
    ("velora_config", "null"),
    ("kasa_config", "null"),
    ("arrow_config", "null"),
];

/// Ways to begin (`init_lora_weights`, in any case of letters) that leave the base as it is. The others (`pissa`, `olora`,
/// `loftq`, `lora_ga`, …) change it.
const PLAIN_STARTS: [&str; 4] = ["gaussian", "eva", "orthogonal", "mica"];

/// `adapter_config.json` of a new adapter; the base's name is filled in on saving.
pub(super) fn new_config(spec: &LoraSpec, modules: &[String], transposed: bool) -> Map<String, Value> {
    let config = json!({
        "peft_type": "LORA", "task_type": "CAUSAL_LM", "base_model_name_or_path": null, "revision": null,
        "inference_mode": true, "r": spec.rank, "lora_alpha": whole(spec.alpha), "lora_dropout": spec.dropout,
        "target_modules": modules, "use_rslora": spec.use_rslora, "use_dora": false, "bias": "none",
        // GPT-2 keeps its weights as (in, out).
        "fan_in_fan_out": transposed, "init_lora_weights": true, "lora_bias": false, "modules_to_save": null,
        "rank_pattern": {}, "alpha_pattern": {}, "layers_to_transform": null, "layers_pattern": null,
    });
    config.as_object().cloned().unwrap_or_default()
}

/// 32 rather than 32.0, as PEFT has it.
fn whole(x: f64) -> Value {
    if x.fract() == 0.0 && x.abs() < 1e9 { json!(x as i64) } else { json!(x) }
}

/// Whether a directory holds an adapter rather than a model.
pub fn is_adapter(dir: &FilePath) -> bool {
    dir.join(CONFIG).is_file() && !dir.join("config.json").is_file()
}

/// `adapter_config.json` of a directory.
///
/// # Errors
/// A file that is missing or no JSON, another method than LoRA, an option of PEFT's that changes the model and
/// is not supported here.
pub fn read_adapter_config(dir: &FilePath) -> Result<Map<String, Value>> {
    let path = dir.join(CONFIG);
    let shown = path.display();
    let text = std::fs::read_to_string(&path)
        .with_context(|| format!("reading {shown}"))
        .hint("an adapter is a directory with adapter_config.json and adapter_model.safetensors")?;
    let Value::Object(config) = serde_json::from_str(&text).with_context(|| format!("parsing {shown}"))?
    else {
        bail!("{shown}: not a JSON object");
    };
    let kind = config.get("peft_type").and_then(Value::as_str).unwrap_or("none");
    ensure!(kind == "LORA", "{shown}: peft_type is {kind}; only LORA adapters are read");
    for (key, off) in UNSUPPORTED {
        let value = config.get(key).unwrap_or(&Value::Null);
        let empty = value.is_null() || value.as_array().is_some_and(Vec::is_empty);
        let stated = value.to_string();
        if !empty && stated != off {
            return Err(anyhow!("{shown}: {key} is {stated}, which is not supported (only {off})"))
                .hint("merge it into its base with PEFT: model.merge_and_unload().save_pretrained(dir)");
        }
    }
    let begun = config.get("init_lora_weights").and_then(Value::as_str);
    if let Some(other) = begun.filter(|name| !PLAIN_STARTS.contains(&name.to_lowercase().as_str())) {
        return Err(anyhow!(
            "{shown}: init_lora_weights is \"{other}\": it was trained beside a changed base"
        ))
        .hint("save it with PEFT's path_initial_model_for_weight_conversion, or merge it with PEFT");
    }
    Ok(config)
}

/// The base that an adapter names: a hub id or a path.
pub fn base_of(dir: &FilePath, config: &Map<String, Value>) -> Result<String> {
    let name = config.get("base_model_name_or_path").and_then(Value::as_str).unwrap_or_default();
    if name.is_empty() {
        return Err(anyhow!("{}: no base_model_name_or_path", dir.join(CONFIG).display()))
            .hint("write the base's hub id or path there");
    }
    Ok(name.to_owned())
}

impl Decoder {
    /// This decoder, its weights shared, with the adapter of a directory in PEFT's form.
    ///
    /// # Errors
    /// A file that is missing or cut off; an adapter for another base: tensors of modules that this decoder does
    /// not have, or of other shapes (both are named); an A without its B.
    pub fn load_adapter(&self, dir: &FilePath) -> Result<Self> {
        let config = read_adapter_config(dir)?;
        let file = dir.join(WEIGHTS);
        let tensors = candle_core::safetensors::load(&file, &Device::Cpu)
            .with_context(|| format!("reading {}", file.display()))
            .hint("the file may be missing, cut off or in PyTorch's .bin format: save it again with PEFT")?;
        let targets = self.targets();
        let paths = self.paths(&targets, tensors, &config).with_context(|| {
            format!("the adapter {} does not fit its base, a {:?}", dir.display(), self.config().family)
        })?;
        let dropout = config.get("lora_dropout").and_then(Value::as_f64).unwrap_or(0.0);
        self.adapted(paths, dropout, config)
    }

    fn paths<'t>(
        &self,
        targets: &'t [Target],
        mut tensors: HashMap<String, Tensor>,
        config: &Map<String, Value>,
    ) -> Result<Vec<(&'t Target, Path)>> {
        let mut paths = Vec::new();
        for target in targets {
            let [a, b] = ["A", "B"].map(|which| target.tensor_name(which));
            match (tensors.remove(&a), tensors.remove(&b)) {
                (None, None) => {}
                (Some(a), Some(b)) => paths.push((target, self.path(target, &a, &b, config)?)),
                (Some(_), None) => bail!("tensor {a} is there and {b} is missing"),
                (None, Some(_)) => bail!("tensor {b} is there and {a} is missing"),
            }
        }
        let mut rest: Vec<&String> = tensors.keys().collect();
        rest.sort();
        if let Some(first) = rest.first() {
            let shape = tensors[*first].dims();
            let known: Vec<String> = last_names(targets).into_iter().collect();
            return Err(anyhow!(
                "tensor {first} {shape:?} (of {} such tensors) belongs to no projection of the base, which has {} layers of {}",
                rest.len(),
                self.config().layers.len(),
                known.join(", ")
            ))
            .hint("base_model_name_or_path names another model than the adapter was trained on; or it adapts \
                   embeddings or the head, which is not supported: merge it with PEFT");
        }
        Ok(paths)
    }

    fn path(&self, target: &Target, a: &Tensor, b: &Tensor, config: &Map<String, Value>) -> Result<Path> {
        let rank = a.dims().first().copied().unwrap_or(0);
        let n = target.piece.rows.len();
        for (which, tensor, wanted) in [("A", a, [rank, target.inputs]), ("B", b, [n, rank])] {
            ensure!(
                tensor.dims() == wanted && rank > 0,
                "tensor {} has shape {:?}, the base asks for {wanted:?}",
                target.tensor_name(which),
                tensor.dims()
            );
        }
        let to = |t: &Tensor| t.to_dtype(self.dtype())?.to_device(self.device());
        let b = target.stored_b().read(b)?.contiguous()?;
        Ok(Path { a: to(a)?, b: to(&b)?, scale: scale(&target.module, rank, config)? })
    }

    /// Writes the adapter as PEFT does; `base` is what `base_model_name_or_path` will say. The tokenizer's files
    /// are the caller's. Killed in between, it leaves no `adapter_config.json`, which is no adapter: never new weights
    /// with an old configuration.
    ///
    /// # Errors
    /// No adapter; a folder that cannot be written.
    pub fn save_adapter(&self, dir: &FilePath, base: &str) -> Result<()> {
        let adapter = self.adapter().context("the model has no adapter to save")?;
        std::fs::create_dir_all(dir).with_context(|| format!("creating {}", dir.display()))?;
        let mut config = adapter.config.clone();
        config.insert("base_model_name_or_path".to_owned(), json!(base));
        let mut tensors = BTreeMap::new();
        for param in &adapter.params {
            for piece in &param.pieces {
                let tensor = super::checkpoint::piece_tensor(param, piece)?.to_device(&Device::Cpu)?;
                tensors.insert(piece.name.clone(), tensor);
            }
        }
        let metadata = HashMap::from([("format".to_owned(), "pt".to_owned())]);
        let bytes = safetensors::serialize(&tensors, Some(metadata))
            .with_context(|| format!("writing {} tensors of {}", tensors.len(), torch_name(self.dtype())))?;
        atomic::remove(&dir.join(CONFIG))?;
        atomic::write_held(&dir.join(WEIGHTS), &bytes)?;
        // Last: without it there is no adapter.
        atomic::write_held(&dir.join(CONFIG), (serde_json::to_string_pretty(&config)? + "\n").as_bytes())
    }
}

/// s of one module: α/r, or α/√r with rsLoRA; `alpha_pattern` and `rank_pattern` as PEFT matches them. The rank
/// is that of the tensor.
fn scale(module: &str, rank: usize, config: &Map<String, Value>) -> Result<f64> {
    let number = |key: &str| config.get(key).and_then(Value::as_f64);
    let stated = match pattern(module, config.get("rank_pattern"))?.or(number("r")) {
        Some(stated) => stated,
        None => bail!("{CONFIG} does not say `r`"),
    };
    ensure!(stated == rank as f64, "{module}: its tensors have rank {rank}, {CONFIG} says {stated}");
    let alpha = match pattern(module, config.get("alpha_pattern"))?.or(number("lora_alpha")) {
        Some(alpha) => alpha,
        None => bail!("{CONFIG} does not say `lora_alpha`"),
    };
    let root = config.get("use_rslora").and_then(Value::as_bool).unwrap_or(false);
    Ok(LoraSpec { rank, alpha, use_rslora: root, ..LoraSpec::default() }.scale())
}

/// The value of the first key, a regular expression, that matches the end of the module's name.
fn pattern(module: &str, patterns: Option<&Value>) -> Result<Option<f64>> {
    for (key, value) in patterns.and_then(Value::as_object).into_iter().flatten() {
        let matcher = regex::Regex::new(&format!(r"^(?:.*\.)?(?:{key})$"))
            .with_context(|| format!("{CONFIG}: the pattern `{key}`"))?;
        if matcher.is_match(module) {
            return Ok(value.as_f64());
        }
    }
    Ok(None)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scales_follow_the_config_and_its_patterns() {
        let config = |extra: Value| {
            let mut config = json!({"r": 4, "lora_alpha": 12});
            let (Value::Object(all), Value::Object(more)) = (&mut config, extra) else { unreachable!() };
            all.extend(more);
            all.clone()
        };
        let module = "model.layers.1.mlp.down_proj";
        assert_eq!(scale(module, 4, &config(json!({}))).unwrap(), 3.0);
        assert_eq!(scale(module, 4, &config(json!({"use_rslora": true}))).unwrap(), 6.0);
        let patterns =
            json!({"alpha_pattern": {"mlp.down_proj": 8}, "rank_pattern": {"layers.1.*down_proj": 2}});
        assert_eq!(scale(module, 2, &config(patterns.clone())).unwrap(), 4.0);
        assert_eq!(scale("model.layers.0.self_attn.q_proj", 4, &config(patterns)).unwrap(), 3.0);
        let wrong = scale(module, 3, &config(json!({}))).unwrap_err().to_string();
        assert!(wrong.contains("rank 3") && wrong.contains("says 4"), "{wrong}");
    }
}
