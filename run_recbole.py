"""Train and evaluate one model on one dataset; see ``python run_recbole.py --help``."""

import sys

from recbole_ganprompt.cli import main

if __name__ == "__main__":
    sys.exit(main())
