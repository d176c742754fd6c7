"""A dataset small enough to run every stage on, made by the tests themselves."""

from pathlib import Path

import numpy as np

COLOURS = ("Red", "Blue", "Green", "Black", "White")
THINGS = ("lipstick", "shampoo", "soap", "perfume", "brush", "mirror", "cream", "powder")


def write_toy(folder: Path, name: str = "toy", users: int = 60, seed: int = 0) -> Path:
    """Write a small dataset whose users buy either colours or things in runs; returns the folder."""
    titles = [f"{colour} {thing}" for colour in COLOURS for thing in THINGS]
    generator = np.random.default_rng(seed)
    lines = ["user_id:token\titem_id:token\ttimestamp:float"]
    for user in range(users):
        # A user likes one colour: the next item is predictable from the titles.
        favourite = user % len(COLOURS)
        own = [i for i in range(len(titles)) if i // len(THINGS) == favourite]
        other = [i for i in range(len(titles)) if i // len(THINGS) != favourite]
        items = [*generator.permutation(own)[:6], *generator.permutation(other)[:2]]
        for time, item in enumerate(generator.permutation(items)):
            lines.append(f"u{user}\ti{item}\t{time}")
    target = folder / name
    target.mkdir(parents=True)
    (target / f"{name}.inter").write_text("\n".join(lines) + "\n", encoding="utf-8")
    items = [f"i{index}\t{title}" for index, title in enumerate(titles)]
    text = "\n".join(["item_id:token\ttitle:token_seq", *items]) + "\n"
    (target / f"{name}.item").write_text(text, encoding="utf-8")
    return folder


def toy_arguments(folder: Path) -> list[str]:
    """Arguments that run our commands on the toy dataset of ``folder / "data"``."""
    return [
        "--dataset=toy",
        f"--data_path={folder / 'data'}",
        f"--checkpoint_dir={folder / 'saved'}",
        "--user_inter_num_interval=[3,inf)",
        "--item_inter_num_interval=[2,inf)",
        "--show_progress=false",
        "--gpu_id=",
    ]
