"""Token log-probs under an adapter, by PEFT: peft_logps.py ADAPTER_DIR '[ids]' prints a JSON list."""

import json
import sys

import torch
from peft import PeftModel
from transformers import AutoModelForCausalLM

adapter, ids = sys.argv[1], torch.tensor([json.loads(sys.argv[2])])
base = json.load(open(f"{adapter}/adapter_config.json"))["base_model_name_or_path"]
model = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32, attn_implementation="eager")
plain = model(ids).logits
model = PeftModel.from_pretrained(model, adapter).eval()
with torch.no_grad():
    logits = model(ids).logits
assert (logits - plain).abs().max() > 1e-3, "the adapter changes nothing"
logps = logits.double().log_softmax(-1)[0, :-1].gather(1, ids[0, 1:, None])[:, 0]
print(json.dumps(logps.tolist()))
