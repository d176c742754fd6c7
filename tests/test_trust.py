"""No file that a stranger may have written runs code, unless the user says so."""

import json
import os
import pickle
import pwd
import sys
import types
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress

import numpy as np
import pytest
import torch
import transformers
import yaml
from peft import LoraConfig
from recbole.config import Config
from recbole.data import create_dataset
from recbole.data.utils import load_split_dataloaders
from recbole.quick_start import load_data_and_model, run_recbole
from toy_dataset import write_toy
from transformers import (
    AutoModelForCausalLM,
    AutoModelForMaskedLM,
    AutoModelForSeq2SeqLM,
    AutoTokenizer,
    BertConfig,
    LlamaConfig,
    LlamaForCausalLM,
    T5Config,
)

import recbole_ganprompt
from recbole_ganprompt import cli, trust
from recbole_ganprompt.errors import UserError
from recbole_ganprompt.language.adapter import add_lora
from recbole_ganprompt.language.backbone import from_pretrained
from recbole_ganprompt.recommender import run_values

SIZES = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16}


class Payload:
    """Makes a folder when it is unpickled."""

    def __init__(self, mark):
        self.mark = str(mark)

    def __reduce__(self):
        return os.mkdir, (self.mark,)


@pytest.fixture(autouse=True)
def own_state(tmp_path, monkeypatch):
    """A state folder of the test's own, a process that wrote nothing, and no arguments."""
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    monkeypatch.setattr(trust, "_written", set())
    monkeypatch.setattr(sys, "argv", ["test"])
    monkeypatch.chdir(tmp_path)


def values(folder):
    return {
        "data_path": str(folder / "data"),
        "checkpoint_dir": str(folder / "saved"),
        "load_col": {"inter": ["user_id", "item_id", "timestamp"]},
        "epochs": 1,
        "train_neg_sample_args": None,
        "hidden_size": 8,
        "embedding_size": 8,
        "show_progress": False,
        "state": "ERROR",
        "gpu_id": "",
    }


def test_what_a_run_wrote_loads_until_it_is_changed(tmp_path, monkeypatch):
    write_toy(tmp_path / "data")
    caches = {"save_dataset": True, "save_dataloaders": True}
    run_recbole(model="GRU4Rec", dataset="toy", config_dict={**values(tmp_path), **caches})
    (checkpoint,) = (tmp_path / "saved").glob("GRU4Rec-*.pth")
    assert len(list((tmp_path / "saved").iterdir())) == 3  # with the dataset and the data loaders
    monkeypatch.setattr(trust, "_written", set())  # as another process
    config, model, *_ = load_data_and_model(str(checkpoint))
    assert (config["model"], type(model).__name__) == ("GRU4Rec", "GRU4Rec")

    changed = tmp_path / "changed.pth"
    changed.write_bytes(checkpoint.read_bytes().replace(b"GRU4Rec", b"GRU5Rec"))
    with pytest.raises(UserError, match="changed.pth .*trust_checkpoint"):
        load_data_and_model(str(changed))
    (tmp_path / "state").rename(tmp_path / "elsewhere")
    with pytest.raises(UserError, match="trust_checkpoint"):
        load_data_and_model(str(checkpoint))
    for path in (tmp_path / "saved").iterdir():
        recbole_ganprompt.trust_checkpoint(path)
    monkeypatch.setattr(trust, "_written", set())
    load_data_and_model(str(checkpoint))


PLACES = {
    "checkpoint": ("model.pth", lambda path, config: load_data_and_model(str(path))),
    "cached dataset": ("toy-SequentialDataset.pth", lambda path, config: create_dataset(config)),
    "cached loaders": ("toy-for-GRU4Rec-dataloader.pth", lambda path, config: load_split_dataloaders(config)),
    "item vectors": (
        "item_emb.npy",
        lambda path, config: eval(
            "numpy.load(path, allow_pickle=True)",
            {"__name__": "recbole.model.general_recommender.ldiffrec", "numpy": np, "path": path},
        ),
    ),
}


@pytest.mark.parametrize("place", PLACES)
def test_a_pickle_of_a_stranger_does_not_run(place, tmp_path, monkeypatch):
    write_toy(tmp_path / "data")
    config = Config("GRU4Rec", "toy", config_dict=values(tmp_path))
    name, load = PLACES[place]
    path, mark = tmp_path / "saved" / name, tmp_path / "payload"
    path.parent.mkdir(exist_ok=True)
    with path.open("wb") as file:
        if place == "checkpoint":
            torch.save({"config": Payload(mark)}, file)
        elif place == "item vectors":
            np.save(file, np.array([Payload(mark)], dtype=object), allow_pickle=True)
        else:
            pickle.dump(Payload(mark), file)
    with pytest.raises(UserError, match="--trust_checkpoint") as caught:
        load(path, config)
    assert "\n" not in str(caught.value) and str(path) in str(caught.value)
    assert not mark.exists()
    monkeypatch.setattr(sys, "argv", ["test", "--trust_checkpoint"])
    with suppress(TypeError, AttributeError):  # a payload is no dataset
        load(path, config)
    assert mark.exists()


def test_tensors_alone_need_no_trust_where_torch_can_tell(tmp_path):
    torch.save({"weight": torch.ones(2)}, tmp_path / "model.pth")
    caller = {"__name__": "recbole.trainer.trainer", "torch": torch, "path": tmp_path / "model.pth"}
    if trust.torch_restricts():
        assert eval("torch.load(path)", caller)["weight"].tolist() == [1, 1]
    else:
        with pytest.raises(UserError, match="trust_checkpoint"):
            eval("torch.load(path)", caller)


def test_the_command_names_the_key_and_takes_it(toy, tmp_path, capsys):
    path, mark = tmp_path / "saved" / "toy-TextSequentialDataset.pth", tmp_path / "payload"
    path.parent.mkdir()
    path.write_bytes(pickle.dumps(Payload(mark)))
    assert cli.main(["--model=TALLRec", *toy]) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ") and error.count("\n") == 1 and "--trust_checkpoint" in error
    assert not mark.exists()
    with pytest.raises(AttributeError):  # a payload is no dataset
        cli.main(["--model=TALLRec", *toy, "--trust_checkpoint=true"])
    assert mark.exists()


@pytest.mark.parametrize("state", ["no home at all", "a file in the way"])
def test_without_a_state_folder_a_run_still_loads_its_own(state, tmp_path, monkeypatch):
    if state == "a file in the way":
        (tmp_path / "state").write_text("")
    else:

        def unknown(user):
            raise KeyError(user)

        monkeypatch.setattr(pwd, "getpwuid", unknown)
        monkeypatch.delenv("XDG_STATE_HOME")
        monkeypatch.delenv("HOME", raising=False)
    caller = {"__name__": "recbole.trainer.trainer", "torch": torch, "path": tmp_path / "model.pth"}
    eval("torch.save({'config': Space(a=1)}, path)", {**caller, "Space": types.SimpleNamespace})
    assert eval("torch.load(path)", caller)["config"].a == 1
    monkeypatch.setattr(trust, "_written", set())
    with pytest.raises(UserError, match="trust_checkpoint"):
        eval("torch.load(path)", caller)


def test_runs_at_once_record_all_that_they_wrote(tmp_path):
    def write(number):
        path = tmp_path / f"{number}.pth"
        eval(
            "pickle.dump(value, open(path, 'wb'))",
            {"__name__": "recbole.x", "pickle": recbole_data().pickle, "value": number, "path": path},
        )

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(write, range(100)))
    lines = trust.record_file().read_text().split()
    assert len(set(lines)) == 100 and {len(line) for line in lines} == {64}
    assert trust.record_file().stat().st_mode & 0o077 == 0


def recbole_data():
    return sys.modules["recbole.data.utils"]


FAMILIES = {
    "llm": (AutoModelForCausalLM, LlamaConfig),
    "generator": (AutoModelForSeq2SeqLM, T5Config),
    "attribute_lm": (AutoModelForMaskedLM, BertConfig),
}


@pytest.mark.parametrize("key", FAMILIES)
def test_a_pickled_language_model_does_not_run(key, tmp_path):
    loader, family = FAMILIES[key]
    folder, mark = tmp_path / "model", tmp_path / "payload"
    sizes = {"d_model": 16, "d_ff": 16, "d_kv": 8, "num_layers": 1, "num_heads": 2}
    config = family(**(sizes if family is T5Config else SIZES), vocab_size=20)
    config.save_pretrained(folder)
    torch.save({"weight": Payload(mark)}, folder / "pytorch_model.bin")
    asked = {"use_safetensors": False, "trust_remote_code": False}
    with pytest.raises(UserError, match="--use_safetensors=false"):
        from_pretrained(loader, str(folder), key)
    with pytest.raises(UserError, match=f"--{key}="):
        from_pretrained(loader, str(folder), key, asked)
    assert not mark.exists()
    if trust.torch_restricts():  # transformers opens no .bin on an older torch
        weights = loader.from_config(config).state_dict()
        torch.save(weights, folder / "pytorch_model.bin")
        loaded = from_pretrained(loader, str(folder), key, asked).state_dict()
        assert all(torch.equal(loaded[name], value) for name, value in weights.items())


def test_a_pickled_adapter_does_not_run(tmp_path):
    folder, mark = tmp_path / "adapter", tmp_path / "payload"
    LoraConfig(r=2, target_modules=["q_proj"], task_type="CAUSAL_LM").save_pretrained(folder)
    torch.save({"weight": Payload(mark)}, folder / "adapter_model.bin")
    for safe, message in ((True, "--use_safetensors=false"), (False, "doesn't fit")):
        model = LlamaForCausalLM(LlamaConfig(**SIZES, vocab_size=20))
        with pytest.raises(UserError, match=message):
            add_lora(model, {"adapter": str(folder), "use_safetensors": safe})
    assert not mark.exists()


@pytest.mark.parametrize("loader", [AutoModelForCausalLM, AutoTokenizer])
def test_code_in_a_models_folder_runs_only_when_asked_for(loader, tmp_path, monkeypatch):
    monkeypatch.setattr(transformers.dynamic_module_utils, "HF_MODULES_CACHE", str(tmp_path / "modules"))
    folder, mark = tmp_path / "model", tmp_path / "payload"
    folder.mkdir()
    code = {"AutoConfig": "own.Own", "AutoModelForCausalLM": "own.Own", "AutoTokenizer": ["own.Own", None]}
    for name in ("config.json", "tokenizer_config.json"):
        (folder / name).write_text(json.dumps({"model_type": "own", "auto_map": code}))
    (folder / "own.py").write_text(f"import os\nos.mkdir({str(mark)!r})\nclass Own: pass\n")
    with pytest.raises(UserError, match="--trust_remote_code"):
        from_pretrained(loader, str(folder), "llm")
    assert not mark.exists()
    with pytest.raises(Exception):  # noqa: B017 -- the class is no model
        from_pretrained(loader, str(folder), "llm", {"trust_remote_code": True, "use_safetensors": True})
    assert mark.exists()


def test_a_run_folder_cannot_say_whom_to_trust(tmp_path):
    said = {"llm": "x/y", "trust_remote_code": True, "use_safetensors": False, "trust_checkpoint": True}
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(said))
    assert run_values(tmp_path) == {"llm": "x/y"}
