"""Amazon's raw dumps, and any CSV or Parquet, to RecBole's atomic files: the command.

``python -m recbole_ganprompt.data.amazon --reviews FILE --meta FILE --out dataset/NAME`` writes
``NAME.inter`` (user_id, item_id, rating, timestamp) and ``NAME.item`` (item_id, title, categories, brand);
``--stats dataset/NAME`` prints their Table 1 after the paper's filters.
"""

import argparse
import sys
import warnings
from pathlib import Path

from tabulate import tabulate

from recbole_ganprompt.config import build_config
from recbole_ganprompt.data.atomic_writer import INTER_COLUMNS, ITEM_COLUMNS, Source, write_atomic_files
from recbole_ganprompt.data.dataset import TextSequentialDataset
from recbole_ganprompt.errors import UserError, exit_status

EXAMPLES = """\
Amazon's releases of 2014, 2018 and 2023 are told apart by their content; files may be gzip or plain:
  --reviews=reviews_Beauty_5.json.gz --meta=meta_Beauty.json.gz --out=dataset/Amazon_Beauty
CSV and Parquet by the names of their columns (numbers from 1 where a CSV file has no header):
  --reviews=ratings.csv --columns=user_id=userId,item_id=movieId,rating=rating,timestamp=timestamp
  --meta=movies.csv --meta-columns=item_id=movieId,title=title,categories=genres --out=dataset/movies
Table 1 of datasets, after the filters of properties/ or of keys given:
  --stats dataset/Amazon_Beauty dataset/movies --user_inter_num_interval=[7,inf)"""

# The paper's Table 1: users, items, interactions, sparsity in percent. Its fifth dataset, Lenovo, is
# not public.
PAPER = {
    "Amazon_Books": (7763, 6926, 238062, 99.56),
    "Amazon_Beauty": (2267, 1557, 19119, 99.46),
    "Amazon_Toys_and_Games": (1774, 1390, 13106, 99.47),
    "Amazon_Sports_and_Outdoors": (6667, 4021, 51550, 99.81),
}


class _Parser(argparse.ArgumentParser):
    def error(self, message):
        raise UserError(f"{message}; --help shows examples.")


def main(arguments=None) -> int:
    """Run the command line.

    Parameters
    ----------
    arguments : list of str, optional
        ``sys.argv[1:]`` if None.

    Returns
    -------
    int
        Exit status: 0, or 2 for a mistake that the user can mend.
    """
    return exit_status(_command, arguments)


def _command(arguments) -> None:
    options, others = _parser().parse_known_args(arguments)
    if options.stats and any((options.reviews, options.meta, options.out)):
        raise UserError(
            "--stats reads datasets that are there: convert with --reviews, --meta and --out first, "
            "then run --stats alone."
        )
    # What RecBole's code says about itself, and Python about old escapes such as '\/' in 2014's titles.
    with warnings.catch_warnings():
        for category in (FutureWarning, DeprecationWarning, SyntaxWarning):
            warnings.simplefilter("ignore", category)
        print(statistics(options.stats, others) if options.stats else _convert(options, others))


def statistics(folders: list[Path], arguments=()) -> str:
    """Table 1 of datasets: users, items, interactions and sparsity after the paper's filters.

    Parameters
    ----------
    folders : list of Path
        Each holds ``<name>.inter`` and ``<name>.item`` under its own name.
    arguments : sequence of str
        ``--key=value`` as for a run, such as another k-core.

    Returns
    -------
    str
        One line for each dataset, and the paper's below it where it has one of that name.

    Raises
    ------
    UserError
    """
    rows = []
    for folder in folders:
        folder = folder.resolve()
        if not (folder / f"{folder.name}.inter").is_file():
            raise UserError(
                f"{folder} has no {folder.name}.inter: name a dataset's folder, or make one with --reviews, "
                "--meta and --out."
            )
        place = {"data_path": str(folder.parent), "gpu_id": ""}
        config = build_config("SASRec", folder.name, config_dict=place, arguments=arguments)
        rows.append([folder.name, *TextSequentialDataset(config).statistics().values()])
        if folder.name in PAPER:
            rows.append(["  in the paper", *PAPER[folder.name]])
    rows = [[*row[:-1], f"{row[-1]:.2f}%"] for row in rows]
    return tabulate(rows, headers=["Dataset", "Users", "Items", "Interactions", "Sparsity"])


def _convert(options, others: list[str]) -> str:
    if others:
        raise UserError(f"{others[0]} is not an option; --help shows those there are.")
    missing = [name for name in ("reviews", "meta", "out") if getattr(options, name) is None]
    if missing:
        raise UserError(f"--{' and --'.join(missing)} must be given; --help shows examples.")
    separator = {"tab": "\t", "\\t": "\t"}.get(options.separator, options.separator)
    if len(separator) != 1 or separator in '"\r\n':
        raise UserError("--separator must be one character, or tab.")
    reviews = Source(options.reviews, _columns(options, "columns", INTER_COLUMNS, "rating"), separator)
    meta = Source(
        options.meta, _columns(options, "meta_columns", ITEM_COLUMNS, "categories", "brand"), separator
    )
    out = options.out.resolve()
    write_atomic_files(reviews, meta, out, overwrite=options.overwrite)
    return "\n".join([*_summary("Reviews", reviews), *_summary("Items", meta), f"Written: {out}"])


def _columns(options, option: str, known: tuple[str, ...], *optional: str) -> dict[str, str] | None:
    """Read ``user_id=userId,item_id=movieId,...``."""
    text = getattr(options, option)
    if text is None:
        return None
    pairs = [pair.partition("=")[::2] for pair in text.split(",")]
    columns = {name.strip(): column.strip() for name, column in pairs}
    if not all(columns.values()) or set(columns) - set(known) or set(known) - set(columns) - set(optional):
        raise UserError(
            f"--{option.replace('_', '-')} must name the file's columns as "
            f"{','.join(f'{name}=...' for name in known)} ({' and '.join(optional)} may be left out)."
        )
    return columns


def _summary(title: str, source: Source) -> list[str]:
    tally = source.tally
    counts = [("lines read", tally.read), ("kept", tally.kept)]
    counts += [(f"dropped: {reason}", count) for reason, count in tally.dropped.most_common()]
    if tally.joined:
        counts.append(("further lines of rows with line breaks in quotes", tally.joined))
    counts += tally.notes.most_common()
    return [f"{title}: {source.path} ({source.kind})", *(f"{count:>15,}  {label}" for label, count in counts)]


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(
        prog="python -m recbole_ganprompt.data.amazon",
        description="Turn raw dumps of reviews into a dataset, or print the statistics of datasets.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("--reviews", type=Path, metavar="FILE", help="reviews, one a line")
    parser.add_argument("--meta", type=Path, metavar="FILE", help="the items' titles, categories and brands")
    parser.add_argument(
        "--out", type=Path, metavar="FOLDER", help="the dataset's folder, named as the dataset"
    )
    parser.add_argument(
        "--overwrite", action="store_true", help="replace the dataset's files if there are any"
    )
    parser.add_argument("--columns", metavar="NAME=COLUMN,...", help="columns of a CSV or Parquet --reviews")
    parser.add_argument(
        "--meta-columns", metavar="NAME=COLUMN,...", help="columns of a CSV or Parquet --meta"
    )
    parser.add_argument(
        "--separator", default=",", help="between the columns of CSV files: a character or tab"
    )
    parser.add_argument("--stats", type=Path, nargs="+", metavar="FOLDER", help="print Table 1 of datasets")
    parser.add_argument("--debug", action="store_true", help="show the traceback of an error")
    return parser


if __name__ == "__main__":
    sys.exit(main())
