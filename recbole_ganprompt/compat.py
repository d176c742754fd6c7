"""What RecBole 1.2.1 needs on today's numpy, scipy, torch, pandas and hyperopt; nothing else.

Each shim looks first whether it is needed, so on the versions that RecBole was written for nothing
happens.
"""

import importlib.util
from importlib.metadata import version

INSTALL = "pip install --no-deps recbole==1.2.1"


def apply() -> None:
    """Apply the shims; a second call finds nothing left to do.

    Raises
    ------
    ImportError
        If RecBole isn't installed, with the command that installs it.
    """
    if importlib.util.find_spec("recbole") is None:
        raise ImportError(f"RecBole is not installed: {INSTALL}", name="recbole")
    _restore_numpy_names()
    _restore_dok_update()
    _fill_missing_values_on_pandas_3()
    _search_exhaustively_on_hyperopt_0_2_6()


def _restore_numpy_names() -> None:
    """``Config.compatibility_settings`` reads names that numpy 2 removed."""
    import numpy

    removed = {"float_": "float64", "complex_": "complex128", "unicode_": "str_"}
    for name, successor in removed.items():
        if not hasattr(numpy, name):
            setattr(numpy, name, getattr(numpy, successor))


def _restore_dok_update() -> None:
    """RecBole's graph models fill a matrix through a method that scipy 1.13 removed."""
    from scipy.sparse import dok_matrix

    if not hasattr(dok_matrix, "_update"):
        dok_matrix._update = lambda self, values: self._dict.update(values)


def _fill_missing_values_on_pandas_3() -> None:
    """``Dataset._fill_nan`` fills a column in place, which pandas 3 does on a copy: to no effect."""
    import numpy as np
    import pandas

    if int(pandas.__version__.split(".")[0]) < 3:
        return
    from recbole.data.dataset import Dataset
    from recbole.utils import FeatureType

    if hasattr(Dataset._fill_nan, "for_pandas_3"):
        return

    def fill_nan(self):
        """Missing value imputation, as RecBole documents it."""
        for name in self.feat_name_list:
            frame = getattr(self, name)
            for field in frame:
                kind = self.field2type[field]
                if kind == FeatureType.TOKEN:
                    frame[field] = frame[field].fillna(0)
                elif kind == FeatureType.FLOAT:
                    frame[field] = frame[field].fillna(frame[field].mean())
                else:
                    empty = np.array([], np.int64 if kind == FeatureType.TOKEN_SEQ else np.float64)
                    frame[field] = [empty if isinstance(x, float) else x for x in frame[field]]

    fill_nan.for_pandas_3 = True
    Dataset._fill_nan = fill_nan


def _search_exhaustively_on_hyperopt_0_2_6() -> None:
    """``HyperTuning``'s default search draws by numpy's old generator, hyperopt 0.2.6 by the new one."""
    if importlib.util.find_spec("hyperopt") is None or version("hyperopt") == "0.2.5":  # RecBole's own pin
        return
    from recbole.trainer import hyper_tuning

    if hasattr(hyper_tuning.exhaustive_search, "for_hyperopt_0_2_6"):
        return

    def exhaustive_search(new_ids, domain, trials, seed, nbMaxSucessiveFailures=1000):
        """Draw combinations that were not tried yet; none where so many draws in a row were."""
        from hyperopt import rand

        def choices(trial):
            return sorted((key, *values) for key, values in trial["misc"]["vals"].items())

        tried, drawn = [choices(trial) for trial in trials.trials], []
        for new_id in new_ids:
            for attempt in range(nbMaxSucessiveFailures + 1):
                (trial,) = rand.suggest([new_id], domain, trials, seed + attempt)
                if choices(trial) not in tried:
                    tried.append(choices(trial))
                    drawn.append(trial)
                    break
            else:
                return []
        return drawn

    exhaustive_search.for_hyperopt_0_2_6 = True
    hyper_tuning.exhaustive_search = exhaustive_search
