//! The control tokens that a policy was trained with (CSFT), kept with its configuration so that whoever opens it
//! later asks it as it was trained to be asked.

use serde_json::json;

use super::decoder::Decoder;
use crate::plan::ControlSpec;

/// In `config.json`, or in `adapter_config.json` of an adapter; other tools ignore it.
pub(super) const KEY: &str = "kto_eval_control";

impl Decoder {
    /// The text that stands between a prompt and what this policy is asked for; `None` for most.
    pub fn control(&self) -> Option<&str> {
        let adapter = self.adapter().map(|adapter| &adapter.config);
        let found = adapter.into_iter().chain([&self.config().source]).find_map(|map| map.get(KEY));
        found?.get("desirable")?.as_str()
    }

    /// Notes what the policy is trained with.
    pub fn set_control(&mut self, spec: &ControlSpec) {
        let value = json!({"desirable": spec.desirable_token, "undesirable": spec.undesirable_token});
        self.own_config_mut().insert(KEY.to_owned(), value);
    }
}
