"""Which language model: ``builtin``, a folder, or an id on the Hugging Face hub."""

from pathlib import Path

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from recbole_ganprompt.errors import UserError
from recbole_ganprompt.language.builtin import Corpus, builtin_llm

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


def backbone_cache(config) -> Path:
    """Where built-in models are kept: ``<checkpoint_dir>/backbones``."""
    return Path(config["checkpoint_dir"]) / "backbones"


def check_source(name: str, key: str) -> None:
    """Refuse a folder that isn't there.

    Raises
    ------
    UserError
    """
    looks_local = name.startswith((".", "/", "~", "\\")) or name.count("/") > 1
    if looks_local and not Path(name).expanduser().is_dir():
        raise UserError(
            f"--{key}={name}: there is no such folder; give a folder that save_pretrained wrote, "
            "a hub id, or builtin."
        )


def from_pretrained(loader, name: str, key: str, **settings):
    """``loader.from_pretrained`` without remote code, with one sentence where it fails.

    Raises
    ------
    UserError
        If the folder isn't there, or the hub's model can't be fetched.
    """
    check_source(name, key)
    try:
        return loader.from_pretrained(
            str(Path(name).expanduser()) if Path(name).expanduser().is_dir() else name,
            trust_remote_code=False,
            **settings,
        )
    except (OSError, ValueError, ImportError) as error:
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise UserError(
            f"--{key}={name} can't be loaded ({reason}): give a folder that save_pretrained wrote; "
            f"--{key}=builtin needs no download."
        ) from error


def load_llm(config, dataset, literals: list[str]):
    """Load the recommender's language model with its tokenizer.

    Parameters
    ----------
    config : recbole Config
        ``llm`` says which; ``llm_dtype`` its precision; ``builtin_llm`` the built-in model's sizes.
    dataset : TextSequentialDataset
        The built-in model is made from its titles and training sequences.
    literals : list of str
        The prompt's fixed texts, which the built-in tokenizer is trained on.

    Returns
    -------
    (model, tokenizer)

    Raises
    ------
    UserError
    """
    name = config["llm"]
    if name == "builtin":
        name = builtin_llm(
            Corpus(dataset.titles, dataset.training_sequences()),
            literals,
            backbone_cache(config),
            config["seed"],
            device=str(config["device"]),
            progress=config["show_progress"],
            **(config["builtin_llm"] or {}),
        )
    settings = {"revision": config["llm_revision"]} if config["llm_revision"] else {}
    tokenizer = from_pretrained(AutoTokenizer, str(name), "llm", **settings)
    model = from_pretrained(
        AutoModelForCausalLM,
        str(name),
        "llm",
        dtype=DTYPES[config["llm_dtype"]],
        attn_implementation="sdpa",
        use_safetensors=True,
        **settings,
    )
    return model, tokenizer
