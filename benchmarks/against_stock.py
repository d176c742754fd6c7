"""The five baselines against stock RecBole, each side in processes of its own.

    python benchmarks/against_stock.py evaluation --models=SASRec,DIN --data_path=FOLDER --json
    python benchmarks/against_stock.py training --models=SASRec,GRU4Rec,DIN,Caser,BERT4Rec --json
    python benchmarks/against_stock.py scale --json

``evaluation``: one pass over the validation users of ``--dataset`` (Amazon_Beauty), untrained weights of
RecBole's default sizes on both sides; "overhead" is all but the time inside the model. ``training``: stock
with RecBole's own properties until its early stopping ends, and its best weights are scored on the frozen
candidates; our side trains with our properties, to its end too. ``seconds`` end with stock's best epoch, and
with the first of ours that is as good on validation (MRR@5): ``reached`` says whether there is one, and
``at_target`` has its metrics. ``valid`` and ``test`` are those of each side's best epoch.
Times have an evaluation after each epoch in them; they are processor seconds, so that other jobs on the
machine matter less (run it with OMP_NUM_THREADS=1). ``--stock_minutes=N`` stops stock after the first epoch
that ends past N processor minutes (``stopped`` is true then): its best is that of the epochs until there.
``scale``: training and evaluation of SASRec with 1x, 2x
and 4x the users, and the evaluation of 100,000 users with 1,000,000 items.

Stock's processes import RecBole alone; ours is imported in them only after the clock has stopped.
"""

import argparse
import copy
import json
import os
import resource
import subprocess
import sys
import tempfile
from contextlib import contextmanager
from pathlib import Path
from statistics import median
from time import perf_counter, process_time

MODELS = ("SASRec", "GRU4Rec", "DIN", "Caser", "BERT4Rec")
METRICS = ("gauc", "hit@1", "mrr@5")


def protocol(options, stock: bool) -> dict:
    """The same data for both sides, in the words of each."""
    values = {"user_inter_num_interval": options.core, "item_inter_num_interval": options.core}
    values |= {"MAX_ITEM_LIST_LENGTH": 20, "show_progress": False, "state": "ERROR", "gpu_id": ""}
    values |= {"checkpoint_dir": options.work, "topk": [1, 3, 5], "seed": options.seed}
    if options.data_path:
        values["data_path"] = options.data_path
    if not stock:
        values["valid_metric"] = "MRR@5"
        if options.part == "evaluation":  # the same network on both sides
            from recbole_ganprompt.keys import load_yaml, recbole_properties

            values |= load_yaml(recbole_properties() / "model" / f"{options.model}.yaml")
        return values
    rated = has_ratings(options)
    columns = ["user_id", "item_id", *(["rating"] if rated else []), "timestamp"]
    values |= {"load_col": {"inter": columns}, "metrics": ["Hit", "NDCG", "MRR"], "valid_metric": "MRR@5"}
    if rated:
        values["val_interval"] = {"rating": "[5,inf)"}
    values["eval_args"] = {
        "split": {"LS": "valid_and_test"},
        "order": "TO",
        "group_by": "user",
        "mode": {"valid": "uni9", "test": "uni9"},
    }
    if options.model != "DIN":
        values["train_neg_sample_args"] = None  # the losses over all items, RecBole's default for these
    return values


def has_ratings(options) -> bool:
    """Whether the dataset's ``.inter`` file has the column that our side filters by."""
    folder = Path(options.data_path or "dataset")
    if options.dataset == "ml-100k":  # RecBole takes its own, whatever data_path says
        import recbole

        folder = Path(recbole.__file__).parent / "dataset_example"
    with open(folder / options.dataset / f"{options.dataset}.inter", encoding="utf-8") as stream:
        return "rating:float" in stream.readline().split()


@contextmanager
def clocked(model, names):
    """Sum the seconds spent inside a model's methods."""
    spent = [0.0]

    def wrap(method):
        def timed(*args, **kwargs):
            started = perf_counter()
            try:
                return method(*args, **kwargs)
            finally:
                spent[0] += perf_counter() - started

        return timed

    for name in names:
        if hasattr(model, name):
            setattr(model, name, wrap(getattr(model, name)))
    yield spent


def stock_side(options):
    """RecBole 1.2.1 as it comes: (config, dataset, loaders, model, trainer)."""
    from recbole.config import Config
    from recbole.data import create_dataset, data_preparation
    from recbole.utils import get_model, get_trainer, init_seed

    sys.argv = sys.argv[:1]
    config = Config(options.model, options.dataset, config_dict=protocol(options, stock=True))
    init_seed(config["seed"], config["reproducibility"])
    dataset = create_dataset(config)
    loaders = data_preparation(config, dataset)
    init_seed(config["seed"], config["reproducibility"])
    model = get_model(options.model)(config, loaders[0]._dataset).to(config["device"])
    trainer = get_trainer(config["MODEL_TYPE"], options.model)(config, model)
    return config, dataset, loaders, model, trainer


def our_side(options):
    """The same through this package."""
    import torch
    from recbole.data import data_preparation
    from recbole.utils import init_seed

    from recbole_ganprompt.config import build_config
    from recbole_ganprompt.data.dataset import TextSequentialDataset
    from recbole_ganprompt.model.registry import model_class
    from recbole_ganprompt.trainer.sequential import SequentialTrainer

    config = build_config(options.model, options.dataset, config_dict=protocol(options, stock=False))
    torch.autograd.set_detect_anomaly(False)
    init_seed(config["seed"], config["reproducibility"])
    dataset = TextSequentialDataset(config)
    loaders = data_preparation(config, dataset)
    init_seed(config["seed"], config["reproducibility"])
    model = model_class(options.model)(config, loaders[0]._dataset).to(config["device"])
    trainer = SequentialTrainer(config, model)
    trainer.write_checkpoints = False
    return config, dataset, loaders, model, trainer


def side_of(options):
    """The side that this process plays."""
    return (stock_side if options.side == "stock" else our_side)(options)


def peak_mb() -> float:
    """Peak resident set of this process, 10^6 bytes."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e6


def time_evaluation(options) -> dict:
    """One evaluation pass, the first one (which warms caches) left out."""
    _, _, (_, valid, _), model, trainer = side_of(options)
    trainer.evaluate(valid, load_best_model=False)
    with clocked(model, ["score_candidates" if options.side == "ours" else "predict"]) as inside:
        started = perf_counter()
        trainer.evaluate(valid, load_best_model=False)
        total = perf_counter() - started
    return {"seconds": total, "overhead": total - inside[0], "peak_mb": peak_mb()}


class EnoughTime(Exception):
    """Stock had its ``--stock_minutes``."""


def time_training(options) -> dict:
    """Train to the end; ``seconds`` until the best epoch, or until validation is as good as ``--target``."""
    config, dataset, (train, valid, _), model, trainer = side_of(options)
    started = process_time()
    best, best_score, first, found = None, float("-inf"), None, {}
    limit = 60 * (options.stock_minutes or float("inf")) if options.side == "stock" else float("inf")

    def epoch_done(epoch, score):
        nonlocal best, best_score, first
        now = {"seconds": process_time() - started, "epochs": epoch + 1}
        hit = options.target is not None and score >= options.target and first is None
        if hit or (options.target is None and score > best_score):
            found.update(now)
        if hit:
            first = copy.deepcopy(model.state_dict())
        if score > best_score:
            best_score, best = score, copy.deepcopy(model.state_dict())
        if now["seconds"] > limit:
            raise EnoughTime

    stopped = False
    try:
        trainer.fit(train, valid, verbose=False, saved=False, show_progress=False, callback_fn=epoch_done)
    except EnoughTime:
        stopped = True
    found = {"seconds": None, "epochs": None} | found  # never as good
    found |= {"whole_training": process_time() - started, "peak_mb": peak_mb(), "stopped": stopped}
    if options.target is not None:
        found |= {"reached": first is not None, "at_target": None}
    if first is not None:
        model.load_state_dict(first)
        found["at_target"] = frozen_metrics(options, config, dataset, model)
    model.load_state_dict(best)
    return found | frozen_metrics(options, config, dataset, model)


def frozen_metrics(options, config, dataset, model) -> dict:
    """Metrics of a model of either side on the frozen candidates."""
    import numpy as np

    from recbole_ganprompt.config import build_config
    from recbole_ganprompt.data.candidates import EvaluationSet
    from recbole_ganprompt.data.dataset import TextSequentialDataset
    from recbole_ganprompt.evaluation.evaluator import score_candidates
    from recbole_ganprompt.evaluation.metrics import ranking_metrics

    frozen = TextSequentialDataset(
        build_config(options.model, options.dataset, config_dict=protocol(options, stock=False))
    )
    theirs = [dataset.field2token_id[field] for field in (frozen.uid_field, frozen.iid_field)]
    tokens = [frozen.field2id_token[field] for field in (frozen.uid_field, frozen.iid_field)]
    users, items = (np.array([ids[token] for token in names]) for ids, names in zip(theirs, tokens))
    found = {}
    for phase in ("valid", "test"):
        part = frozen.evaluation_set(phase)
        part = EvaluationSet(users[part.users], items[part.histories], part.lengths, items[part.candidates])
        metrics = ranking_metrics(score_candidates(model, part, config).numpy(), ks=[1, 3, 5])
        found[phase] = {name: metrics[name] for name in METRICS}
    return found


def time_scale(options) -> dict:
    """Ours on synthetic data: seconds of an epoch and of an evaluation pass."""
    import numpy as np

    folder = Path(options.work) / f"synthetic-{options.users}-{options.items}"
    if not folder.is_dir():
        (folder / "synthetic").mkdir(parents=True)
        generator = np.random.default_rng(0)
        length = max(8, -(-options.items * 6 // (5 * options.users)))
        owner = np.repeat(np.arange(options.users), length)
        item = generator.integers(0, options.items, size=len(owner))
        item[: options.items] = np.arange(options.items)[: len(item)]  # as many items as asked for
        with open(folder / "synthetic" / "synthetic.inter", "w") as stream:
            stream.write("user_id:token\titem_id:token\ttimestamp:float\n")
            stream.writelines(f"u{u}\ti{i}\t{t}\n" for t, (u, i) in enumerate(zip(owner, item)))
        with open(folder / "synthetic" / "synthetic.item", "w") as stream:
            stream.write("item_id:token\ttitle:token_seq\n")
            stream.writelines(f"i{i}\tthing number {i}\n" for i in range(options.items))
    options.data_path, options.dataset, options.core = str(folder), "synthetic", "[0,inf)"
    config, dataset, (train, valid, _), model, trainer = our_side(options)
    found = {"users": dataset.user_num - 1, "items": dataset.item_num - 1}
    if options.users >= options.items:  # a catalogue that large is for evaluation only
        trainer._train_epoch(train, 0)
        started = perf_counter()
        trainer._train_epoch(train, 1)
        found["epoch_seconds"] = perf_counter() - started
    started = perf_counter()
    trainer.evaluate(valid, load_best_model=False)
    return found | {"evaluation_seconds": perf_counter() - started, "peak_mb": peak_mb()}


def worker(options, **changes) -> dict:
    """Run one side in a fresh process; the command is part of the answer."""
    values = {**vars(options), **changes}
    skip = {"json", "models", "repeats"}
    command = [sys.executable, __file__, values.pop("part")]
    command += [f"--{key}={value}" for key, value in values.items() if key not in skip and value is not None]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(f"{' '.join(command)} failed:\n{done.stderr[-2000:]}")
    return {**json.loads(done.stdout.splitlines()[-1]), "command": " ".join(command[1:])}


def compare(options) -> dict:
    """Both sides of every model, alternating, medians over ``--repeats``."""
    found = {}
    timed = ["seconds", "peak_mb", *(["whole_training"] if options.part == "training" else [])]
    for name in options.models.split(","):
        runs = {"stock": [], "ours": []}
        for _ in range(options.repeats):
            stock = worker(options, model=name, side="stock")
            target = stock["valid"]["mrr@5"] if options.part == "training" else None
            runs["stock"].append(stock)
            runs["ours"].append(worker(options, model=name, side="ours", target=target))
        ratios = {}
        for key in timed:
            stock, ours = ([run[key] for run in runs[side]] for side in ("stock", "ours"))
            ratios[key] = None if None in ours else median(stock) / median(ours)  # None: not always as good
        if options.part == "evaluation":
            overhead = [median(run["overhead"] for run in runs[side]) for side in ("stock", "ours")]
            ratios["overhead"] = overhead[0] / overhead[1]
        found[name] = {"stock_over_ours": ratios, **runs}
        print(f"{name}: stock / ours = {ratios}", file=sys.stderr)
    return found


def scale(options) -> dict:
    """1x, 2x, 4x users, and the large catalogue."""
    sizes = [(users, 5_000) for users in (10_000, 20_000, 40_000)] + [(100_000, 1_000_000)]
    changes = {"side": "ours", "model": "SASRec"}
    rows = [worker(options, users=users, items=items, **changes) for users, items in sizes]
    for row in rows:
        print({key: value for key, value in row.items() if key != "command"}, file=sys.stderr)
    return {"rows": rows}


def main() -> None:
    """Run a part, or one side of it."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("part", choices=("evaluation", "training", "scale"))
    parser.add_argument("--models", default=",".join(MODELS))
    parser.add_argument("--dataset")
    parser.add_argument("--data_path")
    parser.add_argument("--core", default="[5,inf)", help="interactions of users and items")
    parser.add_argument("--seed", type=int, default=2024)
    parser.add_argument("--repeats", type=int, default=1)
    parser.add_argument("--stock_minutes", type=float, help="training: the most that stock may take")
    parser.add_argument("--json", action="store_true", help="print one JSON object and nothing else")
    for name in ("side", "model", "work"):
        parser.add_argument(f"--{name}", help=argparse.SUPPRESS)
    parser.add_argument("--target", type=float, help=argparse.SUPPRESS)
    parser.add_argument("--users", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--items", type=int, help=argparse.SUPPRESS)
    options = parser.parse_args()
    options.dataset = options.dataset or ("Amazon_Beauty" if options.part == "evaluation" else "ml-100k")
    if options.side:
        run = {"evaluation": time_evaluation, "training": time_training, "scale": time_scale}
        print(json.dumps(run[options.part](options), allow_nan=False))
        return
    with tempfile.TemporaryDirectory() as work:
        options.work = work
        found = scale(options) if options.part == "scale" else compare(options)
    threads = os.environ.get("OMP_NUM_THREADS", "all")
    summary = {"part": options.part, "dataset": options.dataset, "threads": threads, "results": found}
    print(json.dumps(summary, indent=None if options.json else 1, allow_nan=False))


if __name__ == "__main__":
    main()
