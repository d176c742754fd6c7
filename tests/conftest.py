"""Small data that many tests share."""

import atexit
import os
import shutil
import tempfile
from pathlib import Path

os.environ["HF_HUB_OFFLINE"] = "1"  # read when the hub's client is imported
os.environ["XDG_STATE_HOME"] = tempfile.mkdtemp(prefix="state-")  # what tests save is not to be trusted later

import pytest
import torch
from toy_dataset import toy_arguments, write_toy

atexit.register(shutil.rmtree, os.environ["XDG_STATE_HOME"], ignore_errors=True)
torch.set_num_threads(1)  # the models here are so small that a second thread only costs

SHARED = Path(__file__).resolve().parents[2] / "shared"


@pytest.fixture(scope="session")
def shared():
    """The folder with real data and tokenizers beside the checkout."""
    if not SHARED.is_dir():
        pytest.skip(f"needs the real data in {SHARED}")
    return SHARED


@pytest.fixture
def toy(tmp_path):
    """Arguments that run our commands on a toy dataset in a folder of its own."""
    write_toy(tmp_path / "data")
    return toy_arguments(tmp_path)
