#!/usr/bin/env python3
"""kto-eval against TRL: same model, data, batch and dtype, alternating in one run; prints ratios.

    python benches/vs_trl.py --model DIR --data TRAIN.jsonl --trl-runner PATH/trl_speed.py [--python PYTHON]
                             [--methods sft,dpo,kto] [--rounds 3] [--steps 20] [--warm 3] [--batch 8]

Install TRL first:
    python3 -m venv target/peers && target/peers/bin/pip install torch==2.15.0 transformers==5.23.0 trl==1.16.0 peft==0.21.2 datasets==5.2.0 accelerate==1.15.0

The runner prints one JSON line (tokens_per_s_median, peak_rss_mib, rss_with_model_mib, losses). Useful tokens are
those that are not padding, of the sequences trained on. Both sides take rows in order, constant learning rate
5e-5, AdamW without decay, clip 1.0, length 512. `dpo` compares against TRL with the reference precomputed.
The batch is TRL's: pairs for DPO, sequences for SFT and KTO.
"""
import argparse, json, os, shutil, statistics, subprocess, sys, tempfile

METHODS = {"sft": "sft", "dpo": "dpo_pre", "kto": "kto"}


def ours(args, method):
    out = tempfile.mkdtemp(prefix="kto-eval-bench-")
    completions = args.batch * (2 if method == "dpo" else 1)
    command = [
        args.binary, "train", method, "--model", args.model, "--data", args.data, "--out", out, "--quiet", "--json",
        "--set", f"budget.steps={args.warm + args.steps}", "--set", "train.order=sequential",
        "--set", "train.schedule=constant", "--set", "train.warmup=0", "--set", "train.learning_rate=5e-5",
        "--set", "train.weight_decay=0", "--set", "train.max_grad_norm=1.0", "--set", "data.max_length=512",
        "--set", f"train.batch_size={completions}",
    ]
    if method == "kto":
        command += ["--set", "arm.kto.z0=previous", "--set", "arm.kto.lambda_desirable=1.0", "--set", "arm.kto.lambda_undesirable=1.0"]
    done = subprocess.run(command, capture_output=True, text=True, env=dict(os.environ, RAYON_NUM_THREADS=str(args.threads)))
    if done.returncode != 0:
        sys.exit(f"kto-eval failed ({done.returncode}): {done.stderr.strip()[-2000:]}")
    result = json.loads(done.stdout.strip().splitlines()[-1])
    shutil.rmtree(out, ignore_errors=True)
    return result


def trl(args, method):
    command = [args.python, args.trl_runner, "--method", METHODS[method], "--model", args.model, "--data", args.data,
               "--batch", str(args.batch), "--steps", str(args.steps), "--warm", str(args.warm), "--threads", str(args.threads)]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode != 0:
        sys.exit(f"TRL failed ({done.returncode}): {done.stderr.strip()[-2000:]}")
    return json.loads(done.stdout.strip().splitlines()[-1])


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", required=True)
    parser.add_argument("--data", required=True)
    parser.add_argument("--trl-runner", required=True)
    parser.add_argument("--python", default="target/peers/bin/python")
    parser.add_argument("--binary", default="target/release/kto-eval")
    parser.add_argument("--methods", default="sft,dpo,kto")
    for name, default in (("rounds", 3), ("steps", 20), ("warm", 3), ("batch", 8), ("threads", 2)):
        parser.add_argument(f"--{name}", type=int, default=default)
    args = parser.parse_args()

    print("| method | kto-eval tokens/s | TRL tokens/s | ratio, median (min to max) | memory beyond the model, MiB: kto-eval / TRL | ratio |")
    print("| --- | --- | --- | --- | --- | --- |")
    for method in args.methods.split(","):
        mine, peer = [], []
        for _ in range(args.rounds):
            mine.append(ours(args, method))
            peer.append(trl(args, method))
        speed = [a["tokens_per_second_median"] / b["tokens_per_s_median"] for a, b in zip(mine, peer)]
        beyond = [a["peak_host_mib"] - a["host_mib_with_model"] for a in mine]
        beyond_peer = [b["peak_rss_mib"] - b["rss_with_model_mib"] for b in peer]
        row = lambda values: statistics.median(values)
        print(f"| {method} | {row([a['tokens_per_second_median'] for a in mine]):.0f} | {row([b['tokens_per_s_median'] for b in peer]):.0f} "
              f"| {row(speed):.2f} ({min(speed):.2f} to {max(speed):.2f}) | {row(beyond):.0f} / {row(beyond_peer):.0f} "
              f"| {row(beyond) / row(beyond_peer):.2f} |", flush=True)


if __name__ == "__main__":
    main()
