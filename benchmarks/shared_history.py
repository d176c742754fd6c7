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

With ``--options`` also training the shared way with a model that was changed: ``compiled`` (``llm_compile``)
and ``recomputed`` (``gradient_checkpointing``).

The sides take turns, ``--repeats`` times; a figure is the fastest of its turns. ``share_of_token_limit`` is
the scoring speed-up as a share of what the numbers of tokens alone allow (separate prompts' over shared
ones'); above 1 where something else is saved too, here the last layer, which is computed for the answers
alone. Peak memory is that of a process of its own for each side.
"""

import argparse
import copy
import json
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
from recbole_ganprompt.language.backbone import compile_elementwise
from recbole_ganprompt.language.layout import collate, separate_prompts
from recbole_ganprompt.language.packing import Branch, batches_by_tokens, pack_row
from recbole_ganprompt.language.reader import Question, Reader
from recbole_ganprompt.model.tallrec import TALLRec
from recbole_ganprompt.trainer.stages import Stages
from recbole_ganprompt.trainer.tallrec import TALLRecTrainer

SIDES = ("shared", "separate", "published")
OPTIONS = ("compiled", "recomputed")
PUBLISHED_BATCH = 32


class Sides:
    """Each side's way to read the same prompts.

    Parameters
    ----------
    llm : transformers causal language model
    answers : (yes, no)
    prompt : PromptTokens
    questions : list of Question
        To score, ten candidates each.
    training : list of Row
        To train on; candidate 0 of a position is its positive.
    budget : int
        Tokens at once.
    """

    def __init__(self, llm, answers, prompt, questions, training, budget):
        self.llm, self.answers, self.prompt, self.budget = llm, answers, prompt, budget
        self.device = llm.get_input_embeddings().weight.device
        self.questions, self.training = questions, training
        self.rows = [pack_row(prompt, one.history, [_branch(one)]) for one in questions]
        self.pairs = [one for row in self.rows for one in separate_prompts(row)]
        self.training_pairs = [one for row in training for one in separate_prompts(row)]
        self._changed = {}

    def score(self, side: str) -> np.ndarray:
        """[users, 10] scores."""
        if side == "published":
            scores = torch.cat([self._published(part) for part in _parts(self.pairs)])
            return scores.view(len(self.questions), -1).cpu().numpy()
        return (
            Reader(self.llm, self.answers, self.budget, side).score(self.prompt, self.questions).cpu().numpy()
        )

    def train(self, side: str) -> torch.Tensor:
        """The gradients of all training rows, flat."""
        llm, layout = (self._change(side), "shared") if side in OPTIONS else (self.llm, side)
        llm.zero_grad(set_to_none=True)
        if side == "published":
            for part in _parts(self.training_pairs):
                self._published_loss(part).backward()
        else:
            reader = Reader(llm, self.answers, self.budget, layout)
            for part in batches_by_tokens([reader.tokens(row) for row in self.training], self.budget):
                batch = collate([self.training[index] for index in part], self.device, reader.layout)
                labels = [float(candidate == 0) for _, candidate in batch.references]
                labels = torch.tensor(labels, device=self.device)
                binary_cross_entropy_with_logits(reader.logits(batch), labels, reduction="sum").backward()
        return torch.cat([p.grad.flatten() for p in llm.parameters() if p.grad is not None])

    def _change(self, option: str):
        """The model with an option on; made at its first use."""
        if option not in self._changed:
            llm = copy.deepcopy(self.llm)
            if option == "compiled":
                compile_elementwise(llm)
            else:
                llm.gradient_checkpointing_enable()
                llm.train()  # transformers recomputes in training only; this model has no dropout
            self._changed[option] = llm
        return self._changed[option]

    def _padded(self, pairs):
        width = max(map(len, pairs))
        ids, mask = torch.zeros(2, len(pairs), width, dtype=torch.int64)
        for index, pair in enumerate(pairs):  # on the left, as generation wants it
            ids[index, width - len(pair) :] = torch.tensor(pair.ids)
            mask[index, width - len(pair) :] = 1
        return ids.to(self.device), mask.to(self.device), (mask.cumsum(1) - 1).clamp_min(0).to(self.device)

    @torch.no_grad()
    def _published(self, pairs):
        ids, mask, positions = self._padded(pairs)
        last = self.llm(input_ids=ids, attention_mask=mask, position_ids=positions).logits[:, -1].float()
        yes, no = self.answers
        return last[:, yes] - last[:, no]

    def _published_loss(self, pairs):
        ids, mask, positions = self._padded(pairs)
        logits = self.llm(input_ids=ids, attention_mask=mask, position_ids=positions).logits
        yes, no = self.answers
        targets = torch.full(ids.shape, -100)
        targets[:, -1] = torch.tensor([yes if pair.references[0][1] == 0 else no for pair in pairs])
        return cross_entropy(logits.flatten(0, 1).float(), targets.flatten().to(self.device), reduction="sum")


def _parts(pairs):
    return [pairs[start : start + PUBLISHED_BATCH] for start in range(0, len(pairs), PUBLISHED_BATCH)]


def beauty(options) -> Sides:
    """Users of Amazon_Beauty, their frozen test candidates, and some users' training positions."""
    work = tempfile.TemporaryDirectory()
    config = build_config(
        "TALLRec",
        "Amazon_Beauty",
        config_dict={
            "data_path": options.data_path,
            "checkpoint_dir": work.name,
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
    model = TALLRec(config, train._dataset)
    prompt, table, generator = model.prompt_of("text"), model.title_table, np.random.default_rng(0)

    evaluation, questions = test._dataset.evaluation_set("test"), []
    for user in generator.choice(len(evaluation), options.users, replace=False):
        length = evaluation.lengths[user]
        history = evaluation.histories[user][max(0, length - 10) : length]
        titles = [table[item] for item in evaluation.candidates[user]]
        questions.append(Question([table[item] for item in history], titles))

    trainer = TALLRecTrainer(config, model)
    positions = trainer.text_positions(train._dataset, [], generator)
    users = generator.choice(np.unique(positions.users), options.training_users, replace=False)
    positions = positions[np.flatnonzero(np.isin(positions.users, users))]
    training = trainer.rows(train._dataset, positions, "text", TextVariants([table], 0.0), generator)
    work.cleanup()
    return Sides(model.llm, model.answers, prompt, questions, training, config["token_budget"])


def _branch(question: Question) -> Branch:
    count = len(question.titles)
    return Branch(
        len(question.history), question.titles, [()] * count, [(0, column) for column in range(count)]
    )


def compare(sides: Sides, repeats: int) -> dict:
    """Time all sides in turns: seconds, tokens, ratios and differences."""
    parts = {"scoring": sides.score, "training": sides.train}
    seconds = {part: dict.fromkeys(SIDES, np.inf) for part in parts}
    outputs = {}
    for _ in range(repeats):
        for part, function in parts.items():
            for side in SIDES:
                started = perf_counter()
                outputs[part, side] = function(side)
                if sides.device.type == "cuda":
                    torch.cuda.synchronize()
                seconds[part][side] = min(seconds[part][side], perf_counter() - started)
    tokens = {
        "scoring": {"shared": sum(map(len, sides.rows)), "separate": sum(map(len, sides.pairs))},
        "training": {
            "shared": sum(map(len, sides.training)),
            "separate": sum(map(len, sides.training_pairs)),
        },
    }
    ratio = {part: {side: seconds[part][side] / seconds[part]["shared"] for side in SIDES} for part in parts}
    gradients = {side: outputs["training", side].float() for side in SIDES}
    apart = [np.abs(outputs["scoring", side] - outputs["scoring", "shared"]).max() for side in SIDES]
    limit = tokens["scoring"]["separate"] / tokens["scoring"]["shared"]
    return {
        "scored_pairs": len(sides.pairs),
        "training_samples": len(sides.training_pairs),
        "seconds": seconds,
        "tokens": tokens,
        "tokens_per_second": {
            part: {side: count / seconds[part][side] for side, count in tokens[part].items()}
            for part in parts
        },
        "scoring_speedup": ratio["scoring"]["separate"],
        "training_speedup": ratio["training"]["separate"],
        "published_way_speedup": ratio["scoring"]["published"],
        "published_way_training_speedup": ratio["training"]["published"],
        "token_limit": limit,
        "share_of_token_limit": ratio["scoring"]["separate"] / limit,
        "max_abs_difference": float(max(apart)),
        "max_relative_gradient_difference": (
            (gradients["separate"] - gradients["shared"]).abs().max() / gradients["separate"].abs().max()
        ).item(),
    }


def compare_options(sides: Sides, repeats: int) -> dict:
    """Training seconds with and without each option, in turns; the first turn, which compiles, apart."""
    first = {}
    for option in OPTIONS:
        started = perf_counter()
        sides.train(option)
        first[option] = perf_counter() - started
    seconds = dict.fromkeys(("shared", *OPTIONS), np.inf)
    for _ in range(repeats):
        for side in seconds:
            started = perf_counter()
            sides.train(side)
            seconds[side] = min(seconds[side], perf_counter() - started)
    return {"training_seconds": seconds, "first_turn_seconds": first}


def print_table(result: dict) -> None:
    """The ratios as lines of text."""
    for part, seconds in result["seconds"].items():
        for side in SIDES:
            ratio, memory = seconds[side] / seconds["shared"], result["peak_memory_mb"][part][side]
            print(f"{part:9s} {side:10s} {seconds[side]:8.2f} s {ratio:6.2f} x shared {memory:8.0f} MB")


def memory_of(side: str, part: str, arguments: list[str]) -> float:
    """Peak resident memory while one side works, 10^6 bytes, in a process of its own."""
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
    parser.add_argument("--options", action="store_true", help="llm_compile and gradient_checkpointing too")
    parser.add_argument("--only", help=argparse.SUPPRESS)
    options = parser.parse_args()
    sides = beauty(options)
    if options.only:
        side, part = options.only.split(":")
        stages = Stages()
        with stages.stage(part):
            {"scoring": sides.score, "training": sides.train}[part](side)
        print(stages.records[part]["peak_memory_mb"])
        return
    result = {
        "command": " ".join(["python", "benchmarks/shared_history.py", *sys.argv[1:]]),
        "threads": torch.get_num_threads(),
        **compare(sides, options.repeats),
        "peak_memory_mb": {
            part: {side: memory_of(side, part, sys.argv[1:]) for side in SIDES}
            for part in ("scoring", "training")
        },
    }
    if options.options:
        result["options"] = compare_options(sides, options.repeats)
        given = [one for one in sys.argv[1:] if one != "--options"]
        memory = {option: memory_of(option, "training", given) for option in OPTIONS}
        result["options"]["peak_memory_mb"] = memory
    if not options.json:
        print_table(result)
    print(json.dumps(result))


if __name__ == "__main__":
    main()
