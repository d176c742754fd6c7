"""How finished runs bear other wordings and spellings; see ``python run_robustness.py --help``."""

import sys

from recbole_ganprompt.study.robustness import main

if __name__ == "__main__":
    sys.exit(main())
