"""Running a language model over packed prompts: every trunk once, then the branches that share it."""

import torch
from transformers import DynamicCache

from recbole_ganprompt.language.packing import Batch


def read_answers(model, batch: Batch, soft_vectors: torch.Tensor | None = None) -> torch.Tensor:
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

    Returns
    -------
    float [answers, hidden size]
    """
    decoder, embeddings = model.base_model, model.get_input_embeddings()
    past = None
    if batch.trunks.shape[1]:
        # Padding stands behind a trunk, where nothing that counts looks at it.
        trunks = decoder(inputs_embeds=embeddings(batch.trunks), use_cache=True).past_key_values
        past = DynamicCache()
        for index, layer in enumerate(trunks.layers):
            keys, values = (part.index_select(0, batch.row) for part in (layer.keys, layer.values))
            past.update(keys, values, index)
    embedded = embeddings(batch.ids)
    if soft_vectors is not None:
        embedded = embedded.index_put((batch.soft[:, 0], batch.soft[:, 1]), soft_vectors.to(embedded.dtype))
    output = decoder(
        inputs_embeds=embedded,
        attention_mask=batch.allowed,
        position_ids=batch.positions,
        past_key_values=past,
        use_cache=past is not None,
    )
    return output.last_hidden_state[batch.answers[:, 0], batch.answers[:, 1]]
