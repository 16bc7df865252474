#!/usr/bin/env python3
"""A few steps of a TRL trainer, timed. Prints one line of JSON.

    python benches/trl_speed.py --method sft|dpo|dpo_pre|kto --model DIR --data TRAIN.jsonl [--batch 8] [--steps 20]
                                [--warm 3] [--max-length 512] [--threads 2] [--device cpu|cuda] [--bf16]

`benches/vs_trl.py` and `benches/vs_trl_compare.py` call it. TRAIN.jsonl holds HH transcripts (`chosen`, `rejected`), taken in
order. dpo_pre: DPO that computes the reference's log-probs before training. Keys of the line:

    tokens              of the measured steps, padding and KTO's mismatched sequences not counted
    tokens_per_s        those over the time of these steps; tokens_per_s_median: the median over them
    losses              of all steps
    build_s             from the trainer's construction to its first step: tokenizing, and dpo_pre's reference
    rss_with_model_mib  resident with the model loaded; peak_rss_mib: the most, at the end
"""
import argparse
import json
import os
import resource
import statistics
import sys
import tempfile
import time

TURN = "\n\nAssistant:"


def arguments():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--method", required=True, choices=["sft", "dpo", "dpo_pre", "kto"])
    parser.add_argument("--model", required=True)
    parser.add_argument("--data", required=True)
    parser.add_argument("--batch", type=int, default=8, help="rows a step: pairs for DPO, sequences for SFT and KTO")
    parser.add_argument("--steps", type=int, default=20, help="measured")
    parser.add_argument("--warm", type=int, default=3, help="steps before those")
    parser.add_argument("--max-length", type=int, default=512)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--device", default="cpu", choices=["cpu", "cuda"])
    parser.add_argument("--bf16", action="store_true")
    return parser.parse_args()


def pairs(path):
    """(prompt, chosen, rejected) of each row whose transcripts part after the last turn of the assistant."""
    with open(path, encoding="utf-8") as file:
        for row in map(json.loads, file):
            (before, _, chosen), (other, _, rejected) = row["chosen"].rpartition(TURN), row["rejected"].rpartition(TURN)
            if before == other and chosen.strip() and rejected.strip():
                yield before + TURN, chosen, rejected


def rows(method, path, count):
    """The first `count` rows in the form that the method's trainer takes."""
    made = []
    for prompt, chosen, rejected in pairs(path):
        if method == "sft":
            made.append({"prompt": prompt, "completion": chosen})
        elif method == "kto":
            made += [{"prompt": prompt, "completion": text, "label": label} for text, label in ((chosen, True), (rejected, False))]
        else:
            made.append({"prompt": prompt, "chosen": chosen, "rejected": rejected})
        if len(made) >= count:
            return made[:count]
    sys.exit(f"{path}: {len(made)} usable rows, {count} are needed")


def main():
    args = arguments()
    # Before torch is imported.
    os.environ.update(OMP_NUM_THREADS=str(args.threads), MKL_NUM_THREADS=str(args.threads), HF_HUB_OFFLINE="1", TOKENIZERS_PARALLELISM="false")
    if args.device == "cpu":
        os.environ["CUDA_VISIBLE_DEVICES"] = ""
    import torch
    import trl
    from datasets import Dataset, disable_caching, disable_progress_bars
    from transformers import AutoModelForCausalLM, AutoTokenizer, TrainerCallback

    torch.set_num_threads(args.threads)
    disable_caching()
    disable_progress_bars()
    resident = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024

    def now():
        if args.device == "cuda":
            torch.cuda.synchronize()
        return time.perf_counter()

    class Clock(TrainerCallback):
        began, ends, losses = 0.0, [], []

        def on_train_begin(self, *_, **__):
            self.began = now()

        def on_step_end(self, *_, **__):
            self.ends.append(now())

        def on_log(self, arguments, state, control, logs=None, **_):
            self.losses += [logs["loss"]] if logs and "loss" in logs else []

    tokenizer = AutoTokenizer.from_pretrained(args.model)
    tokenizer.pad_token = tokenizer.pad_token or tokenizer.eos_token
    half = args.bf16 and args.device == "cuda"
    model = AutoModelForCausalLM.from_pretrained(args.model, dtype=torch.bfloat16 if half else torch.float32)
    with_model = resident()

    name = args.method.removesuffix("_pre").upper()
    more = {"precompute_ref_log_probs": True} if args.method == "dpo_pre" else {}
    total, scratch = args.warm + args.steps, tempfile.TemporaryDirectory()
    config = getattr(trl, f"{name}Config")(
        output_dir=scratch.name, per_device_train_batch_size=args.batch, max_steps=total, max_length=args.max_length,
        learning_rate=5e-5, lr_scheduler_type="constant", warmup_steps=0, weight_decay=0.0, max_grad_norm=1.0, seed=0,
        train_sampling_strategy="sequential", logging_steps=1, save_strategy="no", report_to=[], disable_tqdm=True,
        use_cpu=args.device == "cpu", bf16=args.bf16, gradient_checkpointing=False, dataloader_pin_memory=False, **more)
    clock, counts, started = Clock(), [], now()
    trainer = getattr(trl, f"{name}Trainer")(
        model=model, args=config, processing_class=tokenizer, callbacks=[clock],
        train_dataset=Dataset.from_list(rows(args.method, args.data, total * args.batch)))
    inner = trainer.training_step

    def counted(policy, inputs, *rest, **named):
        counts.append(int(inputs["attention_mask"].sum()))
        return inner(policy, inputs, *rest, **named)

    trainer.training_step = counted
    trainer.train()

    times = [end - begin for begin, end in zip([clock.began, *clock.ends], clock.ends)]
    assert len(times) == len(counts) == total, (len(times), len(counts), total)
    times, counts = times[args.warm:], counts[args.warm:]
    print(json.dumps({
        "method": args.method, "tokens": sum(counts), "tokens_per_s": sum(counts) / sum(times),
        "tokens_per_s_median": statistics.median(n / t for n, t in zip(counts, times)), "losses": clock.losses,
        "build_s": clock.began - started, "rss_with_model_mib": with_model, "peak_rss_mib": resident()}))


if __name__ == "__main__":
    main()
