"""GANPrompt without its parts; see ``python run_ablation.py --help``."""

import sys

from recbole_ganprompt.study.ablation import main

if __name__ == "__main__":
    sys.exit(main())
