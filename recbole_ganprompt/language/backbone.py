"""Which language model: ``builtin``, a folder, or an id on the Hugging Face hub."""

import shutil
import sys
from importlib.util import find_spec
from pathlib import Path
from pickle import UnpicklingError

import torch
from safetensors import SafetensorError
from torch.distributed.device_mesh import init_device_mesh
from transformers import AutoModelForCausalLM, AutoTokenizer, BitsAndBytesConfig

from recbole_ganprompt import workers
from recbole_ganprompt.errors import UserError
from recbole_ganprompt.language.builtin_llm import builtin_llm
from recbole_ganprompt.language.corpus import Corpus
from recbole_ganprompt.language.reading import decoder_layers


def dtype_of(config) -> torch.dtype:
    """``llm_dtype`` as torch knows it; ``auto`` is bfloat16 on a GPU that has it, float32 elsewhere."""
    name = config["llm_dtype"]
    if name == "auto":
        on_gpu = torch.device(config["device"]).type == "cuda"
        name = "bfloat16" if on_gpu and torch.cuda.is_bf16_supported() else "float32"
    return getattr(torch, name)


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


def from_pretrained(loader, name: str, key: str, config=None, **settings):
    """``loader.from_pretrained`` of a model or tokenizer, with one sentence where it fails.

    Parameters
    ----------
    loader : class
        Of transformers, such as ``AutoTokenizer``.
    name : str
        A folder or hub id.
    key : str
        Under which the user gave it.
    config : recbole Config, optional
        ``trust_remote_code`` and ``use_safetensors``; without it no code and safetensors only.
    **settings
        For ``loader.from_pretrained``.

    Raises
    ------
    UserError
        If the folder isn't there, the hub's model can't be fetched, or it may not be trusted.
    """
    check_source(name, key)
    trusted = bool(config and config["trust_remote_code"])
    if loader is not AutoTokenizer:
        # None takes safetensors where there are any, and a pickle otherwise.
        settings.setdefault("use_safetensors", True if not config or config["use_safetensors"] else None)
    try:
        return loader.from_pretrained(
            str(Path(name).expanduser()) if Path(name).expanduser().is_dir() else name,
            trust_remote_code=trusted,
            **settings,
        )
    except (OSError, ValueError, ImportError, SafetensorError, UnpicklingError) as error:
        if "trust_remote_code" in str(error) and not trusted:
            raise UserError(
                f"--{key}={name} brings code of its own, which isn't run: read it, and add "
                f"--trust_remote_code if you trust it, or give another {key}."
            ) from error
        if "safetensors" in str(error) and settings.get("use_safetensors"):
            raise UserError(
                f"--{key}={name} has no weights in safetensors: save it anew with save_pretrained, or, if "
                "you trust where it comes from, add --use_safetensors=false."
            ) from error
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
        ``llm`` says which; ``llm_revision``, ``llm_dtype``, ``llm_device_map``, ``llm_quantization``,
        ``llm_attention`` and ``gradient_checkpointing`` how; ``builtin_llm`` the built-in model's sizes.
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
    if config["llm_attention"] == "flex_attention" and config["device"].type == "cpu":
        # PyTorch 2.13's kernel for processors ends the whole process on a mask like ours.
        raise UserError("llm_attention=flex_attention needs a GPU: leave it out, or choose sdpa or eager.")
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
    tokenizer = from_pretrained(AutoTokenizer, str(name), "llm", config, **settings)
    if config["llm_quantization"]:
        settings["quantization_config"] = quantization(config)
    if config["llm_device_map"] or config["llm_quantization"]:
        settings["device_map"] = config["llm_device_map"] or {"": str(config["device"])}
    model = from_pretrained(
        AutoModelForCausalLM,
        str(name),
        "llm",
        config,
        dtype=dtype_of(config),
        attn_implementation=config["llm_attention"],
        **settings,
    )
    if config["gradient_checkpointing"]:
        # The name that transformers gives it from 5.20 on; the older one goes in version 6.
        enable = getattr(model, "activation_checkpointing_enable", None)
        if enable is None:
            model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
        else:
            enable({"use_reentrant": False})
    if config["llm_compile"]:
        compile_elementwise(model)
    else:  # an earlier model of this process may have been compiled
        family = sys.modules[type(model).__module__]
        rotate = getattr(family, "apply_rotary_pos_emb", None)
        if hasattr(rotate, "_torchdynamo_orig_callable"):
            family.apply_rotary_pos_emb = rotate._torchdynamo_orig_callable
    return model, tokenizer


def shard(model, device: torch.device) -> None:
    """Spread the frozen weights of the layers over all workers (FSDP); a layer is gathered for its turn.

    What is trained stays whole on every worker, and so do the embeddings.

    Raises
    ------
    UserError
        If this PyTorch has no ``fully_shard``.
    """
    try:
        from torch.distributed.fsdp import fully_shard
    except ImportError as error:
        raise UserError("llm_sharding needs PyTorch 2.7 or later: update torch.") from error
    mesh = init_device_mesh(device.type, (workers.count(),))
    for layer in decoder_layers(model.base_model):
        trained = {parameter for parameter in layer.parameters() if parameter.requires_grad}
        for parameter in trained:
            parameter.data = parameter.data.to(device)
        fully_shard(layer, mesh=mesh, ignored_params=trained)
    for part in [*model.children(), *model.base_model.children()]:
        if part not in (model.base_model, decoder_layers(model.base_model)):
            part.to(device)


def compile_elementwise(model) -> None:
    """Fuse what is small and many in each layer (norms, activations, rotation) by ``torch.compile``.

    In place; attention stays as it is, as its keys and values are shared between passes. Compiled for any
    shape at its first use, which takes about a minute and a C++ compiler.

    Raises
    ------
    UserError
        If there is no C++ compiler.
    """
    if not any(map(shutil.which, ("c++", "g++", "clang++", "cl"))):
        raise UserError("llm_compile needs a C++ compiler: install one, or set llm_compile=false.")
    for layer in decoder_layers(model.base_model):
        for name, part in layer.named_children():
            if "attn" not in name and "attention" not in name:
                part.compile(dynamic=True)
    family = sys.modules[type(model).__module__]
    rotate = getattr(family, "apply_rotary_pos_emb", None)
    if rotate is not None and not hasattr(rotate, "_torchdynamo_orig_callable"):
        family.apply_rotary_pos_emb = torch.compile(rotate, dynamic=True)


def quantization(config) -> BitsAndBytesConfig:
    """Settings of ``llm_quantization``: ``4bit`` (NF4, computing in ``llm_dtype``) or ``8bit``.

    Raises
    ------
    UserError
        If bitsandbytes isn't installed, or all weights shall be tuned.
    """
    if config["llm_tuning"] == "full":
        raise UserError("Quantized weights can't be tuned: set llm_tuning=lora, or llm_quantization=none.")
    if find_spec("bitsandbytes") is None:
        raise UserError("llm_quantization needs bitsandbytes: pip install 'recbole-ganprompt[quantization]'.")
    if config["llm_quantization"] == "8bit":
        return BitsAndBytesConfig(load_in_8bit=True)
    return BitsAndBytesConfig(
        load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_compute_dtype=dtype_of(config)
    )
