"""From a model and an evaluation set to scores [users, candidates] and metrics."""

import numpy as np
import torch
from recbole.data.interaction import Interaction

from recbole_ganprompt.data.candidates import EvaluationSet
from recbole_ganprompt.evaluation.metrics import ranking_metrics

DISLIKES = "unpreference_list"
"""Field of an interaction: int64 [users, titles] low-rated items, padded with 0."""


@torch.no_grad()
def score_candidates(model, evaluation: EvaluationSet, config) -> torch.Tensor:
    """Score every user's candidates with a RecBole model.

    A model that has ``score_candidates(interaction, candidates)`` encodes each history once; any
    other gets one row for each pair through RecBole's ``predict``.

    Parameters
    ----------
    model : recbole AbstractRecommender
    evaluation : EvaluationSet
    config : recbole Config

    Returns
    -------
    float32 [users, candidates], on the CPU
    """
    model.eval()
    device = next(model.parameters()).device
    count = evaluation.candidates.shape[1]
    fast = getattr(model, "score_candidates", None)
    rows = max(1, config["eval_batch_size"] // count)
    scores = []
    for start in range(0, len(evaluation), rows):
        part = slice(start, start + rows)
        candidates = torch.from_numpy(evaluation.candidates[part]).to(device)
        interaction = interaction_of(
            config, evaluation.users[part], evaluation.histories[part], evaluation.lengths[part]
        )
        if evaluation.dislikes is not None:
            interaction.update(Interaction({DISLIKES: torch.from_numpy(evaluation.dislikes[part])}))
        interaction = interaction.to(device)
        if fast is not None:
            batch = fast(interaction, candidates)
        else:
            pairs = interaction.repeat_interleave(count)
            pairs.update(Interaction({config["ITEM_ID_FIELD"]: candidates.flatten()}))
            batch = model.predict(pairs).view(len(candidates), count)
        scores.append(batch.float().cpu())
    return torch.cat(scores)


def score_texts(model, evaluation: EvaluationSet, tokens, candidates=None, texts=None) -> np.ndarray:
    """Score candidates with a language model under other texts than the items' own.

    Parameters
    ----------
    model : LanguageRecommender
    evaluation : EvaluationSet
    tokens : list [items] of list of int
        Token ids of every item's text, for histories and, where ``texts`` isn't given, for candidates.
    candidates : int64 array [users, candidates], optional
        Instead of the set's own.
    texts : list [users] of list [candidates] of list of int, optional
        Token ids of each candidate's text.

    Returns
    -------
    float32 array [users, candidates]
    """
    candidates = evaluation.candidates if candidates is None else candidates
    if texts is None:
        texts = [[tokens[item] for item in items] for items in candidates]
    longest, found = model.history_length, []
    rows = max(1, model.config["eval_batch_size"] // candidates.shape[1])
    for start in range(0, len(evaluation), rows):
        part = slice(start, start + rows)
        histories, lengths = evaluation.histories[part], evaluation.lengths[part]
        recent = [
            [tokens[item] for item in items[max(0, count - longest) : count]]
            for items, count in zip(histories, lengths)
        ]
        disliked = [[] for _ in recent]
        if evaluation.dislikes is not None:
            disliked = [[tokens[item] for item in items if item] for items in evaluation.dislikes[part]]
        scored = model.score_texts(
            evaluation.users[part], histories, lengths, candidates[part], recent, texts[part], disliked
        )
        found.append(scored.float().cpu().numpy())
    return np.concatenate(found)


def interaction_of(config, users, histories, lengths) -> Interaction:
    """RecBole's batch of users with their histories (int64 arrays)."""
    return Interaction(
        {
            config["USER_ID_FIELD"]: torch.from_numpy(users),
            config["ITEM_ID_FIELD"] + config["LIST_SUFFIX"]: torch.from_numpy(histories),
            config["ITEM_LIST_LENGTH_FIELD"]: torch.from_numpy(lengths),
        }
    )


def configured_metrics(scores, config) -> dict[str, float]:
    """The metrics that ``metrics`` and ``topk`` ask for, in RecBole's names, lower case."""
    wanted = {name.lower() for name in config["metrics"]}
    values = ranking_metrics(scores, ks=config["topk"])
    places = config["metric_decimal_place"]
    return {name: round(value, places) for name, value in values.items() if name.split("@")[0] in wanted}
