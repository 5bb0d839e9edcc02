"""Choosing rows without a copy."""

import numpy as np
import pytest

from libraries.base.arrays import as_slice


@pytest.mark.parametrize("chosen", ["1100", "0011", "0110", "1111", "1", "1010", "1101", "0101", "0000", ""])
def test_a_slice_chooses_the_same_rows(chosen: str) -> None:
    mask = np.array([letter == "1" for letter in chosen], bool)
    rows = np.arange(2 * len(mask)).reshape(-1, 2)
    found = rows[as_slice(mask)]
    np.testing.assert_array_equal(found, rows[mask])
    is_one_run = "0" not in chosen.strip("0")
    assert np.shares_memory(found, rows) == (is_one_run and mask.any())
