"""The key of a training step holds all that its result depends on, or it would be reused wrongly."""

import sys
from pathlib import Path

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
# Of the package's files that a step runs through: those that keep it, watch it or share it out.
KEEPERS = {"checkpoints.py", "interruption.py", "workers.py", "seeding.py", "writing.py", "data/cache.py"}
KEEPERS |= {"config.py", "data/dataset.py", "data/candidates.py", "trainer/stages.py"}


@pytest.mark.parametrize("model", ["GANPrompt", "TALLRec"])
def test_the_key_has_every_setting_and_source_that_a_step_reads(model, tmp_path, monkeypatch):
    read, steps_run, package = set(), [], Path(stage_key.__file__).parents[1]
    original, train = ProtocolConfig.__getitem__, steps._StepTraining.run

    def watched_run(self, *arguments):
        def watched(config, key):
            if config is self.config:
                read.add(key)
            return original(config, key)

        with monkeypatch.context() as patch:
            patch.setattr(ProtocolConfig, "__getitem__", watched)
            run_through = set()
            sys.setprofile(lambda frame, event, _: run_through.add(frame.f_code.co_filename))
            result = train(self, *arguments)
            sys.setprofile(None)
        later = ("mapping", "step_two") if self.step.name == "step one" else ()
        unknown = read - set(stage_key._settings(self.config, later)) - ELSEWHERE
        assert not unknown, f"{self.step.name} reads {unknown}"
        ours = {path for path in map(Path, run_through) if package in path.parents}
        ours -= {package / name for name in KEEPERS}
        missing = ours - set(stage_key.sources(self.trainer, self.model))
        assert len(ours) > 5 and not missing, f"{self.step.name} runs through {missing}"
        steps_run.append(self.step.name)
        read.clear()
        return result

    monkeypatch.setattr(steps._StepTraining, "run", watched_run)
    arguments = [*dataset(tmp_path), *(one for one in TINY if "teacher" not in one or model == "GANPrompt")]
    run(build_config(model, arguments=arguments))
    assert steps_run == (["step one", "step two"] if model == "GANPrompt" else ["step one"])
