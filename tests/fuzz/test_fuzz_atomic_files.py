"""Any two files as a dataset: one that models can train on, or one sentence."""

import numpy as np
import pytest
from broken_bytes import ANYTHING, DEADLINE, damaged, is_one_sentence
from hypothesis import example, given, settings
from hypothesis import strategies as st

from recbole_ganprompt.config import build_config
from recbole_ganprompt.data.dataset import TextSequentialDataset
from recbole_ganprompt.errors import UserError

INTER = b"user_id:token\titem_id:token\trating:float\ttimestamp:float\n" + b"".join(
    f"u{user}\ti{item}\t5\t{item}{user}\n".encode() for user in range(2) for item in range(4)
)
ITEM = b"item_id:token\ttitle:token_seq\tbrand:token\tsize:float\tsizes:float_seq\n"
ITEM += b'i0\tSoap\tDove\t1\t1 2\ni1\t"Lamp" &amp; bulb\t\t2.5\t\ni2\tBrush\tB\t\t3\ni3\t\tC\t4\t5\n'


@pytest.fixture(scope="module")
def configs(tmp_path_factory):
    """The dataset's folder, and its configurations without and with the items' columns as features."""
    folder = tmp_path_factory.mktemp("data") / "shop"
    folder.mkdir()
    everybody = {"user_inter_num_interval": "[1,inf)", "item_inter_num_interval": "[1,inf)"}
    values = {**everybody, "data_path": str(folder.parent), "gpu_id": ""}
    features = {**values, "load_col": {"inter": "*", "item": "*"}}
    (folder / "shop.inter").touch()
    return folder, [build_config("SASRec", "shop", config_dict=one) for one in (values, features)]


@settings(deadline=DEADLINE)
@given(
    inter=damaged(INTER, INTER.replace(b"\n", b"\r\n")) | ANYTHING,
    item=damaged(ITEM, b"\xef\xbb\xbf" + ITEM) | ANYTHING,
    features=st.booleans(),
)
@example(inter=INTER, item=b"\r" + ITEM, features=True)
@example(inter=INTER.replace(b"i0", b"[PAD]"), item=ITEM, features=False)
def test_any_two_files_are_a_dataset_or_one_sentence(configs, inter, item, features):
    folder, choices = configs
    (folder / "shop.inter").write_bytes(inter)
    (folder / "shop.item").write_bytes(item)
    try:
        dataset = TextSequentialDataset(choices[features])
        parts = dataset.build()
    except UserError as error:
        assert is_one_sentence(error)
        return
    assert len(dataset.titles) == dataset.item_num
    assert all(title.isprintable() and title.strip() == title for title in dataset.titles)
    assert all(title for title in dataset.titles[1:])
    assert np.isfinite(dataset.times).all()
    users = np.repeat(np.arange(dataset.user_num), dataset.sequences.lengths)
    assert (np.diff(dataset.times)[np.diff(users) == 0] >= 0).all()
    assert sum(map(len, parts)) == len(dataset.sequences.items) - (dataset.user_num - 1)
    assert all(count > 0 for count in dataset.read_counts.values())
