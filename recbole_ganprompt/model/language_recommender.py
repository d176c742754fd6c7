"""What all language-model recommenders share: a prompt, an LLM that answers it, a teacher's help."""

import json
from pathlib import Path

import numpy as np
import torch
from recbole.model.abstract_recommender import SequentialRecommender
from recbole.utils import InputType
from safetensors.torch import save_file

from recbole_ganprompt.collaborative import Teacher, build_teacher_model, teacher_settings
from recbole_ganprompt.errors import UserError
from recbole_ganprompt.evaluation.evaluator import DISLIKES
from recbole_ganprompt.language.adapter import MappingMLP, add_lora
from recbole_ganprompt.language.answer import answer_ids
from recbole_ganprompt.language.backbone import load_llm
from recbole_ganprompt.language.layout import Batch
from recbole_ganprompt.language.reader import Question, Reader
from recbole_ganprompt.prompt.rendering import (
    SOFT_GUIDANCE,
    SOFT_TARGET,
    SOFT_USER,
    PromptTokens,
    TitleTable,
)
from recbole_ganprompt.prompt.template import (
    GUIDANCE,
    HISTORY,
    TARGET,
    TITLE,
    UNPREFERENCE,
    USER,
    parse_template,
    read_template,
)
from recbole_ganprompt.prompt.wordings import load_wordings


class LanguageRecommender(SequentialRecommender):
    """An LLM that answers Yes or No to a prompt about a user and an item.

    Subclasses say which slots of the prompt they can fill (``slots``), and that is all that tells
    their models apart. The score of a pair is logit(Yes) - logit(No), so p(Yes) is its sigmoid.

    Parameters
    ----------
    config : recbole Config
    dataset : TextSequentialDataset

    Attributes
    ----------
    stage : str
        ``"untrained"``, ``"text"`` (only titles in the prompt), ``"guided"`` (the teacher's opinion
        as words too) or ``"mapped"`` (soft tokens too). It decides which prompt scoring uses.
    teacher : Teacher or None
    mapping : MappingMLP or None

    Raises
    ------
    UserError
        From the backbone, the template or the adapter.
    """

    input_type = InputType.POINTWISE
    slots: tuple[str, ...] = (HISTORY, TITLE)
    STAGES = ("untrained", "text", "guided", "mapped")

    def __init__(self, config, dataset):
        super().__init__(config, dataset)
        self.config = config
        if self.uses_teacher:
            teacher_settings(config)  # a mistake there shall not wait until the LLM is built
        self.titles = dataset.titles
        self.history_length = min(config["prompt_history"], config["MAX_ITEM_LIST_LENGTH"])
        self.filled = set(self.slots) - (set() if self.uses_opinions else {GUIDANCE})
        if not len(dataset.dislikes):
            self.filled.discard(UNPREFERENCE)
        self.template = read_template(config["prompt"])
        sources = [self.template]
        if config["prompt_diversity"]:
            sources += load_wordings("training").values()
        texts = [text for source in sources for text in parse_template(source, self.filled).literals()]
        self.llm, self.tokenizer = load_llm(config, dataset, texts)
        self.prompts, *self.other_prompts = map(self._prompts, sources)
        self.answers = self._answers(sources[0])
        self.title_table = TitleTable(self.tokenizer, self.titles, config["title_tokens"])
        for prompts in (self.prompts, *self.other_prompts):
            self._check_length(prompts["mapped"])
        if config["llm_tuning"] == "lora":
            add_lora(self.llm, config)
        self.reader = Reader(self.llm, self.answers, config["token_budget"], config["prompt_layout"])
        self.teacher = self.mapping = None
        if self.uses_teacher:
            model, settings = build_teacher_model(config, dataset)
            self.teacher_model = model
            self.teacher = Teacher(model, settings, config["seed"])
            embeddings = self.llm.get_input_embeddings().weight
            self.mapping = MappingMLP(
                self.teacher.vector_size,
                embeddings.shape[1],
                config["mapping_expansion"],
                float(embeddings.detach().float().square().mean().sqrt()),
                self.soft_guidance,
            )
            if config["adapter"]:
                self.mapping.start_from(Path(config["adapter"]).expanduser())
        self.register_buffer("stage_index", torch.zeros((), dtype=torch.int64))
        self.register_buffer("guidance_thresholds", torch.zeros(max(len(self.guidance_words) - 1, 0)))

    def _prompts(self, source: dict) -> dict[str, PromptTokens]:
        """A template's prompt for each stage, without the phrases that the stage has nothing for."""
        guided = {USER, TARGET} if self.guidance_words else {USER, TARGET, GUIDANCE}
        unfilled = {
            "text": {GUIDANCE, USER, TARGET},
            "guided": guided,
            "vectors": {GUIDANCE},
            "mapped": set(),
        }
        return {
            stage: PromptTokens(
                self.tokenizer,
                parse_template(source, self.filled - without),
                self.guidance_words,
                self.config["prompt_format"],
            )
            for stage, without in unfilled.items()
        }

    def _answers(self, source: dict) -> tuple[int, int]:
        template = parse_template(source, self.filled)
        ending = self.prompts["mapped"].ending
        return answer_ids(self.tokenizer, template.positive, template.negative, ending)

    def ask_in(self, source: dict) -> None:
        """Ask in another wording from here on.

        Parameters
        ----------
        source : dict
            As :func:`recbole_ganprompt.prompt.template.parse_template` takes it.

        Raises
        ------
        UserError
            If the tokenizer can't tell its answers apart, or its prompts are too long for the model.
        """
        answers = self._answers(source)
        self.prompts = self._prompts(source)
        self._check_length(self.prompts["mapped"])
        self.answers = self.reader.answers = answers

    def _check_length(self, prompt: PromptTokens) -> None:
        """Refuse prompts that the language model has no positions for."""
        config = self.llm.config.get_text_config()
        limit = getattr(config, "max_position_embeddings", None) or np.inf
        title = max(map(len, self.title_table.tokens)) + len(prompt.separator)
        titles = self.history_length + 1
        if UNPREFERENCE in prompt.middle + prompt.tail:
            titles += self.config["prompt_unpreference"]
        fixed = len(prompt.head) + len(prompt.middle) + len(prompt.tail)
        longest = fixed + max(map(len, prompt.guidance), default=0) + titles * title
        if longest > limit:
            raise UserError(
                f"A prompt may have {longest} tokens and the llm takes {limit}: lower prompt_history or "
                "title_tokens."
            )

    def _apply(self, fn, recurse=True):
        # What a device map or quantization has put in its place stays there; what will be sharded must never
        # be whole on a device.
        keys = ("llm_device_map", "llm_quantization", "llm_sharding")
        if not any(self.config[key] for key in keys):
            return super()._apply(fn, recurse)
        llm = self._modules.pop("llm")
        try:
            return super()._apply(fn, recurse)
        finally:
            self._modules["llm"] = llm

    @property
    def uses_teacher(self) -> bool:
        """Whether the prompt has a place for anything that comes from a teacher."""
        return any(slot in self.slots for slot in (USER, TARGET, GUIDANCE))

    @property
    def uses_opinions(self) -> bool:
        """Whether the prompt has a place for the teacher's opinion."""
        return GUIDANCE in self.slots and self.config["guidance"] != "off"

    @property
    def guidance_words(self) -> list[str]:
        """Words for the opinion, from the lowest to the highest; none where it isn't told in words."""
        in_words = self.uses_opinions and self.config["guidance"] in ("words", "both")
        return list(self.config["guidance_words"] or []) if in_words else []

    @property
    def soft_guidance(self) -> bool:
        """Whether the opinion also stands as a soft token."""
        return self.uses_opinions and self.config["guidance"] in ("vector", "both")

    @property
    def stage(self) -> str:
        return self.STAGES[int(self.stage_index)]

    @stage.setter
    def stage(self, name: str) -> None:
        self.stage_index.fill_(self.STAGES.index(name))

    def prompt_of(self, stage: str) -> PromptTokens:
        """The prompt that a stage uses; an untrained model reads titles only."""
        return self.prompts["text" if stage == "untrained" else stage]

    def training_prompts(self, stage: str) -> list[PromptTokens]:
        """The prompts that a stage trains on: its own, and with ``prompt_diversity`` other wordings of it."""
        return [prompts[stage] for prompts in (self.prompts, *self.other_prompts)]

    def guidance_levels(self, opinions: np.ndarray) -> np.ndarray:
        """Index of the guidance word for each opinion (nats), by the thresholds set in training."""
        return np.searchsorted(self.guidance_thresholds.cpu().numpy(), opinions)

    def soft_vectors(self, batch: Batch, user_vectors, item_vectors, opinions=None) -> torch.Tensor:
        """Map what each soft token of a batch stands for.

        Parameters
        ----------
        batch : Batch
            Its references are ``(row, candidate)``.
        user_vectors : float [rows, vector size]
        item_vectors : float [rows, candidates, vector size]
        opinions : float [rows, candidates], optional
            Where the prompt has a place for them.

        Returns
        -------
        float [soft tokens, hidden size]
        """
        index = torch.tensor(batch.soft_references, device=user_vectors.device).reshape(-1, 2)
        kinds = batch.soft[:, 2]
        row, candidate = index[:, 0], index[:, 1]
        result = torch.zeros(len(index), self.mapping.hidden_size, device=row.device)
        for kind, mapped in (
            (SOFT_USER, lambda at: self.mapping.map_users(user_vectors[row[at]])),
            (SOFT_TARGET, lambda at: self.mapping.map_items(item_vectors[row[at], candidate[at]])),
            (SOFT_GUIDANCE, lambda at: self.mapping.map_opinions(opinions[row[at], candidate[at]])),
        ):
            at = kinds == kind
            if at.any():
                result = result.masked_scatter(at[:, None], mapped(at))
        return result

    # -- scoring ------------------------------------------------------------------------------

    @torch.no_grad()
    def score_candidates(self, interaction, candidates: torch.Tensor) -> torch.Tensor:
        """Score several items for each user; a user's candidates share one history.

        Parameters
        ----------
        interaction : recbole Interaction
            ``user_id``, ``item_id_list`` and ``item_length`` of [batch] users.
        candidates : int64 [batch, candidates]

        Returns
        -------
        float [batch, candidates]
        """
        users = interaction[self.USER_ID].cpu().numpy()
        histories = interaction[self.ITEM_SEQ].cpu().numpy()
        lengths = interaction[self.ITEM_SEQ_LEN].cpu().numpy()
        items = candidates.cpu().numpy()
        table, longest = self.title_table, self.history_length
        dislikes = [[] for _ in users]
        if DISLIKES in interaction.interaction:
            dislikes = [row[row > 0] for row in interaction[DISLIKES].cpu().numpy()]
        recent = [row[max(0, length - longest) : length] for row, length in zip(histories, lengths)]
        texts = ([[table[item] for item in row] for row in rows] for rows in (recent, items, dislikes))
        return self.score_texts(users, histories, lengths, items, *texts).to(candidates.device)

    @torch.no_grad()
    def score_texts(self, users, histories, lengths, items, history, titles, unpreference) -> torch.Tensor:
        """Score candidates by their texts and by what the teacher knows of them.

        Parameters
        ----------
        users, lengths : int64 array [batch]
        histories : int64 array [batch, MAX_ITEM_LIST_LENGTH]
        items : int64 array [batch, candidates]
            0 for an item that the teacher doesn't know: it gets the mean vector and a neutral opinion.
        history, titles, unpreference : list [batch] of list of list of int
            Token ids of what stands in the prompt.

        Returns
        -------
        float [batch, candidates]
        """
        stage = self.stage
        prompt = self.prompt_of(stage)
        opinions = levels = None
        if self.uses_opinions and stage in ("guided", "mapped"):
            opinions = np.where(items > 0, self.teacher.opinions(users, histories, lengths, items), 0)
            levels = self.guidance_levels(opinions) if self.guidance_words else None
        questions = [
            Question(
                history=history[index],
                titles=titles[index],
                guidance=None if levels is None else [prompt.guidance[level] for level in levels[index]],
                unpreference=unpreference[index],
            )
            for index in range(len(users))
        ]
        if stage != "mapped":
            return self.reader.score(prompt, questions)
        device = self.guidance_thresholds.device
        table = self.teacher.item_vectors()
        table[0] = table[1:].mean(dim=0)
        item_vectors = table[torch.from_numpy(items)].to(device)
        user_vectors = self.teacher.user_vectors(users, histories, lengths).to(device)
        if opinions is not None:
            opinions = torch.from_numpy(opinions).to(device)

        def soft(batch):
            return self.soft_vectors(batch, user_vectors, item_vectors, opinions)

        return self.reader.score(prompt, questions, soft, self.soft_guidance)

    def predict(self, interaction):
        """RecBole's interface: one score for each (user, history, item) row, float [rows]."""
        return self.score_candidates(interaction, interaction[self.ITEM_ID][:, None])[:, 0]

    def save_adapter(self, folder) -> None:
        """Write what was trained: a PEFT folder (or the whole small LLM) and the mapping MLP.

        ``adapter_config.json`` and safetensors that vanilla PEFT opens, or, with ``llm_tuning: full``,
        a ``save_pretrained`` folder; ``mapping.safetensors`` and ``mapping.json`` beside it.
        """
        self.llm.save_pretrained(folder)
        self.tokenizer.save_pretrained(folder)
        if self.mapping is not None:
            weights = {name: value.contiguous() for name, value in self.mapping.state_dict().items()}
            save_file(weights, folder / "mapping.safetensors")
            shape = {
                "vector_size": self.teacher.vector_size,
                "hidden_size": self.mapping.hidden_size,
                "expansion": self.config["mapping_expansion"],
                "guidance_thresholds": self.guidance_thresholds.tolist(),
            }
            (folder / "mapping.json").write_text(json.dumps(shape, indent=1))

    # -- weights ------------------------------------------------------------------------------

    def state_dict(self, *args, **kwargs):
        """Everything but what comes from the backbone unchanged (a frozen LLM's own weights)."""
        state = super().state_dict(*args, **kwargs)
        if self.config["llm_tuning"] == "lora":
            state = type(state)(
                (key, value) for key, value in state.items() if not key.startswith("llm.") or "lora_" in key
            )
        return state

    def load_state_dict(self, state_dict, strict=True, assign=False):
        """Load what :meth:`state_dict` gave; strict about everything but the backbone's weights."""
        result = super().load_state_dict(state_dict, strict=False, assign=assign)
        expected = set(self.state_dict())
        missing = [key for key in result.missing_keys if key in expected]
        if strict and (missing or result.unexpected_keys):
            raise RuntimeError(f"checkpoint lacks {missing[:3]} and has unknown {result.unexpected_keys[:3]}")
        return result
