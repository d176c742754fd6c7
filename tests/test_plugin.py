"""RecBole's own functions know our model; nobody else notices."""

import subprocess
import sys

import pytest
import recbole.trainer
from recbole.config import Config
from recbole.data import create_dataset
from recbole.utils import ModelType, get_model, get_trainer

from recbole_ganprompt import plugin
from recbole_ganprompt.config import ProtocolConfig
from recbole_ganprompt.data.dataset import TextSequentialDataset


@pytest.fixture(autouse=True)
def no_arguments(monkeypatch, tmp_path):
    monkeypatch.setattr(sys, "argv", ["test"])
    monkeypatch.chdir(tmp_path)


def python(script):
    result = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    return result.stdout


@pytest.mark.smoke
def test_lookups_know_our_model(toy):
    values = dict(one[2:].split("=") for one in toy)
    config = Config(model="GANPrompt", config_dict=values)
    assert isinstance(config, ProtocolConfig) and config["metrics"][0] == "AUC"
    assert isinstance(create_dataset(config), TextSequentialDataset)
    assert get_model("GANPrompt").__module__ == "recbole_ganprompt.model.ganprompt"
    assert get_trainer(ModelType.SEQUENTIAL, "GANPrompt").__name__ == "GANPromptTrainer"
    assert get_trainer(ModelType.SEQUENTIAL, "SASRec") is recbole.trainer.Trainer
    assert not hasattr(recbole.trainer, "NoSuchTrainer")


@pytest.mark.smoke
def test_the_model_may_be_named_in_any_of_recboles_ways(tmp_path, monkeypatch):
    assert isinstance(Config(model=get_model("GANPrompt"), dataset="ml-100k"), ProtocolConfig)
    assert isinstance(Config(config_dict={"model": "GANPrompt", "dataset": "ml-100k"}), ProtocolConfig)
    (tmp_path / "run.yaml").write_text("model: GANPrompt\ndataset: ml-100k\n")
    assert isinstance(Config(config_file_list=[str(tmp_path / "run.yaml")]), ProtocolConfig)
    monkeypatch.setattr(sys, "argv", ["run", "--model=GANPrompt", "--seed=5", "--own_option=1"])
    config = Config(dataset="ml-100k")
    assert isinstance(config, ProtocolConfig) and config["seed"] == 5
    assert type(Config(model="BPR", dataset="ml-100k")) is Config


def test_twice_is_once():
    before = Config.__init__, recbole.trainer.__getattr__, get_model("GANPrompt")
    plugin.register()
    assert (Config.__init__, recbole.trainer.__getattr__, get_model("GANPrompt")) == before


def test_importing_after_recbole_changes_nothing_for_its_models():
    stock = (
        "import sys, numpy as np\n"
        "for name, new in [('float_', 'float64'), ('complex_', 'complex128'), ('unicode_', 'str_')]:\n"
        "    hasattr(np, name) or setattr(np, name, getattr(np, new))\n"
        "from recbole.config import Config\n"
        "from recbole.utils import get_model, get_trainer\n"
        "import recbole.data.dataset, recbole.trainer, recbole.evaluator.register as register\n"
        "def state():\n"
        "    found = [sorted(register.metrics_dict), register.metric_types]\n"
        "    for model in 'BPR', 'DIN', 'GRU4Rec', 'Caser', 'BERT4Rec', 'FM':\n"
        "        softmax = model in ('GRU4Rec', 'Caser', 'BERT4Rec')\n"
        "        values = {'train_neg_sample_args': None} if softmax else {}\n"
        "        config = Config(model=model, dataset='ml-100k', config_dict=values)\n"
        "        trainer = get_trainer(config['MODEL_TYPE'], model)\n"
        "        found += [type(config), str(config), get_model(model), trainer]\n"
        "    try: Config(model='FM', dataset='ml-100k', config_dict={'metrics': ['AUC', 'Hit']})\n"
        "    except RuntimeError as error: found.append(str(error))\n"
        "    return found, sorted(vars(recbole.data.dataset).keys() - {'__getattr__'})\n"
        "before = state()\n"
        "import recbole_ganprompt, recbole_ganprompt.model.registry\n"
        "assert state() == before\n"
        "print(Config(model='GANPrompt', dataset='ml-100k')['topk'], get_model('GANPrompt').__name__)\n"
    )
    assert python(stock).strip().endswith("[1, 3, 5] GANPrompt")
