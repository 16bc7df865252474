#!/usr/bin/env python3
"""The whole comparison (sft, dpo, kto; three seeds; scored) against nine TRL runs and their scoring with transformers.

    python benches/vs_trl_compare.py --model DIR --data DIR --trl-runner PATH/trl_speed.py [--python PYTHON] [--tokens 60000] [--examples 0] [--keep DIR]

DIR of --data holds train.jsonl and test.jsonl of HH transcripts. Install TRL as `benches/vs_trl.py` says.

kto-eval is timed as a user sees it: `compare hh-harmless` with replies sampled (suite heldout-prompts), from an empty
cache, reports drawn. Both sides score the first --examples of the held-out pairs and prompts (0: all). TRL is timed in its
favour: each method's dataset build and rate are measured once over --steps steps of batch 8 and carried to the budget
and to three seeds, without interpreter start-up and loading; scoring one model (log-probs of chosen and rejected in
padded batches of 16, then sampled replies of at most 128 tokens to the same prompts) is measured once and counted ten
times (the base and nine policies; kto-eval samples the base once a seed). No report is drawn, and the replies' divergence from
the reference, which kto-eval records, is not computed.
"""
import argparse, json, os, shutil, subprocess, sys, tempfile, time

SEEDS = 3


def score(args):
    """Runs under TRL's Python: seconds to score one model."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    torch.set_num_threads(args.threads)
    tok = AutoTokenizer.from_pretrained(args.model)
    tok.pad_token = tok.pad_token or tok.eos_token
    model = AutoModelForCausalLM.from_pretrained(args.model, dtype=torch.float32).eval()
    mark, pairs = "\n\nAssistant:", []
    for line in open(os.path.join(args.data, "test.jsonl")):
        row = json.loads(line)
        cut = row["chosen"].rfind(mark) + len(mark)
        if row["rejected"][:cut] == row["chosen"][:cut]:
            pairs.append((row["chosen"][:cut], row["chosen"][cut:], row["rejected"][cut:]))
    pairs = pairs[: args.examples or len(pairs)]
    started, total = time.perf_counter(), 0.0
    with torch.inference_mode():
        texts = [(p, c) for p, chosen, rejected in pairs for c in (chosen, rejected)]
        for at in range(0, len(texts), 16):
            ids = [(tok(p).input_ids, tok(c, add_special_tokens=False).input_ids) for p, c in texts[at : at + 16]]
            ids = [(p, (p + c)[:512]) for p, c in ids]
            width = max(len(full) for _, full in ids)
            batch = torch.full((len(ids), width), tok.pad_token_id)
            seen = torch.zeros_like(batch)
            for i, (_, full) in enumerate(ids):
                batch[i, : len(full)], seen[i, : len(full)] = torch.tensor(full), 1
            logps = model(input_ids=batch, attention_mask=seen).logits[:, :-1].log_softmax(-1)
            picked = logps.gather(2, batch[:, 1:, None])[..., 0]
            total += sum(picked[i, len(p) - 1 : len(full) - 1].sum().item() for i, (p, full) in enumerate(ids))
        middle = time.perf_counter()
        tok.padding_side, made = "left", 0
        for at in range(0, len(pairs), 16):
            inputs = tok([p for p, _, _ in pairs[at : at + 16]], return_tensors="pt", padding=True, truncation=True, max_length=384)
            out = model.generate(**inputs, do_sample=True, max_new_tokens=128, pad_token_id=tok.pad_token_id,
                                 stop_strings=["\n\nHuman:"], tokenizer=tok)
            made += out.numel() - inputs["input_ids"].numel()
    print(json.dumps(dict(logps_s=middle - started, sampling_s=time.perf_counter() - middle, sampled=made, sum_logps=total)))


def run(command, **options):
    done = subprocess.run(command, capture_output=True, text=True, **options)
    if done.returncode != 0:
        sys.exit(f"{command[0]} failed ({done.returncode}): {done.stderr.strip()[-2000:]}")
    return done.stdout


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name in ("model", "data"):
        parser.add_argument(f"--{name}", required=True)
    parser.add_argument("--trl-runner", default=os.path.join(os.path.dirname(__file__), "trl_speed.py"))
    parser.add_argument("--python", default="target/peers/bin/python")
    parser.add_argument("--binary", default="target/release/kto-eval")
    for name, default in (("tokens", 60_000), ("examples", 0), ("steps", 10), ("warm", 2), ("threads", 2)):
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument("--keep", help="where kto-eval's records and report are left")
    parser.add_argument("--score", action="store_true", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.score:
        return score(args)

    cache, out = tempfile.mkdtemp(), args.keep or tempfile.mkdtemp()
    started = time.perf_counter()
    run([args.binary, "compare", "hh-harmless", "--model", args.model, "--data", args.data, "--threads", str(args.threads),
         "--set", f"budget.tokens={args.tokens}", "--set", f"suites.max_examples={args.examples}",
         "--set", 'suites.generation=["heldout-prompts"]', "--out", os.path.join(out, "hh"), "--quiet"],
        env=dict(os.environ, KTO_EVAL_CACHE=cache))
    ours = time.perf_counter() - started
    shutil.rmtree(cache)
    if not args.keep:
        shutil.rmtree(out)
    print(f"kto-eval: {ours:.0f} s", flush=True)

    theirs = 0.0
    for method in ("sft", "dpo_pre", "kto"):
        line = run([args.python, args.trl_runner, "--method", method, "--model", args.model, "--threads", str(args.threads),
                    "--data", os.path.join(args.data, "train.jsonl"), "--steps", str(args.steps), "--warm", str(args.warm)])
        peer = json.loads(line.strip().splitlines()[-1])
        train = args.tokens / peer["tokens_per_s"]
        # The build, which precomputes DPO's reference, covers the steps measured; a run's covers its budget.
        build = peer["build_s"] * args.tokens / (peer["tokens"] * (args.steps + args.warm) / args.steps)
        theirs += SEEDS * (train + build)
        print(f"TRL {method}: {train:.0f} s of steps and {build:.0f} s of preparation a run", flush=True)
    env = dict(os.environ, HF_HUB_OFFLINE="1", OMP_NUM_THREADS=str(args.threads))
    peer = json.loads(run([args.python, __file__, "--score", "--model", args.model, "--data", args.data,
                           "--examples", str(args.examples), "--threads", str(args.threads)], env=env))
    theirs += (3 * SEEDS + 1) * (peer["logps_s"] + peer["sampling_s"])
    print(f"transformers, scoring one model: {peer['logps_s']:.0f} s of log-probs, {peer['sampling_s']:.0f} s of sampling")
    print(f"TRL and transformers: {theirs:.0f} s; ratio {theirs / ours:.2f}")


if __name__ == "__main__":
    main()
