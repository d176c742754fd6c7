"""What is trained on top of a frozen language model: LoRA, and the mapping MLP."""

import math
from logging import getLogger
from pathlib import Path
from pickle import UnpicklingError

import torch
from peft import LoraConfig
from peft.utils import TRANSFORMERS_MODELS_TO_LORA_TARGET_MODULES_MAPPING
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import nn
from transformers.pytorch_utils import Conv1D

from recbole_ganprompt.errors import UserError

DEFAULT_TARGETS = ["q_proj", "v_proj"]


def add_lora(model, config):
    """Put LoRA adapters into the language model, in place; its own weights are frozen.

    The model's ``save_pretrained`` then writes the adapter alone, as a PEFT folder.

    Parameters
    ----------
    model : transformers model
    config : recbole Config
        ``lora_rank``, ``lora_alpha``, ``lora_dropout``, ``lora_targets`` (names of linear layers); or
        ``adapter``, a PEFT folder to start from, whose settings then count.

    Raises
    ------
    UserError
        If the model has no layers of these names, or the folder's adapter isn't for it or is a pickle.
    """
    if config["adapter"]:
        _load_lora(model, Path(config["adapter"]).expanduser(), config["use_safetensors"])
    else:
        _new_lora(model, config)
    for name, parameter in model.named_parameters():
        # Half precision would round the small steps of AdamW away.
        if "lora_" in name and parameter.dtype in (torch.bfloat16, torch.float16):
            parameter.data = parameter.data.float()


def _new_lora(model, config) -> None:
    linear = sorted(
        {
            name.split(".")[-1]
            for name, part in model.named_modules()
            if isinstance(part, (nn.Linear, Conv1D)) and part is not model.get_output_embeddings()
        }
    )
    targets = config["lora_targets"]
    targets = [targets] if isinstance(targets, str) else list(targets)
    if targets == DEFAULT_TARGETS and not set(targets) & set(linear):
        # Families that name their layers otherwise: what PEFT takes for them (GPT-2's c_attn).
        known = TRANSFORMERS_MODELS_TO_LORA_TARGET_MODULES_MAPPING.get(model.config.model_type, targets)
        targets = list(known)
        getLogger().info(f"LoRA on {', '.join(targets)}: this model has no {' and '.join(DEFAULT_TARGETS)}")
    settings = LoraConfig(
        r=config["lora_rank"],
        lora_alpha=config["lora_alpha"],
        lora_dropout=config["lora_dropout"],
        target_modules=targets,
        fan_in_fan_out=any(isinstance(part, Conv1D) for part in model.modules()),
        task_type="CAUSAL_LM",
    )
    try:
        model.add_adapter(settings)
    except ValueError as error:
        raise UserError(
            f"lora_targets {config['lora_targets']} are not layers of this model: choose from "
            f"{', '.join(linear)}."
        ) from error


def _load_lora(model, folder: Path, safetensors_only: bool) -> None:
    if not (folder / "adapter_config.json").is_file():
        raise UserError(
            f"--adapter={folder} is no PEFT folder (it has no adapter_config.json); a model that was tuned "
            "whole is loaded with --llm=FOLDER."
        )
    if safetensors_only and not (folder / "adapter_model.safetensors").is_file():
        raise UserError(
            f"--adapter={folder} has no adapter_model.safetensors: save it anew with PEFT, or, if you trust "
            "where it comes from, add --use_safetensors=false."
        )
    try:
        model.load_adapter(str(folder), is_trainable=True)
    except (RuntimeError, ValueError, OSError, KeyError, SafetensorError, UnpicklingError) as error:
        raise UserError(
            f"--adapter={folder} doesn't fit this language model ({str(error).strip().splitlines()[0]}): "
            "give the llm that it was trained with."
        ) from error


class MappingMLP(nn.Module):
    """MAP_MLP: the teacher's vectors and opinion in the language model's embedding space.

    Two-layer perceptrons, one for each kind of soft token: e_u, e_i, and the opinion. A vector
    comes in standardised (by the item vectors' scale); the opinion, a number, comes in as its value
    and a soft one-hot over knots, so that the perceptron can bend where it needs to.

    Parameters
    ----------
    vector_size : int
        Size of the teacher's vectors.
    hidden_size : int
        Size of the language model's embeddings.
    expansion : int
        Width of the hidden layer, as a multiple of ``vector_size``.
    embedding_scale : float
        Root mean square of the language model's token embeddings; outputs start at this scale.
    opinions : bool
        Whether opinions are mapped too.
    """

    KNOTS = 16
    RANGE = 6.0  # nats; opinions beyond are as good as certain

    def __init__(
        self,
        vector_size: int,
        hidden_size: int,
        expansion: int,
        embedding_scale: float,
        opinions: bool = True,
    ):
        super().__init__()
        self.hidden_size = hidden_size

        def perceptron(inputs: int) -> nn.Sequential:
            return nn.Sequential(
                nn.Linear(inputs, expansion * vector_size),
                nn.GELU(),
                nn.Linear(expansion * vector_size, hidden_size),
                nn.LayerNorm(hidden_size),
            )

        self.user = perceptron(vector_size)
        self.item = perceptron(vector_size)
        self.opinion = perceptron(self.KNOTS + 1) if opinions else None
        for part in filter(None, (self.user, self.item, self.opinion)):
            nn.init.constant_(part[-1].weight, embedding_scale)
        self.register_buffer("mean", torch.zeros(vector_size))
        self.register_buffer("scale", torch.ones(()))
        self.register_buffer("knots", torch.linspace(-self.RANGE, self.RANGE, self.KNOTS))

    def standardize(self, item_vectors: torch.Tensor) -> None:
        """Take centre and scale from the teacher's item vectors, float [items, vector_size]."""
        self.mean.copy_(item_vectors.mean(dim=0))
        self.scale.copy_((item_vectors - self.mean).square().mean().sqrt().clamp_min(1e-6))

    def start_from(self, folder: Path) -> None:
        """Take the weights of ``mapping.safetensors`` in an adapter's folder, where there are any.

        Raises
        ------
        UserError
            If they belong to a teacher, or a language model, of other sizes.
        """
        path = folder / "mapping.safetensors"
        if not path.is_file():
            return
        weights, own = load_file(path), self.state_dict()
        if {name: value.shape for name, value in weights.items()} != {
            name: value.shape for name, value in own.items()
        }:
            raise UserError(
                f"{path} maps vectors of another teacher or into another llm: give the ones that it was "
                "trained with, or delete the file to start the mapping anew."
            )
        self.load_state_dict(weights)

    def map_users(self, vectors: torch.Tensor) -> torch.Tensor:
        """e_u, float [n, vector_size], to soft tokens, float [n, hidden_size]."""
        return self.user((vectors - self.mean) / self.scale)

    def map_items(self, vectors: torch.Tensor) -> torch.Tensor:
        """e_i, float [n, vector_size], to soft tokens, float [n, hidden_size]."""
        return self.item((vectors - self.mean) / self.scale)

    def map_opinions(self, opinions: torch.Tensor) -> torch.Tensor:
        """Opinions in nats, float [n], to soft tokens, float [n, hidden_size]."""
        opinions = opinions.clamp(-self.RANGE, self.RANGE)
        step = 2 * self.RANGE / (self.KNOTS - 1)
        hats = (1 - (opinions[:, None] - self.knots).abs() / step).clamp_min(0)
        return self.opinion(torch.cat([opinions[:, None] / math.sqrt(self.RANGE), hats], dim=1))
