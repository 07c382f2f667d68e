"""What a missing package says."""

from __future__ import annotations

import math
import sys

import pytest

from jdl.extras import require


def test_a_package_that_is_there_is_imported():
    assert require("math", "experiments", "counting") is math


@pytest.mark.parametrize(
    ("module", "missing"),
    [
        ("a_package_of_nobody", "a_package_of_nobody"),
        ("a_package_of_nobody.with_a_part", "a_package_of_nobody"),
        ("needs_another", "its_dependency"),  # there, but what it imports is not
    ],
)
def test_a_missing_package_names_the_extra_that_brings_it(module, missing, tmp_path, monkeypatch):
    (tmp_path / "needs_another.py").write_text("import its_dependency.part\n")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(ModuleNotFoundError) as caught:
        require(module, "data", "reading records")
    assert str(caught.value) == (f'reading records needs {missing}, which is not installed: pip install "jdl[data]"')
    assert caught.value.name == missing and module not in sys.modules
