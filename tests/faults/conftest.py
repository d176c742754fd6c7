"""A run that nothing happened to, for all tests of faults."""

import pytest
from children import TINY, dataset, finish, said, start


@pytest.fixture(scope="session")
def whole_run(tmp_path_factory):
    """The folder of an uninterrupted run of GANPrompt."""
    folder = tmp_path_factory.mktemp("uninterrupted")
    assert finish(start(folder, ["--model=GANPrompt", *dataset(folder), *TINY])) == 0, said(folder)
    return folder
