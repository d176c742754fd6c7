"""The built-in T5 of the diversity encoder, pre-trained on the paper's Figure 4.

Its prompts are filled from the training split, so that what it is asked for later means something to a
model this small.
"""

import re
from collections.abc import Collection, Iterator
from pathlib import Path

import numpy as np
import torch
from transformers import T5Config, T5ForConditionalGeneration

from recbole_ganprompt.checkpoints import Checkpoints
from recbole_ganprompt.data.cache import cached_folder, made_with
from recbole_ganprompt.language.builtin_tokenizer import byte_level_tokenizer
from recbole_ganprompt.language.builtin_training import pretrain
from recbole_ganprompt.language.corpus import TITLE_TOKENS, Corpus, content_words, pad, source_digest
from recbole_ganprompt.prompt.document import Document
from recbole_ganprompt.prompt.rendering import TitleTable, encode_piece
from recbole_ganprompt.seeding import seeded


def builtin_seq2seq(
    corpus: Corpus,
    template: str,
    skipped: Collection[str],
    cache_dir,
    seed: int,
    *,
    hidden_size: int = 128,
    layers: int = 2,
    heads: int = 4,
    intermediate_size: int = 344,
    vocab_size: int = 4096,
    max_positions: int = 128,
    batch_size: int = 32,
    steps: int = 700,
    learning_rate: float = 3e-3,
    noise: float = 0.15,
    pooled: float = 1.0,
    device: str = "cpu",
    progress: bool = True,
) -> Path:
    """Build (or find) a small T5, pre-trained to restore item text from Figure 4's prompt.

    Parameters
    ----------
    corpus : Corpus
    template : str
        Figure 4's text with its slots.
    skipped : collection of str
        Words that are no attributes.
    cache_dir, seed
        As in :func:`recbole_ganprompt.language.builtin_llm.builtin_llm`.
    steps, batch_size : int
        Of five batches, one holds titles alone, three prompts around one title and one prompts
        around two consecutive items of a user; the target is the text of the items.
    noise : float
        Share of an input title's tokens that are dropped. In half of the prompts a content word is
        moved from the titles to the attribute's place, so that the decoder learns to use it.
    pooled : float
        Share of the batches in which the decoder sees nothing but the mean of the encoder's
        vectors (what the generator of the diversity encoder returns) instead of all of them. Below
        1 the diversity encoder's ``memory: tokens`` works too, after a longer training.

    Returns
    -------
    pathlib.Path
        A folder for ``AutoModelForSeq2SeqLM`` and ``AutoTokenizer``.
    """
    sizes = [hidden_size, layers, heads, intermediate_size, vocab_size, max_positions]
    training = [batch_size, steps, learning_rate, noise, pooled]
    key = {
        **corpus.key(),
        "templates": [template],
        "excluded words": sorted(skipped),
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
            specials=["<pad>", "</s>"],
            pattern="$A </s>",
            repeated=[template],
            model_max_length=max_positions,
            pad_token="<pad>",
            eos_token="</s>",
        )
        config = T5Config(
            vocab_size=len(tokenizer),
            d_model=hidden_size,
            d_kv=hidden_size // heads,
            d_ff=intermediate_size,
            num_layers=layers,
            num_heads=heads,
            dropout_rate=0.0,
            feed_forward_proj="gated-gelu",
            tie_word_embeddings=False,  # as T5 1.1: logits are not scaled by 1 / sqrt(d_model)
            pad_token_id=tokenizer.pad_token_id,
            eos_token_id=tokenizer.eos_token_id,
            decoder_start_token_id=tokenizer.pad_token_id,
        )
        with seeded(seed):
            model = T5ForConditionalGeneration(config)
            # T5 starts with embeddings of variance 1, meant for Adafactor's relative steps; Adam
            # would need thousands of steps to turn them.
            model.get_input_embeddings().weight.data.mul_(0.05)
            model.tie_weights()
            restoring = _Restoring(model, pooled, seed)
            pretrain(
                restoring,
                lambda: _noisy_documents(corpus, tokenizer, template, skipped, noise, batch_size, seed),
                checkpoints,
                steps=steps,
                learning_rate=learning_rate,
                description="pre-training the built-in encoder-decoder",
                generators=[restoring.generator],
                device=device,
                progress=progress,
            )
        model.save_pretrained(folder)
        tokenizer.save_pretrained(folder)

    return cached_folder(cache_dir, "seq2seq", key, build)


class _Restoring(torch.nn.Module):
    """An encoder-decoder whose decoder sees all of the encoder's vectors, or now and then their mean."""

    def __init__(self, model: T5ForConditionalGeneration, pooled: float, seed: int):
        super().__init__()
        self.model, self.pooled = model, pooled
        self.generator = np.random.default_rng(seed + 1)

    def forward(self, input_ids, attention_mask, labels):
        hidden = self.model.encoder(input_ids, attention_mask=attention_mask).last_hidden_state
        if self.generator.random() < self.pooled:
            weights = attention_mask.unsqueeze(-1).to(hidden.dtype)
            hidden = (hidden * weights).sum(1, keepdim=True) / weights.sum(1, keepdim=True)
            attention_mask = attention_mask[:, :1]
        return self.model(encoder_outputs=(hidden,), attention_mask=attention_mask, labels=labels)


def _noisy_documents(
    corpus: Corpus, tokenizer, template: str, skipped, noise: float, batch_size: int, seed: int
) -> Iterator[dict[str, torch.Tensor]]:
    titles = TitleTable(tokenizer, corpus.titles, TITLE_TOKENS).tokens
    words = [content_words(title, skipped) for title in corpus.titles]
    limit = tokenizer.model_max_length
    documents = {None: Document(tokenizer, template, limit)}
    alone = Document(tokenizer, "⟨UserHistory⟩", limit)
    items, offsets = corpus.sequences.items, corpus.sequences.offsets
    users = np.flatnonzero(np.diff(offsets) > 1)
    generator = np.random.default_rng(seed)

    def noisy(item: int, attribute: str | None) -> list[int]:
        title = titles[item]
        if attribute is not None:  # taken out, for the decoder to put back
            text = re.sub(rf"\b{attribute}\b", "", corpus.titles[item], flags=re.I)
            title = encode_piece(tokenizer, f" {text}")[:TITLE_TOKENS] or title
        kept = [token for token in title if generator.random() >= noise]
        return kept or title

    def row(kind: int) -> tuple[list[int], list[int]]:
        if kind == 2 and len(users):
            user = generator.choice(users)
            last = generator.integers(offsets[user] + 1, offsets[user + 1] + 1)
            picked = items[max(offsets[user], last - 2) : last]
        else:
            picked = generator.integers(1, len(titles), size=1)
        target = alone([titles[item] for item in picked])
        known = [word for item in picked for word in words[item]]
        attribute = None
        if kind > 0 and known and generator.random() < 0.5:
            attribute = str(generator.choice(known))
        source = [noisy(item, attribute) for item in picked]
        if kind == 0:
            return alone(source), target
        if attribute not in documents:
            documents[attribute] = Document(tokenizer, template, limit, Attribute=attribute)
        return documents[attribute](source), target

    while True:
        for kind in (0, 1, 1, 1, 2):
            rows = [row(kind) for _ in range(batch_size)]
            ids = pad([source for source, _ in rows], tokenizer.pad_token_id)
            yield {
                "input_ids": ids,
                "attention_mask": (ids != tokenizer.pad_token_id).long(),
                "labels": pad([target for _, target in rows], -100),
            }
