"""The two players of stage 2 and what they look at: generator, discriminator, Figure 4's prompts."""

from dataclasses import dataclass, fields

import torch
from torch import nn

from recbole_ganprompt.diversity.constraint import VARIANTS
from recbole_ganprompt.errors import UserError
from recbole_ganprompt.prompt.document import Document
from recbole_ganprompt.prompt.rendering import TitleTable

GAMES = ("cooperative", "zero_sum", "none")
MEMORIES = ("pooled", "tokens")


@dataclass(frozen=True)
class DiversitySettings:
    """What the diversity encoder can be told.

    Attributes
    ----------
    adversarial : {"cooperative", "zero_sum", "none"}
        The generator's part in the game: it helps the discriminator (minimises its cross-entropy),
        fools it (maximises it), or ignores it.
    diversity : {"full", "no_cos", "no_js", "none"}
        Terms of the constraint (Div-ori, Div-cos, Div-JS, Div-all).
    lam, gamma : float
        λ and γ of ``L_CE + λ L_adv + γ D_total``.
    alpha, beta, temperature : float
        Of :func:`recbole_ganprompt.diversity.constraint.diversity_constraint`.
    memory : {"pooled", "tokens"}
        What the decoder restores a text from: the mean-pooled embedding alone (a bottleneck: texts
        come out changed), or all of the encoder's vectors (texts come out as copies, unless the
        decoder is weak). A decoder that was not pre-trained for the first needs the second.
    learning_rate, discriminator_learning_rate : float
        Adam's, for generator and discriminator (the paper: 1e-5).
    batch_size : int
        Prompts in a batch (the paper: 256); a user takes k + 1 of them.
    users_per_epoch : int or None
        An epoch is a random sample of so many users; None takes all.
    max_epochs, patience, tolerance
        Training ends when, for ``patience`` epochs in a row, the discriminator's accuracy on
        held-out users and D_total have both moved by less than ``tolerance``.
    held_out : int
        Users kept from training for that accuracy, at most a fifth of all.
    discriminator_hidden : int
        Width of the discriminator's two hidden layers.
    history, title_tokens, max_tokens : int
        Items of a history at most, tokens of a title and of a whole prompt at most.
    """

    adversarial: str = "cooperative"
    diversity: str = "full"
    lam: float = 0.5
    gamma: float = 0.5
    alpha: float = 1.0
    beta: float = 1.0
    temperature: float = 1.0
    memory: str = "pooled"
    learning_rate: float = 1e-3
    discriminator_learning_rate: float = 1e-3
    batch_size: int = 192
    users_per_epoch: int | None = 512
    max_epochs: int = 6
    patience: int = 2
    tolerance: float = 0.01
    held_out: int = 256
    discriminator_hidden: int = 128
    history: int = 20
    title_tokens: int = 20
    max_tokens: int = 64

    def __post_init__(self):
        for name, known in (
            ("adversarial", GAMES),
            ("diversity", VARIANTS),
            ("memory", MEMORIES),
        ):
            if getattr(self, name) not in known:
                raise UserError(f"{name} is '{getattr(self, name)}': choose one of {', '.join(known)}.")
        for field in fields(self):
            value = getattr(self, field.name)
            if field.name in ("lam", "gamma", "alpha", "beta", "tolerance"):
                if value < 0:
                    raise UserError(f"{field.name} is {value}: it can't be negative.")
            elif isinstance(value, (int, float)) and value <= 0:
                raise UserError(f"{field.name} is {value}: it must be above 0.")


class Generator(nn.Module):
    """T5's encoder; a prompt's embedding is the mean over its tokens.

    Only the encoder's own layers learn. The token embeddings stay frozen: T5's encoder and decoder
    share them, and the decoder must stay as it is.
    """

    def __init__(self, seq2seq):
        super().__init__()
        self.encoder = seq2seq.get_encoder()
        for parameter in seq2seq.parameters():
            parameter.requires_grad_(False)
        shared = {id(p) for p in seq2seq.get_input_embeddings().parameters()}
        for parameter in self.encoder.parameters():
            parameter.requires_grad_(id(parameter) not in shared)

    def forward(self, ids: torch.Tensor, mask: torch.Tensor):
        """Encode prompts.

        Parameters
        ----------
        ids, mask : int64 tensor [prompts, length]
            Token ids, and 1 where they are no padding.

        Returns
        -------
        hidden : float tensor [prompts, length, hidden]
        embedding : float tensor [prompts, hidden]
        """
        hidden = self.encoder(input_ids=ids, attention_mask=mask).last_hidden_state
        weights = mask.unsqueeze(-1).to(hidden.dtype)
        return hidden, (hidden * weights).sum(1) / weights.sum(1).clamp(min=1)


class Discriminator(nn.Sequential):
    """A three-layer MLP: embedding [prompts, hidden] → logits of the classes [prompts, classes]."""

    def __init__(self, size: int, hidden: int, classes: int):
        super().__init__(
            nn.LayerNorm(size),
            nn.Linear(size, hidden),
            nn.ReLU(),
            nn.Linear(hidden, hidden),
            nn.ReLU(),
            nn.Linear(hidden, classes),
        )


class Prompts:
    """Figure 4 for any history and class, as padded batches of token ids.

    Parameters
    ----------
    tokenizer : transformers tokenizer
    titles : list of str [items]
    attributes : list of str [k]
        Class 0 is the plain history, class c the history under ``attributes[c - 1]``.
    template : str
        Figure 4's text with its slots.
    settings : DiversitySettings
    """

    def __init__(self, tokenizer, titles, attributes, template: str, settings: DiversitySettings):
        limit = min(settings.max_tokens, tokenizer.model_max_length)
        self.documents = [
            Document(tokenizer, template, limit, Attribute=attribute) for attribute in (None, *attributes)
        ]
        self.titles = TitleTable(tokenizer, titles, settings.title_tokens).tokens
        self.history, self.padding = settings.history, tokenizer.pad_token_id
        self.end = [tokenizer.eos_token_id]

    def batch(self, histories, classes, device) -> tuple[torch.Tensor, torch.Tensor]:
        """Ids and mask, int64 [prompts, length], for parallel lists of histories and classes."""
        return self.padded(
            [
                self.documents[c]([self.titles[item] for item in history[-self.history :]])
                for history, c in zip(histories, classes)
            ],
            device,
        )

    def padded(self, rows, device) -> tuple[torch.Tensor, torch.Tensor]:
        """Ids and mask, int64 [rows, longest], padded on the right."""
        ids = torch.full((len(rows), max(map(len, rows))), self.padding)
        mask = torch.zeros_like(ids)
        for index, row in enumerate(rows):
            ids[index, : len(row)] = torch.tensor(row)
            mask[index, : len(row)] = 1
        return ids.to(device), mask.to(device)

    def labels(self, items, device) -> torch.Tensor:
        """The items' texts as targets of the decoder, int64 [items, longest], -100 is padding."""
        ids, mask = self.padded([self.titles[item] + self.end for item in items], device)
        return ids.masked_fill(mask == 0, -100)
