"""A language model that judges candidates: in the layout that it can take, in the memory that there is."""

from dataclasses import dataclass, field
from logging import getLogger

import torch

from recbole_ganprompt import interruption, workers
from recbole_ganprompt.errors import UserError
from recbole_ganprompt.language.answer import answer_logits
from recbole_ganprompt.language.backbone import shard
from recbole_ganprompt.language.layout import Batch, collate, separate_prompts
from recbole_ganprompt.language.packing import Branch, Row, batches_by_tokens, pack_row
from recbole_ganprompt.language.reading import ReadingCache, read_answers, read_trunks, recomputes
from recbole_ganprompt.prompt.rendering import PromptTokens


@dataclass
class Question:
    """A user's history and the candidates to be judged behind it.

    Attributes
    ----------
    history, titles, unpreference : list of list of int
        Token ids of the history's items, oldest first, of each candidate and of what the user disliked.
    guidance : list of list of int, optional
        Token ids of each candidate's guidance words.
    """

    history: list[list[int]]
    titles: list[list[int]]
    guidance: list[list[int]] | None = None
    unpreference: list[list[int]] = field(default_factory=list)


class Reader:
    """Scores packed prompts with a language model.

    Parameters
    ----------
    llm : transformers causal language model
    answers : (yes, no)
        Token ids of the two answers.
    token_budget : int
        Tokens computed at once, padding included; halved whenever memory runs out.
    layout : str
        One of ``recbole_ganprompt.language.layout.LAYOUTS``; ``auto`` takes ``shared`` where a small probe
        shows that it gives this model the scores of separate prompts, and ``separate`` elsewhere.
    """

    BRANCH = 16
    """Candidates of a branch at most, where there are more than twice as many."""

    def __init__(self, llm, answers: tuple[int, int], token_budget: int, layout: str = "auto"):
        self.llm = llm
        self.answers = answers
        self.token_budget = token_budget
        self.sharded = False
        self._layout = None if layout == "auto" else layout

    @property
    def layout(self) -> str:
        """The layout in use; the first question about it may cost two small forward passes."""
        if self._layout is None:
            self._layout = "shared" if self._shares() else "separate"
        if self._layout == "shared" and self.llm.training and recomputes(self.llm):
            return "flat"
        return self._layout

    def shard(self, device: torch.device) -> None:
        """Spread the model's frozen weights over the workers.

        From then on the layout is ``flat``: a sharded layer must run to its end. And all workers must make
        the same number of passes, each of which gathers weights from the others.
        """
        self.sharded = True
        if self.layout == "shared":
            self._layout = "flat"
        shard(self.llm, device)

    @property
    def _vocabulary(self) -> tuple[int, torch.device]:
        weight = self.llm.get_input_embeddings().weight
        return len(weight), weight.device

    def logits(self, batch: Batch, soft_vectors=None, trunks: ReadingCache | None = None) -> torch.Tensor:
        """logit(Yes) - logit(No) at every answer of a batch: float [answers].

        Parameters
        ----------
        batch : Batch
        soft_vectors : float [soft tokens, hidden size], optional
            What stands in the soft tokens' places, in the order of ``batch.soft``.
        trunks : ReadingCache, optional
            The batch's trunks, where they have been read before.
        """
        hidden = read_answers(self.llm, batch, soft_vectors, trunks)
        return answer_logits(self.llm, hidden, self.answers).float()

    def tokens(self, row: Row) -> int:
        """Tokens to compute for a packed row in the layout in use."""
        return sum(map(len, separate_prompts(row))) if self.layout == "separate" else len(row)

    @torch.no_grad()
    def score(
        self, prompt: PromptTokens, questions: list[Question], soft_vectors=None, soft_guidance: bool = False
    ) -> torch.Tensor:
        """Score every question's candidates; a long list streams in parts over one reading of its history.

        Parameters
        ----------
        prompt : PromptTokens
        questions : list of Question
            All with the same number of candidates.
        soft_vectors : callable, optional
            Gives a :class:`Batch`'s soft vectors; its references are ``(question, candidate)``.
        soft_guidance : bool
            Whether a soft token follows the guidance words.

        Returns
        -------
        float32 [questions, candidates]

        Raises
        ------
        UserError
            If not even one prompt fits into memory.
        """
        device = self._vocabulary[1]
        scores = torch.zeros(len(questions), len(questions[0].titles), device=device)
        sizes = [self._size(prompt, question) for question in questions]
        order = sorted(range(len(questions)), key=lambda index: sum(sizes[index]))
        waiting = [order if self.sharded else workers.share(order)]
        while waiting:
            chosen = waiting.pop()
            lengths = [sum(sizes[index]) for index in chosen]
            batches = [
                [chosen[place] for place in part] for part in batches_by_tokens(lengths, self.token_budget)
            ]
            for number, batch in enumerate(batches):
                interruption.check()
                try:
                    self._score_batch(scores, prompt, questions, batch, sizes, soft_vectors, soft_guidance)
                except torch.OutOfMemoryError as error:
                    single = [sizes[index][0] + sizes[index][1] // scores.shape[1] for index in batch]
                    self.spend_less(error, min(single))
                    waiting.append([index for part in batches[number:] for index in part])
                    break
        if not self.sharded:
            workers.add_up([scores])
        return scores

    def _score_batch(self, scores, prompt, questions, chosen, sizes, soft_vectors, soft_guidance):
        count, trunks = scores.shape[1], None
        trunk, tails = (sum(sizes[index][part] for index in chosen) for part in (0, 1))
        # More than fits: some candidates at a time, over the trunks' keys and values.
        room = max(self.token_budget - trunk, self.token_budget // 2)
        parts = max(1, -(-tails // room))
        step = -(-count // min(parts, count))
        for first in range(0, count, step):
            columns = range(first, min(first + step, count))
            rows = [
                pack_row(
                    prompt,
                    questions[index].history,
                    self._branches(questions[index], index, columns),
                    soft_guidance,
                )
                for index in chosen
            ]
            batch = collate(rows, scores.device, self.layout)
            if parts > 1 and trunks is None and self.layout == "shared":
                trunks = read_trunks(self.llm, batch)
            at = torch.tensor(batch.references, device=scores.device)
            soft = None if soft_vectors is None else soft_vectors(batch)
            scores[at[:, 0], at[:, 1]] = self.logits(batch, soft, trunks)

    def _branches(self, question: Question, index: int, columns: range) -> list[Branch]:
        # One long branch would look at itself in vain: its candidates don't see each other.
        size = len(columns) if len(columns) <= 2 * self.BRANCH else self.BRANCH
        parts = [columns[start : start + size] for start in range(0, len(columns), size)]
        return [
            Branch(
                history=len(question.history),
                titles=[question.titles[column] for column in part],
                guidance=[question.guidance[column] if question.guidance else () for column in part],
                reference=[(index, column) for column in part],
                unpreference=question.unpreference,
            )
            for part in parts
        ]

    def spend_less(self, error: Exception, smallest: int) -> None:
        """Halve the token budget after memory ran out.

        Raises
        ------
        UserError
            If the budget was already below what can't be divided (``smallest`` tokens), or if other workers
            would go on with more.
        """
        if self.sharded:
            raise UserError("Memory runs out: lower token_budget, or take more workers.") from error
        if self.token_budget <= smallest // 2 or self.token_budget < 2:
            raise UserError(
                "Memory runs out with one row of prompts: lower row_tokens, prompt_history or title_tokens, "
                "set gradient_checkpointing=true, or take a smaller llm."
            ) from error
        self.token_budget //= 2
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
        getLogger().warning(f"Memory ran out: going on with a token_budget of {self.token_budget}.")

    @torch.no_grad()
    def _shares(self) -> bool:
        """Whether a small tree of prompts gives what its prompts give one by one."""
        vocabulary, device = self._vocabulary
        ids = torch.randint(0, vocabulary, (16,), generator=torch.Generator().manual_seed(0)).tolist()
        row = Row(trunk=6)
        row.append(ids[:6], 0)
        for visible, leaves in ((4, {0: 3, 1: 2}), (6, {2: 2})):
            row.starts.append(len(row))
            row.visible.append(visible)
            behind = row.append(ids[len(row) : len(row) + 1], visible)
            for leaf, size in leaves.items():
                row.append(ids[len(row) : len(row) + size], behind, leaf)
                row.answers.append(len(row) - 1)
                row.references.append((0, leaf))
        training = self.llm.training
        self.llm.eval()
        try:
            apart = read_answers(self.llm, collate([row], device, "separate"))
            together = read_answers(self.llm, collate([row], device, "shared"))
            difference = ((together - apart).norm() / apart.norm()).item()
            tolerance = 1e-3 if apart.dtype == torch.float32 else 0.1
            reason = f"its answers differ by {difference:.2g}" if not difference < tolerance else ""
        except torch.OutOfMemoryError:
            raise
        except Exception as error:  # whatever an architecture that can't share stumbles over
            reason = f"{type(error).__name__}: {str(error).strip().splitlines()[0] if str(error) else ''}"
        finally:
            self.llm.train(training)
        if reason:
            getLogger().warning(
                f"{type(self.llm).__name__} can't share a history between prompts ({reason}): each prompt is "
                "read on its own, which takes several times longer."
            )
        return not reason

    def _size(self, prompt: PromptTokens, question: Question) -> tuple[int, int]:
        """About how many tokens a question's shared part and its candidates' parts have."""
        history = sum(map(len, question.history)) + len(question.history) * len(prompt.separator)
        shared = len(prompt.head) + len(prompt.middle) + sum(map(len, question.unpreference)) + history
        tails = sum(map(len, question.titles)) + len(question.titles) * len(prompt.tail)
        tails += sum(map(len, question.guidance or ()))
        if self.layout == "separate":
            return 0, shared * len(question.titles) + tails
        if not prompt.history_in_trunk:
            return shared - history, history * len(question.titles) + tails
        return shared, tails
