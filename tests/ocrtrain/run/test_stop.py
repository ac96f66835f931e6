"""Requests to stop a run."""

import signal

import pytest

from ocrtrain.run.stop import SIGNALS, Interrupt


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGUSR1])
def test_the_first_signal_requests_a_stop_and_ctrl_c_after_it_stops_at_once(
    number: int, capfd: pytest.CaptureFixture[str]
) -> None:
    before = {one: signal.getsignal(one) for one in SIGNALS}
    with Interrupt() as interrupt:
        assert not interrupt.requested
        signal.raise_signal(number)
        assert interrupt.requested
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)
    assert {one: signal.getsignal(one) for one in SIGNALS} == before
    assert capfd.readouterr().err.count("Ctrl-C") == 1


def test_signals_of_a_scheduler_after_the_first_do_not_keep_a_run_from_saving() -> None:
    with Interrupt() as interrupt:
        for number in (signal.SIGUSR1, signal.SIGTERM, signal.SIGTERM):
            signal.raise_signal(number)
        assert interrupt.requested
