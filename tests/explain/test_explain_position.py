from __future__ import annotations

import numpy as np
import pytest
import torch

from vitexp.explain.methods.patches import position_norm, position_similarity

# A class token, then the patches of a 2 x 2 grid: along x, along y, against x, and nothing.
POS_EMBED = torch.tensor([[[9.0, 9.0], [2.0, 0.0], [0.0, 3.0], [-1.0, 0.0], [0.0, 0.0]]])


def test_similarity_by_hand() -> None:
    similarity = position_similarity(POS_EMBED, prefix_tokens=1, grid_size=2)
    assert similarity.shape == (2, 2, 2, 2)
    assert similarity.dtype == np.float32
    np.testing.assert_allclose(similarity[0, 0], [[1, 0], [-1, 0]], atol=1e-6)
    np.testing.assert_allclose(similarity[0, 1], [[0, 1], [0, 0]], atol=1e-6)
    np.testing.assert_allclose(similarity[1, 1], np.zeros((2, 2)))


def test_norm_by_hand() -> None:
    np.testing.assert_allclose(position_norm(POS_EMBED, prefix_tokens=1, grid_size=2), [[2, 3], [1, 0]])


def test_parameter_in_reduced_precision() -> None:
    parameter = torch.nn.Parameter(POS_EMBED.to(torch.bfloat16))
    assert position_norm(parameter, prefix_tokens=1, grid_size=2).dtype == np.float32


@pytest.mark.parametrize("function", [position_similarity, position_norm])
def test_positions_that_do_not_fit(function) -> None:
    with pytest.raises(ValueError, match=r"\(1, 5, 2\).*\(1, 4, dim\)"):
        function(POS_EMBED, prefix_tokens=0, grid_size=2)
