"""Stage 2: the diversity encoder, a generator and a discriminator trained in turns.

The k + 1 classes are the plain history and the history under each attribute (Figure 4). The
discriminator tells the classes apart; the generator, T5's encoder, learns embeddings from which the
frozen decoder still restores the item's text and in which the classes of one user are diverse.
"""

import copy
import json
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from torch.nn.functional import cross_entropy
from tqdm import tqdm
from transformers import AutoModelForSeq2SeqLM, AutoTokenizer

from recbole_ganprompt.checkpoints import Checkpoints, NotFinite, rolling_back
from recbole_ganprompt.data.sequences import Sequences
from recbole_ganprompt.diversity.constraint import diversity_constraint
from recbole_ganprompt.diversity.generator import Discriminator, DiversitySettings, Generator, Prompts
from recbole_ganprompt.errors import UserError
from recbole_ganprompt.seeding import random_states, restore_random, seeded


class DiversityEncoder:
    """A generator with the decoder that it was trained against.

    Attributes
    ----------
    seq2seq, tokenizer
        The transformers encoder-decoder, its encoder trained, and its tokenizer.
    discriminator : Discriminator
    attributes : list of str [k]
    template : str
        Figure 4's text.
    settings : DiversitySettings
    history : list of dict
        One an epoch: ``epoch``, ``accuracy`` (of the discriminator on held-out users), ``d_total``,
        ``cosine`` (mean over classes of held-out users) and the mean training losses
        ``reconstruction`` (L_CE), ``adversarial`` and ``discriminator``, in nats. Epoch 0 is the
        state before training.
    """

    def __init__(self, seq2seq, tokenizer, discriminator, attributes, template, settings, history):
        self.seq2seq, self.tokenizer, self.discriminator = seq2seq, tokenizer, discriminator
        self.attributes, self.template, self.settings = list(attributes), template, settings
        self.history = history

    @torch.no_grad()
    def embed(
        self, titles: list[str], histories, *, classes: int | None = None, device: str = "cpu"
    ) -> np.ndarray:
        """Embeddings of histories under the first ``classes`` classes (all k + 1 by default).

        Parameters
        ----------
        titles : list of str [items]
        histories : list of int sequences
            Item ids, oldest first.

        Returns
        -------
        float32 array [histories, classes, hidden]
        """
        attributes = self.attributes[: classes - 1] if classes else self.attributes
        prompts = Prompts(self.tokenizer, titles, attributes, self.template, self.settings)
        generator = Generator(self.seq2seq.to(device).eval())
        embedding = _embed(generator, prompts, histories, device).cpu().numpy()
        self.seq2seq.to("cpu")
        return embedding

    def save(self, folder) -> None:
        """Write a transformers folder, ``discriminator.safetensors`` and ``diversity.json``."""
        folder = Path(folder)
        self.seq2seq.save_pretrained(folder)
        self.tokenizer.save_pretrained(folder)
        weights = {name: t.contiguous().cpu() for name, t in self.discriminator.state_dict().items()}
        save_file(weights, folder / "discriminator.safetensors")
        state = {
            "attributes": self.attributes,
            "template": self.template,
            "settings": asdict(self.settings),
            "history": self.history,
        }
        text = json.dumps(state, indent=2, ensure_ascii=False)
        (folder / "diversity.json").write_text(text + "\n", encoding="utf-8")

    @classmethod
    def load(cls, folder) -> "DiversityEncoder":
        """Read what :meth:`save` wrote."""
        folder = Path(folder)
        state = json.loads((folder / "diversity.json").read_text(encoding="utf-8"))
        settings = DiversitySettings(**state["settings"])
        seq2seq = AutoModelForSeq2SeqLM.from_pretrained(folder, use_safetensors=True)
        discriminator = Discriminator(
            seq2seq.config.d_model, settings.discriminator_hidden, len(state["attributes"]) + 1
        )
        discriminator.load_state_dict(load_file(folder / "discriminator.safetensors"))
        return cls(
            seq2seq.eval(),
            AutoTokenizer.from_pretrained(folder),
            discriminator.eval(),
            state["attributes"],
            state["template"],
            settings,
            state["history"],
        )


def _embed(generator, prompts: Prompts, histories, device) -> torch.Tensor:
    classes = len(prompts.documents)
    size = max(1, 192 // classes)
    parts = []
    for start in range(0, len(histories), size):
        some = histories[start : start + size]
        rows = [history for history in some for _ in range(classes)]
        ids, mask = prompts.batch(rows, list(range(classes)) * len(some), device)
        parts.append(generator(ids, mask)[1].view(len(some), classes, -1).float())
    return torch.cat(parts)


def split_users(sequences: Sequences, held_out: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Users with a training history, shuffled: (for training, held out), int64 arrays."""
    users = np.flatnonzero(np.diff(sequences.offsets) > 0)
    users = np.random.default_rng(seed).permutation(users)
    count = min(held_out, len(users) // 5)
    return users[count:], users[:count]


def train_diversity_encoder(
    seq2seq,
    tokenizer,
    *,
    titles: list[str],
    sequences: Sequences,
    attributes: list[str],
    template: str,
    settings: DiversitySettings,
    seed: int,
    device: str = "cpu",
    progress: bool = True,
    on_epoch: Callable[[dict], None] | None = None,
    checkpoints: Checkpoints | None = None,
) -> DiversityEncoder:
    """Train generator and discriminator in turns (the paper's stage of diversity encoding).

    Each batch, the discriminator first takes a step on detached embeddings, then the generator
    minimises ``L_CE + λ L_adv + γ D_total``. ``L_CE`` is the cross-entropy of an item's text, one
    item drawn from each user's history, restored by the frozen decoder from the item's own prompt
    under a random class. ``L_adv`` and ``D_total`` are taken over the users' prompts.

    Parameters
    ----------
    seq2seq, tokenizer
        A T5 and its tokenizer. The model is left alone: a copy is trained.
    titles : list of str [items]
    sequences : Sequences
        Training sequences.
    attributes : list of str [k]
        At least one.
    template : str
        Figure 4's text with its slots.
    settings : DiversitySettings
    seed : int
    on_epoch : callable, optional
        Is given each entry of ``history``.
    checkpoints : Checkpoints, optional
        Where a killed training left its state, and this one leaves its own.

    Raises
    ------
    UserError
        If there is no attribute, if fewer than five users have a training history, or if the losses
        aren't finite, also with an eighth of the learning rates.
    """
    if not attributes:
        raise UserError("The diversity encoder needs at least one attribute: set k above 0.")
    training, held_out = split_users(sequences, settings.held_out, seed)
    if len(held_out) == 0:
        raise UserError("The diversity encoder needs five users with a training history.")
    original, checkpoints = seq2seq, checkpoints or Checkpoints()

    def train(state: dict | None, halvings: int) -> DiversityEncoder:
        random = np.random.default_rng(seed)
        with seeded(seed):
            seq2seq = copy.deepcopy(original).to(device).eval()
            generator = Generator(seq2seq)
            discriminator = Discriminator(
                seq2seq.config.d_model, settings.discriminator_hidden, len(attributes) + 1
            ).to(device)
            prompts = Prompts(tokenizer, titles, attributes, template, settings)
            trainer = _Trainer(seq2seq, generator, discriminator, prompts, settings, random, device)
            watched = [sequences.of(user) for user in held_out]
            size = max(1, settings.batch_size // (len(attributes) + 1))
            epoch, calm, users, losses = 1, 0, None, []
            if state is None:
                history = [{"epoch": 0, **trainer.validate(watched)}]
            else:
                epoch, calm, users, losses = (state[name] for name in ("epoch", "calm", "users", "losses"))
                history = state["history"]
                trainer.restore(state["players"])
                random.bit_generator.state = state["generator"]
                restore_random(state["random"])
            trainer.slow_down(0.5**halvings)

            def now() -> dict:
                return {
                    **{"epoch": epoch, "calm": calm, "users": users, "losses": losses, "history": history},
                    **{"players": trainer.state(), "generator": random.bit_generator.state},
                    **{"random": random_states(), "halvings": halvings},
                }

            while epoch <= settings.max_epochs and calm < settings.patience:
                if users is None:
                    users = random.permutation(training)[: settings.users_per_epoch]
                batches = [users[start : start + size] for start in range(0, len(users), size)]
                bar = tqdm(
                    total=len(batches),
                    initial=len(losses),
                    desc=f"diversity encoder, epoch {epoch}",
                    disable=not progress,
                    leave=False,
                )
                with bar:
                    for batch in batches[len(losses) :]:
                        loss = trainer.step([sequences.of(user) for user in batch])
                        if not np.isfinite(list(loss.values())).all():
                            place = f"epoch {epoch}, batch {len(losses)} (users {batch.tolist()})"
                            raise NotFinite(f"diversity encoder, {place}: a loss is not finite")
                        losses.append(loss)
                        bar.update()
                        checkpoints.reached(now)
                means = {name: float(np.mean([loss[name] for loss in losses])) for name in losses[0]}
                history.append({"epoch": epoch, **trainer.validate(watched), **means})
                if on_epoch is not None:
                    on_epoch(history[-1])
                moved = max(abs(history[-1][n] - history[-2][n]) for n in ("accuracy", "d_total"))
                calm = calm + 1 if moved < settings.tolerance else 0
                epoch, users, losses = epoch + 1, None, []
        seq2seq.to("cpu")
        return DiversityEncoder(
            seq2seq, tokenizer, discriminator.to("cpu").eval(), attributes, template, settings, history
        )

    return rolling_back(train, checkpoints)


class _Trainer:
    def __init__(self, seq2seq, generator, discriminator, prompts, settings, random, device):
        self.seq2seq, self.generator, self.discriminator = seq2seq, generator, discriminator
        self.prompts, self.settings, self.random, self.device = prompts, settings, random, device
        self.classes = len(prompts.documents)
        self.learning = [p for p in generator.parameters() if p.requires_grad]
        self.generator_adam = torch.optim.Adam(self.learning, lr=settings.learning_rate)
        self.discriminator_adam = torch.optim.Adam(
            discriminator.parameters(), lr=settings.discriminator_learning_rate
        )

    def _parts(self) -> dict:
        return {
            "generator_adam": self.generator_adam,
            "discriminator_adam": self.discriminator_adam,
            "discriminator": self.discriminator,
        }

    def state(self) -> dict:
        """Both players, for :meth:`restore`."""
        states = {name: part.state_dict() for name, part in self._parts().items()}
        return {**states, "generator": [parameter.detach() for parameter in self.learning]}

    def restore(self, state: dict) -> None:
        """Take what :meth:`state` gave."""
        for name, part in self._parts().items():
            part.load_state_dict(state[name])
        with torch.no_grad():
            for parameter, value in zip(self.learning, state["generator"]):
                parameter.copy_(value)

    def slow_down(self, factor: float) -> None:
        """Set both learning rates to so much of what the settings say."""
        settings = self.settings
        rates = settings.learning_rate, settings.discriminator_learning_rate
        for optimizer, rate in zip((self.generator_adam, self.discriminator_adam), rates):
            for group in optimizer.param_groups:
                group["lr"] = rate * factor

    def step(self, histories) -> dict[str, float]:
        """One step of each player on a batch of users' histories."""
        settings, device, classes = self.settings, self.device, self.classes
        rows = [history for history in histories for _ in range(classes)]
        ids, mask = self.prompts.batch(rows, list(range(classes)) * len(histories), device)
        truth = torch.arange(classes, device=device).repeat(len(histories))
        _, embedding = self.generator(ids, mask)

        self.discriminator_adam.zero_grad(set_to_none=True)
        fooled = cross_entropy(self.discriminator(embedding.detach()), truth)
        fooled.backward()
        self.discriminator_adam.step()

        loss = restoring = self._reconstruction(histories)
        adversarial = embedding.new_zeros(())
        if settings.adversarial != "none":
            adversarial = cross_entropy(self.discriminator(embedding), truth)
            if settings.adversarial == "zero_sum":
                adversarial = -adversarial
            loss = loss + settings.lam * adversarial
        if settings.diversity != "none":
            loss = loss + settings.gamma * self._constraint(embedding.view(-1, classes, embedding.shape[-1]))
        self.generator_adam.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.learning, 1.0)
        self.generator_adam.step()
        return {
            "reconstruction": restoring.item(),
            "adversarial": adversarial.item(),
            "discriminator": fooled.item(),
        }

    def _reconstruction(self, histories) -> torch.Tensor:
        items = [history[self.random.integers(len(history))] for history in histories]
        classes = self.random.integers(self.classes, size=len(items))
        ids, mask = self.prompts.batch([[item] for item in items], classes, self.device)
        hidden, embedding = self.generator(ids, mask)
        if self.settings.memory == "pooled":
            hidden, mask = embedding.unsqueeze(1), mask[:, :1]
        labels = self.prompts.labels(items, self.device)
        return self.seq2seq(encoder_outputs=(hidden,), attention_mask=mask, labels=labels).loss

    def _constraint(self, embedding: torch.Tensor, variant: str | None = None) -> torch.Tensor:
        return diversity_constraint(
            embedding,
            alpha=self.settings.alpha,
            beta=self.settings.beta,
            temperature=self.settings.temperature,
            variant=variant or self.settings.diversity,
        )

    @torch.no_grad()
    def validate(self, histories) -> dict[str, float]:
        """The discriminator's accuracy, D_total (all terms) and the mean cosine on held-out users."""
        embedding = _embed(self.generator, self.prompts, histories, self.device)
        truth = torch.arange(self.classes, device=self.device)
        accuracy = (self.discriminator(embedding).argmax(-1) == truth).float().mean()
        cosine = diversity_constraint(embedding, alpha=1.0, beta=0.0, variant="no_js")
        return {
            "accuracy": accuracy.item(),
            "d_total": self._constraint(embedding, "full").item(),
            "cosine": cosine.item(),
        }
