"""DUC's label layout against a written-out loop."""

import numpy as np
import pytest

from data_iter.cells import pack_labels, unpack_scores


@pytest.mark.parametrize(("cell", "block"), [(1, 8), (2, 4), (8, 1), (1, 1), (4, 2)])
def test_packing_equals_a_written_out_loop(cell, block):
    h, w = 3, 5
    side = cell * block
    labels = np.arange(h * side * w * side).reshape(h * side, w * side)
    expected = [
        labels[(y * block + row) * cell, (x * block + column) * cell]
        for row in range(block)
        for column in range(block)
        for y in range(h)
        for x in range(w)
    ]
    assert pack_labels(labels, cell, block).tolist() == expected


def test_unpacking_undoes_packing_for_a_batch_of_maps():
    maps = np.random.default_rng(0).random((2, 19, 24, 40), np.float32)
    packed = pack_labels(maps, 1, 8)
    assert packed.shape == (2, 19, 24 * 40)
    np.testing.assert_array_equal(unpack_scores(packed, (3, 5), 8), maps)


def test_one_feature_pixel_is_laid_out_row_by_row():
    packed = np.arange(4)  # block 2, one feature pixel: row 0 column 0, row 0 column 1, ...
    assert unpack_scores(packed, (1, 1), 2).tolist() == [[0, 1], [2, 3]]
