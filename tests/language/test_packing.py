"""Packed rows give the scores of separate prompts."""

import numpy as np
import pytest
import torch
from transformers import (
    AutoModelForCausalLM,
    GPT2Config,
    LlamaConfig,
    MistralConfig,
    Qwen2Config,
)

from recbole_ganprompt.language.answer import answer_ids, answer_logits
from recbole_ganprompt.language.builtin_tokenizer import byte_level_tokenizer
from recbole_ganprompt.language.layout import collate
from recbole_ganprompt.language.packing import Branch, batches_by_tokens, pack_row
from recbole_ganprompt.language.reading import read_answers
from recbole_ganprompt.prompt.rendering import SOFT_USER, PromptTokens, TitleTable
from recbole_ganprompt.prompt.template import SLOTS, load_template, parse_template

TITLES = ["", "Red nail polish", "Sun cream, 200 ml", "A brush", "Lip balm; set of 3", "Soap"]
USER_FIRST = {
    "instruction": "Answer.",
    "input": "⟨UserID⟩ liked ⟨UserHistory⟩ and not ⟨UserUnpreference⟩. Would ⟨TargetTitle⟩ suit?",
    "positive": "Yes.",
    "negative": "No.",
}
TARGET_FIRST = {
    "instruction": "Answer.",
    "input": "Would ⟨TargetTitle⟩ suit who liked ⟨UserHistory⟩?",
    "positive": "Yes.",
    "negative": "No.",
}


@pytest.fixture(scope="module")
def tokenizer():
    template = load_template("recommendation", SLOTS)
    return byte_level_tokenizer(
        TITLES[1:],
        400,
        specials=["<pad>", "<s>", "</s>"],
        pattern="<s> $A",
        repeated=template.literals(),
        model_max_length=2048,
        pad_token="<pad>",
        bos_token="<s>",
        eos_token="</s>",
    )


def random_model(architecture, vocabulary, attention):
    sizes = {
        "vocab_size": vocabulary,
        "hidden_size": 32,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "intermediate_size": 48,
        "max_position_embeddings": 512,
        "initializer_range": 0.3,  # far from uniform, so that a wrong mask shows
    }
    config = {
        "llama": lambda: LlamaConfig(**sizes, num_key_value_heads=2),
        "qwen2": lambda: Qwen2Config(**sizes, num_key_value_heads=2),
        "mistral": lambda: MistralConfig(**sizes, num_key_value_heads=2, sliding_window=None),
        "gpt2": lambda: GPT2Config(vocab_size=vocabulary, n_embd=32, n_layer=2, n_head=4, n_positions=512),
    }[architecture]()
    torch.manual_seed(0)
    return AutoModelForCausalLM.from_config(config, attn_implementation=attention).eval()


def packed_scores(model, rows, answers, soft=None):
    batch = collate(rows)
    vectors = None
    if soft is not None:
        vectors = torch.stack([soft[kind] for kind in batch.soft[:, 2].tolist()])
    scores = answer_logits(model, read_answers(model, batch, vectors), answers)
    return dict(zip(batch.references, scores.tolist()))


@torch.no_grad()
@pytest.mark.parametrize("architecture", ["llama", "qwen2", "mistral", "gpt2"])
@pytest.mark.parametrize("source", ["history first", "user first", "target first"])
def test_scores_equal_separate_prompts(tokenizer, architecture, source):
    soft = {SOFT_USER: torch.linspace(-1, 1, 32)}
    if source == "target first":
        template, soft = parse_template(TARGET_FIRST, ("UserHistory", "TargetTitle")), None
    elif source == "user first":
        slots = ("UserID", "UserHistory", "UserUnpreference", "TargetTitle")
        template = parse_template(USER_FIRST, slots)
    else:
        template = load_template("recommendation", ("UserHistory", "UserID", "TargetTitle"))
    prompt = PromptTokens(tokenizer, template)
    table = TitleTable(tokenizer, TITLES, 20)
    model = random_model(architecture, len(tokenizer), "sdpa")
    answers = answer_ids(tokenizer, template.positive, template.negative)

    def branch(position, items):
        return Branch(
            position,
            [table[item] for item in items],
            [()] * len(items),
            [(position, item) for item in items],
        )

    history = [1, 2, 3, 4]
    asked = {1: [2, 5], 3: [4, 1, 5], 4: [5]}
    trunk = [table[item] for item in history]
    together = pack_row(prompt, trunk, [branch(end, items) for end, items in asked.items()])
    other = pack_row(prompt, trunk[:1], [branch(1, [3])])
    packed = packed_scores(model, [together, other], answers, soft)

    for end, items in asked.items():
        for item in items:
            row = pack_row(prompt, trunk[:end], [branch(end, [item])])
            alone = packed_scores(model, [row], answers, soft)
            assert packed[(end, item)] == pytest.approx(alone[(end, item)], abs=1e-4)
            # A lone prompt is an ordinary causal row: vanilla transformers agrees.
            if soft is None:
                logits = model(torch.tensor([row.ids])).logits[0, -1]
                expected = (logits[answers[0]] - logits[answers[1]]).item()
                assert alone[(end, item)] == pytest.approx(expected, abs=1e-4)
    assert len({round(score, 4) for score in packed.values()}) > 3


def test_batches_hold_every_row_once_and_keep_the_budget():
    lengths = np.random.default_rng(0).integers(1, 90, size=200)
    batches = batches_by_tokens(lengths, 300, np.random.default_rng(1))
    assert sorted(np.concatenate(batches)) == list(range(200))
    assert all(lengths[batch].max() * len(batch) <= 300 for batch in batches)


def test_a_row_longer_than_the_budget_gets_its_own_batch():
    assert [batch.tolist() for batch in batches_by_tokens([5, 500, 7], 100)] == [[0, 2], [1]]
