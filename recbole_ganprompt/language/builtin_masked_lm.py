"""The built-in BERT that proposes attributes: a masked LM, pre-trained on the paper's Figure 3.

Its prompts are filled from the training split, so that what it is asked for later means something to a
model this small.
"""

from collections.abc import Collection, Iterator
from pathlib import Path

import numpy as np
import torch
from torch.nn.functional import cross_entropy
from transformers import ModernBertConfig, ModernBertForMaskedLM

from recbole_ganprompt.checkpoints import Checkpoints
from recbole_ganprompt.data.cache import cached_folder, made_with
from recbole_ganprompt.language.builtin_tokenizer import whole_word_tokenizer
from recbole_ganprompt.language.builtin_training import pretrain
from recbole_ganprompt.language.corpus import TITLE_TOKENS, Corpus, content_words, pad, source_digest
from recbole_ganprompt.prompt.document import Document
from recbole_ganprompt.prompt.rendering import TitleTable
from recbole_ganprompt.seeding import seeded


def builtin_masked_lm(
    corpus: Corpus,
    template: str,
    domain: str,
    skipped: Collection[str],
    cache_dir,
    seed: int,
    *,
    hidden_size: int = 128,
    layers: int = 2,
    heads: int = 4,
    intermediate_size: int = 256,
    vocab_size: int = 6000,
    max_positions: int = 128,
    batch_size: int = 32,
    steps: int = 250,
    learning_rate: float = 3e-3,
    device: str = "cpu",
    progress: bool = True,
) -> Path:
    """Build (or find) a small BERT that fills Figure 3's mask with a word of what comes next.

    It has ModernBERT's layers (rotary positions, normalization first): with BERT's own, so little
    text and time taught it the frequency of words and nothing about the history.

    Parameters
    ----------
    corpus : Corpus
    template, domain : str
        Figure 3's text with its slots, and the text for ``⟨DataDomain⟩``.
    skipped : collection of str
        Lower-case words that are no attributes; the mask is never filled with them.
    cache_dir, seed
        As in :func:`recbole_ganprompt.language.builtin_llm.builtin_llm`.
    steps, batch_size : int
        Of the documents in a batch, three of four are histories of the training split whose mask
        stands for the content words of the item that follows; the rest are lists of titles. In both,
        15 % of the titles' tokens are masked too.

    Returns
    -------
    pathlib.Path
        A folder for ``AutoModelForMaskedLM`` and ``AutoTokenizer``. Every token of two or more
        letters without ``##`` is a whole word of the corpus or of the template.
    """
    sizes = [hidden_size, layers, heads, intermediate_size, vocab_size, max_positions]
    training = [batch_size, steps, learning_rate]
    key = {
        **corpus.key(),
        "templates": [template, domain],
        "excluded words": sorted(skipped),
        "seed": seed,
        "sizes": sizes,
        "training": training,
        "code": source_digest(__file__),
        **made_with(device),
    }

    def build(folder: Path, checkpoints: Checkpoints) -> None:
        texts = [*corpus.titles[1:], template.replace("⟨MASK⟩", ""), domain]
        tokenizer = whole_word_tokenizer(texts, vocab_size, max_positions)
        config = ModernBertConfig(
            vocab_size=len(tokenizer),
            hidden_size=hidden_size,
            num_hidden_layers=layers,
            num_attention_heads=heads,
            intermediate_size=intermediate_size,
            max_position_embeddings=max_positions,
            global_attn_every_n_layers=1,
            initializer_range=0.05,
            initializer_cutoff_factor=3.0,
            pad_token_id=tokenizer.pad_token_id,
            cls_token_id=tokenizer.cls_token_id,
            sep_token_id=tokenizer.sep_token_id,
            bos_token_id=tokenizer.cls_token_id,
            eos_token_id=tokenizer.sep_token_id,
        )
        document = Document(tokenizer, template, max_positions, DataDomain=domain)
        with seeded(seed):
            model = ModernBertForMaskedLM(config)
            pretrain(
                _MaskedOnly(model),
                lambda: _masked_documents(corpus, tokenizer, document, skipped, batch_size, seed),
                checkpoints,
                steps=steps,
                learning_rate=learning_rate,
                description="pre-training the built-in masked LM",
                device=device,
                progress=progress,
            )
        model.save_pretrained(folder)
        tokenizer.save_pretrained(folder)

    return cached_folder(cache_dir, "masked-lm", key, build)


class _MaskedOnly(torch.nn.Module):
    """A masked LM that computes logits for the masked tokens alone.

    The loss is the cross-entropy of the tokens masked at random plus that of the attributes: a
    document has one mask for an attribute, which would be lost among the others in one mean.
    """

    def __init__(self, model: ModernBertForMaskedLM):
        super().__init__()
        self.model = model

    def forward(self, input_ids, attention_mask, labels, rows, columns, words):
        hidden = self.model.model(input_ids, attention_mask=attention_mask).last_hidden_state
        masked = labels != -100
        loss = cross_entropy(self._logits(hidden[masked]), labels[masked])
        if len(rows):
            loss = loss + cross_entropy(self._logits(hidden[rows, columns]), words)
        return _Loss(loss)

    def _logits(self, hidden):
        return self.model.decoder(self.model.head(hidden))


class _Loss:
    def __init__(self, loss: torch.Tensor):
        self.loss = loss


def _masked_documents(
    corpus: Corpus, tokenizer, document: Document, skipped, batch_size: int, seed: int
) -> Iterator[dict[str, torch.Tensor]]:
    titles = TitleTable(tokenizer, corpus.titles, TITLE_TOKENS).tokens
    vocabulary = tokenizer.get_vocab()
    words = [
        [vocabulary[word] for word in content_words(title, skipped) if word in vocabulary]
        for title in corpus.titles
    ]
    items, offsets = corpus.sequences.items, corpus.sequences.offsets
    positions = np.arange(len(items))
    starts = np.repeat(offsets[:-1], np.diff(offsets))
    follows = np.array([bool(words[item]) for item in items], dtype=bool) & (positions > starts)
    targets = positions[follows]
    plain = Document(tokenizer, "⟨UserHistory⟩", tokenizer.model_max_length)
    # Only titles are masked at random: the template's own words would be too easy.
    fixed = {*document.head, *document.tail, *document.separator}
    generator = np.random.default_rng(seed)

    def row(kind: int) -> tuple[list[int], list[int], int, list[int]]:
        place, wanted = -1, []
        if kind == 0 or len(targets) == 0:
            picked = generator.integers(1, len(titles), size=8)
            ids = plain([titles[item] for item in picked])
        else:
            position = generator.choice(targets)
            history = items[max(starts[position], position - 8) : position]
            ids = document([titles[item] for item in history])
            place, wanted = ids.index(tokenizer.mask_token_id), words[items[position]]
        labels = [-100] * len(ids)
        for index in np.flatnonzero(generator.random(len(ids)) < 0.15):
            if ids[index] not in fixed:
                labels[index], ids[index] = ids[index], tokenizer.mask_token_id
        return ids, labels, place, wanted

    while True:
        rows = [row(number % 4) for number in range(batch_size)]
        ids = pad([row[0] for row in rows], tokenizer.pad_token_id)
        wanted = [(at, place, word) for at, (*_, place, words) in enumerate(rows) for word in words]
        wanted = torch.tensor(wanted, dtype=torch.int64).reshape(-1, 3)
        yield {
            "input_ids": ids,
            "attention_mask": (ids != tokenizer.pad_token_id).long(),
            "labels": pad([row[1] for row in rows], -100),
            "rows": wanted[:, 0],
            "columns": wanted[:, 1],
            "words": wanted[:, 2],
        }
