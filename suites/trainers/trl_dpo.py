"""TRL's DPOTrainer as an arm of kto-eval.

    [[arm]]
    name = "trl-dpo"
    method = "dpo"
    [arm.trainer]
    data = "trl-jsonl"                   # or trl-parquet
    command = ["python", "suites/trainers/trl_dpo.py", "--model", "{model}", "--data", "{data}", "--out", "{out}",
               "--seed", "{seed}", "--max-tokens", "{budget.tokens}", "--beta", "{beta}", "--batch-size", "{batch_size}",
               "--learning-rate", "{learning_rate}", "--schedule", "{schedule}", "--max-length", "{max_length}"]
"""
import math
import os

import trl_common as common

args = common.options(__doc__.splitlines()[0])

from datasets import Dataset  # noqa: E402
from trl import DPOConfig, DPOTrainer  # noqa: E402

model, tokenizer = common.load(args)
rows = common.take(common.read_rows(args.data), tokenizer, args)
pairs = max(args.batch_size // 2, 1)
recorder, counts = common.recorder(os.path.join(args.out, "kto-eval-metrics.jsonl"))
configuration = common.config(DPOConfig, args, math.ceil(len(rows) / pairs), pairs, beta=args.beta)
trainer = DPOTrainer(
    model=model, args=configuration, processing_class=tokenizer, callbacks=[recorder], peft_config=common.lora(args),
    train_dataset=Dataset.from_list([{key: row[key] for key in ("prompt", "chosen", "rejected")} for row in rows]))
common.train(trainer, counts, args, tokenizer)
