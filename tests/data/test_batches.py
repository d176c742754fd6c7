"""Training positions as rows of prompts: which positions, in which wording."""

import numpy as np
import pytest

from recbole_ganprompt.data.batches import Positions, TextVariants, training_rows
from recbole_ganprompt.data.sequences import Sequences
from recbole_ganprompt.language.builtin_tokenizer import byte_level_tokenizer
from recbole_ganprompt.language.layout import separate_prompts
from recbole_ganprompt.prompt.rendering import PromptTokens, TitleTable
from recbole_ganprompt.prompt.template import Text, parse_template
from recbole_ganprompt.prompt.wordings import load_wordings

TITLES = ["", *(f"item {number}" for number in range(1, 13))]
SEQUENCES = Sequences(np.arange(1, 13), np.array([0, 0, 6, 12]))  # two users with six items each


def positions(users, ends, opinions=False):
    users, ends = np.array(users), np.array(ends)
    targets = SEQUENCES.items[SEQUENCES.offsets[users] + ends]
    candidates = np.stack([targets, 13 - targets], axis=1)
    return Positions(users, ends, candidates, np.full(candidates.shape, 1.5) if opinions else None)


@pytest.fixture(scope="module")
def tokenizer():
    return byte_level_tokenizer(
        TITLES,
        300,
        specials=["<pad>", "<s>", "</s>"],
        pattern="<s> $A",
        model_max_length=512,
        pad_token="<pad>",
        bos_token="<s>",
        eos_token="</s>",
    )


def test_guided_and_other_positions_join_in_order():
    guided, others = positions([1, 2], [4, 5], opinions=True), positions([1, 1, 2], [2, 5, 1])
    joined, where = guided.joined(others)
    assert list(zip(joined.users, joined.ends)) == [(1, 2), (1, 4), (1, 5), (2, 1), (2, 5)]
    assert where.tolist() == [1, 4] and (joined.opinions[where] == 1.5).all()
    assert (joined.opinions[[0, 2, 3]] == 0).all()
    assert joined.candidates[:, 0].tolist() == [3, 5, 6, 8, 12]


def test_every_row_takes_one_of_the_wordings(tokenizer):
    slots = ("UserHistory", "TargetTitle")
    templates = [parse_template(source, slots) for source in load_wordings("training").values()]
    prompts = [PromptTokens(tokenizer, template) for template in templates]
    table = TitleTable(tokenizer, TITLES, 20)
    asked = positions([1] * 5 + [2] * 5, [*range(1, 6)] * 2)
    seen, answered = set(), []
    for seed in range(30):
        generator = np.random.default_rng(seed)
        rows = training_rows(
            asked, SEQUENCES, prompts, TextVariants([table], 0.0), None, None, 2, 50, False, generator
        )
        for row in rows:
            (text, *_) = (tokenizer.decode(prompt.ids) for prompt in separate_prompts(row))
            literals = [
                [part.text.strip() for part in one.parts if isinstance(part, Text)] for one in templates
            ]
            (own,) = (number for number, one in enumerate(literals) if all(part in text for part in one))
            seen.add(own)
        answered.append(sorted(reference for row in rows for reference in row.references))
    # Whatever the wordings, each position is asked about each candidate once.
    assert all(one == [(index, column) for index in range(10) for column in range(2)] for one in answered)
    assert len(seen) == len(templates)


def test_rows_refer_to_what_their_positions_are_called(tokenizer):
    prompt = PromptTokens(
        tokenizer, parse_template(load_wordings("training")["short"], ("UserHistory", "TargetTitle"))
    )
    table = TitleTable(tokenizer, TITLES, 20)
    part = positions([1, 2], [3, 4])
    generator, texts = np.random.default_rng(0), TextVariants([table], 0.0)
    names = np.array([7, 11])
    rows = training_rows(part, SEQUENCES, [prompt], texts, None, None, 5, 400, False, generator, names)
    assert [reference for row in rows for reference in row.references] == [(7, 0), (7, 1), (11, 0), (11, 1)]
