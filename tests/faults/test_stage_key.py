"""The key of a cached stage holds all that its result depends on, or it would be reused wrongly."""

import sys
from pathlib import Path

import pytest
from children import TINY, dataset

from recbole_ganprompt.config import ProtocolConfig, build_config
from recbole_ganprompt.data.cache import cached_folder
from recbole_ganprompt.experiment import run
from recbole_ganprompt.language import builtin_llm, builtin_masked_lm, builtin_seq2seq
from recbole_ganprompt.trainer import diversity, stage_key, steps, teacher

# Read in a training step, and in the key by other names: the data, the teacher's weights, the device.
ELSEWHERE = {"USER_ID_FIELD", "ITEM_ID_FIELD", "LIST_SUFFIX", "ITEM_LIST_LENGTH_FIELD", "device"}
ELSEWHERE |= {"eval_args"}
# Changes no result.
ELSEWHERE |= {"show_progress", "eval_batch_size"}
# Of the package's files that a stage runs through: those that keep it, watch it or share it out.
KEEPERS = {"checkpoints.py", "interruption.py", "workers.py", "seeding.py", "writing.py", "data/cache.py"}
KEEPERS |= {"config.py", "data/dataset.py", "data/candidates.py", "trainer/stages.py"}
KEEPERS |= {"data/fingerprint.py", "keys.py", "trainer/stage_key.py"}
MAKERS = (builtin_llm, builtin_masked_lm, builtin_seq2seq, diversity, steps, teacher)


@pytest.mark.parametrize("model", ["GANPrompt", "TALLRec"])
def test_a_key_has_every_setting_and_source_that_its_stage_reads(model, tmp_path, monkeypatch):
    read, steps_run, made, unknown_to = set(), [], [], {}
    package = Path(stage_key.__file__).parents[1]
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

    def watched_folder(cache_dir, kind, key, build, **rest):
        def watched_build(*arguments):
            run_through = set()
            sys.setprofile(lambda frame, event, _: run_through.add(frame.f_code.co_filename))
            build(*arguments)
            sys.setprofile(None)
            ours = {path for path in map(Path, run_through) if package in path.parents}
            ours -= {package / name for name in KEEPERS}
            missing = {path for path in ours if path.read_text(encoding="utf-8") not in key["code"]}
            made.append(kind)
            unknown_to[kind] = missing
            assert len(ours) > 1

        return cached_folder(cache_dir, kind, key, watched_build, **rest)

    monkeypatch.setattr(steps._StepTraining, "run", watched_run)
    for module in MAKERS:
        monkeypatch.setattr(module, "cached_folder", watched_folder)
    arguments = [*dataset(tmp_path), *(one for one in TINY if "teacher" not in one or model == "GANPrompt")]
    run(build_config(model, arguments=arguments))
    unknown = {kind: sorted(map(str, files)) for kind, files in unknown_to.items() if files}
    assert not unknown, unknown
    if model == "TALLRec":
        assert steps_run == ["step one"] and made == ["llm", "step_one"]
        return
    assert steps_run == ["step one", "step two"]
    stages = {"llm", "early_teacher", "teacher", "masked-lm", "attributes", "seq2seq", "encoder", "texts"}
    assert set(made) == stages | {"step_one", "step_two"}
