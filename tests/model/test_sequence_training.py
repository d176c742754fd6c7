"""Our DIN, Caser, BERT4Rec, SASRec and GRU4Rec are RecBole's, trained and scored with less work."""

import numpy as np
import pytest
import torch
from recbole.data import data_preparation
from recbole.data.interaction import Interaction
from recbole.model import sequential_recommender as stock
from recbole.utils import init_seed

from recbole_ganprompt import cli
from recbole_ganprompt.config import build_config
from recbole_ganprompt.data.dataset import TextSequentialDataset
from recbole_ganprompt.data.sequences import Sequences
from recbole_ganprompt.errors import UserError
from recbole_ganprompt.evaluation.evaluator import interaction_of, score_candidates
from recbole_ganprompt.model.registry import SEQUENCE_MODELS, model_class
from recbole_ganprompt.model.sequence_training import training_windows
from recbole_ganprompt.trainer.sequential import SequentialTrainer

NAMES = sorted(SEQUENCE_MODELS)
LENGTH = "--MAX_ITEM_LIST_LENGTH=5"  # shorter than the toy's sequences: windows are cut


def build(name, arguments, *more):
    """Our model with noise on every parameter, RecBole's with the same weights, and their data."""
    config = build_config(name, arguments=[*arguments, LENGTH, *more])
    dataset = TextSequentialDataset(config)
    data = data_preparation(config, dataset)
    torch.manual_seed(0)
    ours = model_class(name)(config, data[0]._dataset).eval()
    with torch.no_grad():
        for key, value in ours.state_dict().items():
            if value.is_floating_point():  # running means and variances of a batch norm, too
                value += 0.2 * torch.rand_like(value) - (0.0 if key.endswith("running_var") else 0.1)
    theirs = getattr(stock, name)(config, data[0]._dataset).eval()
    theirs.load_state_dict(ours.state_dict(), strict=True)
    return config, dataset, data, ours, theirs


def prefix_rows(config, windows, users):
    """RecBole's row for each target of the windows: (batch, targets)."""
    histories, lengths, owners, targets = [], [], [], []
    for window, user in zip(windows, users):
        for length in range(1, int((window > 0).sum())):
            history = torch.zeros(config["MAX_ITEM_LIST_LENGTH"], dtype=torch.int64)
            history[:length] = window[:length]
            histories.append(history)
            lengths.append(length)
            owners.append(user)
            targets.append(window[length])
    rows = interaction_of(config, np.array(owners), torch.stack(histories).numpy(), np.array(lengths))
    return rows, torch.stack(targets)


def some_windows(config, dataset):
    """Windows of all lengths with their users, at a width below the history's in one case of two."""
    windows, users = training_windows(dataset.training_sequences(), config["MAX_ITEM_LIST_LENGTH"])
    chosen = torch.arange(0, len(users), 5)
    windows = windows[chosen].clone()
    windows[::2, 3:] = 0
    return windows, users[chosen]


@pytest.mark.parametrize("name", ["SASRec", "GRU4Rec", "Caser"])
@pytest.mark.parametrize("width", [6, 3])
def test_outputs_and_loss_equal_those_of_recboles_rows(toy, name, width):
    config, dataset, _, ours, theirs = build(name, toy)
    windows, users = some_windows(config, dataset)
    windows = windows[:, :width]
    rows, targets = prefix_rows(config, windows, users)
    if name == "Caser":
        together = ours.prefix_outputs(users, windows[:, :-1])
        alone = theirs.forward(rows["user_id"], rows["item_id_list"])
    else:
        together = ours.position_outputs(windows[:, :-1])
        alone = theirs.forward(rows["item_id_list"], rows["item_length"])
    assert torch.allclose(together[windows[:, 1:] > 0], alone, atol=1e-5)
    rows.update(Interaction({"item_id": targets}))
    expected = theirs.calculate_loss(rows)
    assert ours.calculate_sequence_loss(windows, users).item() == pytest.approx(expected.item(), abs=1e-5)
    expected.backward()
    ours.calculate_sequence_loss(windows, users).backward()
    for (key, mine), stocks in zip(ours.named_parameters(), theirs.parameters()):
        assert torch.allclose(mine.grad, stocks.grad, atol=1e-5), key


TITLES = "--load_col={'inter': ['user_id', 'item_id', 'timestamp'], 'item': ['item_id', 'title']}"


@pytest.mark.parametrize(("width", "more"), [(6, []), (3, []), (6, [TITLES])])
def test_dins_window_logits_equal_those_of_recboles_rows(toy, width, more):
    config, dataset, _, ours, theirs = build("DIN", toy, *more)
    assert len(dataset.get_item_feature().interaction) == 1 + len(more)
    windows, users = some_windows(config, dataset)
    windows = windows[:, :width]
    negatives = torch.randint(1, dataset.item_num, (len(users), 3))
    together = ours.window_logits(windows, users, negatives)
    rows, targets = prefix_rows(config, windows, users)
    drawn = negatives.repeat_interleave((windows[:, 1:] > 0).sum(dim=1), dim=0)
    for column, items in enumerate([targets, *drawn.T]):
        alone = theirs.forward(rows["user_id"], rows["item_id_list"], rows["item_length"], items)
        assert torch.allclose(together[:, column], alone, atol=1e-5)


def test_dins_bce_is_recboles_loss_on_the_same_pairs(toy, monkeypatch):
    config, dataset, _, ours, theirs = build("DIN", toy, "--loss_type=BCE", "--window_negatives=1")
    windows, users = some_windows(config, dataset)
    negatives = torch.randint(1, dataset.item_num, (len(users), 1))
    monkeypatch.setattr(ours, "draw_negatives", lambda users: negatives)
    rows, targets = prefix_rows(config, windows, users)
    drawn = negatives[:, 0].repeat_interleave((windows[:, 1:] > 0).sum(dim=1))
    pairs = rows.repeat_interleave(2)
    items = torch.stack([targets, drawn], dim=1).flatten()
    labels = torch.tensor([1.0, 0.0]).repeat(len(targets))
    pairs.update(Interaction({"item_id": items, "label": labels}))
    expected = theirs.calculate_loss(pairs).item()
    assert ours.calculate_sequence_loss(windows, users).item() == pytest.approx(expected, abs=1e-5)


def test_dins_negatives_avoid_training_items_only(toy):
    _, dataset, _, ours, _ = build("DIN", toy, "--window_negatives=40")
    training = dataset.training_sequences()
    ours.prepare_training(training)
    users = torch.arange(1, dataset.user_num)
    drawn = ours.draw_negatives(users).numpy()
    for user, items in zip(users.tolist(), drawn):
        assert not set(items) & set(training.of(user)) and items.min() > 0
    # Validation and test items are drawn like any other.
    assert any(dataset.sequences.of(user)[-1] in items for user, items in zip(users.tolist(), drawn))


def test_bert4recs_masks(toy):
    _, dataset, _, ours, _ = build("BERT4Rec", toy, "--ft_ratio=0.5", "--mask_ratio=0.4")
    windows = torch.tensor([[3, 4, 5, 6, 7], [3, 4, 0, 0, 0]]).repeat(200, 1)
    rows, masked = ours.masked_rows(windows)
    assert masked.any(dim=1).all() and not (masked & (windows == 0)).any()
    assert (rows[masked] == ours.mask_token).all()
    kept = (rows > 0) & ~masked
    assert torch.equal(rows[kept], windows[kept])
    # A cut row ends with its only mask, at any item but the first.
    cut = (rows == 0) & (windows > 0)
    ends = masked.float().argmax(dim=1)[cut.any(dim=1)]
    assert set(ends.tolist()) == {1, 2, 3} and (masked.sum(dim=1)[cut.any(dim=1)] == 1).all()
    assert (masked.sum(dim=1) > 1).any()


def test_bert4rec_learns_the_newest_items_of_a_window(toy, monkeypatch):
    _, _, _, ours, _ = build("BERT4Rec", toy)
    seen = []
    original = ours.masked_rows
    monkeypatch.setattr(ours, "masked_rows", lambda items: original(seen.append(items) or items))
    windows = torch.tensor([[1, 2, 3, 4, 5, 6], [1, 2, 3, 0, 0, 0]])
    ours.calculate_sequence_loss(windows, torch.tensor([1, 2]))
    assert seen[0][:2].tolist() == [[2, 3, 4, 5, 6], [1, 2, 3, 0, 0]]
    ours.calculate_sequence_loss(windows[1:, :3], torch.tensor([2]))
    assert seen[1][0].tolist() == [1, 2, 3]


@pytest.mark.parametrize("name", NAMES)
def test_scores_of_candidates_equal_recboles_predict(toy, name):
    config, dataset, _, ours, theirs = build(name, toy)
    evaluation = dataset.evaluation_set("test")
    assert evaluation.lengths.max() == 5
    histories, lengths = evaluation.histories.copy(), evaluation.lengths.copy()
    lengths[::2] = 1 + np.arange(len(lengths[::2])) % 4  # short ones, too
    histories[np.arange(5) >= lengths[:, None]] = 0
    part = type(evaluation)(evaluation.users, histories, lengths, evaluation.candidates)
    slow = score_candidates(theirs, part, config)
    assert slow.std() > 0
    assert torch.allclose(score_candidates(ours, part, config), slow, atol=1e-5)
    assert not hasattr(theirs, "score_candidates")


@pytest.mark.parametrize("name", NAMES)
def test_training_learns_and_is_repeatable(toy, name):
    more = ["--epochs=50", "--learning_rate=0.003", "--stopping_step=50", "--train_batch_size=20"]
    config = build_config(name, arguments=[*toy, LENGTH, *more])
    results = []
    for _ in range(2):
        init_seed(1, True)
        train, valid, _ = data_preparation(config, TextSequentialDataset(config))
        trainer = SequentialTrainer(config, model_class(name)(config, train._dataset))
        trainer.write_checkpoints = False
        trainer.fit(train, valid, verbose=False)
        results.append((trainer.best_valid_result, trainer.best_state))
    assert results[0][0]["gauc"] > 0.6  # chance is 0.5
    assert results[0][0] == results[1][0]
    for key, value in results[0][1].items():
        assert torch.equal(value, results[1][1][key])
    getattr(stock, name)(config, train._dataset).load_state_dict(results[0][1], strict=True)


def test_windows_have_every_item_but_the_first_as_a_target_once():
    items = np.arange(1, 48)
    sequences = Sequences(items, np.array([0, 0, 1, 3, 47]))
    windows, users = training_windows(sequences, 20)
    targets = windows[:, 1:]
    assert sorted(targets[targets > 0].tolist()) == [3, *range(5, 48)]
    assert users.tolist() == [2, 3, 3, 3]
    for window in windows:
        known = window[window > 0]
        assert (known.diff() == 1).all()  # consecutive items, none skipped


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(
    "more",
    [
        ["--show_progress=false"],
        ["--train_neg_sample_args=None"],
        ["--train_neg_sample_args={'distribution': 'uniform', 'sample_num': 2}", "--loss_type=BPR"],
        ["--loss_type=CE"],
    ],
)
def test_one_command_and_the_same_keys_for_all(toy, name, more, capsys, tmp_path):
    status = cli.main([*toy, f"--model={name}", "--epochs=1", *more])
    shown = capsys.readouterr()
    if "--loss_type=BPR" in more and name == "DIN":
        assert status == 2 and shown.err.endswith(
            "error: DIN's loss_type must be one of CE, BCE, not 'BPR'.\n"
        )
        assert not list((tmp_path / "saved").glob("runs/*"))
    else:
        assert status == 0, shown.err
        without_effect = name == "DIN" and "--train_neg_sample_args=None" in more
        assert ("train_neg_sample_args has no effect" in shown.out + shown.err) == without_effect


def test_dins_own_loss_is_refused_elsewhere(toy):
    with pytest.raises(UserError, match="SASRec's loss_type must be CE or BPR, not 'BCE'."):
        build_config("SASRec", arguments=[*toy, "--loss_type=BCE"])
