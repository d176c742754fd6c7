"""Keys whose values are dictionaries of settings, and what may stand in them."""

import inspect
from importlib import import_module

from recbole_ganprompt.checks import listed, nearest
from recbole_ganprompt.errors import UserError

SETTINGS = {
    "diversity_settings": "diversity.encoder:DiversitySettings",
    "reconstruction_settings": "diversity.reconstruction:ReconstructionSettings",
    "builtin_llm": "language.builtin_llm:builtin_llm",
    "builtin_attribute_lm": "language.builtin_masked_lm:builtin_masked_lm",
    "builtin_generator": "language.builtin_seq2seq:builtin_seq2seq",
}
"""Key: the class or the function of this package that takes the settings as keyword arguments."""

_NOT_SETTINGS = {"device", "progress"}


def check_settings(values: dict) -> None:
    """Refuse settings that nothing takes, before a long stage would find out.

    Raises
    ------
    UserError
        Such as ``diversity_settings: there is no gama; did you mean gamma?``
    """
    for key, path in SETTINGS.items():
        given = values.get(key)
        if not given:
            continue
        if not isinstance(given, dict):
            raise UserError(f"{key} must be a dictionary such as {{'learning_rate': 0.001}}, not {given!r}.")
        module, name = path.split(":")
        taker = getattr(import_module(f"recbole_ganprompt.{module}"), name)
        parameters = inspect.signature(taker).parameters.values()
        known = {one.name for one in parameters if one.default is not one.empty} - _NOT_SETTINGS
        for name in given:
            if name not in known:
                close = nearest(str(name), known)
                remedy = f"did you mean {close}?" if close else f"choose from {', '.join(sorted(known))}."
                raise UserError(f"{key}: there is no {listed([name])}; {remedy}")
