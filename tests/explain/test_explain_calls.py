from __future__ import annotations

import threading

import torch

from tests.explain.nets import vit
from vitexp.explain.methods.grad_cam import calls_of


def test_calls_come_in_order_and_end_with_the_block() -> None:
    net = vit()
    with torch.no_grad(), calls_of(net.blocks[1]) as calls:
        net(torch.randn(1, 3, 16, 16))
        net(torch.randn(2, 3, 16, 16))
    net(torch.randn(3, 3, 16, 16))
    assert [(len(given), len(made)) for given, made in calls] == [(1, 1), (2, 2)]
    assert not net.blocks[1]._forward_hooks


def test_other_threads_do_not_mix_in() -> None:
    net = vit()
    with torch.no_grad(), calls_of(net.head) as calls:
        other = threading.Thread(target=lambda: net(torch.randn(4, 3, 16, 16)))
        net(torch.randn(1, 3, 16, 16))
        other.start()
        other.join()
        net(torch.randn(2, 3, 16, 16))
    assert [len(given) for given, _ in calls] == [1, 2]
