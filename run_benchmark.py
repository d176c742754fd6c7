"""A table across models, datasets and seeds; see ``python run_benchmark.py --help``."""

import sys

from recbole_ganprompt.study.benchmark import main

if __name__ == "__main__":
    sys.exit(main())
