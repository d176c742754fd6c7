"""Stage 3: item texts restored from the diversity encoder's embeddings."""

import json
import re
from collections.abc import Collection
from dataclasses import dataclass

import numpy as np
import torch
from tqdm import tqdm
from transformers import GenerationConfig
from transformers.modeling_outputs import BaseModelOutput

from recbole_ganprompt.checkpoints import Checkpoints
from recbole_ganprompt.diversity.encoder import DiversityEncoder, Generator, Prompts
from recbole_ganprompt.errors import UserError
from recbole_ganprompt.language.corpus import content_words
from recbole_ganprompt.seeding import random_states, restore_random, seeded

DECODINGS = ("greedy", "beam", "sample")
REASONS = ("empty", "looping", "unrelated")
TOKEN = re.compile(r"\w+")


@dataclass(frozen=True)
class ReconstructionSettings:
    """How texts are generated and when one is refused.

    Attributes
    ----------
    decoding : {"greedy", "beam", "sample"}
    beams : int
        Of "beam".
    sampling_temperature, top_p : float
        Of "sample".
    classes : int or None
        Texts for each item: the plain one and those of the first ``classes - 1`` attributes. None
        takes all k + 1.
    overlap : float
        Share of a title's content words that its text must keep, or it is "unrelated". A title
        without content words is compared by all of its words.
    no_repeat : int
        A text holds no sequence of so many tokens twice; 0 allows it.
    batch_size : int
    """

    decoding: str = "greedy"
    beams: int = 4
    sampling_temperature: float = 0.7
    top_p: float = 0.9
    classes: int | None = None
    overlap: float = 0.25
    no_repeat: int = 3
    batch_size: int = 256

    def __post_init__(self):
        if self.decoding not in DECODINGS:
            raise UserError(f"decoding is '{self.decoding}': choose one of {', '.join(DECODINGS)}.")
        for name in ("beams", "sampling_temperature", "top_p", "batch_size", "classes"):
            value = getattr(self, name)
            if value is not None and value <= 0:
                raise UserError(f"{name} is {value}: it must be above 0.")


@dataclass(frozen=True)
class Reconstruction:
    """What :func:`reconstruct` returns.

    Attributes
    ----------
    texts : list [classes] of list of str [items]
        ``texts[c][i]``, the text of item i under class c; ``texts[c][0] == ""``.
    fallbacks : dict
        Number of texts replaced by the title, by reason: "empty", "looping", "unrelated".
    measures : dict
        ``texts`` (how many were generated), ``fallback_share``, ``unchanged_share`` (of the accepted
        texts, those equal to the title but for case and punctuation), ``distinct_1``,
        ``distinct_2`` (over all texts), ``distinct_per_item`` (different texts of an item, mean),
        ``token_overlap`` (Jaccard, words of text and title) and ``embedding_cosine`` (of the
        generator's plain embeddings of title and text, on a sample), the last two over accepted
        texts, and ``embedding_cosine_shuffled``, the same between texts and *other* items' titles.
    """

    texts: list[list[str]]
    fallbacks: dict[str, int]
    measures: dict[str, float]


def refusal(text: str, title: str, excluded: Collection[str], overlap: float) -> str | None:
    """Why a text can't stand for a title: "empty", "looping", "unrelated", or None if it can."""
    words = TOKEN.findall(text.lower())
    if not any(word.isalpha() for word in words):
        return "empty"
    thrice = any(words[i] == words[i + 1] == words[i + 2] for i in range(len(words) - 2))
    pairs = list(zip(words, words[1:]))
    if thrice or (len(words) >= 6 and len(set(pairs)) <= 0.6 * len(pairs)):
        return "looping"
    wanted = set(content_words(title, excluded)) or set(TOKEN.findall(title.lower()))
    if wanted and len(wanted & set(words)) < max(overlap * len(wanted), 1e-9):
        return "unrelated"
    return None


@torch.no_grad()
def reconstruct(
    encoder: DiversityEncoder,
    *,
    titles: list[str],
    excluded: Collection[str],
    settings: ReconstructionSettings,
    seed: int,
    device: str = "cpu",
    progress: bool = True,
    checkpoints: Checkpoints | None = None,
) -> Reconstruction:
    """Decode ``d_i^r``, the text of every item's embedding, for the plain class and attributes.

    The prompt of an item is Figure 4 with the item's title as the history. What can't stand for
    the title (:func:`refusal`) is replaced by it.

    Parameters
    ----------
    encoder : DiversityEncoder
    titles : list of str [items]
    excluded : collection of str
        Words that are no content words.
    settings : ReconstructionSettings
    seed : int
        Of the sampling.
    checkpoints : Checkpoints, optional
        Where a killed call left its texts, and this one leaves its own.

    Raises
    ------
    UserError
        If more classes are asked for than the encoder has.
    """
    available = len(encoder.attributes) + 1
    classes = settings.classes or available
    if classes > available:
        raise UserError(
            f"{classes} texts for each item need {classes - 1} attributes, and there are "
            f"{available - 1}: lower the number of texts or raise k."
        )
    generated = _generate(encoder, titles, classes, settings, seed, device, progress, checkpoints)
    fallbacks = dict.fromkeys(REASONS, 0)
    texts, accepted = [], []
    for raw in generated:
        final = [""]
        for item in range(1, len(titles)):
            reason = refusal(raw[item], titles[item], excluded, settings.overlap)
            if reason is None:
                accepted.append((item, raw[item]))
            else:
                fallbacks[reason] += 1
            final.append(raw[item] if reason is None else titles[item])
        texts.append(final)
    measures = _measures(encoder, titles, texts, accepted, fallbacks, seed, device)
    return Reconstruction(texts, fallbacks, measures)


def _generate(encoder, titles, classes, settings, seed, device, progress, checkpoints) -> list[list[str]]:
    prompts = Prompts(encoder.tokenizer, titles, encoder.attributes, encoder.template, encoder.settings)
    seq2seq = encoder.seq2seq.to(device).eval()
    generator = Generator(seq2seq)
    tokenizer = encoder.tokenizer
    options = {"num_beams": settings.beams} if settings.decoding == "beam" else {}
    if settings.decoding == "sample":
        options = {
            "do_sample": True,
            "temperature": settings.sampling_temperature,
            "top_p": settings.top_p,
        }
    config = GenerationConfig(
        max_new_tokens=encoder.settings.title_tokens + 4,
        decoder_start_token_id=seq2seq.config.decoder_start_token_id,
        pad_token_id=tokenizer.pad_token_id,
        eos_token_id=tokenizer.eos_token_id,
        no_repeat_ngram_size=settings.no_repeat,
        **options,
    )
    work = [(item, c) for item in range(1, len(titles)) for c in range(classes)]
    work.sort(key=lambda entry: len(prompts.titles[entry[0]]))
    texts = [[""] * len(titles) for _ in range(classes)]
    checkpoints, done = checkpoints or Checkpoints(), 0
    state = checkpoints.load()
    if state is not None:
        done, texts = state["done"], json.loads(state["texts"])
    bar = tqdm(total=len(work), initial=done, desc="reconstruction", disable=not progress, leave=False)
    with seeded(seed), bar:
        if state is not None:
            restore_random(state["random"])
        for start in range(done, len(work), settings.batch_size):
            checkpoints.reached(
                lambda start=start: {
                    "done": start,
                    "texts": json.dumps(texts),
                    "random": random_states(),
                }
            )
            some = work[start : start + settings.batch_size]
            ids, mask = prompts.batch([[item] for item, _ in some], [c for _, c in some], device)
            hidden, embedding = generator(ids, mask)
            if encoder.settings.memory == "pooled":
                hidden, mask = embedding.unsqueeze(1), mask[:, :1]
            output = seq2seq.generate(
                encoder_outputs=BaseModelOutput(last_hidden_state=hidden),
                attention_mask=mask,
                generation_config=config,
            )
            decoded = tokenizer.batch_decode(output, skip_special_tokens=True)
            for (item, c), text in zip(some, decoded):
                printable = "".join(char if char.isprintable() else " " for char in text)
                texts[c][item] = " ".join(printable.replace("\ufffd", " ").split())
            bar.update(len(some))
    seq2seq.to("cpu")
    return texts


def _measures(encoder, titles, texts, accepted, fallbacks, seed, device) -> dict[str, float]:
    total = len(texts) * (len(titles) - 1)
    words = [TOKEN.findall(text.lower()) for row in texts for text in row[1:]]
    unigrams = [word for row in words for word in row]
    bigrams = [pair for row in words for pair in zip(row, row[1:])]
    different = [len({row[item] for row in texts}) for item in range(1, len(titles))]
    measures = {
        "texts": total,
        "fallback_share": sum(fallbacks.values()) / total,
        "distinct_1": len(set(unigrams)) / max(1, len(unigrams)),
        "distinct_2": len(set(bigrams)) / max(1, len(bigrams)),
        "distinct_per_item": float(np.mean(different)),
    }
    if accepted:
        before = [TOKEN.findall(titles[item].lower()) for item, _ in accepted]
        after = [TOKEN.findall(text.lower()) for _, text in accepted]
        measures["unchanged_share"] = float(np.mean([x == y for x, y in zip(before, after)]))
        jaccard = [len(set(x) & set(y)) / len(set(x) | set(y)) for x, y in zip(before, after)]
        measures["token_overlap"] = float(np.mean(jaccard))
        random = np.random.default_rng(seed)
        size = min(512, len(accepted))
        sample = [accepted[i] for i in random.choice(len(accepted), size, replace=False)]
        table = [titles[item] for item, _ in sample] + [text for _, text in sample]
        rows = [[row] for row in range(len(table))]
        vectors = encoder.embed(table, rows, classes=1, device=device)[:, 0]
        vectors = vectors - vectors.mean(0)
        vectors /= np.linalg.norm(vectors, axis=1, keepdims=True).clip(min=1e-9)
        x, y = vectors[: len(sample)], vectors[len(sample) :]
        measures["embedding_cosine"] = float((x * y).sum(1).mean())
        measures["embedding_cosine_shuffled"] = float((x * np.roll(y, 1, axis=0)).sum(1).mean())
    return measures
