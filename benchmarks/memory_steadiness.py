"""Whether a long run's memory stands still: resident set after each epoch, as one JSON object.

    python benchmarks/memory_steadiness.py
    python benchmarks/memory_steadiness.py --only=baseline --epochs=30

Three parts on ml-100k, each in a process of its own: ``language model`` trains TALLRec, 256 samples an epoch,
and validates after each; ``baseline`` trains GRU4Rec; ``evaluation`` ranks all test users with GRU4Rec again
and again. ``growth`` is the resident set after epoch ``--last`` over that after epoch ``--first``, minus 1; a
part is ``steady`` where that is 0.05 at most. The allocator keeps now more, now less of what was freed, so
where batches are of all sizes one epoch says little: ``trend`` is the growth of a straight line over ten
epochs, from epoch ``--first`` on, as a share of the mean.
"""

import argparse
import json
import subprocess
import sys
import tempfile

import numpy as np
import psutil
from recbole.data import create_dataset, data_preparation
from recbole.utils import init_seed

from recbole_ganprompt.config import build_config
from recbole_ganprompt.data.dataset import TextSequentialDataset
from recbole_ganprompt.model.registry import model_class
from recbole_ganprompt.plugin import MODELS
from recbole_ganprompt.trainer.sequential import SequentialTrainer
from recbole_ganprompt.trainer.tallrec import TALLRecTrainer

PARTS = ("language model", "baseline", "evaluation")
LIMIT = 0.05


def resident_mb() -> float:
    """Resident set of this process, 10^6 bytes."""
    return psutil.Process().memory_info().rss / 1e6


def prepared(name: str, values: dict):
    """A model with its trainer and its data loaders."""
    values = {"show_progress": False, "state": "ERROR", "gpu_id": "", **values}
    config = build_config(name, "ml-100k", config_dict=values)
    init_seed(config["seed"], config["reproducibility"])
    dataset = create_dataset(config) if name in MODELS else TextSequentialDataset(config)
    loaders = data_preparation(config, dataset)
    model = model_class(name)(config, loaders[0]._dataset).to(config["device"])
    trainer = (TALLRecTrainer if name in MODELS else SequentialTrainer)(config, model)
    trainer.write_checkpoints = False
    return trainer, *loaders


def language_model(epochs: int, work: str) -> list[float]:
    """TALLRec's tuning, few samples an epoch."""
    samples, batch = 256, 64
    values = {"few_shot": samples, "few_shot_steps": epochs * samples // batch, "llm_batch_size": batch}
    values |= {"valid_users": 100, "checkpoint_dir": work, "builtin_llm": {"max_tokens": 20000}}
    trainer, train, valid, _ = prepared("TALLRec", values)
    trainer.VALIDATIONS = epochs
    found = []
    trainer.epoch_ended = lambda *_: found.append(resident_mb())
    trainer.run_stages(train, valid)
    return found


def baseline(epochs: int, work: str) -> list[float]:
    """GRU4Rec's training, every epoch of it."""
    values = {"epochs": epochs, "stopping_step": epochs, "checkpoint_dir": work}
    trainer, train, valid, _ = prepared("GRU4Rec", values)
    found = []
    trainer.fit(train, valid, verbose=False, saved=False, callback_fn=lambda *_: found.append(resident_mb()))
    return found


def evaluation(epochs: int, work: str) -> list[float]:
    """The same evaluation again and again."""
    trainer, _, _, test = prepared("GRU4Rec", {"checkpoint_dir": work})
    found = []
    for _ in range(epochs):
        trainer.evaluate(test, load_best_model=False)
        found.append(resident_mb())
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--epochs", type=int, default=12)
    parser.add_argument("--first", type=int, default=2, help="epoch to compare with")
    parser.add_argument("--last", type=int, default=10, help="epoch to compare")
    parser.add_argument("--only", choices=PARTS, help="one part, in this process")
    options = parser.parse_args()
    if options.only:
        measure = {"language model": language_model, "baseline": baseline, "evaluation": evaluation}
        with tempfile.TemporaryDirectory() as work:
            found = measure[options.only](options.epochs, work)
        growth = found[options.last - 1] / found[options.first - 1] - 1
        later = np.array(found[options.first - 1 :])
        trend = 10 * np.polyfit(np.arange(len(later)), later, 1)[0] / later.mean()
        print(json.dumps({"resident_mb": found, "growth": growth, "trend": trend, "steady": growth <= LIMIT}))
        return
    parts = {}
    for part in PARTS:
        command = [sys.executable, __file__, *sys.argv[1:], f"--only={part}"]
        done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
        parts[part] = json.loads(done.stdout.splitlines()[-1])
    command = " ".join(["python", "benchmarks/memory_steadiness.py", *sys.argv[1:]])
    print(json.dumps({"command": command, "steady": all(one["steady"] for one in parts.values()), **parts}))


if __name__ == "__main__":
    main()
