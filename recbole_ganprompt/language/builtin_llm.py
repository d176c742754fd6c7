"""The built-in Llama for recommendation, pre-trained to continue histories of titles."""

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from recbole_ganprompt.checkpoints import Checkpoints
from recbole_ganprompt.data.cache import cached_folder, made_with
from recbole_ganprompt.language.builtin_tokenizer import byte_level_tokenizer
from recbole_ganprompt.language.builtin_training import pretrain
from recbole_ganprompt.language.corpus import TITLE_TOKENS, Corpus, source_digest
from recbole_ganprompt.prompt.rendering import SEPARATOR, TitleTable, encode_piece
from recbole_ganprompt.seeding import seeded


def builtin_llm(
    corpus: Corpus,
    template_texts: Sequence[str],
    cache_dir,
    seed: int,
    *,
    hidden_size: int = 128,
    layers: int = 2,
    heads: int = 4,
    intermediate_size: int = 344,
    vocab_size: int = 4096,
    max_positions: int = 2048,
    block: int = 256,
    batch_size: int = 6,
    max_tokens: int = 800_000,
    learning_rate: float = 3e-3,
    device: str = "cpu",
    progress: bool = True,
) -> Path:
    """Build (or find) a small Llama, pre-trained to continue histories "title; title; title".

    Parameters
    ----------
    corpus : Corpus
    template_texts : sequence of str
        The fixed text of the prompts and the answers, without slots: its words become single
        tokens, and it is read along with the histories.
    cache_dir : path
        The folder is ``<cache_dir>/llm-<fingerprint>``.
    seed : int
    block, batch_size : int
        Tokens in a training row, rows in a batch. Documents are packed, nothing is padded.
    max_tokens : int
        Tokens to train on (passes over the corpus are repeated or cut to reach it).

    Returns
    -------
    pathlib.Path
        A folder for ``AutoModelForCausalLM`` and ``AutoTokenizer``.
    """
    sizes = [hidden_size, layers, heads, intermediate_size, vocab_size, max_positions]
    training = [block, batch_size, max_tokens, learning_rate]
    key = {
        **corpus.key(),
        "templates": list(template_texts),
        "seed": seed,
        "sizes": sizes,
        "training": training,
        "code": source_digest(__file__),
        **made_with(device),
    }

    def build(folder: Path, checkpoints: Checkpoints) -> None:
        tokenizer = byte_level_tokenizer(
            corpus.texts(),
            vocab_size,
            specials=["<pad>", "<s>", "</s>"],
            pattern="<s> $A",
            repeated=template_texts,
            model_max_length=max_positions,
            pad_token="<pad>",
            bos_token="<s>",
            eos_token="</s>",
        )
        config = LlamaConfig(
            vocab_size=len(tokenizer),
            hidden_size=hidden_size,
            intermediate_size=intermediate_size,
            num_hidden_layers=layers,
            num_attention_heads=heads,
            num_key_value_heads=heads,
            max_position_embeddings=max_positions,
            tie_word_embeddings=True,
            initializer_range=0.05,
            pad_token_id=tokenizer.pad_token_id,
            bos_token_id=tokenizer.bos_token_id,
            eos_token_id=tokenizer.eos_token_id,
        )
        with seeded(seed):
            model = LlamaForCausalLM(config)
            pretrain(
                model,
                lambda: _packed_histories(corpus, template_texts, tokenizer, block, batch_size, seed),
                checkpoints,
                steps=max(1, max_tokens // (block * batch_size)),
                learning_rate=learning_rate,
                description="pre-training the built-in LLM",
                device=device,
                progress=progress,
            )
        model.save_pretrained(folder)
        tokenizer.save_pretrained(folder)

    return cached_folder(cache_dir, "llm", key, build)


def _packed_histories(
    corpus: Corpus, template_texts, tokenizer, block: int, batch_size: int, seed: int
) -> Iterator[dict[str, torch.Tensor]]:
    """Endless batches of full rows: every user's training history, every title, every template."""
    titles = TitleTable(tokenizer, corpus.titles, TITLE_TOKENS).tokens
    separator = encode_piece(tokenizer, SEPARATOR.rstrip())
    begin, end = [tokenizer.bos_token_id], [tokenizer.eos_token_id]
    documents = [begin + title + end for title in titles[1:]]
    documents += [begin + encode_piece(tokenizer, text) + end for text in template_texts]
    offsets = corpus.sequences.offsets
    for start, stop in zip(offsets[:-1], offsets[1:]):
        if stop - start > 1:
            history = list(begin)
            for item in corpus.sequences.items[start:stop]:
                history += titles[item] + separator
            documents.append(history[: -len(separator)] + end)
    generator = np.random.default_rng(seed)
    rows = np.zeros((0, block), dtype=np.int64)
    rest = np.zeros(0, dtype=np.int64)
    while True:
        order = generator.permutation(len(documents))
        stream = np.concatenate([rest, *(documents[index] for index in order)]).astype(np.int64)
        count = len(stream) // block
        rest = stream[count * block :]
        fresh = generator.permutation(stream[: count * block].reshape(count, block))
        rows = np.concatenate([rows, fresh])
        while len(rows) >= batch_size:
            ids = torch.from_numpy(rows[:batch_size].copy())
            rows = rows[batch_size:]
            yield {"input_ids": ids, "labels": ids}
