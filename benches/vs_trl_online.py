#!/usr/bin/env python3
"""A step of learning from samples against TRL's GRPO and RLOO trainers, alternating in one run; prints ratios.

    python benches/vs_trl_online.py --model DIR --data TRAIN.jsonl [--methods ppo,grpo,rloo] [--rounds 3] [--steps 4]

Run it with a Python that has TRL: `benches/vs_trl.py` says how to install it. --data holds HH transcripts.

A step draws 64 samples of 64 tokens (4 of each of 16 prompts of at most 96 tokens), scores them with a reward model
of the policy's size, computes log-probs under policy and reference, and makes one update (AdamW, clip 1.0, fp32, one
pass). ppo has a critic besides, and is held against TRL's GRPO, which has none; TRL has no PPO any more. Both sides
start from the same weights, in which a token that the policy never draws stands for EOS, so that every sample has its
64 tokens. Steps are timed within each process, sampling to update, without start-up and the first --warm steps; memory
is each process's peak resident set.
TRL runs without gradient checkpointing and with whole batches, which is its fastest setting here.
"""
import argparse, csv, json, os, shutil, statistics, subprocess, sys, tempfile, time

SAMPLES, PROMPTS, TOKENS, LONGEST = 4, 16, 64, 96
MARK = "\n\nAssistant:"
SETTINGS = dict(beta=0.05, learning_rate=5e-5)


def pairs(args, tok):
    """Rows whose prompt is short enough, each prompt once."""
    rows, seen = [], set()
    for line in open(args.data):
        row = json.loads(line)
        cut = row["chosen"].rfind(MARK) + len(MARK)
        prompt = row["chosen"][:cut]
        if row["rejected"][:cut] == prompt and prompt not in seen and len(tok(prompt).input_ids) <= LONGEST:
            seen.add(prompt)
            rows.append(dict(prompt=prompt, chosen=row["chosen"], rejected=row["rejected"]))
    return rows


def without_end(source, folder, tok, rows):
    """A copy of the model whose EOS is the token that it is least likely to draw."""
    import torch
    from transformers import AutoModelForCausalLM

    shutil.copytree(source, folder)
    for name in os.listdir(folder):
        os.chmod(os.path.join(folder, name), 0o644)
    model = AutoModelForCausalLM.from_pretrained(source, dtype=torch.float32).eval()
    with torch.inference_mode():
        odds = sum(model(torch.tensor([tok(r["chosen"]).input_ids[:512]])).logits[0].softmax(-1).mean(0) for r in rows[:32]) / 32
    end = int(odds.argmin())
    for name, key, value in [("config.json", "eos_token_id", end), ("generation_config.json", "eos_token_id", end),
                             ("tokenizer_config.json", "eos_token", tok.convert_ids_to_tokens(end))]:
        path = os.path.join(folder, name)
        if os.path.exists(path):
            content = json.load(open(path))
            json.dump({**content, key: value}, open(path, "w"))
    print(f"EOS is token {end}, drawn with probability {odds[end]:.1e}", file=sys.stderr)


def spawn(command, **environment):
    """Runs it; its output and its peak resident MiB (looked up while it runs: the kernel's own figure after the end would
    count this process, from which it is forked)."""
    with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
        child = subprocess.Popen(command, stdout=out, stderr=err, env=dict(os.environ, **environment))
        peak = 0
        while child.poll() is None:
            with open(f"/proc/{child.pid}/status") as status:
                peak = next((int(line.split()[1]) for line in status if line.startswith("VmHWM")), peak)
            time.sleep(0.1)
        out.seek(0), err.seek(0)
        texts = [file.read().decode(errors="replace") for file in (out, err)]
    if child.returncode != 0:
        sys.exit(f"{command[0]} failed ({child.returncode}): {texts[1].strip()[-2000:]}")
    return texts[0], peak / 1024


def kto_eval(args, work, more):
    command = [args.binary, "train", "--model", f"{work}/policy", "--data", f"{work}/pairs.jsonl", "--quiet", "--force",
               "--out", f"{work}/out", "--order", "sequential", "--schedule", "constant", "--warmup", "0", "--weight-decay", "0",
               "--max-grad-norm", "1.0", "--max-length", "512", "--threads", str(args.threads),
               "--learning-rate", str(SETTINGS["learning_rate"]), *more]
    return spawn(command, RAYON_NUM_THREADS=str(args.threads))[1]


def ours(args, method, work):
    total = 1 + args.warm + args.steps  # one step for the reward model
    params = dict(samples=SAMPLES, max_new_tokens=TOKENS, epochs=1, beta=SETTINGS["beta"], reward_share=1.001 / total)
    mib = kto_eval(args, work, ["--method", method, "--steps", str(total), "--batch-size", str(SAMPLES * PROMPTS),
                                *[word for key, value in params.items() for word in ("--param", f"{key}={value}")]])
    rows = list(csv.DictReader(open(f"{work}/out/rollouts.csv")))[args.warm:]
    assert len(rows) == args.steps and all(int(r["samples"]) == SAMPLES * PROMPTS for r in rows), rows
    phases = {}
    for row in csv.DictReader(open(f"{work}/out/phases.csv")):
        tokens = int(row["forward_tokens"]) + int(row["trained_tokens"])
        phases[row["phase"]] = round(tokens / float(row["seconds"]))
    return dict(seconds=statistics.median(float(r["seconds"]) for r in rows),
                length=statistics.mean(float(r["length"]) for r in rows), phases=phases, mib=mib)


def train_with_trl(args):
    """Runs under TRL's Python: prints seconds a step and tokens a sample."""
    import torch, trl
    from datasets import Dataset
    from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification, AutoTokenizer, TrainerCallback

    torch.set_num_threads(args.threads)
    steps, work = args.warm + args.steps, args.work
    tok = AutoTokenizer.from_pretrained(f"{work}/policy", padding_side="left")
    rows = [json.loads(line)["prompt"] for line in open(f"{work}/pairs.jsonl")][: steps * PROMPTS]
    seconds = []

    class Clock(TrainerCallback):
        def on_step_begin(self, *_, **__):
            self.started = time.perf_counter()

        def on_step_end(self, *_, **__):
            seconds.append(time.perf_counter() - self.started)

    kind = {"grpo": (trl.GRPOTrainer, trl.GRPOConfig), "rloo": (trl.RLOOTrainer, trl.RLOOConfig)}[args.trl]
    more = dict(loss_type="grpo") if args.trl == "grpo" else {}
    config = kind[1](
        output_dir=tempfile.mkdtemp(), per_device_train_batch_size=SAMPLES * PROMPTS, num_generations=SAMPLES,
        max_completion_length=TOKENS, temperature=1.0, top_p=1.0, top_k=0, num_iterations=1, max_steps=steps,
        lr_scheduler_type="constant", warmup_steps=0, weight_decay=0.0, max_grad_norm=1.0, use_cpu=True, bf16=False,
        gradient_checkpointing=False, report_to=[], save_strategy="no", logging_strategy="no", disable_tqdm=True,
        shuffle_dataset=False, dataloader_pin_memory=False, **SETTINGS, **more,
    )
    policy = AutoModelForCausalLM.from_pretrained(f"{work}/policy", dtype=torch.float32)
    reward = AutoModelForSequenceClassification.from_pretrained(f"{work}/reward", num_labels=1, dtype=torch.float32)
    lengths = []

    class Trainer(kind[0]):
        def _generate_and_score_completions(self, inputs):
            batch = super()._generate_and_score_completions(inputs)
            lengths.append(batch["completion_mask"].sum(1).float().mean().item())
            return batch

    trainer = Trainer(policy, reward, config, Dataset.from_dict(dict(prompt=rows)), processing_class=tok,
                      reward_processing_classes=tok, callbacks=[Clock()])
    trainer.train()
    assert len(seconds) == steps and len(lengths) == steps, (seconds, lengths)
    print(json.dumps(dict(seconds=statistics.median(seconds[args.warm:]), length=statistics.mean(lengths[args.warm:]))))


def theirs(args, method, work):
    command = [sys.executable, __file__, "--model", args.model, "--data", args.data, "--trl", "rloo" if method == "rloo" else "grpo",
               "--work", work, "--steps", str(args.steps), "--warm", str(args.warm), "--threads", str(args.threads)]
    out, mib = spawn(command, OMP_NUM_THREADS=str(args.threads), HF_HUB_OFFLINE="1", TOKENIZERS_PARALLELISM="false")
    return dict(json.loads(out.strip().splitlines()[-1]), mib=mib)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", required=True)
    parser.add_argument("--data", required=True)
    parser.add_argument("--methods", default="ppo,grpo,rloo")
    parser.add_argument("--binary", default=os.path.join(os.path.dirname(__file__), "..", "target", "release", "kto-eval"))
    for name, default in (("rounds", 3), ("steps", 4), ("warm", 1), ("threads", 2)):
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument("--trl", help=argparse.SUPPRESS)
    parser.add_argument("--work", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.trl:
        return train_with_trl(args)
    from transformers import AutoTokenizer

    work = tempfile.mkdtemp(prefix="kto-eval-online-")
    tok = AutoTokenizer.from_pretrained(args.model)
    rows = pairs(args, tok)
    without_end(args.model, f"{work}/policy", tok, rows)
    with open(f"{work}/pairs.jsonl", "w") as file:
        file.writelines(json.dumps(row) + "\n" for row in rows)
    kto_eval(args, work, ["--method", "reward", "--steps", "2", "--save-model", f"{work}/reward"])
    for method in args.methods.split(","):
        ratios = []
        for round_ in range(args.rounds):
            a, b = ours(args, method, work), theirs(args, method, work)
            ratios.append(b["seconds"] / a["seconds"])
            print(f"{method} {round_ + 1}: kto-eval {a['seconds']:.2f} s a step ({a['length']:.1f} tokens a sample, {a['mib']:.0f} MiB; "
                  f"tokens/s {a['phases']}), TRL {b['seconds']:.2f} s ({b['length']:.1f}, {b['mib']:.0f} MiB), "
                  f"ratio {ratios[-1]:.2f}", flush=True)
        print(f"{method}: median ratio {statistics.median(ratios):.2f}")
    shutil.rmtree(work)


main()
