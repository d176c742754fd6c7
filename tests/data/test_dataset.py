"""The dataset: order, split, rows, titles and frozen candidates."""

import numpy as np
import pytest
from recbole.data import create_dataset, data_preparation

from recbole_ganprompt.config import build_config
from recbole_ganprompt.data.candidates import candidates_fingerprint, draw_negatives
from recbole_ganprompt.data.dataset import TextSequentialDataset
from recbole_ganprompt.data.item_text import UNTITLED
from recbole_ganprompt.errors import UserError


def load(toy, *more):
    return TextSequentialDataset(build_config("SASRec", arguments=[*toy, *more]))


def rewrite(toy, suffix, change):
    folder = next(arg for arg in toy if arg.startswith("--data_path=")).split("=")[1]
    path = f"{folder}/toy/toy.{suffix}"
    with open(path, encoding="utf-8") as stream:
        text = change(stream.read())
    with open(path, "w", encoding="utf-8") as stream:
        stream.write(text)


def test_order_is_by_time_then_file_even_for_close_large_timestamps(toy):
    # In float32, as stock RecBole sorts, 881250949 and 881250950 are the same number.
    rows = [("a", 881250951), ("b", 881250949), ("c", 881250950), ("d", 881250950), ("e", 1)]
    lines = [f"u{user}\t{item}\t{time}" for user in range(3) for item, time in rows]
    header = "user_id:token\titem_id:token\ttimestamp:float\n"
    rewrite(toy, "inter", lambda _: header + "\n".join(lines) + "\n")
    rewrite(toy, "item", lambda _: "item_id:token\ttitle:token_seq\na\tA\n")
    dataset = load(toy)
    tokens = dataset.field2id_token["item_id"][dataset.sequences.of(1)]
    assert list(tokens) == ["e", "b", "c", "d", "a"]


def test_rows_and_split_agree_with_the_sequences(toy):
    config = build_config("SASRec", arguments=[*toy, "--MAX_ITEM_LIST_LENGTH=4"])
    dataset = TextSequentialDataset(config)
    train, valid, test = dataset.build()
    for part, offset in ((valid, 2), (test, 1)):
        assert len(part) == dataset.user_num - 1
        for row in range(len(part)):
            inter = part.inter_feat[row]
            items = dataset.sequences.of(int(inter["user_id"]))
            assert int(inter["item_id"]) == items[-offset]
            length = int(inter["item_length"])
            assert inter["item_id_list"][:length].tolist() == items[:-offset][-4:].tolist()
    targets = {(int(u), int(i)) for u, i in zip(train["user_id"], train["item_id"])}
    expected = {
        (user, int(item)) for user in range(1, dataset.user_num) for item in dataset.sequences.of(user)[1:-2]
    }
    assert targets == expected
    assert all(
        (dataset.training_sequences().of(u) == dataset.sequences.of(u)[:-2]).all()
        for u in range(1, dataset.user_num)
    )


def test_paper_protocol_trains_on_all_but_the_last(toy):
    dataset = load(toy, "--protocol=paper")
    train, valid, test = dataset.build()
    assert len(valid) == 0 and len(test) == dataset.user_num - 1
    assert dataset.evaluation_set("valid") is None
    assert (dataset.training_sequences().of(1) == dataset.sequences.of(1)[:-1]).all()


def test_early_part_drops_the_last_training_targets(toy):
    dataset = load(toy)
    train, _, _ = dataset.build()
    early = train.early(3)
    for user in range(1, dataset.user_num):
        items = dataset.sequences.of(user)[:-2]
        kept = max(2, len(items) - 3)
        assert early.training_sequences().of(user).tolist() == items[:kept].tolist()
        rows = early.inter_feat["item_id"][early.inter_feat["user_id"] == user]
        assert rows.tolist() == items[1:kept].tolist()


def test_candidates_are_frozen_distinct_and_untouched(toy):
    first, again = load(toy), load(toy, "--seed=7")
    for phase in ("valid", "test"):
        part = first.evaluation_set(phase)
        assert part.candidates.shape == (first.user_num - 1, 10)
        for user, candidates in zip(part.users, part.candidates):
            items = first.sequences.of(user)
            assert candidates[0] == items[-2 if phase == "valid" else -1]
            assert len(set(candidates)) == 10 and not set(candidates[1:]) & set(items)
            assert candidates.min() > 0
        assert (part.candidates == again.evaluation_set(phase).candidates).all()
    other = load(toy, "--candidate_seed=1").evaluation_set("test")
    assert candidates_fingerprint(other) != candidates_fingerprint(first.evaluation_set("test"))
    assert (first.evaluation_set("valid").candidates[:, 1:] != other.candidates[:, 1:]).any()


def test_negatives_are_uniform_over_untouched_items(toy):
    dataset = load(toy)
    counts = np.zeros(dataset.item_num)
    free = np.zeros(dataset.item_num)
    users = np.arange(1, dataset.user_num)
    for user in users:
        untouched = np.setdiff1d(np.arange(1, dataset.item_num), dataset.sequences.of(user))
        free[untouched] += 9 / len(untouched)
    for seed in range(200):
        drawn = draw_negatives(dataset.sequences, users, dataset.item_num, 9, seed)
        np.add.at(counts, drawn.ravel(), 1)
    assert np.abs(counts[1:] / 200 / free[1:] - 1).max() < 0.15


def test_too_few_items_for_negatives_is_one_sentence(toy):
    with pytest.raises(UserError, match="33 negatives don't exist"):
        load(toy, "--eval_args={'mode': 'uni33'}").evaluation_set("test")


def test_titles_survive_quotes_html_and_gaps(toy):
    def change(text):
        lines = text.splitlines()
        lines[1] = 'i0\t"Quoted & unbalanced'
        lines[2] = "i1\t"
        lines[3] = "i2\tSalt &amp; <b>Pepper</b>"
        lines[5] = f"i4\t&#{'9' * 5000};"
        return "\n".join(lines) + "\n"

    rewrite(toy, "item", change)
    dataset = load(toy)
    title = dict(zip(dataset.field2id_token["item_id"], dataset.titles))
    assert title["i0"] == '"Quoted & unbalanced'
    assert title["i1"] == UNTITLED and dataset.untitled == 1
    assert title["i2"] == "Salt & <b>Pepper</b>"
    assert title["i3"] == "Red perfume"
    assert title["i4"] == f"&#{'9' * 5000};"


def test_missing_text_names_the_columns_found(toy):
    with pytest.raises(UserError, match=r"no column name .*item_id, title"):
        load(toy, "--item_text={name}")


def test_nobody_left_is_one_sentence(toy):
    with pytest.raises(UserError, match="No user of toy is left"):
        load([a for a in toy if "user_inter" not in a], "--user_inter_num_interval=[100,inf)")


def test_ratings_filter_and_titles_of_movielens(tmp_path):
    config = build_config("SASRec", "ml-100k", arguments=[f"--checkpoint_dir={tmp_path}", "--gpu_id="])
    dataset = TextSequentialDataset(config)
    assert dataset.inter_feat["rating"].min() == 5
    assert "Toy Story (1995)" in dataset.titles
    assert dataset.sequences.lengths[1:].min() >= 5


def test_real_beauty_has_the_stated_size(shared, tmp_path):
    config = build_config(
        "SASRec",
        "Amazon_Beauty",
        arguments=[
            f"--data_path={shared / 'dataset'}",
            f"--checkpoint_dir={tmp_path}",
            "--user_inter_num_interval=[7,inf)",
            "--item_inter_num_interval=[7,inf)",
            "--gpu_id=",
        ],
    )
    dataset = TextSequentialDataset(config)
    numbers = dataset.statistics()
    assert (numbers["users"], numbers["items"], numbers["interactions"]) == (4322, 2423, 60276)
    assert dataset.evaluation_set("test").candidates.shape == (4322, 10)


def test_recbole_loads_our_dataset_for_our_models(toy):
    config = build_config("GANPrompt", arguments=toy)
    dataset = create_dataset(config)
    assert isinstance(dataset, TextSequentialDataset)
    train, valid, test = data_preparation(config, dataset)
    assert test._dataset.phase == "test" and len(train._dataset) > 0
