"""Sets of wordings of the recommendation prompt: those to train on, and those that no training sees."""

from functools import cache

import yaml

from recbole_ganprompt.keys import properties_path

ANSWERS = {"positive": "Yes.", "negative": "No."}


@cache
def load_wordings(name: str) -> dict[str, dict]:
    """Templates of ``properties/prompt/<name>_wordings.yaml``, by name.

    Parameters
    ----------
    name : str
        ``training`` or ``held_out``.

    Returns
    -------
    dict of str to dict
        What :func:`recbole_ganprompt.prompt.template.parse_template` takes; answers are "Yes." and "No."
        where a wording has none of its own.
    """
    path = properties_path("prompt", f"{name}_wordings.yaml")
    wordings = yaml.safe_load(path.read_text(encoding="utf-8"))
    return {wording: {**ANSWERS, **source} for wording, source in wordings.items()}
