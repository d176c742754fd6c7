"""What metrics and measures are called in tables, figures and pages."""


def metric_name(metric: str) -> str:
    """As papers print it: ``HR@1`` for ``hit@1``, ``KL`` for ``kl``."""
    name, at, k = metric.partition("@")
    plain = {"hit": "HR", "cosine": "cosine", "overlap": "overlap"}
    return plain.get(name, name.upper()) + at + k
