"""Sharded trees are centralized like whole ones, on eight devices."""

import os
import pathlib
import subprocess
import sys

TESTS = pathlib.Path(__file__).with_name("eight_devices.py")


def test_sharded_trees_are_centralized_like_whole_ones():
    flags = (
        f"{os.environ.get('XLA_FLAGS', '')} --xla_force_host_platform_device_count=8"
    )
    env = {**os.environ, "XLA_FLAGS": flags, "JAX_PLATFORMS": "cpu"}
    env.pop("JAX_NUM_CPU_DEVICES", None)  # it would outweigh the flag
    done = subprocess.run(
        [
            sys.executable,
            "-m",
            "pytest",
            "-q",
            "-n0",
            "-p",
            "no:cacheprovider",
            str(TESTS),
        ],
        env=env,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
