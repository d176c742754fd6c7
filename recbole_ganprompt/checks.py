"""What values a key accepts.

``CHECKS`` maps a key to what it must be, in words, and a test of the value. A key without an
entry takes anything. To add one: ``CHECKS["lora_rank"] = positive_integer``.
"""

import difflib
import re
from collections.abc import Callable, Iterable
from numbers import Integral, Real

from recbole_ganprompt.teachers import TEACHERS

Check = tuple[str, Callable[[object], bool]]


def _integer(value) -> bool:
    return isinstance(value, Integral) and not isinstance(value, bool)


def _number(value) -> bool:
    return isinstance(value, Real) and not isinstance(value, bool)


def _interval(value) -> bool:
    match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*(min|minutes|steps)?", str(value).strip())
    return value in (None, "none") or (bool(match) and float(match[1]) > 0)


def choice(*names) -> Check:
    """One of the given values."""
    return f"one of {', '.join(map(str, names))}", lambda value: value in names


def optional(check: Check) -> Check:
    """None, or what ``check`` accepts."""
    meaning, accepts = check
    return f"{meaning} or none", lambda value: value is None or accepts(value)


def several(check: Check) -> Check:
    """One value that ``check`` accepts, or a list of such."""
    meaning, accepts = check

    def each(value):
        many = value if isinstance(value, (list, tuple)) else [value]
        return bool(many) and all(accepts(one) for one in many)

    return f"{meaning} or a list of such", each


def list_of(check: Check, example: str) -> Check:
    """A list of values that ``check`` accepts."""
    accepts = several(check)[1]
    return f"a list such as {example}", lambda value: isinstance(value, (list, tuple)) and accepts(value)


positive_integer: Check = ("a positive integer", lambda value: _integer(value) and value > 0)
natural: Check = ("an integer of 0 or more", lambda value: _integer(value) and value >= 0)
positive: Check = ("a number above 0", lambda value: _number(value) and value > 0)
non_negative: Check = ("a number of 0 or more", lambda value: _number(value) and value >= 0)
number: Check = ("a number", _number)
fraction: Check = ("a number from 0 to below 1", lambda value: _number(value) and 0 <= value < 1)
truth: Check = ("true or false", lambda value: isinstance(value, bool))
text: Check = ("a text", lambda value: isinstance(value, str) and bool(value.strip()))


def _columns(value) -> bool:
    """Whether a value names columns of atomic files, by the files' suffixes."""
    return isinstance(value, dict) and all(
        names == "*" or (isinstance(names, (list, tuple)) and all(isinstance(name, str) for name in names))
        for names in value.values()
    )


character: Check = (
    "one character, such as a tab",
    lambda value: isinstance(value, str) and len(value) == 1 and value.isascii() and value not in "\r\n\0:",
)
columns: Check = ("a dictionary such as {'inter': [user_id, item_id, timestamp], 'item': '*'}", _columns)
with_inter: Check = (columns[0], lambda value: _columns(value) and bool(value.get("inter")))

CHECKS: dict[str, Check] = {
    # Atomic files
    "field_separator": character,
    "seq_separator": ("one or more characters", lambda value: isinstance(value, str) and value != ""),
    "encoding": optional(text),
    "USER_ID_FIELD": text,
    "ITEM_ID_FIELD": text,
    "TIME_FIELD": text,
    "RATING_FIELD": text,
    "load_col": optional(with_inter),
    "unload_col": optional(columns),
    # Protocol
    "protocol": choice("leave_one_out", "paper"),
    "rating_threshold": optional(number),
    "item_text": text,
    "item_domain": text,
    "MAX_ITEM_LIST_LENGTH": positive_integer,
    "topk": several(positive_integer),
    "valid_metric": text,
    "metric_decimal_place": natural,
    "repeatable": ("true, as sequential models need it", lambda value: value is True),
    "seed": ("an integer from 0 to 4294967295", lambda value: natural[1](value) and value < 2**32),
    "candidate_seed": natural,
    "reproducibility": truth,
    "checkpoint_every": ("an interval such as 5min or 500 (steps), or none", _interval),
    "resume": optional(text),
    "checkpoint_dir": text,
    "data_path": text,
    "trust_checkpoint": truth,
    # Training
    "epochs": positive_integer,
    "train_batch_size": positive_integer,
    "eval_batch_size": positive_integer,
    "eval_step": positive_integer,
    "stopping_step": natural,
    "learning_rate": positive,
    "weight_decay": non_negative,
    # Sizes of RecBole's models
    "embedding_size": positive_integer,
    "hidden_size": positive_integer,
    "inner_size": positive_integer,
    "n_layers": positive_integer,
    "n_heads": positive_integer,
    "num_layers": positive_integer,
    "mlp_hidden_size": list_of(positive_integer, "[64, 32]"),
    "dropout_prob": fraction,
    "hidden_dropout_prob": fraction,
    "attn_dropout_prob": fraction,
    "mask_ratio": ("a number above 0 and below 1", lambda value: _number(value) and 0 < value < 1),
    "ft_ratio": ("a number from 0 to 1", lambda value: _number(value) and 0 <= value <= 1),
    "masks_per_window": positive_integer,
    "window_negatives": positive_integer,
    "nv": positive_integer,
    "nh": positive_integer,
    "reg_weight": several(non_negative),
    # GANPrompt's stages
    "teacher": choice(*TEACHERS),
    "teacher_config": optional(
        ("a dictionary such as {'hidden_size': 64}", lambda value: isinstance(value, dict))
    ),
    "opinion_items": positive_integer,
    "attributes": natural,
    "attribute_users": optional(positive_integer),
    "adversarial": choice("cooperative", "zero_sum", "none"),
    "diversity": choice("full", "no_cos", "no_js", "none"),
    "reconstructed_share": ("a number from 0 to 1", lambda value: _number(value) and 0 <= value <= 1),
    "unpreference_rating": optional(number),
    "prompt_unpreference": positive_integer,
    "few_shot": optional(positive_integer),
    "few_shot_steps": positive_integer,
    "llm_steps": optional(positive_integer),
    "step_two": choice("mapping", "no_collaborative", "lora+mapping", "teacher+mapping", "all"),
    "guidance_words": list_of(text, "[poor, fair, good]"),
    "lora_targets": several(text),
    "prompt_history": positive_integer,
    "title_tokens": positive_integer,
    "train_negatives": positive_integer,
    "row_tokens": positive_integer,
    "token_budget": positive_integer,
    "prompt_layout": choice("auto", "shared", "flat", "separate"),
    "gradient_checkpointing": truth,
    "llm_compile": truth,
    "prompt_diversity": truth,
    "mapping_positions": choice("held_out", "all"),
    "guidance": choice("off", "words", "vector", "both"),
    "llm_sharding": truth,
    "num_workers": positive_integer,
    "ray_address": optional(text),
    "valid_users": positive_integer,
    "mapping_expansion": positive_integer,
    # Backbones
    "llm": text,
    "generator": text,
    "attribute_lm": text,
    "trust_remote_code": truth,
    "use_safetensors": truth,
    "llm_dtype": choice("auto", "float32", "bfloat16", "float16"),
    "llm_quantization": optional(choice("4bit", "8bit")),
    "llm_attention": text,
    "prompt_format": choice("plain", "chat"),
    "adapter": optional(text),
    "llm_tuning": choice("lora", "full"),
    "lora_rank": positive_integer,
    "lora_alpha": positive,
    "lora_dropout": fraction,
    "llm_epochs": positive_integer,
    "llm_learning_rate": positive,
    "llm_batch_size": positive_integer,
    "mapping_batch_size": positive_integer,
    "llm_weight_decay": non_negative,
    "mapping_epochs": positive_integer,
    "mapping_learning_rate": positive,
}


def nearest(name: str, names: Iterable[str]) -> str | None:
    """The name most like ``name``, upper and lower case alike, or None where none is like it."""
    folded = {known.casefold(): known for known in names}
    close = difflib.get_close_matches(name.casefold(), folded, n=1, cutoff=0.6)
    return folded[close[0]] if close else None


def shown(text: str) -> str:
    """The start of a stranger's text for a message, quoted, without what could move a terminal's cursor."""
    return repr(text) if len(text) <= 60 else f"{text[:60]!r}..."


def listed(names: Iterable) -> str:
    """The first names that a stranger gave, for a message."""
    first = [str(name) for name in list(names)[:20]]
    return ", ".join(name if name.isprintable() and len(name) <= 60 else shown(name) for name in first)
