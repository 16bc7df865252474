"""Token log-probs by transformers, and by PEFT for an adapter: transformers_logps.py DIR '[ids]' prints a JSON list."""

import json
import os
import sys

import torch
from transformers import AutoModelForCausalLM

folder, ids = sys.argv[1], torch.tensor([json.loads(sys.argv[2])])
adapter = f"{folder}/adapter_config.json"
base = json.load(open(adapter))["base_model_name_or_path"] if os.path.exists(adapter) else folder
model = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32, attn_implementation="eager").eval()
with torch.no_grad():
    logits = model(ids).logits
    if base != folder:
        from peft import PeftModel

        plain = logits
        logits = PeftModel.from_pretrained(model, folder).eval()(ids).logits
        assert (logits - plain).abs().max() > 1e-3, "the adapter changes nothing"
logps = logits.double().log_softmax(-1)[0, :-1].gather(1, ids[0, 1:, None])[:, 0]
print(json.dumps(logps.tolist()))
