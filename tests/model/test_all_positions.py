"""One pass over a sequence gives what RecBole's class gives for each prefix."""

import numpy as np
import pytest
import torch
from recbole.model.sequential_recommender import SASRec as StockSASRec

from recbole_ganprompt.config import build_config
from recbole_ganprompt.data.dataset import TextSequentialDataset
from recbole_ganprompt.data.sequences import Sequences
from recbole_ganprompt.evaluation.evaluator import score_candidates
from recbole_ganprompt.model.all_positions import training_windows
from recbole_ganprompt.model.registry import model_class


@pytest.mark.parametrize("name", ["SASRec", "GRU4Rec"])
def test_outputs_and_loss_equal_those_of_the_prefixes(toy, name):
    config = build_config(name, arguments=toy)
    dataset = TextSequentialDataset(config)
    torch.manual_seed(0)
    model = model_class(name)(config, dataset).eval()
    windows = training_windows(dataset.training_sequences(), config["MAX_ITEM_LIST_LENGTH"])[:8]
    together = model.position_outputs(windows[:, :-1])
    losses = []
    for row, window in enumerate(windows):
        for length in range(1, int((window > 0).sum())):
            prefix = torch.zeros_like(window[:-1])
            prefix[:length] = window[:length]
            alone = model.forward(prefix[None], torch.tensor([length]))[0]
            assert torch.allclose(together[row, length - 1], alone, atol=1e-5)
            logits = alone @ model.item_embedding.weight.T
            losses.append(torch.nn.functional.cross_entropy(logits[None], window[length][None]))
    expected = torch.stack(losses).mean()
    assert model.calculate_sequence_loss(windows).item() == pytest.approx(expected.item(), abs=1e-5)


def test_fast_scores_equal_recboles_predict(toy):
    config = build_config("SASRec", arguments=toy)
    dataset = TextSequentialDataset(config)
    dataset.build()
    torch.manual_seed(0)
    ours = model_class("SASRec")(config, dataset).eval()
    stock = StockSASRec(config, dataset)
    stock.load_state_dict(ours.state_dict())
    evaluation = dataset.evaluation_set("test")
    fast = score_candidates(ours, evaluation, config)
    slow = score_candidates(stock, evaluation, config)
    assert torch.allclose(fast, slow, atol=1e-5)


def test_windows_have_every_item_but_the_first_as_a_target_once():
    items = np.arange(1, 48)
    sequences = Sequences(items, np.array([0, 0, 1, 3, 47]))
    windows = training_windows(sequences, 20)
    targets = windows[:, 1:]
    assert sorted(targets[targets > 0].tolist()) == [3, *range(5, 48)]
    for window in windows:
        known = window[window > 0]
        assert (known.diff() == 1).all()  # consecutive items, none skipped
