"""Tests that use networks directly run on one thread, as fits do: more threads only quarrel over few cores."""

from importlib.util import find_spec

import pytest


@pytest.fixture(autouse=True)
def one_thread():
    if find_spec("torch") is None:
        yield
        return
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)
