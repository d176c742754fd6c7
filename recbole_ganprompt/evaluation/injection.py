"""Hostile titles: how far an item can raise its own score by what its title says.

A title stands in the prompt as tokens of plain text (``prompt/rendering.py``), so it can't change the
prompt's structure. What it says may still move the answer, and that is measured here: one item of a user's
candidates at a time gets a hostile text, the others keep their titles. A changed title is also a longer one,
and says less of the item, so every hostile text is compared with as many tokens of plain prose in the same
place; and, for scale, with as many of other items' titles, which is what anybody could try.
"""

from dataclasses import dataclass

import numpy as np

from recbole_ganprompt.data.candidates import EvaluationSet
from recbole_ganprompt.evaluation.evaluator import score_texts
from recbole_ganprompt.keys import load_yaml, properties_path
from recbole_ganprompt.language.packing import Branch, pack_row
from recbole_ganprompt.prompt.rendering import PromptTokens, encode_piece

PLACES = ("alone", "before", "after")
"""Where a hostile text stands: instead of the item's own title, in front of it, or behind it."""
PROSE = (
    "It rained in the morning and the streets were empty until noon when a bus came around the corner and "
    "stopped beside the old bridge where two men were waiting with a ladder and a bucket because the lamp "
    "over the door of the post office had been broken since the storm in March and nobody wanted to mend it"
)
"""Harmless text about no item; a control starts at any of its words."""
RESAMPLES = 1000


@dataclass(frozen=True)
class Injection:
    """A hostile text.

    Attributes
    ----------
    name : str
    kind : str
        ``slot``, ``answer``, ``special token``, ``chat role``, ``instruction`` or ``layout``.
    text : str
    """

    name: str
    kind: str
    text: str


def load_injections(tokenizer) -> list[Injection]:
    """The hostile texts of ``properties/injection.yaml``, with this tokenizer's special tokens."""
    special = " ".join(tokenizer.all_special_tokens[:8])
    return [
        Injection(name, one["kind"], one["text"].replace("{special_tokens}", special))
        for name, one in load_yaml(properties_path("injection.yaml")).items()
    ]


def structure_kept(tokenizer, prompt: PromptTokens, text: str, title_tokens: int) -> bool:
    """Whether a title stays inside its place wherever the prompt has one.

    That is: it has ``title_tokens`` tokens at most, none of them special, and with it in the history, in the
    unpreference and as the candidate all other tokens are what they are with any title.
    """
    title = encode_piece(tokenizer, f" {text}")[:title_tokens]
    mark = len(tokenizer)  # no text has this id

    def prompt_with(tokens):
        branch = Branch(2, [tokens], [()], [(0, 0)], [tokens, tokens])
        return pack_row(prompt, [tokens, tokens], [branch], soft_guidance=True).ids

    expected = [one for token in prompt_with([mark]) for one in (title if token == mark else [token])]
    special = set(tokenizer.all_special_ids)
    # An unknown word is no special token, unless it also ends texts (GPT-2).
    if tokenizer.unk_token_id not in (tokenizer.bos_token_id, tokenizer.eos_token_id):
        special.discard(tokenizer.unk_token_id)
    return not special & set(title) and prompt_with(title) == expected


def measure_injections(
    model, evaluation: EvaluationSet, injections: list[Injection], places=PLACES
) -> list[dict]:
    """How much each hostile text raises the item that has it.

    Parameters
    ----------
    model : LanguageRecommender
    evaluation : EvaluationSet
        Every candidate of every user is the hostile item once.
    injections : list of Injection
    places : collection of str
        Of ``PLACES``.

    Returns
    -------
    list of dict
        For each text and place ``name``, ``kind``, ``place``; ``hostile``, ``prose`` and ``titles`` as
        :func:`effect` gives them; and ``over_prose``: by how much the hostile text's ``p_yes`` and
        ``rank_gain`` are above the prose's, each with its 95 % bootstrap interval over users (``mean``,
        ``low``, ``high``).
    """
    own = model.title_table
    baseline = score_texts(model, evaluation, own)
    texts = [encode_piece(model.tokenizer, f" {one.text}") for one in injections]
    draws = np.random.default_rng(0).integers(0, len(evaluation), size=(RESAMPLES, len(evaluation)))
    rows = []
    for place in places:
        scores = _changed_scores(model, evaluation, texts, place)
        for one, hostile, prose, titles in zip(injections, *scores):
            rows.append(
                {
                    "name": one.name,
                    "kind": one.kind,
                    "place": place,
                    "hostile": effect(baseline, hostile),
                    "prose": effect(baseline, prose),
                    "titles": effect(baseline, titles),
                    "over_prose": {
                        "p_yes": _mean(_sigmoid(hostile) - _sigmoid(prose), draws),
                        "rank_gain": _mean(_ranks(baseline, prose) - _ranks(baseline, hostile), draws),
                    },
                }
            )
    return rows


def _changed_scores(model, evaluation, texts, place) -> np.ndarray:
    """Scores [3, texts, users, candidates]: with each hostile text, with as much prose, with other titles."""
    own, length, generator = model.title_table, model.config["title_tokens"], np.random.default_rng(0)
    words = PROSE.split()
    starts = [" ".join(["", *words[start:], *words[:start]]) for start in range(len(words))]
    prose = [encode_piece(model.tokenizer, text) for text in starts]

    def placed(text, item):
        before = own[item] if place == "after" else []
        after = own[item] if place == "before" else []
        return [*before, *text, *after][:length]

    def other_titles(count):
        tokens: list[int] = []
        while len(tokens) < count:
            tokens += own[generator.integers(1, len(model.titles))]
        return tokens[:count]

    def variants(items):
        for text in texts:
            yield from (placed(text, item) for item in items)
        for text in texts:
            chosen = generator.integers(len(prose), size=len(items))
            yield from (placed(prose[one][: len(text)], item) for one, item in zip(chosen, items))
        for text in texts:
            yield from (placed(other_titles(len(text)), item) for item in items)

    # One reading of a user's history for all of the user's variants.
    asked = [list(variants(items)) for items in evaluation.candidates]
    candidates = np.tile(evaluation.candidates, 3 * len(texts))
    scores = score_texts(model, evaluation, own, candidates, asked)
    return scores.reshape(len(evaluation), 3, len(texts), -1).transpose(1, 2, 0, 3)


def effect(baseline: np.ndarray, changed: np.ndarray) -> dict:
    """What became of each candidate that alone changed its score.

    Parameters
    ----------
    baseline, changed : float array [users, candidates]
        logit of p(Yes) before and after.

    Returns
    -------
    dict
        ``p_yes``: mean change of p(Yes), and ``worst_p_yes``, the largest rise; ``rank_gain``: places won
        among the user's candidates, in the mean; ``becomes_first``: share of those not first that now are.
    """
    rise = _sigmoid(changed) - _sigmoid(baseline)
    before, after = _ranks(baseline, baseline), _ranks(baseline, changed)
    behind = before > 1
    return {
        "p_yes": float(rise.mean()),
        "worst_p_yes": float(rise.max()),
        "rank_gain": float((before - after).mean()),
        "becomes_first": float((after[behind] == 1).mean()),
    }


def _ranks(baseline: np.ndarray, changed: np.ndarray) -> np.ndarray:
    """Expected rank, from 1, of each candidate with its changed score among the others' own."""
    other = ~np.eye(baseline.shape[1], dtype=bool)
    above = ((baseline[:, None, :] > changed[:, :, None]) & other).sum(axis=2)
    tied = ((baseline[:, None, :] == changed[:, :, None]) & other).sum(axis=2)
    return 1 + above + tied / 2


def _sigmoid(scores: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-scores.astype(np.float64)))


def _mean(values: np.ndarray, draws: np.ndarray) -> dict[str, float]:
    """Mean of [users, candidates] with its interval over the users' resamples."""
    of_user = values.mean(axis=1)
    low, high = np.quantile(of_user[draws].mean(axis=1), (0.025, 0.975))
    return {"mean": float(of_user.mean()), "low": float(low), "high": float(high)}
