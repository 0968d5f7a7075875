from __future__ import annotations

import pytest
import torch

from vitexp.models.stems import ConvStem, PatchStem, ShiftedStem, diagonal_shifts


@pytest.mark.parametrize("stem", [PatchStem, ConvStem, ShiftedStem])
@pytest.mark.parametrize("patch_size", [2, 4, 8])
def test_every_stem_gives_the_grid_of_its_patches(stem: type[torch.nn.Module], patch_size: int) -> None:
    tokens = stem(in_channels=3, patch_size=patch_size, dim=12)(torch.randn(2, 3, 16, 16))
    assert tokens.shape == (2, (16 // patch_size) ** 2, 12)


@pytest.mark.parametrize("stem", [PatchStem, ConvStem, ShiftedStem])
def test_tokens_are_ordered_row_by_row(stem: type[torch.nn.Module]) -> None:
    torch.manual_seed(0)
    module = stem(in_channels=1, patch_size=4, dim=12)
    blank, marked = torch.zeros(1, 1, 32, 32), torch.zeros(1, 1, 32, 32)
    marked[:, :, 8:12, 20:24] = torch.randn(4, 4)  # the patch in row 2 and column 5
    change = (module(marked) - module(blank)).norm(dim=-1).view(8, 8)
    places = torch.arange(8.0)
    row, column = (change.sum(dim=1) @ places / change.sum()).item(), (change.sum(dim=0) @ places / change.sum()).item()
    assert (row, column) == pytest.approx((2, 5), abs=0.7)


def test_only_the_patch_stem_confines_a_patch_to_its_token() -> None:
    torch.manual_seed(0)
    edge = torch.zeros(1, 1, 16, 16)
    edge[:, :, 5, 5] = 1.0  # in patch (1, 1); half a patch away lie (0, 0) and the rest of (1, 1)
    touched = {}
    for stem in (PatchStem, ConvStem, ShiftedStem):
        module = stem(in_channels=1, patch_size=4, dim=12)
        difference = module(edge) - module(torch.zeros_like(edge))
        touched[stem.__name__] = int((difference.norm(dim=-1) > 0).sum())
    assert touched["PatchStem"] == 1
    assert touched["ConvStem"] > 1
    assert touched["ShiftedStem"] == 4


def test_shifts_move_the_image_along_the_diagonals_and_fill_with_zeros() -> None:
    x = torch.arange(1.0, 17.0).view(1, 1, 4, 4)
    left_up, right_up, left_down, right_down = (shift[0, 0] for shift in diagonal_shifts(x, 1))
    zero = [0.0] * 4
    assert left_up.tolist() == [[6, 7, 8, 0], [10, 11, 12, 0], [14, 15, 16, 0], zero]
    assert right_up.tolist() == [[0, 5, 6, 7], [0, 9, 10, 11], [0, 13, 14, 15], zero]
    assert left_down.tolist() == [zero, [2, 3, 4, 0], [6, 7, 8, 0], [10, 11, 12, 0]]
    assert right_down.tolist() == [zero, [0, 1, 2, 3], [0, 5, 6, 7], [0, 9, 10, 11]]


@pytest.mark.parametrize("patch_size", [1, 3, 6])
def test_the_conv_stem_needs_a_power_of_two(patch_size: int) -> None:
    with pytest.raises(ValueError, match="use a power of two, at least 2"):
        ConvStem(in_channels=3, patch_size=patch_size, dim=12)
