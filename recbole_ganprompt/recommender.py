"""A finished run of a language model as something to ask: ``recbole_ganprompt.load(run_folder)``."""

import shutil
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import yaml
from safetensors.torch import load_file, save_file

from recbole_ganprompt.config import build_config
from recbole_ganprompt.data.portable import PortableDataset, save_portable
from recbole_ganprompt.errors import UserError
from recbole_ganprompt.model.registry import model_class
from recbole_ganprompt.plugin import MODELS
from recbole_ganprompt.prompt.rendering import encode_piece
from recbole_ganprompt.run_folder import run_values
from recbole_ganprompt.writing import write_text


@dataclass(frozen=True)
class Recommendation:
    """One recommended item.

    Attributes
    ----------
    item_id, title : str
    probability : float
        p(Yes).
    """

    item_id: str
    title: str
    probability: float


class Recommender:
    """A trained language-model recommender without its RecBole dataset.

    Parameters
    ----------
    model : LanguageRecommender
    dataset : PortableDataset
    """

    def __init__(self, model, dataset: PortableDataset):
        self.model = model.eval()
        self.dataset = dataset
        self._users = {token: index for index, token in enumerate(dataset.users) if index}
        self._items: dict[str, int] = {}
        for index, title in enumerate(dataset.titles):
            if index:
                self._items.setdefault(title, index)

    def score(self, history_titles, candidate_titles, user_id: str | None = None) -> np.ndarray:
        """p(Yes) of each candidate for a user who liked these titles, in this order.

        Parameters
        ----------
        history_titles : sequence of str or None
            Oldest first; None takes all that the run knows of ``user_id``.
        candidate_titles : sequence of str
            In the catalogue or not. Of an unknown title a teacher knows nothing: it is judged by its words,
            with the mean item's vector and a neutral opinion.
        user_id : str, optional
            As in the dataset's files: matters to teachers that know users by id (MF, LightGCN).

        Returns
        -------
        float32 array [candidates]

        Raises
        ------
        UserError
            If the user is unknown, or there is nothing to score.
        """
        user = self._user(user_id) if user_id is not None else 0
        if history_titles is None:
            if not user:
                raise UserError("Give history_titles, or the user_id of somebody that the run knows.")
            history_titles = [self.dataset.titles[item] for item in self.dataset.sequences.of(user)]
        if isinstance(history_titles, str) or isinstance(candidate_titles, str):
            raise UserError("Titles come as lists of texts.")
        if not len(history_titles) or not len(candidate_titles):
            raise UserError("Give at least one title of history and one candidate.")
        length = self.model.config["title_tokens"]

        def tokens(titles):
            return [encode_piece(self.model.tokenizer, f" {title}")[:length] for title in titles]

        def ids(titles):
            return np.array([self._items.get(title, 0) for title in titles], dtype=np.int64)

        return self._probabilities(
            user, ids(history_titles), tokens(history_titles), ids(candidate_titles), tokens(candidate_titles)
        )

    def recommend(self, user_id: str, k: int = 10) -> list[Recommendation]:
        """The ``k`` items of the catalogue, new to the user, with the highest p(Yes).

        Raises
        ------
        UserError
            If the run doesn't know the user.
        """
        user = self._user(user_id)
        history = self.dataset.sequences.of(user)
        items = np.setdiff1d(np.arange(1, self.dataset.item_num), history)
        table = self.model.title_table
        scores = self._probabilities(
            user, history, [table[item] for item in history], items, [table[item] for item in items]
        )
        best = np.argsort(-scores, kind="stable")[:k]
        return [
            Recommendation(self.dataset.items[item], self.dataset.titles[item], float(score))
            for item, score in zip(items[best], scores[best])
        ]

    def _user(self, user_id: str) -> int:
        if str(user_id) not in self._users:
            raise UserError(f"The run knows no user '{user_id}': leave user_id out and give history_titles.")
        return self._users[str(user_id)]

    def _probabilities(self, user, history, history_tokens, items, tokens) -> np.ndarray:
        model = self.model
        recent = slice(max(0, len(history) - model.history_length), None)
        known = history[history > 0][-model.config["MAX_ITEM_LIST_LENGTH"] :]
        histories = np.zeros((1, model.config["MAX_ITEM_LIST_LENGTH"]), dtype=np.int64)
        histories[0, : len(known)] = known
        disliked = self.dataset.dislikes.sequences.of(user)[-model.config["prompt_unpreference"] :]
        scores = model.score_texts(
            np.array([user]),
            histories,
            np.array([max(1, len(known))]),
            items[None],
            [history_tokens[recent]],
            [tokens],
            [[model.title_table[item] for item in disliked]],
        )
        return torch.sigmoid(scores[0]).cpu().numpy()


def load(
    run_folder, gpu_id: str | None = None, trust_remote_code: bool = False, use_safetensors: bool = True
) -> Recommender:
    """Load what a run of GANPrompt, CoLLM or TALLRec has learnt.

    Parameters
    ----------
    run_folder : path
        Such as ``saved/runs/GANPrompt-ml-100k-20250101-120000``. A hub model is looked up again under its
        id or folder; everything else is in the run's folder.
    gpu_id : str, optional
        RecBole's key: which GPUs may be used, none for ``""``. RecBole's default takes the first.
    trust_remote_code, use_safetensors : bool
        The keys of these names, for a run on a hub model that needs other values.

    Returns
    -------
    Recommender

    Raises
    ------
    UserError
        If it isn't a finished run of a language model.
    """
    folder = Path(run_folder).expanduser()
    if not (folder / "recommender.safetensors").is_file():
        raise UserError(
            f"{folder} is no finished run of {', '.join(MODELS)}: give a folder of theirs in saved/runs/."
        )
    values = run_values(folder)
    if (folder / "backbone").is_dir():
        values["llm"] = str(folder / "backbone")
    if values["llm_tuning"] == "full":
        values |= {"llm": str(folder / "adapter"), "adapter": None}
    else:
        values["adapter"] = str(folder / "adapter")
    # Files that the run read may have changed since, and what only its training needs may be gone.
    if (folder / "prompt.yaml").is_file():
        values["prompt"] = str(folder / "prompt.yaml")
    for key in ("attribute_file", "attribute_exclude"):
        values[key] = None
    values |= {"generator": "builtin", "attribute_lm": "builtin"}
    values |= {"trust_remote_code": trust_remote_code, "use_safetensors": use_safetensors}
    values |= {} if gpu_id is None else {"gpu_id": gpu_id}
    config = build_config(values.pop("model"), values.pop("dataset"), config_dict=values)
    dataset = PortableDataset(folder)
    model = model_class(config["model"])(config, dataset)
    model.load_state_dict({**model.state_dict(), **load_file(folder / "recommender.safetensors")})
    return Recommender(model.to(config["device"]), dataset)


def save(model, dataset, directory: Path) -> None:
    """Write what :func:`load` reads, but for the adapter and the configuration."""
    weights = {
        name: value.contiguous() for name, value in model.state_dict().items() if not name.startswith("llm.")
    }
    save_file(weights, directory / "recommender.safetensors")
    save_portable(dataset, directory)
    # Quoted, so that no text is read as a number.
    template = yaml.safe_dump(model.template, allow_unicode=True, sort_keys=False, default_style='"')
    write_text(directory / "prompt.yaml", template)
    if model.config["llm"] == "builtin" and model.config["llm_tuning"] == "lora":
        # A few megabytes that exist nowhere else.
        shutil.copytree(model.llm.config._name_or_path, directory / "backbone", dirs_exist_ok=True)
