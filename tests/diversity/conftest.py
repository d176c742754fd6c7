"""A toy catalogue and the small models that read it, built once for all tests of this folder."""

from types import SimpleNamespace

import numpy as np
import pytest
from transformers import AutoModelForMaskedLM, AutoModelForSeq2SeqLM, AutoTokenizer

from recbole_ganprompt.data.dataset import Sequences
from recbole_ganprompt.language.builtin_masked_lm import builtin_masked_lm
from recbole_ganprompt.language.builtin_seq2seq import builtin_seq2seq
from recbole_ganprompt.language.corpus import Corpus
from recbole_ganprompt.prompt.document import load_document

BRANDS = ["Dove", "Olay", "Suave", "Essie", "Nivea", "Conair", "Aveeno", "Revlon", "Remy", "Lush"]
HAIR = ["shampoo", "conditioner", "dryer", "comb", "gel"]
NAIL = ["lacquer", "polish", "file", "primer", "remover"]


@pytest.fixture(scope="session")
def toy():
    """100 titles of two kinds, 60 users who each stay with one kind."""
    titles = [f"{brand} hair {kind}, 12 oz" for brand in BRANDS for kind in HAIR]
    titles += [f"{brand} nail {kind}, 12 oz" for brand in BRANDS for kind in NAIL]
    random = np.random.default_rng(0)
    rows = [random.permutation(50)[:8] + 1 + 50 * (user % 2) for user in range(60)]
    offsets = np.concatenate([[0, 0], np.cumsum([len(row) for row in rows])])
    return Corpus(["", *titles], Sequences(np.concatenate(rows), offsets))


@pytest.fixture(scope="session")
def seq2seq(toy, tmp_path_factory):
    folder = builtin_seq2seq(
        toy,
        load_document("encoder"),
        {"oz"},
        tmp_path_factory.mktemp("cache"),
        1,
        hidden_size=48,
        layers=1,
        heads=2,
        intermediate_size=96,
        vocab_size=500,
        batch_size=16,
        steps=300,
        learning_rate=4e-3,
        pooled=1.0,
        progress=False,
    )
    return SimpleNamespace(
        model=AutoModelForSeq2SeqLM.from_pretrained(folder),
        tokenizer=AutoTokenizer.from_pretrained(folder),
    )


@pytest.fixture(scope="session")
def masked_lm(toy, tmp_path_factory):
    folder = builtin_masked_lm(
        toy,
        load_document("attributes"),
        "beauty products",
        {"oz"},
        tmp_path_factory.mktemp("cache"),
        1,
        hidden_size=48,
        layers=2,
        heads=2,
        intermediate_size=64,
        batch_size=16,
        steps=150,
        learning_rate=5e-3,
        progress=False,
    )
    return SimpleNamespace(
        model=AutoModelForMaskedLM.from_pretrained(folder),
        tokenizer=AutoTokenizer.from_pretrained(folder),
    )
