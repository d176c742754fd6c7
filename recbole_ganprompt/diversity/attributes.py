"""Stage 1: attributes that a masked language model finds in the users' histories (Figure 3)."""

from collections import Counter
from collections.abc import Collection
from pathlib import Path

import numpy as np
import torch
from sklearn.feature_extraction.text import ENGLISH_STOP_WORDS
from tqdm import tqdm

from recbole_ganprompt.checkpoints import Checkpoints
from recbole_ganprompt.data.sequences import Sequences
from recbole_ganprompt.errors import UserError
from recbole_ganprompt.keys import properties_path
from recbole_ganprompt.prompt.document import Document
from recbole_ganprompt.prompt.rendering import TitleTable
from recbole_ganprompt.writing import write_text

SHORTEST = 3
"""Fewer letters than this make no attribute."""
LOGITS_PER_BATCH = 40_000_000


def excluded_words(own_file=None) -> frozenset[str]:
    """Words that are never attributes: stop words, ``properties/attributes/exclude.txt``, a file.

    Parameters
    ----------
    own_file : path, optional
        One word a line, ``#`` starts a comment.

    Raises
    ------
    UserError
        If the file isn't there, or isn't UTF-8.
    """
    words = {*ENGLISH_STOP_WORDS, *read_words(properties_path("attributes", "exclude.txt"))}
    if own_file is not None:
        words.update(read_words(own_file))
    return frozenset(words)


def read_words(path) -> list[str]:
    """The words of a file in its order: one a line, lower-cased, without comments and repetitions."""
    try:
        lines = Path(path).read_text(encoding="utf-8-sig").splitlines()  # Windows' editors begin with a mark
    except OSError as error:
        raise UserError(f"The word list {path} can't be read: {error.strerror}.") from None
    except UnicodeDecodeError:
        raise UserError(f"The word list {path} is not UTF-8: save it as that.") from None
    words = (line.split("#")[0].strip().lower() for line in lines)
    return list(dict.fromkeys(word for word in words if word))


def write_words(path, words: Collection[str], comment: str) -> None:
    """Write a word list that a user can edit and :func:`read_words` reads."""
    write_text(path, "\n".join([f"# {comment}", *words]) + "\n")


def whole_words(tokenizer) -> dict[int, str]:
    """Tokens that are whole alphabetic words, lower-cased, by token id.

    WordPiece marks continuations with ``##``; byte-level BPE and SentencePiece mark the *start* of a
    word (``Ġ``, ``▁``) instead, so there an unmarked token is a fragment.
    """
    vocabulary = tokenizer.get_vocab()
    marks = {mark: sum(t.startswith(mark) and len(t) > 1 for t in vocabulary) for mark in "Ġ▁"}
    mark = max(marks, key=marks.get)
    if marks[mark] < 0.05 * len(vocabulary):
        mark = ""
    special = set(tokenizer.all_special_ids)
    words = {}
    for token, index in vocabulary.items():
        if index in special or not token.startswith(mark):
            continue
        word = token[len(mark) :].lower()
        if len(word) >= SHORTEST and word.isalpha():
            words[index] = word
    return words


@torch.no_grad()
def count_attributes(
    masked_lm,
    tokenizer,
    *,
    titles: list[str],
    sequences: Sequences,
    template: str,
    domain: str,
    excluded: Collection[str],
    top: int = 5,
    history: int = 20,
    title_tokens: int = 20,
    max_tokens: int = 512,
    max_users: int | None = None,
    seed: int = 0,
    device: str = "cpu",
    progress: bool = True,
    checkpoints: Checkpoints | None = None,
) -> Counter:
    """Fill Figure 3 for each user and count the words that a masked LM proposes.

    Parameters
    ----------
    masked_lm, tokenizer
        A transformers masked LM and its tokenizer.
    titles : list of str [items]
    sequences : Sequences
        Training sequences; a user without any is skipped.
    template, domain : str
        Figure 3's text and the text for its ``⟨DataDomain⟩``.
    excluded : collection of str
        Lower-case words that don't count.
    top : int
        Words counted for each user, the likeliest first.
    history, title_tokens, max_tokens : int
        Items of a history at most, tokens of a title at most, tokens of the whole prompt at most
        (the model's own limit holds too); what is too long loses its oldest items.
    max_users : int, optional
        Fill the prompt for a random sample of so many users only, drawn with ``seed``.
    checkpoints : Checkpoints, optional
        Where a killed call left its counts, and this one leaves its own.

    Returns
    -------
    collections.Counter
        Number of users by word.
    """
    allowed = {index: word for index, word in whole_words(tokenizer).items() if word not in excluded}
    positions = getattr(masked_lm.config, "max_position_embeddings", max_tokens)
    limit = min(max_tokens, tokenizer.model_max_length, positions - 2)
    document = Document(tokenizer, template, limit, DataDomain=domain)
    tokens = TitleTable(tokenizer, titles, title_tokens)
    users = np.flatnonzero(np.diff(sequences.offsets) > 0)
    if max_users is not None and len(users) > max_users:
        users = np.sort(np.random.default_rng(seed).choice(users, max_users, replace=False))
    prompts = [document([tokens[item] for item in sequences.of(u)[-history:]]) for u in users]
    prompts.sort(key=len)
    if not allowed or not prompts:
        return Counter()
    masked_lm.to(device).eval()
    ids_of_words = torch.tensor(sorted(allowed), device=device)
    checkpoints = checkpoints or Checkpoints()
    state = checkpoints.load() or {"done": 0, "counts": {}}
    done, counts = state["done"], Counter(state["counts"])
    with tqdm(total=len(prompts), initial=done, desc="attributes", disable=not progress, leave=False) as bar:
        while done < len(prompts):
            # Prompts grow, so the first of a batch would promise more room than the last one needs.
            longest = len(prompts[min(done + 256, len(prompts)) - 1])
            size = max(1, min(256, LOGITS_PER_BATCH // (longest * len(tokenizer))))
            rows = prompts[done : done + size]
            ids = torch.full((len(rows), len(rows[-1])), tokenizer.pad_token_id)
            for row, prompt in enumerate(rows):
                ids[row, : len(prompt)] = torch.tensor(prompt)
            attended = torch.arange(ids.shape[1]) < torch.tensor([[len(row)] for row in rows])
            places = torch.tensor([row.index(tokenizer.mask_token_id) for row in rows])
            logits = masked_lm(input_ids=ids.to(device), attention_mask=attended.long().to(device)).logits
            scores = logits[torch.arange(len(rows)), places.to(device)][:, ids_of_words]
            best = scores.topk(min(3 * top, scores.shape[1])).indices
            for chosen in ids_of_words[best].tolist():
                # A cased model may hold one word twice, as "Oil" and "oil".
                words = dict.fromkeys(allowed[index] for index in chosen)
                counts.update(list(words)[:top])
            done += len(rows)
            bar.update(len(rows))
            checkpoints.reached(lambda done=done: {"done": done, "counts": dict(counts)})
    return counts


def most_frequent(counts: Counter, k: int) -> list[str]:
    """The k most frequent words, equal counts in alphabetical order; k = 0 gives none."""
    return [word for word, _ in sorted(counts.items(), key=lambda entry: (-entry[1], entry[0]))][:k]
