"""From a model and an evaluation set to scores [users, candidates] and metrics."""

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
