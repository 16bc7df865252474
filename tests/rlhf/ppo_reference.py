"""PPO's loss on padded batches in PyTorch with autograd, from the equations of the papers: what `ppo.json` holds.

    python tests/rlhf/ppo_reference.py tests/rlhf/ppo.json

Written apart from the Rust code: whole matrices with a mask where that walks sample by sample, and gradients by
autograd where that has them in closed form. Made with torch 2.15.0, in double precision.
"""
import json
import sys

import torch

torch.manual_seed(3)
torch.set_default_dtype(torch.float64)
BETA, CLIP, GAMMA, LAMBDA, VALUE_WEIGHT, VALUE_CLIP = 0.05, 0.2, 0.97, 0.9, 0.3, 0.15
LENGTHS = [3, 1, 6, 4, 2, 5]
N, T = len(LENGTHS), max(LENGTHS)
mask = torch.arange(T)[None] < torch.tensor(LENGTHS)[:, None]

old = -4 * torch.rand(N, T) - 0.1
reference = old + 0.4 * torch.randn(N, T)
now = (old + 0.2 * torch.randn(N, T)).requires_grad_()
old_values = 0.5 * torch.randn(N, T)
values = (old_values + 0.2 * torch.randn(N, T)).requires_grad_()
score = torch.randn(N)


def mean(x):
    return (x * mask).sum() / mask.sum()


# Rewards: the penalty at every token, the score at the last.
rewards = -BETA * (old - reference)
rewards[torch.arange(N), torch.tensor(LENGTHS) - 1] += score
# GAE as the sum that it is (arXiv 1506.02438, eq. 16): A_t = sum over l of (gamma lambda)^l delta_{t+l}.
after = torch.cat([old_values * mask, torch.zeros(N, 1)], 1)[:, 1:]
delta = (rewards + GAMMA * after - old_values) * mask
weights = torch.tensor([[(GAMMA * LAMBDA) ** (u - t) if u >= t else 0.0 for u in range(T)] for t in range(T)])
raw = delta @ weights.T
returns = raw + old_values
advantages = (raw - mean(raw)) / (mean((raw - mean(raw)) ** 2) + 1e-8).sqrt()
ratio = (now - old).exp()
policy_loss = -torch.minimum(ratio * advantages, ratio.clamp(1 - CLIP, 1 + CLIP) * advantages)
held = old_values + (values - old_values).clamp(-VALUE_CLIP, VALUE_CLIP)
value_loss = mean(0.5 * torch.maximum((values - returns) ** 2, (held - returns) ** 2))
loss = mean(policy_loss) + VALUE_WEIGHT * value_loss
loss.backward()


def flat(x):
    return [round(v, 12) for v in x.detach()[mask].tolist()]


json.dump({
    "beta": BETA, "clip": CLIP, "gamma": GAMMA, "gae_lambda": LAMBDA, "value_weight": VALUE_WEIGHT, "value_clip": VALUE_CLIP,
    "lengths": LENGTHS, "rewards": score.tolist(), "old": flat(old), "reference": flat(reference), "now": flat(now),
    "old_values": flat(old_values), "values": flat(values), "advantages": flat(advantages), "returns": flat(returns),
    "loss": loss.item(), "value_loss": value_loss.item(), "dlogps": flat(now.grad), "dvalues": flat(values.grad),
}, open(sys.argv[1], "w"))
