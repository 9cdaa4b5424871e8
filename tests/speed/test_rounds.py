import pytest
import torch

from gnnrl_lightning.speed import rounds
from gnnrl_lightning.speed.rounds import Clock, clock_of, measured_ms, with_threads


class Machine:
    """A machine whose time passes only by calls, and whose speed is set by the test."""

    def __init__(self):
        self.now, self.slowness, self.log = 0.0, 1.0, []

    def clock(self):
        return Clock(lambda: self.now)

    def work(self, name, seconds):
        def run():
            self.now += seconds * self.slowness
            self.log.append(name)

        return run


def test_the_time_of_a_call_is_measured():
    machine = Machine()
    makers = [lambda: machine.work("a", 0.002), lambda: machine.work("b", 0.5)]
    found = measured_ms(makers, machine.clock(), machine.work("reference", 0.001), rounds=3)
    assert found == pytest.approx([2.0, 500.0])


def test_a_machine_that_slows_down_is_seen_by_the_reference():
    """From the second of three rounds on, all takes twice as long."""
    machine, rounds_begun = Machine(), []

    def maker(name, seconds):
        def make():
            if name == "a":
                rounds_begun.append(name)
            machine.slowness = 1.0 if len(rounds_begun) < 2 else 2.0
            return machine.work(name, seconds)

        return make

    found = measured_ms([maker("a", 0.01), maker("b", 0.03)], machine.clock(), machine.work("r", 0.001), rounds=7)
    assert found[1] / found[0] == pytest.approx(3.0)


def test_rounds_are_interleaved_and_each_function_is_made_anew(monkeypatch):
    monkeypatch.setattr(rounds, "MOST_PASSES", 2)
    machine, made = Machine(), []

    def maker(name):
        return lambda: made.append(name) or machine.work(name, 0.01)

    measured_ms([maker(name) for name in "abc"], machine.clock(), machine.work("r", 0.01), rounds=4)
    assert [sorted(made[start : start + 3]) for start in range(0, 12, 3)] == [list("abc")] * 4
    assert len({tuple(made[start : start + 3]) for start in range(0, 12, 3)}) > 1  # not always in the same order
    assert machine.log.count("a") == 4 * 2  # a first call, and one that counts


def test_quick_functions_are_called_more_often():
    machine = Machine()
    makers = [lambda: machine.work("quick", 1e-6), lambda: machine.work("slow", 1.0)]
    measured_ms(makers, machine.clock(), machine.work("r", 1e-3), rounds=1)
    assert machine.log.count("quick") == 1 + rounds.MOST_PASSES and machine.log.count("slow") == 1 + 1


def test_one_thread_is_measured_by_its_processor_time():
    import time

    assert clock_of(torch.device("cpu"), 1).read is time.thread_time
    assert clock_of(torch.device("cpu"), 2).read is time.perf_counter
    assert clock_of(torch.device("cuda"), 1).read is time.perf_counter


def test_threads_are_set_for_the_block():
    before = torch.get_num_threads()
    with with_threads(before + 1):
        assert torch.get_num_threads() == before + 1
    assert torch.get_num_threads() == before
