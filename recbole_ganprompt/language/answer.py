"""The Yes/No score: p(Yes) against p(No) at the last position of the prompt."""

import torch

from recbole_ganprompt.errors import UserError


def answer_ids(tokenizer, positive: str, negative: str, ending: str = "Output: ") -> tuple[int, int]:
    """Resolve which token says "Yes" and which "No" in this position.

    The two answers are tokenized behind the prompt's ending, since ``Yes``, `` Yes`` and ``▁Yes``
    are different tokens; the first place where they differ decides.

    Parameters
    ----------
    tokenizer : transformers tokenizer
    positive, negative : str
    ending : str
        What stands before the answer. A blank at its end belongs to the answer's token.

    Returns
    -------
    (yes, no) : tuple of int

    Raises
    ------
    UserError
        If the two answers don't differ in this tokenizer, or differ only behind a shared beginning.
    """

    def encode(text):
        return tokenizer(text, add_special_tokens=False)["input_ids"]

    prompt = encode(ending.rstrip(" "))
    yes, no = encode(ending + positive), encode(ending + negative)
    shared = 0
    while shared < min(len(yes), len(no)) and yes[shared] == no[shared]:
        shared += 1
    if shared >= min(len(yes), len(no)) or tokenizer.unk_token_id in (yes[shared], no[shared]):
        raise UserError(f"This tokenizer can't tell '{positive}' from '{negative}': choose other answers.")
    if shared > len(prompt):
        # Both answers start with the same token (a lone blank): the decision would come later.
        raise UserError(
            f"'{positive}' and '{negative}' share their first token in this tokenizer: "
            "choose answers that differ from the first."
        )
    return yes[shared], no[shared]


def answer_logits(model, hidden: torch.Tensor, ids: tuple[int, int]) -> torch.Tensor:
    """logit(Yes) - logit(No): p(Yes) is its sigmoid, the softmax over the two answer tokens.

    Only these two rows of the output matrix are multiplied, never the whole vocabulary.

    Parameters
    ----------
    model : transformers causal language model
    hidden : float [answers, hidden size]
        Last hidden states at the answers' positions.
    ids : (yes, no)

    Returns
    -------
    float [answers]
    """
    head, config = model.get_output_embeddings(), model.config.get_text_config()
    chosen = torch.tensor(ids, device=hidden.device)
    # In float32 whatever the model computes in: ranks are made of small differences.
    logits = hidden.float() @ head.weight[chosen].float().T
    if getattr(head, "bias", None) is not None:
        logits = logits + head.bias[chosen].float()
    # What some families do to their logits (Cohere, Granite, Gemma 2).
    scale = (getattr(config, "logit_scale", None) or 1) / (getattr(config, "logits_scaling", None) or 1)
    logits = logits * scale
    if cap := getattr(config, "final_logit_softcapping", None):
        logits = cap * torch.tanh(logits / cap)
    return logits[:, 0] - logits[:, 1]
