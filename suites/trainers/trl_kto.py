"""TRL's KTOTrainer as an arm of kto-eval.

    [[arm]]
    name = "trl-kto"
    method = "kto"
    [arm.trainer]
    data = "trl-unpaired-jsonl"          # or trl-unpaired-parquet
    command = ["python", "suites/trainers/trl_kto.py", "--model", "{model}", "--data", "{data}", "--out", "{out}",
               "--seed", "{seed}", "--max-tokens", "{budget.tokens}", "--beta", "{beta}", "--batch-size", "{batch_size}",
               "--learning-rate", "{learning_rate}", "--schedule", "{schedule}", "--max-length", "{max_length}"]

Weights of the classes are numbers here (1 and 1, TRL's defaults); this program's own kto takes the paper's rule where it is not
told otherwise. An arm with lambda_desirable = 1.0, lambda_undesirable = 1.33 passes "--desirable-weight", "{lambda_desirable}",
"--undesirable-weight", "{lambda_undesirable}". Its own kto estimates z0 as TRL does with z0 = "previous".
"""
import math
import os

import trl_common as common

def weights(parser):
    for side in ("desirable", "undesirable"):
        parser.add_argument(f"--{side}-weight", type=float, default=1.0, help="{lambda_%s}" % side)


args = common.options(__doc__.splitlines()[0], weights)

from datasets import Dataset  # noqa: E402
from trl import KTOConfig, KTOTrainer  # noqa: E402

model, tokenizer = common.load(args)
rows = common.take(common.read_rows(args.data), tokenizer, args)
recorder, counts = common.recorder(os.path.join(args.out, "kto-eval-metrics.jsonl"))
configuration = common.config(KTOConfig, args, math.ceil(len(rows) / args.batch_size), args.batch_size, beta=args.beta,
    desirable_weight=args.desirable_weight, undesirable_weight=args.undesirable_weight)
trainer = KTOTrainer(
    model=model, args=configuration, processing_class=tokenizer, callbacks=[recorder], peft_config=common.lora(args),
    train_dataset=Dataset.from_list([{key: row[key] for key in ("prompt", "completion", "label")} for row in rows]))
common.train(trainer, counts, args, tokenizer)
