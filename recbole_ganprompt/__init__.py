"""GANPrompt and language-model baselines as a plugin for RecBole 1.2.1.

Importing this package is enough: RecBole's own functions then know its models. Nothing changes
for models that are RecBole's own, and importing twice, or after RecBole, is the same as once.
"""

from recbole_ganprompt import compat

compat.apply()

from recbole_ganprompt import plugin, trust  # noqa: E402 -- RecBole can only be imported after compat

plugin.register()
trust.guard_recbole()

__version__ = "0.1.0"


trust_checkpoint = trust.trust_checkpoint


def load(run_folder, gpu_id=None, trust_remote_code=False, use_safetensors=True):
    """Load a finished run of a language model: :func:`recbole_ganprompt.recommender.load`."""
    from recbole_ganprompt.recommender import load  # transformers takes seconds to import

    return load(run_folder, gpu_id, trust_remote_code, use_safetensors)
