"""What a trained recommender needs of its dataset, kept beside it: ids, titles, histories."""

import json
from pathlib import Path

import numpy as np
import torch
from recbole.data.interaction import Interaction
from recbole.utils import FeatureSource, FeatureType
from safetensors.numpy import load_file, save_file
from scipy.sparse import coo_matrix

from recbole_ganprompt.data.dislikes import Dislikes
from recbole_ganprompt.data.sequences import Sequences


class PortableDataset:
    """The catalogue and the users of a finished run; what RecBole's models ask of a dataset, and no more.

    Attributes
    ----------
    users, items : list of str
        Tokens of the dataset's files by internal id; index 0 is padding.
    titles : list of str [items]
    sequences : Sequences
        Everything that is known of each user, validation and test items too.
    training : Sequences
        The part that the models trained on.
    dislikes : Dislikes
    """

    def __init__(self, folder):
        folder = Path(folder)
        known = json.loads((folder / "dataset.json").read_text(encoding="utf-8"))
        arrays = load_file(folder / "dataset.safetensors")
        self.users, self.items, self.titles = known["users"], known["items"], known["titles"]
        self.uid_field, self.iid_field = known["user_field"], known["item_field"]
        self._fields = known["fields"]
        self.field2type = {name: FeatureType(part["type"]) for name, part in self._fields.items()}
        self.field2source = {name: FeatureSource(part["source"]) for name, part in self._fields.items()}
        self.field2seqlen = {name: part["length"] for name, part in self._fields.items()}
        self.sequences = Sequences(arrays["items"], arrays["offsets"])
        self.training = Sequences(arrays["training_items"], arrays["training_offsets"])
        self._features = {"user": {}, "item": {}}
        for name in known.get("features", []):  # in their order there, in which models lay out embeddings
            of, _, field = name.partition(".")
            self._features[of][field] = torch.from_numpy(arrays[name])
        self.dislikes = Dislikes(
            Sequences(arrays["disliked_items"], arrays["disliked_offsets"]), arrays["disliked_times"]
        )

    @property
    def user_num(self) -> int:
        return len(self.users)

    @property
    def item_num(self) -> int:
        return len(self.items)

    def num(self, field: str) -> int:
        """How many values a field has, padding included."""
        return self._fields[field]["num"]

    def fields(self, ftype=None, source=None) -> list[str]:
        """Names of the fields of some types and sources (RecBole's enumerations)."""
        return [
            name
            for name in self._fields
            if (ftype is None or self.field2type[name] in ftype)
            and (source is None or self.field2source[name] in source)
        ]

    def get_user_feature(self) -> Interaction:
        return Interaction({self.uid_field: torch.arange(self.user_num), **self._features["user"]})

    def get_item_feature(self) -> Interaction:
        return Interaction({self.iid_field: torch.arange(self.item_num), **self._features["item"]})

    def training_sequences(self) -> Sequences:
        return self.training

    def training_pairs(self) -> "PortableDataset":
        return self

    def inter_matrix(self, form: str = "coo"):
        """Users by items, float32, one where the user's training sequence has the item."""
        users = np.repeat(np.arange(self.user_num), self.training.lengths)
        ones = np.ones(len(users), dtype=np.float32)
        return coo_matrix(
            (ones, (users, self.training.items)), shape=(self.user_num, self.item_num)
        ).asformat(form)


def save_portable(dataset, folder: Path) -> None:
    """Write what :class:`PortableDataset` reads: ``dataset.json`` and ``dataset.safetensors``."""
    fields = {
        name: {
            "type": dataset.field2type[name].value,
            "source": dataset.field2source[name].value,
            "length": dataset.field2seqlen[name],
            # The sequences' own columns have no values of their own to count.
            "num": int(dataset.num(name)) if name in dataset.field2id_token else None,
        }
        for name in dataset.field2type
    }
    features = dataset.features()
    known = {
        "user_field": dataset.uid_field,
        "item_field": dataset.iid_field,
        "fields": fields,
        "users": dataset.field2id_token[dataset.uid_field].tolist(),
        "items": dataset.field2id_token[dataset.iid_field].tolist(),
        "titles": dataset.titles,
        "features": list(features),
    }
    training = dataset.training_sequences()
    arrays = {
        "items": dataset.sequences.items,
        "offsets": dataset.sequences.offsets,
        "training_items": training.items,
        "training_offsets": training.offsets,
        "disliked_items": dataset.dislikes.sequences.items,
        "disliked_offsets": dataset.dislikes.sequences.offsets,
        "disliked_times": dataset.dislikes.times,
        **features,
    }
    (folder / "dataset.json").write_text(json.dumps(known, ensure_ascii=False), encoding="utf-8")
    save_file(
        {name: np.ascontiguousarray(value) for name, value in arrays.items()}, folder / "dataset.safetensors"
    )
