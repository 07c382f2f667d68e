"""The picture of schedules."""

from __future__ import annotations

import numpy as np
import optax
import pytest

from jdl import schedules, show
from jdl.check import InputError


def test_each_schedule_is_a_line_of_its_values(tmp_path):
    chosen = {"cosine": schedules.cosine_annealing(0.1, 50, warm_up=5), "optax": optax.linear_schedule(0.2, 0.0, 50)}
    (axes,) = show.plot_schedules(chosen, 60, tmp_path / "schedules.png").axes
    assert [text.get_text() for text in axes.get_legend().get_texts()] == list(chosen)
    for line, schedule in zip(axes.lines, chosen.values(), strict=True):
        x, y = line.get_data()
        np.testing.assert_array_equal(x, np.arange(60))
        np.testing.assert_allclose(y, [float(schedule(step)) for step in range(60)], rtol=1e-5, atol=1e-8)
    assert axes.get_ylim()[0] <= 0
    assert (tmp_path / "schedules.png").stat().st_size > 0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (({}, 10), "schedules got {}, wanted a dict"),
        (({"cosine": 0.1}, 10), "wanted a dict of names to schedules"),
        (({"constant": schedules.constant(1.0)}, 0), "steps got 0"),
        (({"constant": schedules.constant(1.0)}, 10, "curves.txt"), "suffix '.txt'"),
    ],
)
def test_bad_input(arguments, message):
    with pytest.raises(InputError, match=message):
        show.plot_schedules(*arguments)
