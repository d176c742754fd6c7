"""RecBole runs on the installed versions, and nothing else in the process notices."""

import subprocess
import sys
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch
from recbole.data.dataset import Dataset
from recbole.utils import FeatureType

from recbole_ganprompt import compat, trust

pytestmark = pytest.mark.smoke


class Pickled:
    """Something that only an unrestricted load returns."""


@pytest.fixture
def checkpoint(tmp_path):
    path = tmp_path / "model.pth"
    caller = {
        "__name__": "recbole.trainer.trainer",
        "torch": torch,
        "path": path,
        "value": {"config": Pickled()},
    }
    eval("torch.save(value, path)", caller)
    return path


def test_recbole_trains_and_reloads_its_best_checkpoint(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["test"])
    from recbole.quick_start import load_data_and_model, run_recbole

    values = {
        "epochs": 1,
        "train_neg_sample_args": None,
        "user_inter_num_interval": "[450,inf)",
        "MAX_ITEM_LIST_LENGTH": 5,
        "hidden_size": 8,
        "inner_size": 8,
        "show_progress": False,
        "state": "ERROR",
        "gpu_id": "",
    }
    result = run_recbole(model="SASRec", dataset="ml-100k", config_dict=values)
    assert 0 <= result["test_result"]["recall@10"] <= 1
    (file,) = (tmp_path / "saved").glob("SASRec-*.pth")
    config, model, *_ = load_data_and_model(str(file))
    assert (config["model"], type(model).__name__) == ("SASRec", "SASRec")


def test_only_recbole_itself_loads_pickled_objects(checkpoint):
    caller = {"__name__": "recbole.trainer.trainer", "torch": torch, "path": checkpoint}
    loaded = eval("torch.load(path)", caller)
    assert isinstance(loaded["config"], Pickled)
    if trust.torch_restricts():
        caller["__name__"] = "recbole_like.module"
        with pytest.raises(Exception, match="[Ww]eights"):
            eval("torch.load(path)", caller)
        with pytest.raises(Exception, match="[Ww]eights"):
            torch.load(checkpoint)


def test_a_second_call_changes_nothing():
    before = torch.load, Dataset._fill_nan
    compat.apply()
    trust.guard_recbole()
    assert (torch.load, Dataset._fill_nan) == before


def test_missing_values_are_filled():
    frame = pd.DataFrame({"age": [1.0, np.nan, 3.0], "group": [2.0, np.nan, 1.0]})
    logger = SimpleNamespace(debug=lambda text: None)
    dataset = SimpleNamespace(
        feat_name_list=["user_feat"],
        user_feat=frame,
        field2type={"age": FeatureType.FLOAT, "group": FeatureType.TOKEN},
        logger=logger,
    )
    Dataset._fill_nan(dataset)
    assert frame["age"].tolist() == [1.0, 2.0, 3.0]
    assert frame["group"].tolist() == [2, 0, 1]


def test_without_recbole_the_command_that_installs_it_is_named():
    script = (
        "import importlib.util, sys; find = importlib.util.find_spec\n"
        "importlib.util.find_spec = lambda n, *a: None if n == 'recbole' else find(n, *a)\n"
        "import recbole_ganprompt"
    )
    result = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    last = result.stderr.strip().splitlines()[-1]
    assert last == "ImportError: RecBole is not installed: pip install --no-deps recbole==1.2.1"
