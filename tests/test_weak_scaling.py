"""What the benchmark of several processes counts; no time is asserted."""

import io
import os

import pytest
import small_horses
from rich.console import Console

from benchmarks import processes
from benchmarks.cost import trees
from benchmarks.hosts.turn import Turn, loopback_bytes

PROC_NET_DEV = """\
Inter-|   Receive                                                |  Transmit
 face |bytes    packets errs drop fifo frame compressed multicast|bytes    packets
  eth0:    7      1    0    0    0     0          0         0        9      1
    lo: 1234      5    0    0    0     0          0         0     5678      6
"""


def shown(table):
    console = Console(file=io.StringIO(), width=120)
    console.print(table)
    return console.file.getvalue()


def test_gradients_are_those_of_the_network():
    assert trees.count(trees.cnn()) * 4 == processes.GRADIENTS


def test_a_host_of_a_ring_sends_nearly_twice_what_is_reduced():
    assert processes.ring_bytes(1) == 0
    assert processes.ring_bytes(2, 100) == 100
    assert processes.ring_bytes(4, 100) == 150
    assert processes.ring_bytes(256, 100) == pytest.approx(199.2, abs=0.1)


def test_bytes_sent_are_those_of_the_loopback():
    assert loopback_bytes(PROC_NET_DEV) == 5678


@pytest.mark.parametrize(
    ("more", "hidden"), [(0.0, 1.0), (0.01, 0.75), (0.04, 0.0), (1.0, 0.0), (-1.0, 1.0)]
)
def test_what_a_step_takes_longer_is_not_hidden(more, hidden):
    assert processes.overlap(more, 0.04) == hidden


@pytest.mark.parametrize(
    ("cores", "asked", "counts"),
    [(2, (), (1, 2)), (4, (), (1, 2, 4)), (2, (4,), (1, 4)), (2, (2, 1), (1, 2))],
)
def test_one_process_is_always_timed_first(monkeypatch, cores, asked, counts):
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(cores)))
    assert processes.counts(processes.Options(processes=asked)) == counts


def test_efficiency_is_taken_round_by_round():
    one = [Turn(1.0, 0.0, 0.0, 0.0), Turn(2.0, 0.0, 0.0, 0.0)]
    two = [Turn(1.25, 0.5, 14e6, 14e6), Turn(2.5, 0.5, 14e6, 14e6)]
    *_, row = shown(processes.scaling({1: one, 2: two})).split("\n  2 ")
    assert row.split() == ["1875", "0.80", "14.0", "13.6", "500.0", "375.0", "25", "%"]


def test_paper_tells_the_time_of_each_link():
    *_, row = shown(processes.on_paper(1.0)).split("\n  8 ")
    seconds = 8 * 1.75 * processes.GRADIENTS / 10e9
    assert row.split()[:2] == ["11.9", f"{1e3 * seconds:.2f}"]


def test_two_processes_send_one_another_their_gradients():
    options = processes.Options(images=2, side=94, steps=2)
    turn = processes.take_turn(2, options, small_horses.install)
    assert min(turn) > 0
    kernel = 8 * 8 * 3 * 16 * 4  # bytes of the small network's convolution, and more
    assert min(turn.step_bytes, turn.reduce_bytes) > 2 * kernel
