"""Tokens per second against Hugging Face `generate`, in turns.

    python benches/vs_hf_generate.py MODEL_DIR [ROUNDS]

Needs torch and transformers, and `cargo build --release --benches` before. Both sides run the same 16 prompts
of 32 to 92 tokens for 128 new tokens each on the CPU in fp32, end-of-sequence ignored. Rounds alternate, so
that a busy machine slows both; the ratio of each round is printed, then the median.
"""

import glob
import json
import os
import statistics
import subprocess
import sys
import time

import torch
from transformers import AutoModelForCausalLM

PROMPTS, NEW_TOKENS = 16, 128


def prompts(vocab):
    return [[2 + (i * 131 + j * 17) % (vocab - 2) for j in range(32 + 4 * i)] for i in range(PROMPTS)]


def padded(rows):
    width = max(map(len, rows))
    ids = torch.tensor([[1] * (width - len(r)) + r for r in rows])
    mask = torch.tensor([[0] * (width - len(r)) + [1] * len(r) for r in rows])
    return ids, mask


def hf_tokens_per_second(model, rows, sample):
    ids, mask = padded(rows)
    start = time.perf_counter()
    with torch.inference_mode():
        out = model.generate(
            ids, attention_mask=mask, do_sample=sample, top_k=0, top_p=1.0, temperature=1.0,
            max_new_tokens=NEW_TOKENS, min_new_tokens=NEW_TOKENS, pad_token_id=1,
        )
    assert out.shape[1] == ids.shape[1] + NEW_TOKENS
    return PROMPTS * NEW_TOKENS / (time.perf_counter() - start)


def ours(binary, directory):
    lines = subprocess.run([binary, directory], check=True, capture_output=True, text=True).stdout.splitlines()
    rows = [json.loads(line) for line in lines if line.startswith("{")]
    return {(r["decoding"], r["slots"]): r["tokens_per_second"] for r in rows}


def main():
    directory, rounds = sys.argv[1], int(sys.argv[2]) if len(sys.argv) > 2 else 5
    root = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "target", "release", "deps")
    binary = max((p for p in glob.glob(os.path.join(root, "generate-*")) if "." not in os.path.basename(p)),
                 key=os.path.getmtime)
    model = AutoModelForCausalLM.from_pretrained(directory, dtype=torch.float32).eval()
    rows = prompts(model.config.vocab_size)
    hf_tokens_per_second(model, rows[:2], False)  # warm up
    ratios = {"greedy": [], "sampled": []}
    for round_ in range(rounds):
        mine = ours(binary, directory)
        for kind in ratios:
            theirs = hf_tokens_per_second(model, rows, kind == "sampled")
            here = mine[(kind, PROMPTS)]
            ratios[kind].append(here / theirs)
            print(f"round {round_} {kind:8} kto-eval {here:8.1f} tok/s  transformers {theirs:8.1f} tok/s  "
                  f"ratio {here / theirs:.2f}")
    for kind, values in ratios.items():
        print(f"{kind:8} median ratio {statistics.median(values):.2f} (from {min(values):.2f} to {max(values):.2f})")


if __name__ == "__main__":
    main()
