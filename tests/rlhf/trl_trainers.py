"""TRL's RLOO and GRPO trainers on a tiny model: their samples, rewards, log-probs, losses and gradients.

    python tests/rlhf/trl_trainers.py FOLDER

FOLDER holds `policy` and `reference`, two Llamas of 30 tokens that the test
`trl_trains_on_the_same_models_and_the_golden_is_what_it_says` writes. The trainers draw 16 samples of 4 prompts from
the policy, reward them by `reward` below, and make two updates from them, the second at ratios other than 1. Answers go
to FOLDER/answers.json; `trl.json` beside this file is one of them, made with torch 2.15.0, transformers 5.23.0 and trl
1.16.0.
"""
import json
import sys

import torch
from datasets import Dataset
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import AutoModelForCausalLM, PreTrainedTokenizerFast
from trl import GRPOConfig, GRPOTrainer, RLOOConfig, RLOOTrainer

VOCABULARY, EOS, PAD = 30, 0, 1
SAMPLES, TOKENS = 4, 8
PROMPTS = ["w5 w6 w7", "w8 w9", "w10 w11 w12 w13", "w14"]
SETTINGS = {"rloo": {"beta": 0.07, "clip": 0.1}, "grpo": {"beta": 0.04, "clip": 0.1}}


def tokenizer():
    words = {"<eos>": EOS, "<pad>": PAD, **{f"w{i}": i for i in range(2, VOCABULARY)}}
    inner = Tokenizer(models.WordLevel(words, unk_token="w2"))
    inner.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return PreTrainedTokenizerFast(tokenizer_object=inner, eos_token="<eos>", pad_token="<pad>", padding_side="left")


def reward(completion_ids, **_):
    """Between -1 and 1, from the ids alone."""
    return [sum((id * 7 % 11 - 5) / 5 for id in ids) / len(ids) for ids in completion_ids]


def rows(padded, mask):
    """Lists of each row's own numbers."""
    return [[short(x) for x, m in zip(row, seen) if m] for row, seen in zip(padded.tolist(), mask.tolist())]


def short(x):
    return round(x, 8) if isinstance(x, float) else x


def spied(base):
    class Spied(base):
        answer, seen = None, None

        def _get_per_token_logps_and_entropies(self, *args, **kwargs):
            found = super()._get_per_token_logps_and_entropies(*args, **kwargs)
            self.seen = found[0].detach().clone()
            return found

        def _calculate_rewards(self, *args):
            rewards = super()._calculate_rewards(*args)
            self.rewards = [short(r) for r in rewards[:, 0].tolist()]
            return rewards

        def _generate_and_score_completions(self, inputs):
            batch = super()._generate_and_score_completions(inputs)
            mask = batch["completion_mask"]
            self.answer = {
                "prompts": rows(batch["prompt_ids"], batch["prompt_mask"]), "completions": rows(batch["completion_ids"], mask),
                "rewards": self.rewards, "advantages": [short(a) for a in batch["advantages"].tolist()],
                # The last log-probs that it asks for are the reference's.
                "reference": rows(self.seen, mask), "updates": [],
            }
            # The trainer shuffles the batch.
            return {**batch, "place": torch.arange(len(inputs))}

        def _compute_loss(self, model, inputs):
            loss = super()._compute_loss(model, inputs)
            now, order = rows(self.seen, inputs["completion_mask"]), inputs["place"].argsort().tolist()
            self.answer["updates"].append({"now": [now[i] for i in order], "loss": loss.item()})
            return loss

        def training_step(self, *args, **kwargs):
            loss = super().training_step(*args, **kwargs)
            norms = [p.grad.norm() for p in self.model.parameters() if p.grad is not None]
            self.answer["updates"][-1]["gradient_norm"] = torch.stack(norms).norm().item()
            return loss

    return Spied


def train(name, folder):
    trainer_class, config_class = {"rloo": (RLOOTrainer, RLOOConfig), "grpo": (GRPOTrainer, GRPOConfig)}[name]
    beta, clip = SETTINGS[name]["beta"], SETTINGS[name]["clip"]
    more = {"loss_type": "grpo", "scale_rewards": "group"} if name == "grpo" else {}
    config = config_class(
        output_dir=f"{folder}/{name}", per_device_train_batch_size=len(PROMPTS) * SAMPLES, num_generations=SAMPLES,
        max_completion_length=TOKENS, temperature=1.0, top_p=1.0, top_k=0, num_iterations=2, max_steps=2, beta=beta,
        epsilon=clip, learning_rate=0.001, lr_scheduler_type="constant", max_grad_norm=0.0, use_cpu=True, bf16=False,
        gradient_checkpointing=False, report_to=[], save_strategy="no", logging_strategy="no", disable_tqdm=True,
        shuffle_dataset=False, seed=7, **more,
    )
    policy, reference = (AutoModelForCausalLM.from_pretrained(f"{folder}/{m}", dtype=torch.float32) for m in ("policy", "reference"))
    # transformers gives the padding's embedding no gradient; this policy draws that token like any other.
    policy.get_input_embeddings().padding_idx = None
    data = Dataset.from_dict({"prompt": PROMPTS})
    trainer = spied(trainer_class)(policy, reward, config, data, processing_class=tokenizer())
    trainer.ref_model.load_state_dict(reference.state_dict())
    trainer.train()
    return {**SETTINGS[name], "samples": SAMPLES, **trainer.answer}


def main():
    folder = sys.argv[1]
    torch.set_num_threads(1)
    answers = {name: train(name, folder) for name in SETTINGS}
    with open(f"{folder}/answers.json", "w") as file:
        json.dump(answers, file)


main()
