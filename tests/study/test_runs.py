"""What counts as finished: the same configuration on the same data, with the scores that tests pair."""

import json
import os

import pytest
import yaml
from toy_dataset import write_toy

from recbole_ganprompt.config import build_config
from recbole_ganprompt.errors import UserError
from recbole_ganprompt.experiment import run
from recbole_ganprompt.keys import properties_path
from recbole_ganprompt.run_folder import identity, plain_values, run_values
from recbole_ganprompt.study.cells import Cell, check_datasets
from recbole_ganprompt.study.options import run_arguments, scoped_arguments
from recbole_ganprompt.study.runs import FinishedRuns, configuration

SMALL = ["--model=GRU4Rec", "--epochs=1", "--hidden_size=16", "--embedding_size=16"]


def cell_of(toy, *more):
    cell = Cell("GRU4Rec", [*toy, *SMALL, *more])
    check_datasets([cell])
    return cell


def test_a_run_on_other_data_is_another_run(toy, tmp_path):
    def find():
        cell = cell_of(toy)
        return FinishedRuns([tmp_path / "saved"]).find(cell.config, cell.data)

    def go_on():
        return run(configuration([*toy, *SMALL, "--resume=auto"])).directory

    first = go_on()
    assert find() == first == go_on()
    record = json.loads((first / "result.json").read_text())
    assert record["provenance"]["machine"]["cores"] == os.cpu_count() and "dirty" in record["provenance"]
    # Another title alone, which no candidate shows.
    items = tmp_path / "data/toy/toy.item"
    titles = items.read_text()
    items.write_text(titles.replace("Red soap", "Red soap bar"))
    assert find() is None
    items.write_text(titles)
    # Other sequences: whoever asks for the same configuration gets a run of its own.
    interactions = tmp_path / "data/toy/toy.inter"
    lines = interactions.read_text()
    write_toy(tmp_path / "other", seed=1)
    interactions.write_text((tmp_path / "other/toy/toy.inter").read_text())
    assert find() is None
    second = go_on()
    assert second != first and find() == second == go_on()
    with pytest.raises(UserError, match="was measured on other data"):
        cell_of(toy).finish(first)
    (second / "result.json").unlink()  # as if it had been killed
    interactions.write_text(lines)
    assert find() == first
    with pytest.raises(UserError, match="The data, or files that the configuration names, have changed"):
        run(configuration([*toy, *SMALL, f"--resume={second}"]))
    # Runs from before there were fingerprints of the data count by their candidates.
    (first / "result.json").write_text(json.dumps({key: record[key] for key in record if key != "data"}))
    assert find() == first
    (first / "ranks.safetensors").unlink()
    assert find() is None and go_on() != first
    with pytest.raises(UserError, match="must share the checkpoint_dir"):
        cell_of(toy).finish(first)


def test_a_run_that_read_another_file_is_another_run(toy, tmp_path):
    words = tmp_path / "words.txt"
    words.write_text("red\nsoft\n")
    template = tmp_path / "template.yaml"
    template.write_text((properties_path("prompt") / "recommendation.yaml").read_text())
    arguments = [*toy, "--model=GANPrompt", f"--attribute_file={words}", f"--prompt={template}"]
    cell = Cell("GANPrompt", arguments)
    check_datasets([cell])
    # As a finished run's folder shows it.
    folder = tmp_path / "saved/runs/GANPrompt-toy-1"
    folder.mkdir(parents=True)
    (folder / "ranks.safetensors").touch()
    record = {"model": "GANPrompt", "dataset": "toy", "seed": cell.config["seed"], **cell.data}
    record["config"] = plain_values(cell.config.final_config_dict)
    (folder / "result.json").write_text(json.dumps(record))

    def find():
        again = Cell("GANPrompt", arguments)
        check_datasets([again])
        return FinishedRuns([tmp_path / "saved"]).find(again.config, again.data)

    assert find() == folder
    for file in (words, template):
        before = file.read_text()
        file.write_text(before.replace("soft", "harsh").replace("user", "customer"))
        assert find() is None
        file.write_text(before)
    assert find() == folder
    (folder / "result.json").write_text("{")
    with pytest.raises(UserError, match="result.json is damaged: remove its folder"):
        find()


def test_all_configuration_files_count(toy, tmp_path):
    first, second = tmp_path / "my first.yaml", tmp_path / "second.yaml"
    first.write_text("learning_rate: 0.25")
    second.write_text("epochs: 7")
    scopes = scoped_arguments([*toy[1:], f"--config_files={first}", f"--config_files={second}"], ["toy"])
    config = configuration(run_arguments(scopes, "SASRec", "toy", 3))
    assert (config["learning_rate"], config["epochs"], config["seed"]) == (0.25, 7, 3)


@pytest.mark.parametrize(("given", "left"), [([], "0,1,2"), (["--gpu_id=1,2"], "1,2")])
def test_a_benchmark_may_use_all_gpus_that_the_user_left_it(toy, monkeypatch, given, left):
    """Ray counts the GPUs that the environment names; RecBole would leave the first one."""
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0,1,2")
    Cell("one", [*(one for one in toy if not one.startswith("--gpu_id")), *SMALL, *given])
    assert os.environ["CUDA_VISIBLE_DEVICES"] == left


def test_models_of_one_table_rank_the_same_candidates(toy):
    usual, longer = Cell("one", [*toy, *SMALL]), Cell("other", [*toy, *SMALL, "--candidate_seed=5"])
    with pytest.raises(UserError, match="would rank other candidates"):
        check_datasets([usual, longer])
    texts = Cell("texts", [*toy, *SMALL, "--item_text={title} ({item_id})"])
    check_datasets([usual, texts])
    assert usual.data["candidates"] == texts.data["candidates"] and usual.data["data"] != texts.data["data"]


@pytest.mark.parametrize(
    "given",
    [
        ["--loss_type=BPR", "--train_neg_sample_args={'distribution': 'popularity', 'sample_num': 3}"],
        ["--loss_type=BPR"],
        [],
    ],
)
def test_a_runs_folder_gives_its_configuration_again(toy, tmp_path, given):
    arguments = [*toy, "--model=SASRec", *given]
    values = plain_values(build_config(arguments=arguments).final_config_dict)
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(values))
    again = build_config(config_dict=run_values(tmp_path), arguments=["--gpu_id="])
    assert identity(plain_values(again.final_config_dict)) == identity(values)


def test_a_changed_column_of_the_items_is_other_data(toy, tmp_path):
    items = tmp_path / "data/toy/toy.item"
    first, *lines = items.read_text().splitlines()
    asked = "--load_col={'inter': '*', 'item': ['item_id', 'kind']}"

    def data(*kinds):
        rows = [f"{line}\t{kinds[number % len(kinds)]}" for number, line in enumerate(lines)]
        items.write_text("\n".join([first + "\tkind:token", *rows]) + "\n")
        return [cell_of(toy, *more).data["data"] for more in ([], [asked])]

    (unread, one), (unread_too, other) = data("soft", "hard"), data("hard", "soft", "soft")
    assert unread == unread_too and len({unread, one, other}) == 3
