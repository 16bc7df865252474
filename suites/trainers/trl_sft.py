"""TRL's SFTTrainer as an arm of kto-eval, on chosen or desirable completions.

    [[arm]]
    name = "trl-sft"
    method = "sft"
    [arm.trainer]
    data = "trl-unpaired-jsonl"          # or trl-unpaired-parquet
    command = ["python", "suites/trainers/trl_sft.py", "--model", "{model}", "--data", "{data}", "--out", "{out}",
               "--seed", "{seed}", "--max-tokens", "{budget.tokens}", "--batch-size", "{batch_size}",
               "--learning-rate", "{learning_rate}", "--schedule", "{schedule}", "--max-length", "{max_length}"]
"""
import math
import os

import trl_common as common

args = common.options(__doc__.splitlines()[0])

from datasets import Dataset  # noqa: E402
from trl import SFTConfig, SFTTrainer  # noqa: E402

model, tokenizer = common.load(args)
good = [row for row in common.read_rows(args.data) if row.get("label", True)]
good = [{"prompt": row["prompt"], "completion": row.get("completion", row.get("chosen"))} for row in good]
rows = common.take(good, tokenizer, args)
recorder, counts = common.recorder(os.path.join(args.out, "kto-eval-metrics.jsonl"))
configuration = common.config(
    SFTConfig, args, math.ceil(len(rows) / args.batch_size), args.batch_size, completion_only_loss=True, packing=False)
trainer = SFTTrainer(
    model=model, args=configuration, processing_class=tokenizer, callbacks=[recorder], peft_config=common.lora(args),
    train_dataset=Dataset.from_list(rows))
common.train(trainer, counts, args, tokenizer)
