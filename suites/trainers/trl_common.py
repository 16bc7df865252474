"""What the adapters for TRL's trainers share: options, the matched budget, the metrics file.

The harness's budget counts tokens, completions or steps; TRL's trainers count steps of whole batches. So the training
list is made here: the data in seeded order, epoch after epoch, cut where the budget ends. The trainer then goes through
that list once, in order.

Needs: pip install torch trl (written against trl 1.16, transformers 5.23); for --lora-rank also peft, for Parquet
datasets, which trl brings.
"""
import argparse
import inspect
import json
import os
import random
import sys
import time


def options(description, more=lambda parser: None):
    """What the command line says; `more` adds a trainer's own options."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--model", required=True, help="{model}")
    parser.add_argument("--data", required=True, help="{data}: trl-jsonl, trl-unpaired-jsonl or their Parquet forms")
    parser.add_argument("--out", required=True, help="{out}")
    parser.add_argument("--seed", type=int, default=0)
    budget = parser.add_mutually_exclusive_group(required=True)
    budget.add_argument("--max-tokens", type=float, help="{budget.tokens}: prompt and completion, as trained on")
    budget.add_argument("--max-examples", type=float, help="{budget.examples}: completions; a pair counts two")
    budget.add_argument("--max-steps", type=float, help="{budget.steps}")
    parser.add_argument("--batch-size", type=int, default=32, help="{batch_size}: completions; a pair counts two")
    parser.add_argument("--learning-rate", type=float, default=5e-6)
    parser.add_argument("--schedule", default="linear", choices=["constant", "linear", "cosine"])
    parser.add_argument("--warmup", type=float, default=0.1, help="share of the steps")
    parser.add_argument("--max-grad-norm", type=float, default=1.0)
    parser.add_argument("--weight-decay", type=float, default=0.0)
    parser.add_argument("--max-length", type=int, default=512)
    parser.add_argument("--beta", type=float, default=0.1)
    parser.add_argument("--lora-rank", type=int, default=0, help="train and leave a PEFT adapter; 0: the whole model")
    parser.add_argument("--lora-alpha", type=float, default=32)
    more(parser)
    return parser.parse_args()


def read_rows(path):
    """Rows of the training split; pairs have `chosen`, single completions `label`."""
    if path.endswith(".parquet"):
        from datasets import load_dataset

        rows = load_dataset("parquet", data_files=path, split="train").to_list()
    else:
        with open(path, encoding="utf-8") as file:
            rows = [json.loads(line) for line in file if line.strip()]
    if not rows:
        sys.exit(f"{path}: no rows")
    return rows


def completions(row):
    return [row[key] for key in ("chosen", "rejected", "completion") if key in row]


def take(rows, tokenizer, args):
    """The training list: seeded order, cut where the budget ends, to within one row.

    A row whose prompt alone fills the length is left out: so does kto-eval, and TRL would drop it from the list
    afterwards, and the budget would not be spent.
    """
    width = len(completions(rows[0]))
    rows = [
        row for row in rows
        if 0 < len(tokenizer(row["prompt"])["input_ids"]) < args.max_length and all(completions(row))]
    if not rows:
        sys.exit(f"no row is left: every prompt fills --max-length {args.max_length}, or a completion is empty")
    limit = args.max_tokens
    if args.max_examples:
        limit = args.max_examples
    elif args.max_steps:
        limit = args.max_steps * args.batch_size

    def cost(row):
        if not args.max_tokens:
            return width
        length = lambda text: len(tokenizer(row["prompt"] + text)["input_ids"]) + 1  # and the end of sequence
        return sum(min(length(text), args.max_length) for text in completions(row))

    costs = [cost(row) for row in rows]
    order, taken, spent, epoch = random.Random(args.seed), [], 0, 0
    while True:
        places = list(range(len(rows)))
        order.shuffle(places)
        for place in places:
            if spent + costs[place] > limit:
                if not taken:
                    sys.exit("the budget is smaller than one example")
                return taken
            taken.append(rows[place])
            spent += costs[place]
        epoch += 1


# Without these another list, other lengths or another objective would be trained on.
NEEDED = ("train_sampling_strategy", "max_length", "beta", "max_grad_norm", "weight_decay", "warmup_steps",
          "desirable_weight", "undesirable_weight")


def config(cls, args, steps, rows_a_batch, **more):
    """A trainer's configuration. Keys that this version of TRL does not know are left out and named on stderr; without
    those that make the comparison a fair one nothing is trained."""
    # transformers' "constant" is without warm-up, kto-eval's has one.
    schedule = {"constant": "constant_with_warmup"}.get(args.schedule, args.schedule)
    values = dict(
        output_dir=os.path.join(args.out, "trl"), seed=args.seed, data_seed=args.seed, report_to=[],
        per_device_train_batch_size=rows_a_batch, gradient_accumulation_steps=1, num_train_epochs=1,
        learning_rate=args.learning_rate, lr_scheduler_type=schedule, warmup_steps=round(args.warmup * steps),
        weight_decay=args.weight_decay, max_grad_norm=args.max_grad_norm, max_length=args.max_length,
        logging_steps=1, save_strategy="no", disable_tqdm=True, bf16=False, fp16=False, gradient_checkpointing=False,
        train_sampling_strategy="sequential", dataloader_pin_memory=False, **more)
    known = inspect.signature(cls).parameters
    unknown = sorted(key for key in values if key not in known)
    if unknown:
        print(f"{cls.__name__} of this TRL has no {', '.join(unknown)}: left out", file=sys.stderr)
    needed = [key for key in unknown if key in NEEDED]
    if needed:
        sys.exit(f"{cls.__name__} of this TRL has no {', '.join(needed)}; these adapters are written for trl 1.16")
    return cls(**{key: value for key, value in values.items() if key in known})


def load(args):
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    if os.environ.get("OMP_NUM_THREADS"):
        torch.set_num_threads(int(os.environ["OMP_NUM_THREADS"]))
    tokenizer = AutoTokenizer.from_pretrained(args.model)
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token
    return AutoModelForCausalLM.from_pretrained(args.model, dtype=torch.float32), tokenizer


def lora(args):
    """The adapter's configuration, or None where the whole model is trained."""
    if not args.lora_rank:
        return None
    from peft import LoraConfig

    return LoraConfig(
        r=args.lora_rank, lora_alpha=args.lora_alpha, target_modules="all-linear", task_type="CAUSAL_LM")


# Their names in TRL's logs, and here (the columns of steps.csv).
LOGGED = {
    "loss": "loss", "grad_norm": "grad_norm", "learning_rate": "learning_rate", "kl": "kl",
    "rewards/chosen": "reward_chosen", "rewards/rejected": "reward_rejected", "rewards/margins": "margin",
    "rewards/accuracies": "accuracy",
}


def recorder(path):
    """A callback that writes kto-eval-metrics.jsonl, and a list that gets each step's counts."""
    from transformers import TrainerCallback

    counts = []

    class Recorder(TrainerCallback):
        began = time.perf_counter()

        def on_log(self, arguments, state, control, logs=None, **_):
            if not logs or "loss" not in logs:
                return
            row = {"step": state.global_step}
            row.update({ours: logs[theirs] for theirs, ours in LOGGED.items() if theirs in logs})
            if counts:
                row.update(counts[-1])
            now = time.perf_counter()
            row["seconds"], self.began = now - self.began, now
            with open(path, "a", encoding="utf-8") as file:
                file.write(json.dumps({k: v if v == v else None for k, v in row.items()}) + "\n")

    return Recorder(), counts


def train(trainer, counts, args, tokenizer):
    """Trains, counts what really went through the model, and leaves a Hugging Face directory or a PEFT adapter."""
    inner = trainer.training_step

    def counted(model, inputs, *rest, **named):
        mask = inputs["attention_mask"]
        row = {"policy_tokens": int(mask.sum())}
        if "completion_mask" in inputs:
            row["completion_tokens"] = int(inputs["completion_mask"].sum())
        elif "labels" in inputs:
            row["completion_tokens"] = int((inputs["labels"] != -100).sum())
        if "KL_attention_mask" in inputs:
            row["kl_tokens"] = int(inputs["KL_attention_mask"].sum())
        labels = inputs.get("label")
        if labels is not None:
            good = sum(bool(x) for x in labels)
            row["desirable"], row["undesirable"] = good, len(labels) - good
        elif "ref_chosen_logps" in inputs or type(trainer).__name__.startswith("DPO"):
            row["desirable"] = row["undesirable"] = len(mask) // 2
        else:
            row["desirable"], row["undesirable"] = len(mask), 0
        counts.append(row)
        return inner(model, inputs, *rest, **named)

    trainer.training_step = counted
    trainer.train()
    trainer.model.save_pretrained(args.out)
    tokenizer.save_pretrained(args.out)
