"""Built-in language models: what they are made of, what they have learnt, how they are cached."""

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM, AutoModelForSeq2SeqLM, AutoTokenizer
from transformers.modeling_outputs import BaseModelOutput

from recbole_ganprompt.data.cache import cached_folder
from recbole_ganprompt.data.dataset import Sequences
from recbole_ganprompt.language.builtin_llm import builtin_llm
from recbole_ganprompt.language.builtin_seq2seq import builtin_seq2seq
from recbole_ganprompt.language.corpus import Corpus, content_words
from recbole_ganprompt.prompt.document import load_document
from recbole_ganprompt.seeding import seeded

TEMPLATES = ["The user has liked:", " Yes.", " No."]
TINY = {"hidden_size": 32, "layers": 1, "heads": 2, "intermediate_size": 64, "vocab_size": 400}


def corpus() -> Corpus:
    titles = ["", *(f"rose soap number {n}" for n in range(20)), "hair </s> oil <pad>"]
    items = np.tile(np.arange(1, 22), 3)
    return Corpus(titles, Sequences(items, np.array([0, 0, 21, 42, 63])))


def tiny_llm(cache, **changes):
    settings = {**TINY, "max_positions": 128, "block": 32, "batch_size": 4, "max_tokens": 6000}
    seed = changes.pop("seed", 1)
    arguments = (corpus(), TEMPLATES, cache, seed)
    return builtin_llm(*arguments, progress=False, **{**settings, **changes})


def loss(folder, text: str) -> float:
    tokenizer = AutoTokenizer.from_pretrained(folder)
    model = AutoModelForCausalLM.from_pretrained(folder)
    ids = torch.tensor([tokenizer(text).input_ids])
    with torch.no_grad():
        return model(input_ids=ids, labels=ids).loss.item()


def test_llm_prefers_the_order_of_the_training_histories(tmp_path):
    folder = tiny_llm(tmp_path, learning_rate=1e-2)
    known = loss(folder, " rose soap number 3; rose soap number 4; rose soap number 5")
    assert known < 0.7 * loss(folder, " soap 3 number rose; rose rose 4; number soap 5 soap")


def test_prompt_words_and_answers_are_single_tokens(tmp_path):
    tokenizer = AutoTokenizer.from_pretrained(tiny_llm(tmp_path, max_tokens=100))
    assert tokenizer.tokenize("The user has liked: Yes.")[-2:] == ["ĠYes", "."]
    assert tokenizer("x").input_ids[0] == tokenizer.bos_token_id


def test_any_text_survives_the_tokenizer(tmp_path):
    tokenizer = AutoTokenizer.from_pretrained(tiny_llm(tmp_path, max_tokens=100))
    text = " Œuvre </s> 美容 🧴 <s>"
    ids = tokenizer(text, add_special_tokens=False, split_special_tokens=True).input_ids
    assert not set(ids) & set(tokenizer.all_special_ids)
    assert tokenizer.decode(ids) == text


def test_same_seed_same_weights_whatever_happened_before(tmp_path):
    first = tiny_llm(tmp_path / "a", max_tokens=400)
    torch.rand(3)
    np.random.rand(3)
    second = tiny_llm(tmp_path / "b", max_tokens=400)
    other = tiny_llm(tmp_path / "c", max_tokens=400, seed=2)
    content = (first / "model.safetensors").read_bytes()
    assert content == (second / "model.safetensors").read_bytes()
    assert content != (other / "model.safetensors").read_bytes()
    assert (first / "tokenizer.json").read_bytes() == (second / "tokenizer.json").read_bytes()


def test_training_leaves_the_global_generator_alone():
    torch.manual_seed(7)
    expected = torch.rand(2)
    torch.manual_seed(7)
    with seeded(1):
        torch.rand(5)
    assert torch.equal(torch.rand(2), expected)


def test_cache_is_reused_and_depends_on_corpus_and_sizes(tmp_path):
    folder = tiny_llm(tmp_path, max_tokens=200)
    stamp = (folder / "model.safetensors").stat().st_mtime_ns
    assert tiny_llm(tmp_path, max_tokens=200) == folder
    assert (folder / "model.safetensors").stat().st_mtime_ns == stamp
    assert tiny_llm(tmp_path, max_tokens=300) != folder
    text = corpus()
    changed = Corpus([*text.titles[:-1], "other"], text.sequences)
    assert text.key() != changed.key()


def test_interrupted_build_leaves_nothing_behind(tmp_path):
    def breaks(folder, checkpoints):
        (folder / "config.json").write_text("{}")
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        cached_folder(tmp_path, "llm", {"key": 1}, breaks)
    assert [path.name for path in tmp_path.iterdir()] == [".locks"]
    folder = cached_folder(tmp_path, "llm", {"key": 1}, lambda f, checkpoints: (f / "whole").write_text(""))
    assert (folder / "whole").is_file()
    assert {path.name for path in tmp_path.iterdir()} == {".locks", folder.name}


def test_seq2seq_restores_the_titles_it_was_trained_on(tmp_path):
    folder = builtin_seq2seq(
        corpus(),
        load_document("encoder"),
        {"number"},
        tmp_path,
        1,
        **TINY,
        batch_size=16,
        steps=250,
        learning_rate=4e-3,
        pooled=1.0,
        progress=False,
    )
    model = AutoModelForSeq2SeqLM.from_pretrained(folder)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    assert model.get_input_embeddings().weight is model.decoder.get_input_embeddings().weight
    ids = tokenizer(" rose soap number 7", return_tensors="pt").input_ids
    with torch.no_grad():
        hidden = model.encoder(ids).last_hidden_state.mean(1, keepdim=True)
        memory = BaseModelOutput(last_hidden_state=hidden)
        output = model.generate(encoder_outputs=memory, max_new_tokens=12)
    text = tokenizer.decode(output[0], skip_special_tokens=True)
    assert text.startswith(" rose soap number 7")


def test_content_words_are_whole_alphabetic_words():
    words = content_words("Dove Go Fresh 12 oz Body-Wash, B5 dove", {"fresh"})
    assert words == ["dove", "body", "wash"]
