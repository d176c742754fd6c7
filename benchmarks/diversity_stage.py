"""What stages 1 to 3 of GANPrompt do: separability of the classes and reconstructed texts, as Markdown.

One row for each variant of the generator's loss, all from the same built-in T5 and attributes:

    python benchmarks/diversity_stage.py --data_path=dataset \
        --user_inter_num_interval='[7,inf)' --item_inter_num_interval='[7,inf)'

Takes RecBole's --key=value arguments and --dataset (Amazon_Beauty by default); --only=cooperative/full
trains one variant. ``before`` is the pre-trained encoder: the attribute's word already stands in the
prompt there. The measures are explained in ``recbole_ganprompt.diversity.measure``.
"""

import dataclasses
import sys
import time

import numpy as np
from transformers import AutoModelForSeq2SeqLM, AutoTokenizer
from transformers.utils import logging

from recbole_ganprompt.config import build_config
from recbole_ganprompt.data.dataset import TextSequentialDataset
from recbole_ganprompt.diversity.encoder import (
    DiversityEncoder,
    DiversitySettings,
    split_users,
    train_diversity_encoder,
)
from recbole_ganprompt.diversity.measure import class_measures
from recbole_ganprompt.diversity.reconstruction import ReconstructionSettings, reconstruct
from recbole_ganprompt.language.backbone import backbone_cache
from recbole_ganprompt.language.builtin_seq2seq import builtin_seq2seq
from recbole_ganprompt.prompt.document import load_document
from recbole_ganprompt.trainer.diversity import DiversityStages

VARIANTS = [
    ("cooperative", "full"),
    ("zero_sum", "full"),
    ("none", "full"),
    ("cooperative", "no_cos"),
    ("cooperative", "no_js"),
    ("cooperative", "none"),
    ("none", "none"),
]
SEPARABILITY = {
    "D accuracy": "accuracy",
    "linear probe": "probe_accuracy",
    "centroid": "centroid_accuracy",
    "silhouette": "silhouette",
    "cosine": "cosine",
    "centered cosine": "centered_cosine",
    "KL": "kl",
    "TV": "tv",
    "JS": "js",
    "epochs": "epochs",
    "seconds": "seconds",
}
TEXTS = (
    "fallback_share",
    "unchanged_share",
    "distinct_1",
    "distinct_2",
    "distinct_per_item",
    "token_overlap",
    "embedding_cosine",
    "embedding_cosine_shuffled",
    "seconds",
)


def row(name: str, values: dict, columns) -> str:
    cells = [f"{values[column]:.3f}" if column in values else "" for column in columns]
    return f"| {name} | " + " | ".join(cells) + " |"


def header(columns) -> str:
    return "| | " + " | ".join(columns) + " |\n|---|" + "---|" * len(columns)


def main(arguments: list[str]) -> None:
    only = [text.split("=")[1] for text in arguments if text.startswith("--only=")]
    named = [text.split("=")[1] for text in arguments if text.startswith("--dataset=")]
    rest = [text for text in arguments if not text.startswith(("--only=", "--dataset="))]
    config = build_config("GANPrompt", (named or ["Amazon_Beauty"])[0], arguments=rest)
    logging.disable_progress_bar()
    dataset = TextSequentialDataset(config)
    stages = DiversityStages(config, dataset)
    seed, device = config["seed"], str(config["device"])
    common = {"seed": seed, "device": device}
    clock = time.perf_counter()
    attributes = stages.attributes()
    print(f"attributes ({time.perf_counter() - clock:.0f} s): {', '.join(attributes)}\n")
    clock = time.perf_counter()
    template = load_document("encoder")
    folder = builtin_seq2seq(
        stages.corpus, template, stages.excluded, backbone_cache(config), seed, device=device
    )
    print(f"built-in T5: {time.perf_counter() - clock:.0f} s (0: from the cache)\n")
    base = DiversitySettings(**(config["diversity_settings"] or {}))
    decoding = ReconstructionSettings(**(config["reconstruction_settings"] or {}))
    tokenizer = AutoTokenizer.from_pretrained(folder)
    _, watched = split_users(stages.sequences, base.held_out, seed)
    histories = [stages.sequences.of(user) for user in watched]

    def measured(encoder, **more) -> dict:
        embeddings = encoder.embed(stages.titles, histories, device=device)
        return {**class_measures(embeddings), **more}

    model = AutoModelForSeq2SeqLM.from_pretrained(folder)
    untrained = DiversityEncoder(model, tokenizer, None, attributes, template, base, [])
    print(header(SEPARABILITY))
    print(row("before", measured(untrained), SEPARABILITY.values()), flush=True)
    texts, examples = [], []
    for adversarial, diversity in VARIANTS:
        name = f"{adversarial}/{diversity}"
        if only and name not in only:
            continue
        clock = time.perf_counter()
        encoder = train_diversity_encoder(
            model,
            tokenizer,
            titles=stages.titles,
            sequences=stages.sequences,
            attributes=attributes,
            template=template,
            settings=dataclasses.replace(base, adversarial=adversarial, diversity=diversity),
            **common,
        )
        last = encoder.history[-1]
        spent = {"seconds": time.perf_counter() - clock, "epochs": last["epoch"]}
        values = measured(encoder, accuracy=last["accuracy"], **spent)
        print(row(name, values, SEPARABILITY.values()), flush=True)
        clock = time.perf_counter()
        result = reconstruct(
            encoder, titles=stages.titles, excluded=stages.excluded, settings=decoding, **common
        )
        result.measures["seconds"] = time.perf_counter() - clock
        texts.append(row(name, result.measures, TEXTS) + f" {result.fallbacks}")
        examples = examples or result.texts
    print(f"\nchance: {1 / (len(attributes) + 1):.3f}\n")
    print(header(TEXTS))
    print("\n".join(texts))
    print("\nExamples of the first variant: title → plain → under the first attribute\n")
    for item in np.random.default_rng(seed).choice(len(stages.titles) - 1, 20, replace=False) + 1:
        print(f"- {stages.titles[item]} → {examples[0][item]} → {examples[min(1, len(attributes))][item]}")


if __name__ == "__main__":
    main(sys.argv[1:])
