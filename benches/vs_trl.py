#!/usr/bin/env python3
"""kto-eval against TRL: same model, data, batch and dtype, alternating in one run; prints ratios.

    python benches/vs_trl.py --model DIR --data TRAIN.jsonl [--trl-runner benches/trl_speed.py] [--python PYTHON]
                             [--methods sft,dpo,kto,kto-known] [--rounds 3] [--steps 20] [--warm 3] [--batch 8]
                             [--device cpu|cuda] [--bf16]

Install TRL first:
    python3 -m venv target/peers && target/peers/bin/pip install torch==2.15.0 transformers==5.23.0 trl==1.16.0 peft==0.21.2 datasets==5.2.0 accelerate==1.15.0

The runner prints one JSON line (tokens_per_s_median, peak_rss_mib, rss_with_model_mib, losses). Useful tokens are
those that are not padding, of the sequences trained on. Memory is counted from the process with its model loaded
once (fp32), as the records have it: what `train` works on is what it has loaded, and it keeps no copy for the reference. Both sides take rows in order, constant learning rate
5e-5, AdamW without decay, clip 1.0, length 512. The batch is TRL's: pairs for DPO, sequences for SFT and KTO.

`dpo`: the reference is precomputed on both sides (here by an untimed run that fills the cache). `kto`: both compute
it, TRL in the step, `train` before its first update (from an empty cache): that time is shared out among the steps by
their tokens. `kto-known`: as `kto`, but with our cache filled, as all seeds but the first
have it; TRL's own option for that is not used.
"""
import argparse, csv, json, os, shutil, statistics, subprocess, sys, tempfile

METHODS = {"sft": "sft", "dpo": "dpo_pre", "kto": "kto", "kto-known": "kto"}
KNOWN = ("dpo", "kto-known")


def ours(args, method, known):
    out, fresh = tempfile.mkdtemp(prefix="kto-eval-bench-"), tempfile.mkdtemp(prefix="kto-eval-cache-")
    cache = known if method in KNOWN else fresh
    method = method.split("-")[0]
    completions = args.batch * (2 if method == "dpo" else 1)
    command = [
        args.binary, "train", "--method", method, "--model", args.model, "--data", args.data, "--out", out, "--quiet",
        "--steps", str(args.warm + args.steps), "--order", "sequential", "--threads", str(args.threads),
        "--schedule", "constant", "--warmup", "0", "--learning-rate", "5e-5",
        "--weight-decay", "0", "--max-grad-norm", "1.0", "--max-length", "512",
        "--batch-size", str(completions), "--device", args.device,
    ]
    if args.device != "cpu":
        command += ["--set", "train.micro_tokens=16384"]
    if args.bf16:
        command += ["--set", "model.dtype=bf16"]
    if method == "kto":
        command += ["--param", "z0=previous", "--param", "lambda_desirable=1.0", "--param", "lambda_undesirable=1.0"]
    done = subprocess.run(command, capture_output=True, text=True, env=dict(os.environ, KTO_EVAL_CACHE=cache))
    if done.returncode != 0:
        sys.exit(f"kto-eval failed ({done.returncode}): {done.stderr.strip()[-2000:]}")
    with open(os.path.join(out, "steps.csv")) as file:
        steps = list(csv.DictReader(file))[args.warm:]
    with open(os.path.join(out, "runs.csv")) as file:
        run = next(csv.DictReader(file))
    ahead = float(run["reference_seconds"]) / float(run["policy_tokens"])
    shutil.rmtree(out, ignore_errors=True)
    shutil.rmtree(fresh, ignore_errors=True)
    return {
        "tokens_per_second_median": statistics.median(
            float(s["policy_tokens"]) / (float(s["seconds"]) + ahead * float(s["policy_tokens"])) for s in steps
        ),
        "peak_mib": float(run["peak_host_mib"]),
        "beyond_mib": float(run["peak_host_mib"]) - float(run["start_host_mib"]),
    }


def trl(args, method):
    command = [args.python, args.trl_runner, "--method", METHODS[method], "--model", args.model, "--data", args.data,
               "--batch", str(args.batch), "--steps", str(args.steps), "--warm", str(args.warm), "--threads", str(args.threads),
               "--device", args.device] + ["--bf16"] * args.bf16
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode != 0:
        sys.exit(f"TRL failed ({done.returncode}): {done.stderr.strip()[-2000:]}")
    return json.loads(done.stdout.strip().splitlines()[-1])


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", required=True)
    parser.add_argument("--data", required=True)
    parser.add_argument("--trl-runner", default=os.path.join(os.path.dirname(__file__), "trl_speed.py"))
    parser.add_argument("--python", default="target/peers/bin/python")
    parser.add_argument("--binary", default="target/release/kto-eval")
    parser.add_argument("--methods", default="sft,dpo,kto,kto-known")
    for name, default in (("rounds", 3), ("steps", 20), ("warm", 3), ("batch", 8), ("threads", 2)):
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--bf16", action="store_true")
    args = parser.parse_args()

    print("| method | kto-eval tokens/s | TRL tokens/s | ratio, median (min to max) | memory beyond the model, MiB: kto-eval / TRL | ratio | peak of the process, MiB |")
    print("| --- | --- | --- | --- | --- | --- | --- |")
    for method in args.methods.split(","):
        mine, peer, known = [], [], tempfile.mkdtemp(prefix="kto-eval-known-")
        if method in KNOWN:
            ours(args, method, known)
        for _ in range(args.rounds):
            mine.append(ours(args, method, known))
            peer.append(trl(args, method))
        shutil.rmtree(known, ignore_errors=True)
        speed = [a["tokens_per_second_median"] / b["tokens_per_s_median"] for a, b in zip(mine, peer)]
        beyond = [a["beyond_mib"] for a in mine]
        beyond_peer = [b["peak_rss_mib"] - b["rss_with_model_mib"] for b in peer]
        row = lambda values: statistics.median(values)
        print(f"| {method} | {row([a['tokens_per_second_median'] for a in mine]):.0f} | {row([b['tokens_per_s_median'] for b in peer]):.0f} "
              f"| {row(speed):.2f} ({min(speed):.2f} to {max(speed):.2f}) | {row(beyond):.0f} / {row(beyond_peer):.0f} "
              f"| {row(beyond) / row(beyond_peer):.3f} | {row([a['peak_mib'] for a in mine]):.0f} / {row([b['peak_rss_mib'] for b in peer]):.0f} |",
              flush=True)


if __name__ == "__main__":
    main()
