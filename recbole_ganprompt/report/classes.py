"""Figure 6 of the paper: the classes of the diversity encoder before and after its training."""

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from safetensors.numpy import load_file
from sklearn.manifold import TSNE
from sklearn.metrics import silhouette_score

from recbole_ganprompt.diversity.measure import CLASSES_FILE
from recbole_ganprompt.errors import UserError
from recbole_ganprompt.report.style import COLOURS, MARKERS, Drawing, styled


@dataclass(frozen=True)
class ClassMap:
    """Embeddings of one moment and where t-SNE puts them.

    Attributes
    ----------
    points : float array [users, classes, 2]
    silhouette : float
        Of the embeddings themselves, in [-1, 1]: how far the classes lie apart.
    map_silhouette : float
        Of ``points``. t-SNE pulls groups apart by its nature: what counts is ``silhouette``.
    """

    points: np.ndarray
    silhouette: float
    map_silhouette: float


def class_map(embeddings: np.ndarray, seed: int = 0) -> ClassMap:
    """Map embeddings [users, classes, hidden] to the plane, and measure both."""
    users, classes, hidden = embeddings.shape
    flat = embeddings.reshape(-1, hidden).astype(np.float32)
    truth = np.tile(np.arange(classes), users)
    perplexity = min(30, (len(flat) - 1) / 3)  # t-SNE's own default where there are points enough
    points = TSNE(perplexity=perplexity, init="pca", random_state=seed).fit_transform(flat)
    scores = (float(silhouette_score(values, truth)) for values in (flat, points))
    return ClassMap(points.reshape(users, classes, 2), *scores)


def class_maps(run) -> dict[str, ClassMap]:
    """The maps ``before`` and ``after`` the diversity encoder, from a run's ``classes.safetensors``.

    Parameters
    ----------
    run : path
        A finished run's folder.

    Raises
    ------
    UserError
        If the run has no such file.
    """
    path = Path(run) / CLASSES_FILE
    if not path.is_file():
        record = json.loads((Path(run) / "result.json").read_text(encoding="utf-8"))
        if "diversity" in record:
            raise UserError(f"{run} is of a version that kept no {CLASSES_FILE}: run it again for the t-SNE.")
        raise UserError(f"{run} has no diversity encoder, and so no classes for a t-SNE.")
    embeddings = load_file(path)
    return {when: class_map(embeddings[when]) for when in ("before", "after")}


@styled()
def classes_figure(run, maps: dict[str, ClassMap] | None = None) -> Drawing:
    """Draw the classes of held-out users before and after the diversity encoder was trained.

    Parameters
    ----------
    run : path
        A finished run's folder.
    maps : dict of ClassMap, optional
        What :func:`class_maps` gave for the run; computed if None.

    Raises
    ------
    UserError
        If the run kept no embeddings.
    """
    maps = maps or class_maps(run)
    record = json.loads((Path(run) / "result.json").read_text(encoding="utf-8"))
    names = ["plain history", *record["attributes"]]
    figure = Drawing(figsize=(9, 4.9), layout="constrained")
    for axes, (when, one) in zip(figure.subplots(1, 2), maps.items()):
        for index, name in enumerate(names):
            axes.scatter(
                *one.points[:, index].T,
                s=26,
                marker=MARKERS[index % len(MARKERS)],
                facecolor="none",  # what lies on the same spot shows through
                edgecolor=COLOURS[index % len(COLOURS)],
                linewidth=1.0,
                label=name,
            )
        axes.set_title(
            f"{when.capitalize()} the diversity encoder\n"
            f"silhouette {one.silhouette:.3f} (of this map {one.map_silhouette:.3f})"
        )
        axes.set(xticks=[], yticks=[], xlabel="t-SNE, first axis", ylabel="t-SNE, second axis")
    handles, labels = axes.get_legend_handles_labels()
    columns = min(len(names), 6)
    figure.legend(handles, labels, loc="outside lower center", ncols=columns, markerscale=1.6)
    title = f"{record['model']} on {record['dataset']}: classes of {len(one.points)} held-out users"
    levels = " and ".join(f"{one.silhouette:.3f} {when}" for when, one in maps.items())
    shown = (
        f"t-SNE of the classes {', '.join(names)}. Their silhouette is {levels} the training of the encoder."
    )
    figure.describe(title, shown, [run])
    return figure
