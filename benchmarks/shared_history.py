"""Shared histories against one prompt for each candidate, on the same model and the same prompts.

    python benchmarks/shared_history.py --data_path=FOLDER --json

FOLDER holds ``Amazon_Beauty``. The model is the built-in Llama with random weights, the prompt GANPrompt's
with titles alone, histories up to ten titles. Three ways to score each user's ten candidates, and to take the
gradients of a part of a training epoch (a positive and three negatives at each position of a sequence):

``shared``
    This package.
``separate``
    One prompt for each candidate, only the two answers' logits, sorted by length and batched by the same
    token budget: dynamic padding at its best.
``published``
    What TALLRec's and CoLLM's code does: one row for each pair in the data's order, batches of 32 padded to
    their longest, the whole vocabulary's logits at every position, cross-entropy over them in training.

The sides take turns, ``--repeats`` times; a figure is the fastest of its turns. ``share_of_token_limit`` is
the scoring speed-up as a share of what the numbers of tokens alone allow (separate prompts' over shared
ones'); above 1 where something else is saved too, here the last layer, which is computed for the answers
alone. Peak memory is that of a process of its own for each side.
"""

import argparse
import json
import resource
import subprocess
import sys
import tempfile
from time import perf_counter

import numpy as np
import torch
from recbole.data import create_dataset, data_preparation
from torch.nn.functional import binary_cross_entropy_with_logits, cross_entropy

from recbole_ganprompt.config import build_config
from recbole_ganprompt.data.batches import TextVariants
from recbole_ganprompt.language.layout import collate, separate_prompts
from recbole_ganprompt.language.packing import Branch, batches_by_tokens, pack_row
from recbole_ganprompt.language.reader import Question, Reader
from recbole_ganprompt.model.tallrec import TALLRec
from recbole_ganprompt.trainer.tallrec import TALLRecTrainer

SIDES = ("shared", "separate", "published")
PUBLISHED_BATCH = 32


class Workload:
    """The prompts that all sides read, and each side's way to read them."""

    def __init__(self, options):
        self.work = tempfile.TemporaryDirectory()
        config = build_config(
            "TALLRec",
            "Amazon_Beauty",
            config_dict={
                "data_path": options.data_path,
                "checkpoint_dir": self.work.name,
                "prompt": "recommendation",
                "prompt_history": 10,
                "title_tokens": 20,
                "show_progress": False,
                "state": "ERROR",
                "gpu_id": "",
                "builtin_llm": {"max_tokens": 1},  # random weights cost what trained ones do
            },
        )
        train, _, test = data_preparation(config, create_dataset(config))
        torch.manual_seed(0)
        self.model = TALLRec(config, train._dataset)
        self.model.stage = "text"
        self.llm, self.budget = self.model.llm, config["token_budget"]
        self.prompt = self.model.prompt_of("text")
        table, generator = self.model.title_table, np.random.default_rng(0)

        evaluation = test._dataset.evaluation_set("test")
        chosen = generator.choice(len(evaluation), options.users, replace=False)
        self.questions = []
        for user in chosen:
            length = evaluation.lengths[user]
            history = evaluation.histories[user][max(0, length - 10) : length]
            titles = [table[item] for item in evaluation.candidates[user]]
            self.questions.append(Question([table[item] for item in history], titles))
        self.rows = [pack_row(self.prompt, one.history, [_branch(one)]) for one in self.questions]
        self.pairs = [prompt for row in self.rows for prompt in separate_prompts(row)]

        trainer = TALLRecTrainer(config, self.model)
        positions = trainer.text_positions(train._dataset, [], generator)
        users = generator.choice(np.unique(positions.users), options.training_users, replace=False)
        positions = positions[np.flatnonzero(np.isin(positions.users, users))]
        texts = TextVariants([table], 0.0)
        self.training = trainer.rows(train._dataset, positions, "text", texts, generator)
        self.training_pairs = [prompt for row in self.training for prompt in separate_prompts(row)]

    def score(self, side: str) -> np.ndarray:
        """[users, 10] scores."""
        if side == "published":
            logits = [
                self._published(self.pairs[start : start + PUBLISHED_BATCH])
                for start in self._starts(self.pairs)
            ]
            return torch.cat(logits).view(len(self.questions), -1).numpy()
        reader = Reader(self.llm, self.model.answers, self.budget, side)
        return reader.score(self.prompt, self.questions).numpy()

    def train(self, side: str) -> torch.Tensor:
        """The gradients of all training rows, flat."""
        self.llm.zero_grad(set_to_none=True)
        if side == "published":
            for start in self._starts(self.training_pairs):
                self._published_loss(self.training_pairs[start : start + PUBLISHED_BATCH]).backward()
        else:
            reader = Reader(self.llm, self.model.answers, self.budget, side)
            for part in batches_by_tokens([reader.tokens(row) for row in self.training], self.budget):
                batch = collate([self.training[index] for index in part], layout=side)
                labels = torch.tensor([float(candidate == 0) for _, candidate in batch.references])
                binary_cross_entropy_with_logits(reader.logits(batch), labels, reduction="sum").backward()
        return torch.cat([p.grad.flatten() for p in self.llm.parameters()])

    @staticmethod
    def _starts(pairs):
        return range(0, len(pairs), PUBLISHED_BATCH)

    @staticmethod
    def _padded(pairs):
        width = max(map(len, pairs))
        ids, mask = torch.zeros(2, len(pairs), width, dtype=torch.int64)
        for index, pair in enumerate(pairs):  # on the left, as generation wants it
            ids[index, width - len(pair) :] = torch.tensor(pair.ids)
            mask[index, width - len(pair) :] = 1
        return ids, mask, (mask.cumsum(1) - 1).clamp_min(0)

    @torch.no_grad()
    def _published(self, pairs):
        ids, mask, positions = self._padded(pairs)
        last = self.llm(input_ids=ids, attention_mask=mask, position_ids=positions).logits[:, -1]
        yes, no = self.model.answers
        return last[:, yes] - last[:, no]

    def _published_loss(self, pairs):
        ids, mask, positions = self._padded(pairs)
        logits = self.llm(input_ids=ids, attention_mask=mask, position_ids=positions).logits
        yes, no = self.model.answers
        targets = torch.full(ids.shape, -100)
        targets[:, -1] = torch.tensor([yes if pair.references[0][1] == 0 else no for pair in pairs])
        return cross_entropy(logits.flatten(0, 1).float(), targets.flatten(), reduction="sum")


def _branch(question: Question) -> Branch:
    count = len(question.titles)
    return Branch(
        len(question.history), question.titles, [()] * count, [(0, column) for column in range(count)]
    )


def peak_mb() -> float:
    """Peak resident set of this process, 10^6 bytes."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e6


def memory_of(side: str, part: str, arguments: list[str]) -> float:
    """Peak memory of one side in a process of its own."""
    command = [sys.executable, __file__, *arguments, f"--only={side}:{part}"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return float(done.stdout.splitlines()[-1])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data_path", required=True, help="folder that holds Amazon_Beauty")
    parser.add_argument("--users", type=int, default=200, help="whose candidates are scored")
    parser.add_argument("--training_users", type=int, default=40, help="whose positions are trained on")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--json", action="store_true", help="one JSON object in the last line")
    parser.add_argument("--only", help=argparse.SUPPRESS)
    options = parser.parse_args()
    work = Workload(options)
    parts = {"scoring": work.score, "training": work.train}
    if options.only:
        side, part = options.only.split(":")
        parts[part](side)
        print(peak_mb())
        return

    seconds = {part: dict.fromkeys(SIDES, np.inf) for part in parts}
    outputs = {}
    for _ in range(options.repeats):
        for part, function in parts.items():
            for side in SIDES:
                started = perf_counter()
                outputs[part, side] = function(side)
                seconds[part][side] = min(seconds[part][side], perf_counter() - started)

    tokens = {"shared": sum(map(len, work.rows)), "separate": sum(map(len, work.pairs))}
    training_tokens = {"shared": sum(map(len, work.training)), "separate": sum(map(len, work.training_pairs))}
    speed = {part: {side: seconds[part][side] / seconds[part]["shared"] for side in SIDES} for part in parts}
    gradients = {side: outputs["training", side] for side in SIDES}
    largest = gradients["separate"].abs().max().item()
    result = {
        "command": " ".join(["python", "benchmarks/shared_history.py", *sys.argv[1:]]),
        "threads": torch.get_num_threads(),
        "scored_pairs": len(work.pairs),
        "training_samples": len(work.training_pairs),
        "seconds": seconds,
        "tokens": {"scoring": tokens, "training": training_tokens},
        "tokens_per_second": {
            "scoring": {side: tokens[side] / seconds["scoring"][side] for side in tokens},
            "training": {side: training_tokens[side] / seconds["training"][side] for side in tokens},
        },
        "peak_memory_mb": {
            part: {side: memory_of(side, part, sys.argv[1:]) for side in SIDES} for part in parts
        },
        "scoring_speedup": speed["scoring"]["separate"],
        "training_speedup": speed["training"]["separate"],
        "published_way_speedup": speed["scoring"]["published"],
        "published_way_training_speedup": speed["training"]["published"],
        "token_limit": tokens["separate"] / tokens["shared"],
        "share_of_token_limit": speed["scoring"]["separate"] * tokens["shared"] / tokens["separate"],
        "max_abs_difference": max(
            float(np.abs(outputs["scoring", side] - outputs["scoring", "shared"]).max()) for side in SIDES
        ),
        "max_gradient_difference": max(
            (gradients[side] - gradients["shared"]).abs().max().item() / largest for side in SIDES[:2]
        ),
    }
    if not options.json:
        for part in parts:
            for side in SIDES:
                print(
                    f"{part:9s} {side:10s} {seconds[part][side]:8.2f} s {speed[part][side]:6.2f} x shared "
                    f"{result['peak_memory_mb'][part][side]:8.0f} MB"
                )
    print(json.dumps(result))


if __name__ == "__main__":
    main()
