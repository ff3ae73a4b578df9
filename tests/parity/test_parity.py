"""Runs every recorded case of the original programs, one test a case.

Cases are `<root>/<method>/**/<case>.json` with `<case>.npz` beside it, under
tests/fixtures/parity and under $TFVID_PARITY_DIR (default ../shared/parity beside the
checkout, where it exists). Each method's runner is `tests/parity/<method>.py` with a
function `check(case)`; what a case is, is read from its JSON, never from its name alone.
"""

import importlib

import pytest

from tests.parity.cases import find_cases


@pytest.mark.parametrize("case", find_cases(), ids=str)
def test_parity(case):
    runner = importlib.import_module(f"tests.parity.{case.method}")
    runner.check(case)
