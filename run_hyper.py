"""Search for a model's settings on validation; see ``python run_hyper.py --help``."""

import sys

from recbole_ganprompt.study.tune import main

if __name__ == "__main__":
    sys.exit(main())
