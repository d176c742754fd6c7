"""Running a language model over packed prompts: every trunk once, then the branches that share it.

What nobody reads isn't computed. Of a trunk the branches want keys and values alone, so its pass ends inside
the last layer, where these are known. Of a branch only the answers' hidden states are wanted, so the last
layer makes keys and values for all tokens, and everything behind them (attention, feed-forward) for the
answers: with few layers that is a large part of the work.
"""

import inspect
from contextlib import contextmanager, suppress

import torch
from torch import nn
from transformers import DynamicCache

from recbole_ganprompt.language.layout import Batch


class KeysKnown(Exception):
    """Ends a forward pass whose rest nobody needs."""


class ReadingCache(DynamicCache):
    """Keys and values of what was read, which can end a pass or answer it without adding to themselves.

    Attributes
    ----------
    last : int
        Index of the model's last layer.
    ends : bool
        Whether the last layer's keys and values, once they are here, end the pass by :class:`KeysKnown`.
    complete : bool
        Whether the last layer's keys and values are all here: a query then gets them as they are.
    """

    def __init__(self, last: int, ends: bool):
        super().__init__()
        self.last, self.ends, self.complete = last, ends, False

    def update(self, key_states, value_states, layer_idx, *args, **kwargs):
        if layer_idx == self.last and self.complete:
            layer = self.layers[layer_idx]
            return layer.keys, layer.values
        result = super().update(key_states, value_states, layer_idx, *args, **kwargs)
        if layer_idx == self.last and self.ends:
            raise KeysKnown
        return result


def read_trunks(model, batch: Batch) -> ReadingCache:
    """Keys and values of a batch's trunks, for all batches that have the same trunks."""
    cache = ReadingCache(len(decoder_layers(model.base_model)) - 1, ends=True)
    if batch.trunks.shape[1]:
        # Padding stands behind a trunk, where nothing that counts looks at it.
        with suppress(KeysKnown):
            embedded = model.get_input_embeddings()(batch.trunks)
            model.base_model(inputs_embeds=embedded, past_key_values=cache, use_cache=True)
    return cache


def read_answers(model, batch: Batch, soft_vectors=None, trunks: ReadingCache | None = None) -> torch.Tensor:
    """Last hidden states at the answers of a batch of packed prompts.

    The model reads the trunks as ordinary causal text, and the branches with the trunks' keys and
    values as their past. Both passes are the model's own forward, so whatever takes a
    ``past_key_values`` takes shared histories.

    Parameters
    ----------
    model : transformers causal language model
    batch : Batch
    soft_vectors : float [soft tokens, hidden size], optional
        What stands in the soft tokens' places, in the order of ``batch.soft``.
    trunks : ReadingCache, optional
        From :func:`read_trunks` of a batch with the same trunks; read here where it isn't given.

    Returns
    -------
    float [answers, hidden size]
    """
    decoder = model.base_model
    embedded = model.get_input_embeddings()(batch.ids)
    if soft_vectors is not None:
        embedded = embedded.index_put((batch.soft[:, 0], batch.soft[:, 1]), soft_vectors.to(embedded.dtype))
    answers = batch.answers[:, 0], batch.answers[:, 1]
    if batch.allowed is None:
        return decoder(inputs_embeds=embedded, use_cache=False).last_hidden_state[answers]
    mask = batch.allowed
    if decoder.config._attn_implementation in ("eager", "flex_attention"):
        # transformers hands a mask of four dimensions on as it is, and these two add it.
        mask = torch.zeros_like(mask, dtype=embedded.dtype).masked_fill_(
            ~mask, torch.finfo(embedded.dtype).min
        )
    given = {"inputs_embeds": embedded, "attention_mask": mask, "position_ids": batch.positions}
    if decoder.training and recomputes(model):
        return decoder(**given, use_cache=False).last_hidden_state[answers]
    trunks = read_trunks(model, batch) if trunks is None else trunks
    past = ReadingCache(len(decoder_layers(decoder)) - 1, ends=False)
    for index, layer in enumerate(trunks.layers):
        past.update(_for_branches(layer.keys, batch.row), _for_branches(layer.values, batch.row), index)
    with last_layer_at(decoder, batch.answers):
        return decoder(**given, past_key_values=past, use_cache=True).last_hidden_state[answers]


def recomputes(model) -> bool:
    """Whether gradient checkpointing is on, which carries no keys and values from one pass to the next."""
    return getattr(model.base_model, "gradient_checkpointing", False)


def decoder_layers(decoder) -> nn.ModuleList:
    """The stack of a base model's layers, whatever its family calls it."""
    depth = decoder.config.get_text_config().num_hidden_layers
    stacks = [part for part in decoder.children() if isinstance(part, nn.ModuleList)]
    return next(stack for stack in stacks if len(stack) == depth)


def _for_branches(part: torch.Tensor, row: torch.Tensor) -> torch.Tensor:
    """Each row's keys or values once for every branch that grows from it."""
    if len(row) == len(part):
        return part
    # Not index_select: its gradient scatters element by element, that of an expansion is a plain sum.
    counts = row.bincount(minlength=len(part)).tolist()
    return torch.cat([one.expand(count, -1, -1, -1) for one, count in zip(part.split(1), counts)])


@contextmanager
def last_layer_at(decoder, answers: torch.Tensor):
    """Let a decoder's last layer compute the answers' hidden states only; all others come out as zeros.

    A layer that doesn't take its cache as ``past_key_values`` computes all of them.

    Parameters
    ----------
    decoder : transformers base model
    answers : int64 [answers, 2]
        Row and column of each, rows ascending.
    """
    layer = decoder_layers(decoder)[-1]
    own = vars(layer).get("forward")  # accelerate's hooks, where a device map put some
    whole, signature = layer.forward, inspect.signature(layer.forward)
    if "past_key_values" not in signature.parameters:
        yield
        return
    row, column = answers.unbind(1)
    counts = row.bincount()
    place = torch.arange(len(row), device=row.device) - (counts.cumsum(0) - counts)[row]

    def narrow(*args, **kwargs):
        given = signature.bind(*args, **kwargs).arguments
        given.update(given.pop("kwargs", {}))
        hidden, cache = given["hidden_states"], given["past_key_values"]
        cache.ends = True
        try:
            whole(**given)
        except KeysKnown:
            cache.ends, cache.complete = False, True
        wanted = column.new_zeros(len(hidden), int(counts.max())).index_put((row, place), column)

        def pick(tensor, axis):
            index = wanted.reshape([len(wanted)] + [1] * (axis - 1) + [-1] + [1] * (tensor.dim() - axis - 1))
            shape = [len(wanted), *tensor.shape[1:]]
            return tensor.expand(shape).gather(axis, index.expand(shape[:axis] + [-1] + shape[axis + 1 :]))

        for name, axis in (("hidden_states", 1), ("attention_mask", 2), ("position_ids", 1)):
            if given.get(name) is not None:
                given[name] = pick(given[name], axis)
        if given.get("position_embeddings") is not None:
            given["position_embeddings"] = tuple(pick(part, 1) for part in given["position_embeddings"])
        result = whole(**given)
        found = result[0] if isinstance(result, tuple) else result
        full = torch.zeros_like(hidden).index_put((row, column), found[row, place])
        return (full, *result[1:]) if isinstance(result, tuple) else full

    layer.forward = narrow
    try:
        yield
    finally:
        if own is None:
            del layer.forward
        else:
            layer.forward = own
