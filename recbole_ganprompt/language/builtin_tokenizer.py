"""Tokenizers built on the spot from a dataset's own text; all are ordinary fast tokenizers."""

import re
from collections import Counter
from collections.abc import Iterable, Sequence

from tokenizers import (
    Tokenizer,
    decoders,
    models,
    normalizers,
    pre_tokenizers,
    processors,
    trainers,
)
from transformers import PreTrainedTokenizerFast

WORD = re.compile(r"[^\W\d_]+")


def byte_level_tokenizer(
    texts: Iterable[str],
    vocab_size: int,
    *,
    specials: Sequence[str],
    pattern: str,
    repeated: Iterable[str] = (),
    model_max_length: int,
    **roles: str,
) -> PreTrainedTokenizerFast:
    """Train a byte-level BPE tokenizer, which knows every string without an unknown token.

    Parameters
    ----------
    texts : iterable of str
        Text whose pair frequencies decide the merges.
    vocab_size : int
        At most this many tokens, special tokens and the 256 bytes included.
    specials : sequence of str
        Special tokens in order of their ids, from 0.
    pattern : str
        What encoding adds, as ``"<s> $A"`` or ``"$A </s>"``.
    repeated : iterable of str
        Text to weigh heavily, so that its words become single tokens (the prompt's templates).
    roles : str
        ``bos_token``, ``eos_token``, ``pad_token``: which special token plays which role.
    """
    tokenizer = Tokenizer(models.BPE())
    tokenizer.normalizer = normalizers.NFC()
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=list(specials),
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    texts = list(texts)
    weight = max(1, len(texts) // 10)
    tokenizer.train_from_iterator([*texts, *(list(repeated) * weight)], trainer)
    tokenizer.post_processor = processors.TemplateProcessing(
        single=pattern, special_tokens=[(token, index) for index, token in enumerate(specials)]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        model_max_length=model_max_length,
        clean_up_tokenization_spaces=False,
        **roles,
    )


def whole_word_tokenizer(
    texts: Iterable[str], vocab_size: int, model_max_length: int
) -> PreTrainedTokenizerFast:
    """Build a lower-cased WordPiece tokenizer whose longer entries are all whole words.

    The vocabulary holds the special tokens, every character (alone and as ``##`` continuation) and
    the most frequent words. A word outside falls into characters, so that any entry of two or more
    letters without ``##`` is a word of the dataset: the masked LM can only propose real words.
    """
    tokenizer = Tokenizer(models.WordPiece(unk_token="[UNK]", max_input_chars_per_word=64))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.decoder = decoders.WordPiece()
    counts = Counter()
    for text in texts:
        pieces = tokenizer.pre_tokenizer.pre_tokenize_str(tokenizer.normalizer.normalize_str(text))
        counts.update(piece for piece, _ in pieces)
    specials = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    characters = sorted(set("".join(counts)))
    ranked = sorted(counts.items(), key=lambda entry: (-entry[1], entry[0]))
    words = [word for word, _ in ranked if len(word) > 1]
    entries = [*specials, *characters, *(f"##{character}" for character in characters)]
    entries += words[: max(0, vocab_size - len(entries))]
    vocabulary = {entry: index for index, entry in enumerate(dict.fromkeys(entries))}
    tokenizer.model = models.WordPiece(vocab=vocabulary, unk_token="[UNK]", max_input_chars_per_word=64)
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]",
        special_tokens=[(token, vocabulary[token]) for token in ("[CLS]", "[SEP]")],
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        model_max_length=model_max_length,
        pad_token="[PAD]",
        unk_token="[UNK]",
        cls_token="[CLS]",
        sep_token="[SEP]",
        mask_token="[MASK]",
    )
