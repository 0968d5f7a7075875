"""Signals that ask a run to stop: at once, after the step, and in the middle of other code's work."""

# ruff: noqa: PT012 - what happens within is the test

from __future__ import annotations

import os
import signal

import pytest

from vitexp.system.signals import Interrupted, StopSignals


def send(number: int) -> None:
    os.kill(os.getpid(), number)


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGUSR1, 138)])
def test_at_once(number: int, code: int) -> None:
    before = signal.getsignal(number)
    with StopSignals() as stop:
        with pytest.raises(Interrupted) as interrupted, stop.at_once():
            send(number)
        assert interrupted.value.exit_code == code
        send(signal.SIGTERM)  # a cluster may signal again while the record is written
    assert signal.getsignal(number) == before


def test_patient_parts_are_finished() -> None:
    done = []
    with StopSignals() as stop, pytest.raises(Interrupted), stop.at_once():
        with stop.patient():
            send(signal.SIGTERM)
            send(signal.SIGTERM)
            done.append("step")
        done.append("more")
    assert done == ["step"]


def test_a_second_ctrl_c_does_not_wait() -> None:
    done = []
    with StopSignals() as stop, pytest.raises(Interrupted), stop.at_once(), stop.patient():
        send(signal.SIGINT)
        done.append("step")
        send(signal.SIGINT)
        done.append("more")
    assert done == ["step"]


def test_a_signal_before_stops_at_the_beginning() -> None:
    with StopSignals() as stop:
        send(signal.SIGTERM)
        with pytest.raises(Interrupted), stop.at_once():
            raise AssertionError("it began")


def test_an_error_that_the_interruption_caused_does_not_hide_it() -> None:
    """Libraries that are interrupted amid their work may fail in their own `finally`."""
    with StopSignals() as stop, pytest.raises(Interrupted), stop.at_once():
        try:
            send(signal.SIGTERM)
        finally:
            raise AttributeError("half made")


def test_an_error_of_its_own_stays_one() -> None:
    with StopSignals() as stop, pytest.raises(ValueError, match="mine"), stop.at_once():
        raise ValueError("mine")


def test_lightning_may_take_the_handlers_over() -> None:
    before = signal.getsignal(signal.SIGTERM)
    with StopSignals() as stop:
        signal.signal(signal.SIGTERM, lambda *_: None)
        stop.install()
        with pytest.raises(Interrupted), stop.at_once():
            send(signal.SIGTERM)
    assert signal.getsignal(signal.SIGTERM) == before
