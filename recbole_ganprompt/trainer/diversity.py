"""Stages 1 to 3: from titles and histories to attributes, the diversity encoder and diverse texts."""

import json
import shutil
from collections import Counter
from dataclasses import asdict
from logging import getLogger
from pathlib import Path

import numpy as np
from safetensors.numpy import save_file
from transformers import AutoModelForMaskedLM, AutoModelForSeq2SeqLM, AutoTokenizer

from recbole_ganprompt.checkpoints import Checkpoints
from recbole_ganprompt.data import sequences
from recbole_ganprompt.data.cache import cached_folder, made_with, model_key
from recbole_ganprompt.diversity import attributes as attribute_module
from recbole_ganprompt.diversity import constraint, encoder, generator, measure, reconstruction
from recbole_ganprompt.diversity.attributes import (
    count_attributes,
    excluded_words,
    most_frequent,
    read_words,
    write_words,
)
from recbole_ganprompt.diversity.encoder import DiversitySettings, split_users, train_diversity_encoder
from recbole_ganprompt.diversity.measure import CLASSES_FILE, CLASSES_USERS, class_measures
from recbole_ganprompt.diversity.reconstruction import ReconstructionSettings, reconstruct
from recbole_ganprompt.language import backbone, corpus
from recbole_ganprompt.language.backbone import backbone_cache, from_pretrained
from recbole_ganprompt.language.builtin_masked_lm import builtin_masked_lm
from recbole_ganprompt.language.builtin_seq2seq import builtin_seq2seq
from recbole_ganprompt.language.corpus import Corpus
from recbole_ganprompt.prompt import document, rendering
from recbole_ganprompt.prompt.document import load_document


class DiversityStages:
    """The three stages over one dataset; each result is cached by all that it depends on.

    Parameters
    ----------
    config : recbole Config
    dataset : TextSequentialDataset
    """

    def __init__(self, config, dataset):
        self.config = config
        self.titles = dataset.titles
        self.sequences = dataset.training_sequences()
        self.corpus = Corpus(self.titles, self.sequences)
        self.excluded = excluded_words(config["attribute_exclude"])
        self.device = str(config["device"])
        self.progress = config["show_progress"]
        self.common = {"seed": config["seed"], "device": self.device, "progress": self.progress}
        self.cache = Path(config["checkpoint_dir"]) / "diversity"

    def attributes(self) -> list[str]:
        """Stage 1: the k most frequent words that a masked LM puts into Figure 3.

        A user's own list (``attribute_file``, one word a line) is taken as it stands, its first k words.
        """
        config = self.config
        if config["attribute_file"]:
            words = read_words(config["attribute_file"])
            if len(words) > config["attributes"]:
                getLogger().info(
                    f"attribute_file: the first {config['attributes']} of its {len(words)} words"
                )
            return words[: config["attributes"]]
        template = load_document("attributes")
        name = config["attribute_lm"]
        if name == "builtin":
            name = builtin_masked_lm(
                self.corpus,
                template,
                config["item_domain"],
                self.excluded,
                backbone_cache(config),
                config["seed"],
                device=self.device,
                progress=self.progress,
                **(config["builtin_attribute_lm"] or {}),
            )

        def build(folder: Path, checkpoints: Checkpoints) -> None:
            counts = count_attributes(
                from_pretrained(AutoModelForMaskedLM, str(name), "attribute_lm", config),
                from_pretrained(AutoTokenizer, str(name), "attribute_lm", config),
                titles=self.titles,
                sequences=self.sequences,
                template=template,
                domain=config["item_domain"],
                excluded=self.excluded,
                max_users=config["attribute_users"],
                checkpoints=checkpoints,
                **self.common,
            )
            (folder / "counts.json").write_text(json.dumps(counts), encoding="utf-8")

        key = {
            **self.corpus.key(),
            **made_with(self.device),
            "attribute_lm": model_key(name),
            "template": template,
            "code": _code(attribute_module),
            "excluded words": sorted(self.excluded),
            **{one: config[one] for one in ("item_domain", "attribute_users", "seed")},
        }
        folder = cached_folder(self.cache, "attributes", key, build)
        counts = json.loads((folder / "counts.json").read_text(encoding="utf-8"))
        return most_frequent(Counter(counts), config["attributes"])

    def texts(self, attributes: list[str]) -> tuple[list[list[str]], dict, Path]:
        """Stages 2 and 3: train the diversity encoder, decode every item under every class.

        Returns
        -------
        texts : list [classes] of list of str [items]
        findings : dict
            The encoder's curves, separability before and after, and measures of the texts.
        folder : Path
            Where the encoder is kept, with the embeddings of ``CLASSES_FILE``.
        """
        config, template = self.config, load_document("encoder")
        name = config["generator"]
        if name == "builtin":
            name = builtin_seq2seq(
                self.corpus,
                template,
                self.excluded,
                backbone_cache(config),
                config["seed"],
                device=self.device,
                progress=self.progress,
                **(config["builtin_generator"] or {}),
            )
        settings = DiversitySettings(
            **{
                "adversarial": config["adversarial"],
                "diversity": config["diversity"],
                **(config["diversity_settings"] or {}),
            }
        )
        decoding = ReconstructionSettings(**(config["reconstruction_settings"] or {}))

        def build_encoder(folder: Path, checkpoints: Checkpoints) -> None:
            findings = self._train(name, attributes, template, settings, folder, checkpoints)
            (folder / "findings.json").write_text(json.dumps(findings), encoding="utf-8")

        key = {
            **self.corpus.key(),
            **made_with(self.device),
            "generator": model_key(name),
            "attributes": attributes,
            "template": template,
            "seed": config["seed"],
            "code": _code(constraint, encoder, generator, measure),
            **asdict(settings),
        }
        folder = cached_folder(self.cache, "encoder", key, build_encoder)
        findings = json.loads((folder / "findings.json").read_text(encoding="utf-8"))

        def build_texts(into: Path, checkpoints: Checkpoints) -> None:
            trained = encoder.DiversityEncoder.load(folder / "encoder")
            decoded = reconstruct(
                trained,
                titles=self.titles,
                excluded=self.excluded,
                settings=decoding,
                checkpoints=checkpoints,
                **self.common,
            )
            (into / "texts.json").write_text(json.dumps(decoded.texts), encoding="utf-8")
            measures = {**decoded.measures, "fallbacks": decoded.fallbacks}
            (into / "measures.json").write_text(json.dumps(measures), encoding="utf-8")

        key = {
            "encoder": folder.name,
            "code": _code(reconstruction, encoder, generator),
            "excluded words": sorted(self.excluded),
            "titles": self.titles,
            "seed": config["seed"],
            **asdict(decoding),
            **made_with(self.device),
        }
        texts_folder = cached_folder(self.cache, "texts", key, build_texts)
        texts = json.loads((texts_folder / "texts.json").read_text(encoding="utf-8"))
        findings["reconstruction"] = json.loads((texts_folder / "measures.json").read_text(encoding="utf-8"))
        return texts, findings, folder

    def _train(self, name, attributes, template, settings, folder, checkpoints) -> dict:
        seq2seq = from_pretrained(AutoModelForSeq2SeqLM, str(name), "generator", self.config)
        tokenizer = from_pretrained(AutoTokenizer, str(name), "generator", self.config)
        if getattr(seq2seq.config, "decoder_start_token_id", None) is None:
            seq2seq.config.decoder_start_token_id = tokenizer.pad_token_id  # T5's, where a folder doesn't say
        trained = train_diversity_encoder(
            seq2seq,
            tokenizer,
            titles=self.titles,
            sequences=self.sequences,
            attributes=attributes,
            template=template,
            settings=settings,
            checkpoints=checkpoints,
            **self.common,
        )
        trained.save(folder / "encoder")
        _, watched = split_users(self.sequences, settings.held_out, self.config["seed"])
        histories = [self.sequences.of(user) for user in watched]
        untrained = encoder.DiversityEncoder(
            seq2seq, tokenizer, trained.discriminator, attributes, template, settings, []
        )
        embeddings = {
            when: one.embed(self.titles, histories, device=self.device)
            for when, one in (("before", untrained), ("after", trained))
        }
        some = {when: values[:CLASSES_USERS].astype(np.float16) for when, values in embeddings.items()}
        save_file(some, folder / CLASSES_FILE)
        separability = {when: class_measures(values) for when, values in embeddings.items()}
        return {"curve": trained.history, "separability": separability}


def _code(*modules) -> list[str]:
    """The text of a stage's own sources, and of those that all stages run through."""
    shared = (backbone, corpus, document, rendering, sequences)
    files = [__file__, *(module.__file__ for module in (*modules, *shared))]
    return [Path(file).read_text(encoding="utf-8") for file in files]


def write_findings(directory: Path, folder: Path, attributes, texts, titles) -> None:
    """Put the attribute list, the reconstructed texts and the classes' embeddings beside a run's result.

    ``attributes.txt`` has one word a line; ``texts.tsv`` the title of each item and its text under
    each class; ``classes.safetensors`` comes from the encoder's ``folder``.
    """
    shutil.copyfile(folder / CLASSES_FILE, directory / CLASSES_FILE)
    write_words(directory / "attributes.txt", attributes, "edit and pass as --attribute_file")
    header = "\t".join(["item", "title", "plain", *attributes])
    columns = [np.arange(len(titles)).astype(str).tolist(), titles, *texts]
    lines = ["\t".join(row) for row in list(zip(*columns))[1:]]
    (directory / "texts.tsv").write_text("\n".join([header, *lines]) + "\n", encoding="utf-8")
