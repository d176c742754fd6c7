"""Packed rows give the scores of separate prompts."""

import functools
import shutil
import sys

import numpy as np
import pytest
import torch
from transformers import (
    AutoModelForCausalLM,
    Gemma2Config,
    GPT2Config,
    GPTNeoXConfig,
    LlamaConfig,
    MambaConfig,
    MistralConfig,
    Qwen2Config,
)

from recbole_ganprompt.errors import UserError
from recbole_ganprompt.language import reader as reader_module
from recbole_ganprompt.language.answer import answer_ids
from recbole_ganprompt.language.backbone import compile_elementwise
from recbole_ganprompt.language.builtin_tokenizer import byte_level_tokenizer
from recbole_ganprompt.language.layout import collate, separate_prompts
from recbole_ganprompt.language.packing import Branch, batches_by_tokens, pack_row
from recbole_ganprompt.language.reader import Question, Reader
from recbole_ganprompt.language.reading import read_trunks
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


def random_model(architecture, vocabulary, attention="sdpa"):
    sizes = {
        "vocab_size": vocabulary,
        "hidden_size": 32,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "intermediate_size": 48,
        "max_position_embeddings": 1024,
        "initializer_range": 0.3,  # far from uniform, so that a wrong mask shows
    }
    config = {
        "llama": lambda: LlamaConfig(**sizes, num_key_value_heads=2),
        "qwen2": lambda: Qwen2Config(**sizes, num_key_value_heads=2),
        "mistral": lambda: MistralConfig(**sizes, num_key_value_heads=2, sliding_window=None),
        "gemma2": lambda: Gemma2Config(**sizes, num_key_value_heads=2, head_dim=8, query_pre_attn_scalar=8),
        "gpt2": lambda: GPT2Config(vocab_size=vocabulary, n_embd=32, n_layer=2, n_head=4, n_positions=1024),
        "gpt_neox": lambda: GPTNeoXConfig(**sizes),
        "mamba": lambda: MambaConfig(
            vocab_size=vocabulary, hidden_size=32, num_hidden_layers=2, state_size=4
        ),
    }[architecture]()
    torch.manual_seed(0)
    given = {"attn_implementation": attention} if attention else {}
    return AutoModelForCausalLM.from_config(config, **given).eval()


def packed_scores(model, rows, answers, soft=None, layout="shared"):
    batch = collate(rows, layout=layout)
    vectors = None
    if soft is not None:
        vectors = torch.stack([soft[kind] for kind in batch.soft[:, 2].tolist()])
    scores = Reader(model, answers, 6000, layout).logits(batch, vectors)
    return dict(zip(batch.references, scores.tolist()))


def setting(tokenizer, source):
    """A template, its prompt, titles of odd lengths and what soft tokens stand for."""
    soft = {SOFT_USER: torch.linspace(-1, 1, 32)}
    if source == "target first":
        template, soft = parse_template(TARGET_FIRST, ("UserHistory", "TargetTitle")), None
    elif source == "user first":
        slots = ("UserID", "UserHistory", "UserUnpreference", "TargetTitle")
        template = parse_template(USER_FIRST, slots)
    else:
        template = load_template("recommendation", ("UserHistory", "UserID", "TargetTitle"))
    titles = TITLES + [" ".join(TITLES[1 + (n + k) % 5] for k in range(1 + n % 3)) for n in range(50)]
    table = TitleTable(tokenizer, titles, 20)
    answers = answer_ids(tokenizer, template.positive, template.negative)
    return PromptTokens(tokenizer, template), table, answers, soft


def branch(table, position, items):
    texts = [table[item] for item in items]
    return Branch(position, texts, [()] * len(items), [(position, item) for item in items])


CASES = [
    *((name, "sdpa", "history first") for name in ("llama", "qwen2", "mistral", "gpt2", "gpt_neox")),
    *((name, "eager", "history first") for name in ("llama", "qwen2", "mistral", "gpt2", "gemma2")),
    *((name, "sdpa", "user first") for name in ("llama", "gpt2")),
    *((name, "eager", "target first") for name in ("llama", "gpt2")),
]


@torch.no_grad()
@pytest.mark.parametrize(("architecture", "attention", "source"), CASES)
def test_scores_equal_separate_prompts(tokenizer, architecture, attention, source):
    prompt, table, answers, soft = setting(tokenizer, source)
    model = random_model(architecture, len(tokenizer), attention)
    history = [1, 2, 3, 4, *range(7, 23)]
    asked = {1: [2, 5], 3: [4, 1, 5], 20: [5]}
    rows = [
        pack_row(
            prompt, [table[i] for i in history], [branch(table, n, items) for n, items in asked.items()]
        ),
        pack_row(prompt, [table[3]], [branch(table, 1, range(4, 54))]),  # fifty candidates behind one item
    ]
    scores = {
        layout: [packed_scores(model, [row], answers, soft, layout) for row in rows]
        for layout in ("shared", "flat", "separate")
    }
    together = collate(rows)
    assert len(together.answers) == 56 and together.tokens < collate(rows, layout="separate").tokens
    for shared, flat, separate in zip(*scores.values()):
        assert list(shared) == list(separate)
        assert np.abs(np.subtract(list(shared.values()), list(separate.values()))).max() < 1e-4
        assert np.abs(np.subtract(list(flat.values()), list(separate.values()))).max() < 1e-4
    if soft is None:
        # What vanilla transformers says of the prompt as plain text.
        for row, known in zip(rows, scores["shared"]):
            for alone in separate_prompts(row):
                logits = model(torch.tensor([alone.ids])).logits[0, -1]
                expected = (logits[answers[0]] - logits[answers[1]]).item()
                assert known[alone.references[0]] == pytest.approx(expected, abs=1e-4)
    assert len({round(score, 4) for score in scores["shared"][1].values()}) > 10


def test_gradients_are_those_of_separate_prompts(tokenizer):
    prompt, table, answers, soft = setting(tokenizer, "history first")
    model = random_model("llama", len(tokenizer))
    row = pack_row(prompt, [table[i] for i in (1, 2, 3)], [branch(table, n, [4, 5]) for n in (1, 3)])
    gradients = {}
    for layout in ("shared", "separate", "checkpointed"):
        reader = Reader(model, answers, 6000, "shared" if layout == "checkpointed" else layout)
        if layout == "checkpointed":
            model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
            model.train()
            assert reader.layout == "flat"
        batch = collate([row], layout=reader.layout)
        vectors = torch.stack([soft[kind] for kind in batch.soft[:, 2].tolist()])
        loss = (reader.logits(batch, vectors) * torch.arange(4)).sum()
        gradients[layout] = torch.autograd.grad(loss, list(model.base_model.parameters()))
    for layout in ("shared", "checkpointed"):
        for ours, expected in zip(gradients[layout], gradients["separate"]):
            assert torch.allclose(ours, expected, atol=1e-4 * expected.abs().max().item())


def test_a_frozen_models_trunk_keeps_nothing_for_gradients(tokenizer):
    prompt, table, answers, soft = setting(tokenizer, "history first")
    model = random_model("llama", len(tokenizer)).requires_grad_(False)
    batch = collate([pack_row(prompt, [table[1]], [branch(table, 1, [4, 5])])])
    trunks = read_trunks(model, batch)
    assert not any(layer.keys.requires_grad for layer in trunks.layers)
    vectors = torch.stack([soft[kind] for kind in batch.soft[:, 2].tolist()]).requires_grad_(True)
    Reader(model, answers, 6000).logits(batch, vectors, trunks).sum().backward()
    assert vectors.grad.abs().sum() > 0


def test_hooks_around_the_last_layer_stay(tokenizer):
    prompt, table, answers, _ = setting(tokenizer, "target first")
    model = random_model("llama", len(tokenizer))
    layer, calls = model.base_model.layers[-1], []
    plain = layer.forward

    @functools.wraps(plain)
    def hooked(*args, **kwargs):  # as accelerate does for a device map
        calls.append(1)
        return plain(*args, **kwargs)

    layer.forward = hooked
    question = [Question([table[1]], [table[4], table[5]])]
    first, again = (Reader(model, answers, 300, "shared").score(prompt, question) for _ in range(2))
    assert torch.equal(first, again) and layer.forward is hooked and len(calls) >= 4


@pytest.mark.parametrize("architecture", ["mamba", "llama"])
def test_a_model_that_cannot_share_reads_separate_prompts_and_says_so_once(tokenizer, architecture, caplog):
    prompt, table, answers, _ = setting(tokenizer, "target first")
    model = random_model(architecture, len(tokenizer), None)
    reader = Reader(model, answers, 300)
    questions = [Question([table[i] for i in (1, 2, 3)[: 1 + n % 3]], [table[4], table[5]]) for n in range(9)]
    scores = reader.score(prompt, questions)
    reader.score(prompt, questions)
    said = [record for record in caplog.records if "can't share" in record.message]
    assert reader.layout == ("separate" if architecture == "mamba" else "shared")
    assert len(said) == (architecture == "mamba")
    with torch.no_grad():
        for question, row in zip(questions, scores):
            for title, score in zip(question.titles, row):
                alone = pack_row(
                    prompt, question.history, [Branch(len(question.history), [title], [()], [0])]
                )
                logits = model(torch.tensor([alone.ids])).logits[0, -1]
                assert score.item() == pytest.approx(
                    (logits[answers[0]] - logits[answers[1]]).item(), abs=1e-4
                )


def test_a_long_list_streams_over_one_reading_of_the_history(tokenizer, monkeypatch):
    prompt, table, answers, _ = setting(tokenizer, "history first")
    model = random_model("llama", len(tokenizer))
    prompt = PromptTokens(tokenizer, load_template("recommendation", ("UserHistory", "TargetTitle")))
    history, titles = [table[i] for i in range(1, 21)], [table[1 + n % 55] for n in range(1000)]
    reader = Reader(model, answers, 2000)
    assert reader.layout == "shared"
    seen = {"trunks": 0, "tokens": []}

    def listen(function, note):
        def listening(*args, **kwargs):
            note(args)
            return function(*args, **kwargs)

        return listening

    def one_more(_):
        seen["trunks"] += 1

    monkeypatch.setattr(reader_module, "read_trunks", listen(read_trunks, one_more))
    monkeypatch.setattr(
        reader, "logits", listen(reader.logits, lambda args: seen["tokens"].append(args[0].tokens))
    )
    scores = reader.score(prompt, [Question(history, titles)])[0]
    assert seen["trunks"] == 1 and len(seen["tokens"]) >= 10 and max(seen["tokens"]) < 2500
    few = Reader(model, answers, 10**6).score(prompt, [Question(history, titles[:55])])[0]
    assert torch.allclose(scores, few.repeat(20)[:1000], atol=1e-4)


def test_running_out_of_memory_halves_the_budget_and_loses_nothing(tokenizer, monkeypatch, caplog):
    _, table, answers, _ = setting(tokenizer, "history first")
    prompt = PromptTokens(tokenizer, load_template("recommendation", ("UserHistory", "TargetTitle")))
    model = random_model("llama", len(tokenizer))
    questions = [Question([table[1 + n % 5]], [table[4], table[5]]) for n in range(40)]
    expected = Reader(model, answers, 4000).score(prompt, questions)
    reader, limit = Reader(model, answers, 4000), 700
    whole = reader.logits

    def short_of_memory(batch, soft=None, trunks=None):
        if batch.tokens > limit:
            raise torch.OutOfMemoryError("out of memory")
        return whole(batch, soft, trunks)

    monkeypatch.setattr(reader, "logits", short_of_memory)
    assert torch.allclose(reader.score(prompt, questions), expected, atol=1e-5)
    assert reader.token_budget < 1000 and "Memory ran out" in caplog.text
    titles = [table[1 + n % 5] for n in range(200)]  # one user's list, longer than what fits
    reader.token_budget = 4000
    assert torch.allclose(
        reader.score(prompt, [Question([table[1]], titles)]),
        Reader(model, answers, 4000).score(prompt, [Question([table[1]], titles)]),
        atol=1e-5,
    )
    limit = 10
    with pytest.raises(UserError, match="row_tokens"):
        reader.score(prompt, questions)


@pytest.mark.skipif(not shutil.which("g++"), reason="needs g++")
def test_compiled_layers_give_the_same_gradients(tokenizer, monkeypatch):
    prompt, table, answers, _ = setting(tokenizer, "history first")
    prompt = PromptTokens(tokenizer, load_template("recommendation", ("UserHistory", "TargetTitle")))
    model = random_model("llama", len(tokenizer))
    family = sys.modules[type(model).__module__]
    monkeypatch.setattr(family, "apply_rotary_pos_emb", family.apply_rotary_pos_emb)  # put back at the end
    row = pack_row(prompt, [table[i] for i in (1, 2, 3)], [branch(table, n, [4, 5]) for n in (1, 3)])

    def gradients():
        loss = (Reader(model, answers, 6000, "shared").logits(collate([row])) * torch.arange(4)).sum()
        return torch.autograd.grad(loss, list(model.base_model.parameters()))

    plain = gradients()
    compile_elementwise(model)
    assert family.apply_rotary_pos_emb._torchdynamo_orig_callable
    for ours, expected in zip(gradients(), plain):
        assert torch.allclose(ours, expected, atol=1e-4 * expected.abs().max().item())


def test_batches_hold_every_row_once_and_keep_the_budget():
    lengths = np.random.default_rng(0).integers(1, 90, size=200)
    batches = batches_by_tokens(lengths, 300, np.random.default_rng(1))
    assert sorted(np.concatenate(batches)) == list(range(200))
    assert all(lengths[batch].max() * len(batch) <= 300 for batch in batches)


def test_a_row_longer_than_the_budget_gets_its_own_batch():
    assert [batch.tolist() for batch in batches_by_tokens([5, 500, 7], 100)] == [[0, 2], [1]]


def test_batches_hold_no_more_samples_than_asked_but_for_a_larger_row():
    random = np.random.default_rng(0)
    lengths, sizes = random.integers(1, 90, size=200), random.integers(1, 40, size=200)
    batches = batches_by_tokens(lengths, 3000, random, sizes, 30)
    assert sorted(np.concatenate(batches)) == list(range(200))
    assert all(sizes[batch].sum() <= 30 or len(batch) == 1 for batch in batches)
    assert np.mean([len(batch) for batch in batches]) > 1
