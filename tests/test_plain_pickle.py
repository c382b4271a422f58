"""Pickles are read without running anything that they ask for."""

from __future__ import annotations

import pickle

import data_files as files
import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from robustkit.data.plain_pickle import read_pickle
from robustkit.errors import RobustkitError, UnsafeFileError

GOOD = files.python2_pickle(data=np.arange(6, dtype=np.uint8).reshape(2, 3), labels=[1, 2])


@pytest.mark.parametrize(
    "name", ["builtins.eval", "numpy.load", "numpy.core.multiarray.fromfile", "_codecs.lookup"]
)
def test_numpys_own_functions_are_no_exception(name: str) -> None:
    module, _, function = name.rpartition(".")
    asked = f"\x80\x02}}U\x01ac{module}\n{function}\nU\x01x\x85Rs.".encode("latin1")
    with pytest.raises(UnsafeFileError, match=name):
        read_pickle(asked, "it")


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_a_pickle_of_python_2_by_hand() -> None:
    table = read_pickle(GOOD, "it")
    assert table["data"].tolist() == [[0, 1, 2], [3, 4, 5]]
    assert table["labels"] == [1, 2]
    # Python's own loader agrees that this is such a pickle.
    assert pickle.loads(GOOD, encoding="latin1")["data"].tolist() == [[0, 1, 2], [3, 4, 5]]


@given(place=st.integers(0, len(GOOD) - 1), byte=st.integers(0, 255), cut=st.integers(0, 300))
@example(place=GOOD.index(b"U"), byte=ord("r"), cut=0)  # a memo of gigabytes
@settings(max_examples=400, deadline=None)
def test_a_damaged_pickle_is_read_or_refused_in_a_line(place: int, byte: int, cut: int) -> None:
    damaged = GOOD[:place] + bytes([byte]) + GOOD[place + 1 : len(GOOD) - cut]
    try:
        assert isinstance(read_pickle(damaged, "it"), dict)
    except RobustkitError as error:
        assert "\n" not in str(error)
