"""The key of a training step holds every setting that it reads, or a finished one would be taken wrongly."""

import pytest
from children import TINY, dataset

from recbole_ganprompt.config import ProtocolConfig, build_config
from recbole_ganprompt.experiment import run
from recbole_ganprompt.trainer import stage_key, steps

# Read in a step, and in the key by other names: the data, the teacher's weights, the device.
ELSEWHERE = {"USER_ID_FIELD", "ITEM_ID_FIELD", "LIST_SUFFIX", "ITEM_LIST_LENGTH_FIELD", "device"}
ELSEWHERE |= {"eval_args"}
# Changes no result.
ELSEWHERE |= {"show_progress", "metric_decimal_place", "eval_batch_size"}


@pytest.mark.parametrize("model", ["GANPrompt", "TALLRec"])
def test_the_key_has_every_setting_that_a_step_reads(model, tmp_path, monkeypatch):
    read, steps_run = set(), []
    original, train = ProtocolConfig.__getitem__, steps._StepTraining.run

    def watched_run(self, *arguments):
        def watched(config, key):
            if config is self.config:
                read.add(key)
            return original(config, key)

        with monkeypatch.context() as patch:
            patch.setattr(ProtocolConfig, "__getitem__", watched)
            result = train(self, *arguments)
        later = ("mapping", "step_two") if self.step.name == "step one" else ()
        unknown = read - set(stage_key._settings(self.config, later)) - ELSEWHERE
        assert not unknown, f"{self.step.name} reads {unknown}"
        steps_run.append(self.step.name)
        read.clear()
        return result

    monkeypatch.setattr(steps._StepTraining, "run", watched_run)
    arguments = [*dataset(tmp_path), *(one for one in TINY if "teacher" not in one or model == "GANPrompt")]
    run(build_config(model, arguments=arguments))
    assert steps_run == (["step one", "step two"] if model == "GANPrompt" else ["step one"])
