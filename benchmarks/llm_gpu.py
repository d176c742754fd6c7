"""A large Llama's scoring and LoRA training on this machine: rates, memory, shared against separate prompts.

    python benchmarks/llm_gpu.py --json
    python benchmarks/llm_gpu.py --shape=small --json

Random weights in the shape of Llama-2-7B (bf16 on a GPU; the default there), or small ones (float32, the
default without a GPU). Prompts of made-up titles: histories of ten, ten candidates for each user; training
has a positive and three negatives at six positions of each user. The sides are those of
``benchmarks/shared_history.py``.

The share of the device's matrix rate counts 2 operations for each weight of the layers and token in a forward
pass, and 4 with LoRA's backward pass, against the rate of a large matrix product in the same precision,
measured in the same run. Tokens are the packed ones: what sharing saves is not counted as work.
"""

import argparse
import json
import sys
from time import perf_counter

import numpy as np
import torch
from peft import LoraConfig
from shared_history import Sides, compare
from transformers import LlamaConfig, LlamaForCausalLM

from recbole_ganprompt.language.answer import answer_ids
from recbole_ganprompt.language.builtin_tokenizer import byte_level_tokenizer
from recbole_ganprompt.language.packing import Branch, pack_row
from recbole_ganprompt.language.reader import Question
from recbole_ganprompt.prompt.rendering import PromptTokens, TitleTable
from recbole_ganprompt.prompt.template import load_template

SHAPES = {
    "7b": {
        "hidden_size": 4096,
        "intermediate_size": 11008,
        "num_hidden_layers": 32,
        "num_attention_heads": 32,
    },
    "small": {
        "hidden_size": 512,
        "intermediate_size": 1376,
        "num_hidden_layers": 8,
        "num_attention_heads": 8,
    },
}
WORDS = [
    "red",
    "nail",
    "polish",
    "sun",
    "cream",
    "soft",
    "brush",
    "lip",
    "balm",
    "set",
    "of",
    "three",
    "gift",
    "oil",
]


def made_up(options, device) -> Sides:
    """A random model and random prompts for it."""
    generator = np.random.default_rng(0)
    titles = ["", *(" ".join(generator.choice(WORDS, generator.integers(3, 12))) for _ in range(500))]
    template = load_template("recommendation", ("UserHistory", "TargetTitle"))
    tokenizer = byte_level_tokenizer(
        titles[1:],
        600,
        specials=["<pad>", "<s>", "</s>"],
        pattern="<s> $A",
        repeated=template.literals(),
        model_max_length=4096,
        pad_token="<pad>",
        bos_token="<s>",
        eos_token="</s>",
    )
    table, prompt = TitleTable(tokenizer, titles, 20), PromptTokens(tokenizer, template)

    def drawn(count):
        return [table[item] for item in generator.integers(1, len(titles), count)]

    questions = [Question(drawn(10), drawn(10)) for _ in range(options.users)]
    training = []
    for user in range(options.training_users):
        references = [(6 * user + position, candidate) for position in range(6) for candidate in range(4)]
        branches = [
            Branch(5 + position, drawn(4), [()] * 4, references[4 * position : 4 * position + 4])
            for position in range(6)
        ]
        training.append(pack_row(prompt, drawn(10), branches))

    torch.manual_seed(0)
    dtype = torch.bfloat16 if device.type == "cuda" else torch.float32
    config = LlamaConfig(vocab_size=32000, dtype=dtype, **SHAPES[options.shape])
    with torch.device(device):
        torch.set_default_dtype(dtype)
        model = LlamaForCausalLM(config)
        torch.set_default_dtype(torch.float32)
    model.add_adapter(
        LoraConfig(r=8, lora_alpha=16, target_modules=["q_proj", "v_proj"], task_type="CAUSAL_LM")
    )
    answers = answer_ids(tokenizer, template.positive, template.negative)
    return Sides(model.eval(), answers, prompt, questions, training, options.token_budget)


def matrix_rate(device, dtype) -> float:
    """Floating-point operations a second of a large matrix product: the best of five."""
    size = 8192 if device.type == "cuda" else 1024
    one, other = torch.randn(2, size, size, device=device, dtype=dtype)
    best = np.inf
    for _ in range(5):
        started = perf_counter()
        for _ in range(8):
            one @ other
        if device.type == "cuda":
            torch.cuda.synchronize()
        best = min(best, perf_counter() - started)
    return 8 * 2 * size**3 / best


def main() -> None:
    on_gpu = torch.cuda.is_available()
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--shape", choices=SHAPES, default="7b" if on_gpu else "small")
    parser.add_argument("--users", type=int, default=128 if on_gpu else 8, help="whose candidates are scored")
    parser.add_argument("--training_users", type=int, default=32 if on_gpu else 4)
    parser.add_argument("--token_budget", type=int, default=16000 if on_gpu else 6000)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--json", action="store_true", help="one JSON object in the last line")
    options = parser.parse_args()
    device = torch.device("cuda" if on_gpu else "cpu")
    sides = made_up(options, device)
    result = compare(sides, options.repeats)
    weights = sum(
        part.numel()
        for name, part in sides.llm.base_model.named_parameters()
        if "layers." in name and "lora" not in name
    )
    rate = matrix_rate(device, next(sides.llm.parameters()).dtype)
    rates = result["tokens_per_second"]
    if on_gpu:
        peak = {}
        for part, function in (("scoring", sides.score), ("training", sides.train)):
            sides.llm.zero_grad(set_to_none=True)
            torch.cuda.reset_peak_memory_stats()
            function("shared")
            peak[part] = torch.cuda.max_memory_allocated() / 1e6
        result["peak_gpu_memory_mb"] = peak
    result = {
        "command": " ".join(["python", "benchmarks/llm_gpu.py", *sys.argv[1:]]),
        "device": torch.cuda.get_device_name() if on_gpu else "CPU",
        "threads": torch.get_num_threads(),
        "shape": options.shape,
        "layer_weights": weights,
        "users_scored_per_second": options.users / result["seconds"]["scoring"]["shared"],
        "training_samples_per_second": result["training_samples"] / result["seconds"]["training"]["shared"],
        "matrix_tflops": rate / 1e12,
        "scoring_share_of_matrix_rate": 2 * weights * rates["scoring"]["shared"] / rate,
        "training_share_of_matrix_rate": 4 * weights * rates["training"]["shared"] / rate,
        **result,
    }
    if not options.json:
        for key, value in result.items():
            print(f"{key}: {value}")
    print(json.dumps(result))


if __name__ == "__main__":
    main()
