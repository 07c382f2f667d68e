"""The README's code runs as it stands, and prints what it says."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

README = Path(__file__).parents[1] / "README.md"


@pytest.mark.slow
def test_the_code_runs(tmp_path, monkeypatch, capsys):
    pytest.importorskip("matplotlib")
    monkeypatch.chdir(tmp_path)
    blocks = re.findall(r"```python\n(.*?)```", README.read_text(), re.DOTALL)
    assert len(blocks) == 5
    names: dict = {}
    for block in blocks:
        exec(block, names)
    printed = capsys.readouterr().out
    assert re.search(r"'accuracy': 0\.9[5-9]", printed)
    assert "in 3: Dense(10): got float32[359, 384]" in printed
    assert (tmp_path / "curves.png").stat().st_size > 1000
