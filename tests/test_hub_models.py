"""Folders as the hub has them: real tokenizers beside small random models, through whole runs."""

import json
import shutil

import pytest
import torch
from peft import PeftModel
from recbole.data import create_dataset, data_preparation
from safetensors.torch import load_file
from toy_dataset import toy_arguments, write_toy
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    BertConfig,
    BertForMaskedLM,
    GPT2Config,
    GPT2LMHeadModel,
    LlamaConfig,
    LlamaForCausalLM,
    T5Config,
    T5ForConditionalGeneration,
)

from recbole_ganprompt.config import build_config
from recbole_ganprompt.errors import UserError
from recbole_ganprompt.experiment import run
from recbole_ganprompt.language.answer import answer_ids
from recbole_ganprompt.model.collm import CoLLM
from recbole_ganprompt.model.registry import model_class
from recbole_ganprompt.model.tallrec import TALLRec

SMALL = [
    "--teacher_config={'epochs': 3, 'hidden_size': 16, 'inner_size': 32, 'train_batch_size': 16}",
    "--diversity_settings={'max_epochs': 1, 'memory': 'tokens', 'users_per_epoch': 12}",
    "--reconstruction_settings={'classes': 2}",
    "--attributes=2",
    "--attribute_users=12",
    "--llm_tuning=lora",
    "--llm_learning_rate=0.01",
    "--llm_steps=6",
    "--mapping_epochs=1",
    "--step_two=mapping",
    "--llm_batch_size=64",
    "--prompt_history=4",
]
CHAT = "{% for m in messages %}<s>[{{ m.role }}] {{ m.content }}</s>{% endfor %}<s>[assistant] "


@pytest.fixture(scope="module")
def folders(shared, tmp_path_factory):
    """A folder for each family: a random model of few weights, saved beside the real tokenizer."""
    target = tmp_path_factory.mktemp("hub")
    torch.manual_seed(0)
    sizes = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 48}

    families = {
        "llama": (LlamaForCausalLM, LlamaConfig(num_key_value_heads=2, **sizes)),
        "gpt2": (GPT2LMHeadModel, GPT2Config(n_embd=32, n_layer=2, n_head=4)),
        "bert": (BertForMaskedLM, BertConfig(**sizes)),
        "t5": (T5ForConditionalGeneration, T5Config(d_model=32, d_ff=48, d_kv=8, num_layers=2, num_heads=4)),
    }
    for name, (model, config) in families.items():
        folder = target / name
        shutil.copytree(shared / "tokenizers" / name, folder)
        config.save_pretrained(folder)  # says which tokenizer the files are for
        config.vocab_size = len(AutoTokenizer.from_pretrained(folder))
        model(config).save_pretrained(folder)
    return target


@pytest.fixture(scope="module")
def toy_folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("run")
    write_toy(folder / "data", users=40)
    return folder


def arguments(toy_folder, folders, llm):
    others = [f"--generator={folders / 't5'}", f"--attribute_lm={folders / 'bert'}"]
    return [*toy_arguments(toy_folder), *SMALL, f"--llm={folders / llm}", *others]


@pytest.mark.parametrize(
    ("model", "llm"), [("GANPrompt", "llama"), ("GANPrompt", "gpt2"), ("CoLLM", "gpt2"), ("TALLRec", "llama")]
)
def test_every_method_runs_on_hub_folders(toy_folder, folders, model, llm):
    result = run(build_config(model, arguments=arguments(toy_folder, folders, llm)))
    assert 0 <= result.test["auc"] <= 1
    assert set(result.record["stages"]) >= {"step one"} | ({"step two"} if model != "TALLRec" else set())
    # The adapter is an ordinary PEFT folder, without the frozen weights.
    adapter = result.directory / "adapter"
    base = AutoModelForCausalLM.from_pretrained(folders / llm)
    adapted = PeftModel.from_pretrained(base, adapter)
    assert sum("lora_B" in name and value.abs().sum() > 0 for name, value in adapted.named_parameters()) >= 2
    size = sum(path.stat().st_size for path in adapter.glob("*.safetensors"))
    whole = sum(path.stat().st_size for path in (folders / llm).glob("*.safetensors"))
    assert size < whole / 10
    assert (adapter / "mapping.safetensors").is_file() == (model != "TALLRec")
    # With the values that the papers publish.
    lora = json.loads((adapter / "adapter_config.json").read_text())
    assert (lora["r"], lora["lora_alpha"], lora["lora_dropout"]) == (8, 16, 0.05)
    assert sorted(lora["target_modules"]) == (["q_proj", "v_proj"] if llm == "llama" else ["c_attn"])

    # Another run can start from it: its first state is the saved one.
    again = [*arguments(toy_folder, folders, llm), f"--adapter={adapter}"]
    started = build(model_class(model), again)[0]
    weights = dict(started.llm.named_parameters())
    for name, value in adapted.named_parameters():
        if "lora_" in name:
            assert torch.equal(weights[name.removeprefix("base_model.model.")], value)
            assert weights[name.removeprefix("base_model.model.")].requires_grad
    if model != "TALLRec":
        mapping = load_file(adapter / "mapping.safetensors")
        assert mapping["user.0.weight"].shape == mapping["item.0.weight"].shape == (10 * 16, 16)
        for name, value in mapping.items():
            assert torch.equal(started.mapping.state_dict()[name], value)
        other = [one for one in again if "teacher_config" not in one] + [
            "--teacher_config={'hidden_size': 8}"
        ]
        with pytest.raises(UserError, match="another teacher"):
            build(model_class(model), other)


@pytest.mark.parametrize("name", ["gpt2", "llama", "t5", "bert"])
def test_answers_are_resolved_in_position(folders, name):
    tokenizer = AutoTokenizer.from_pretrained(folders / name)
    yes, no = answer_ids(tokenizer, "Yes.", "No.")
    whole = tokenizer("Output: Yes.", add_special_tokens=False)["input_ids"]
    assert yes in whole and no not in whole
    assert tokenizer.decode([yes]).strip().lower() == "yes" and tokenizer.decode([no]).strip().lower() == "no"


def build(model_class, given):
    config = build_config(model_class.__name__, arguments=given)
    train, valid, _ = data_preparation(config, create_dataset(config))
    return model_class(config, train._dataset), valid, config


def prompt_text(model, monkeypatch, valid, config):
    from recbole_ganprompt.evaluation.evaluator import score_candidates

    seen = []

    def listen(batch, soft=None, trunks=None):
        seen.append(batch)
        return torch.zeros(len(batch.answers))

    monkeypatch.setattr(model.reader, "logits", listen)
    score_candidates(model, valid._dataset.evaluation_set("valid"), config)
    piece, column = seen[0].answers[0].tolist()
    whole = torch.cat([seen[0].trunks[seen[0].row[piece]], seen[0].ids[piece]])
    return model.tokenizer.decode(whole[seen[0].allowed[piece, 0, column]])


def test_a_chat_model_is_asked_in_its_own_template(toy_folder, folders, monkeypatch, tmp_path):
    given = arguments(toy_folder, folders, "llama")
    with pytest.raises(UserError, match="no chat template"):
        build(TALLRec, [*given, "--prompt_format=chat"])
    tokenizer = AutoTokenizer.from_pretrained(folders / "llama")
    tokenizer.chat_template = CHAT
    tokenizer.save_pretrained(tmp_path)
    AutoModelForCausalLM.from_pretrained(folders / "llama").save_pretrained(tmp_path)
    given = arguments(toy_folder, tmp_path.parent, tmp_path.name)
    model, valid, config = build(TALLRec, [*given, "--prompt_format=chat"])
    text = prompt_text(model, monkeypatch, valid, config)
    assert text.startswith("<s>") and "[user] Instruction: Given" in text
    assert text.count("<s>") == 2 and text.rstrip().endswith("[assistant]")
    end = model.tokenizer("<s>[assistant] Yes.", add_special_tokens=False)["input_ids"]
    assert model.answers[0] in end


def test_bf16_and_gradient_checkpointing_train(toy_folder, folders):
    given = [
        *arguments(toy_folder, folders, "llama"),
        "--llm_dtype=bfloat16",
        "--gradient_checkpointing=true",
    ]
    result = run(build_config("CoLLM", arguments=given))
    assert 0 <= result.test["auc"] <= 1
    settings = json.loads((result.directory / "adapter" / "adapter_config.json").read_text())
    assert settings["target_modules"] and sorted(settings["target_modules"]) == ["q_proj", "v_proj"]


@pytest.mark.parametrize(
    ("wrong", "remedy"),
    [
        ("--llm=some-team/some-model", "builtin needs no download"),
        ("--prompt_history=400", "lower prompt_history or title_tokens"),
        ("--llm_quantization=4bit", "bitsandbytes"),
        ("--lora_targets=[query]", "c_attn"),
        ("--adapter=nowhere", "no PEFT folder"),
    ],
)
def test_mistakes_get_one_sentence(toy_folder, folders, wrong, remedy):
    given = [*arguments(toy_folder, folders, "gpt2")]
    key = wrong.split("=")[0] + "="
    if wrong.startswith("--prompt_history"):
        given += ["--MAX_ITEM_LIST_LENGTH=400", "--title_tokens=20"]
    given = [one for one in given if not one.startswith(key)] + [wrong]
    with pytest.raises(UserError, match="(?s)" + remedy) as caught:
        build(CoLLM, given)
    assert "\n" not in str(caught.value)


def test_a_device_map_stays_where_it_put_the_model(toy_folder, folders):
    given = [*arguments(toy_folder, folders, "llama"), "--llm_device_map=cpu"]
    model, _, _ = build(TALLRec, given)
    before = model.llm.get_input_embeddings().weight.data_ptr()
    model.to(torch.float64)
    assert model.llm.get_input_embeddings().weight.dtype == torch.float32
    assert model.llm.get_input_embeddings().weight.data_ptr() == before
