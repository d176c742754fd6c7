"""How our figures look: told apart without colour, text that stays text, the same bytes each time."""

import os
import tempfile
from pathlib import Path

import matplotlib.style
from matplotlib.figure import Figure

# Okabe and Ito's palette, which the colour-blind can tell apart; each colour has a shape beside it.
COLOURS = ("#0072B2", "#E69F00", "#009E73", "#D55E00", "#CC79A7", "#56B4E9", "#999999")
MARKERS = ("o", "s", "^", "X", "D", "v", "P", "*", "<", ">", "d", "h")
HATCHES = ("", "///", "...", "xxx", "\\\\\\", "+++", "ooo", "---", "***", "|||")

_STYLE = {
    "font.size": 9,
    "font.sans-serif": ["DejaVu Sans", "Arial", "Helvetica"],
    "axes.titlesize": 10,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.formatter.useoffset": False,
    "hatch.linewidth": 0.6,
    "legend.frameon": False,
    "text.parse_math": False,  # a label of the user's may hold dollars
    "svg.fonttype": "none",
    "svg.hashsalt": "recbole-ganprompt",
}


class Drawing(Figure):
    """A figure that says in words, too, what it shows: for who can't see it, and for where it came from."""

    words: dict[str, str] = {}

    def describe(self, title: str, description: str, runs=(), **style) -> None:
        """Head the figure with a title, and keep what goes into its files.

        Parameters
        ----------
        title, description : str
        runs : list of path
            The folders of the runs that were drawn; their names go into the files.
        style
            Of the title, as for ``Figure.suptitle``.
        """
        self.suptitle(title, **style)
        self.words = {"Title": title, "Description": description}
        if runs:
            self.words["Source"] = ", ".join(dict.fromkeys(Path(run).name for run in runs))


def styled():
    """Our style as a context or a decorator: an importing program's own settings come back after it."""
    return matplotlib.style.context(["default", _STYLE])


@styled()
def save(figure: Drawing, folder, name: str) -> list[Path]:
    """Write a figure as ``<name>.png`` (200 dots an inch) and ``<name>.svg``, each whole or not at all.

    Parameters
    ----------
    figure : Drawing
    folder : path
        Made where it does not exist.
    name : str

    Returns
    -------
    list of Path
        The PNG, then the SVG; the same figure gives the same bytes.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    paths = []
    for kind, metadata in (("png", figure.words), ("svg", {"Date": None, **figure.words})):
        handle, unfinished = tempfile.mkstemp(dir=folder, suffix=".tmp")
        os.close(handle)
        try:
            figure.savefig(unfinished, format=kind, dpi=200, metadata=metadata)
            os.chmod(unfinished, 0o644)
            os.replace(unfinished, folder / f"{name}.{kind}")
        finally:
            Path(unfinished).unlink(missing_ok=True)
        paths.append(folder / f"{name}.{kind}")
    return paths
