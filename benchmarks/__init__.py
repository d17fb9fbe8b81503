"""What is measured: each module is a command, `python -m benchmarks.overhead`."""

from benchmarks import commands

commands.begin()
