"""Layers, literals, and mistakes that are refused with a remedy."""

import pytest

from recbole_ganprompt.config import build_config
from recbole_ganprompt.errors import UserError
from recbole_ganprompt.keys import parse_value, properties_path

pytestmark = pytest.mark.smoke


def build(*arguments, model="SASRec", dataset="ml-100k", **values):
    return build_config(model, dataset, arguments=["--gpu_id=", *arguments], **values)


def test_the_protocol_holds_for_recboles_models_too():
    for model, training in (("SASRec", "none"), ("BERT4Rec", "none"), ("DIN", "uniform")):
        config = build(model=model)
        assert config["eval_args"] == {
            "split": {"LS": "valid_and_test"},
            "order": "TO",
            "group_by": "user",
            "mode": {"valid": "uni9", "test": "uni9"},
        }
        assert config["metrics"] == ["AUC", "GAUC", "Hit", "NDCG", "MRR"]
        assert config["topk"] == [1, 3, 5]
        assert config["train_neg_sample_args"]["distribution"] == training
        assert config["MAX_ITEM_LIST_LENGTH"] == 20


def test_command_line_beats_dictionary_beats_file_beats_dataset(tmp_path):
    file = tmp_path / "mine.yaml"
    file.write_text("item_domain: films\nlearning_rate: 1e-4\nepochs: 7\nseed: 1\n")
    values = {"learning_rate": "0.02", "seed": 2}
    config = build("--seed=3", config_file_list=[file], config_dict=values)
    assert [config[key] for key in ("item_domain", "epochs", "learning_rate", "seed")] == [
        "films",
        7,
        0.02,
        3,
    ]
    assert config["item_text"] == "{movie_title} ({release_year})"
    assert build(config_file_list=[file])["learning_rate"] == 1e-4


def test_books_are_filtered_as_the_paper_filters_them():
    config = build(dataset="Amazon_Books")
    assert config["user_inter_num_interval"] == config["item_inter_num_interval"] == "[20,inf)"
    assert config["rating_threshold"] == 5


def test_backbone_files_are_chosen_by_the_users_value():
    assert build("--backbone=paper", model="GANPrompt")["llm"] == "meta-llama/Llama-2-7b-hf"
    assert build("--backbone=paper", "--llm=gpt2", model="GANPrompt")["llm"] == "gpt2"
    assert build(model="GANPrompt")["llm"] == "builtin"


def test_settings_leave_the_others_of_a_backbone_as_they_are():
    given = build("--backbone=paper", "--diversity_settings={'gamma': 1.0}", model="GANPrompt")
    assert given["diversity_settings"] == {
        **build("--backbone=paper", model="GANPrompt")["diversity_settings"],
        "gamma": 1.0,
    }
    assert given["diversity_settings"]["memory"] == "tokens"


def test_a_model_of_the_users_own_is_tuned_as_a_pretrained_one():
    own = build("--llm=gpt2", model="TALLRec")
    assert (own["llm_tuning"], own["llm_learning_rate"], own["llm_dtype"]) == ("lora", 0.0002, "float32")
    assert build("--llm=gpt2", "--llm_tuning=full", model="TALLRec")["llm_tuning"] == "full"
    assert build(model="TALLRec")["llm_tuning"] == "full" and own["llm_batch_size"] == 64


def test_a_models_file_can_hold_values_for_one_dataset(monkeypatch, tmp_path):
    (tmp_path / "model").mkdir()
    (tmp_path / "dataset").mkdir()
    (tmp_path / "overall.yaml").write_text(properties_path("overall.yaml").read_text())
    (tmp_path / "model" / "SASRec.yaml").write_text("n_heads: 1\ndatasets:\n  ml-100k: {n_heads: 4}\n")
    monkeypatch.setattr("recbole_ganprompt.config.properties_path", tmp_path.joinpath)
    assert build()["n_heads"] == 4
    assert build(dataset="other")["n_heads"] == 1
    assert build("--n_heads=2")["n_heads"] == 2
    assert "datasets" not in build()


def test_values_for_one_dataset_may_hold_with_one_backbone_only():
    assert build(model="GANPrompt", dataset="ml-100k")["mapping_positions"] == "all"
    assert build(model="GANPrompt", dataset="other")["mapping_positions"] == "held_out"
    large = build("--backbone=paper", model="GANPrompt", dataset="ml-100k")
    assert large["mapping_positions"] == "held_out" and large["llm_tuning"] == "lora"


def test_both_split_protocols():
    assert build("--protocol=paper")["eval_args"]["split"] == {"LS": "test_only"}
    partial = build("--eval_args={'mode': 'uni4'}")["eval_args"]
    assert partial["split"] == {"LS": "valid_and_test"}
    assert partial["mode"] == {"valid": "uni4", "test": "uni4"}


@pytest.mark.parametrize(
    ("key", "text", "value"),
    [
        ("learning_rate", "1e-3", 1e-3),
        ("topk", "[1, 3]", [1, 3]),
        ("metrics", "[AUC, Hit]", ["AUC", "Hit"]),
        ("reproducibility", "false", False),
        ("clip_grad_norm", "{'max_norm': 5}", {"max_norm": 5}),
        ("rating_threshold", "none", None),
        ("diversity", "none", "none"),
        ("user_inter_num_interval", "[5,100]", "[5,100]"),
        ("item_text", "{title}", "{title}"),
        ("epochs", "__import__('os').getpid()", "__import__('os').getpid()"),
    ],
)
def test_text_is_read_as_literals_and_never_run(key, text, value):
    assert parse_value(key, text) == value


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--lerning_rate=1"], "--lerning_rate: did you mean learning_rate?"),
        (["--xyzzy=1"], "--xyzzy: no such key; --help lists ours."),
        (["--epochs=0"], "epochs must be a positive integer, not 0."),
        (["--epochs=__import__('os').getpid()"], "epochs must be a positive integer"),
        (["--topk=[1,-3]"], "topk must be a positive integer or a list of such"),
        (["--hidden_size=0"], "hidden_size must be a positive integer"),
        (["--protocol=papers"], "protocol must be one of leave_one_out, paper, not 'papers'."),
        (["--metrics=[Hit, Recall]"], "metric Recall is not one of AUC, GAUC, Hit, NDCG, MRR."),
        (["--valid_metric=NDCG@10"], "valid_metric NDCG@10 is not measured"),
        (["--eval_args={'mode': 'full'}"], "write uniN"),
        (["--eval_args={'mode': 'pop9'}"], "write uniN"),
        (["--eval_args={'order': 'RO'}"], "order TO"),
        (["--eval_args={'split': {'RS': [8, 1, 1]}}"], "set protocol"),
        (["--loss_type=CE", "--train_neg_sample_args={'sample_num': 1}"], "RecBole refuses"),
        (["epochs=3"], "Arguments are written --key=value"),
        (["--epochs"], "--epochs needs a value"),
        (["--seed=1", "--seed=2"], "--seed is given twice"),
    ],
)
def test_mistakes_on_the_command_line(arguments, message):
    with pytest.raises(UserError) as caught:
        build(*arguments)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_mistakes_in_names_files_and_dictionaries(tmp_path):
    with pytest.raises(UserError, match="did you mean GANPrompt"):
        build(model="ganpromt")
    with pytest.raises(UserError, match="BPR"):
        build(model="BPR")
    with pytest.raises(UserError, match="Name a model and a dataset"):
        build_config(model="SASRec")
    with pytest.raises(UserError, match="backbone must be one of"):
        build("--backbone=../model/GRU4Rec", model="GANPrompt")
    with pytest.raises(UserError, match="lerning_rate: did you mean learning_rate"):
        build(config_dict={"lerning_rate": 1})
    file = tmp_path / "bad.yaml"
    for text, message in (
        ("lerning_rate: 1", "did you mean learning_rate"),
        ("key: [5,inf)", "not valid YAML"),
        ("- 1", "'key: value'"),
        ("seed: !!python/object/apply:os.getpid []", "line 1: could not determine a constructor"),
    ):
        file.write_text(text)
        with pytest.raises(UserError, match=message):
            build(config_file_list=[file])
    with pytest.raises(UserError, match="can't be read"):
        build(config_file_list=[tmp_path / "absent.yaml"])
