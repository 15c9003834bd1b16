"""What is settled before torch is loaded."""

import os
import subprocess
import sys

import pytest

CODE = """
import os, sys
from alignment.cli import main
sys.argv = ["clinalign", "rewards"]
assert "torch" not in sys.modules
try:
    main()
finally:
    print("policy", os.environ["OMP_WAIT_POLICY"])
"""


@pytest.mark.parametrize(("set_by_user", "expected"), [(None, "passive"), ("active", "active")])
def test_waiting_threads_sleep_unless_the_environment_says_otherwise(set_by_user, expected):
    env = {name: value for name, value in os.environ.items() if name != "OMP_WAIT_POLICY"}
    env |= {"OMP_WAIT_POLICY": set_by_user} if set_by_user else {}
    said = subprocess.run([sys.executable, "-c", CODE], capture_output=True, text=True, env=env, check=True).stdout
    assert f"policy {expected}" in said
