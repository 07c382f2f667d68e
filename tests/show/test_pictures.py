"""Pictures: what is drawn, and that files are whole or not there."""

from __future__ import annotations

import subprocess
import sys
import xml.etree.ElementTree as ET
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import pytest
from matplotlib.colors import to_rgba

from jdl import saving, show
from jdl.check import InputError
from jdl.nn.functional import ACTIVATIONS
from jdl.show import figures

RNG = np.random.default_rng(0)


def history(rows: int = 5, rate: float = 1.0) -> list[dict]:
    return [
        {
            "step": 10 * epoch,
            "epoch": epoch,
            "seconds": 0.1 * epoch,
            "loss": float(np.exp(-rate * epoch)),
            "accuracy": 1 - 0.5**epoch,
            "confusion_matrix": np.eye(3),
            "validation_loss": abs(epoch - 3.0) + 0.5,
            "validation_accuracy": 0.9 - 0.1 * abs(epoch - 4),
            "validation_confusion_matrix": np.eye(3),
        }
        for epoch in range(1, rows + 1)
    ]


POINTS, CLASSES = np.array([[0, 0], [0, 1], [1, 0], [1, 1]], np.float32), np.array([0, 1, 1, 0])
PICTURES = {
    "history": lambda path: show.plot_history(history(), path),
    "runs": lambda path: show.plot_runs({"a": history(), "b": history(3)}, path),
    "activations": lambda path: show.plot_activations(["sigmoid", "swiglu"], path),
    "vanishing": lambda path: show.plot_vanishing_gradient(4, path),
    "decision": lambda path: show.plot_decision(lambda p: p[:, 0] - p[:, 1], POINTS, CLASSES, path),
    "images": lambda path: show.plot_images(RNG.random((5, 8, 8)), list("abcde"), path, columns=3),
    "confusion": lambda path: show.plot_confusion([[3, 1], [0, 2]], ["cat", "dog"], path),
}


@pytest.mark.parametrize("name", PICTURES)
def test_a_png_has_the_size_of_its_figure(name, tmp_path):
    path = tmp_path / "picture.png"
    figure = PICTURES[name](path)
    content = path.read_bytes()
    assert content.startswith(b"\x89PNG\r\n\x1a\n") and content.rstrip().endswith(b"IEND\xaeB`\x82")
    size = int.from_bytes(content[16:20], "big"), int.from_bytes(content[20:24], "big")
    assert size == tuple(int(inches * figures.DPI) for inches in figure.get_size_inches())
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("suffix", [".svg", ".pdf", ".PNG"])
def test_the_suffix_says_the_format(suffix, tmp_path):
    path = tmp_path / f"curves{suffix}"
    show.plot_history(history(), path)
    begin = {".pdf": b"%PDF-", ".PNG": b"\x89PNG"}.get(suffix)
    assert path.read_bytes().startswith(begin) if begin else ET.parse(path).getroot().tag.endswith("svg")


@pytest.mark.parametrize("name", PICTURES)
def test_another_suffix_is_refused_before_anything_is_drawn(name, tmp_path, monkeypatch):
    with monkeypatch.context() as patch, pytest.raises(InputError, match=r"suffix '.gif', wanted .png or .svg or .pdf"):
        patch.setattr(figures, "_picture", lambda: pytest.fail("a figure was made"))
        PICTURES[name](tmp_path / "picture.gif")
    with pytest.raises(InputError, match="does not exist; make it first"):
        PICTURES[name](tmp_path / "missing" / "picture.png")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("fails", ["write", "rename"])
def test_saving_that_fails_leaves_what_was(fails, tmp_path, monkeypatch):
    path = tmp_path / "curves.png"
    path.write_text("before")

    def full(*arguments, **options):
        raise OSError("disk full")

    def write_half(self, file, **options):
        Path(file).write_bytes(b"\x89PNG half")
        full()

    if fails == "write":
        monkeypatch.setattr(figures._picture(), "savefig", write_half)
    else:
        monkeypatch.setattr(saving.os, "replace", full)
    with pytest.raises(OSError, match="disk full"):
        show.plot_history(history(), path)
    assert path.read_text() == "before" and list(tmp_path.iterdir()) == [path]


def test_a_saved_file_has_the_permissions_of_any_other(tmp_path):
    (tmp_path / "other").touch()
    show.plot_history(history(), tmp_path / "curves.png")
    assert (tmp_path / "curves.png").stat().st_mode == (tmp_path / "other").stat().st_mode


def test_notebooks_show_figures():
    png, size = show.plot_history(history())._repr_png_()
    assert png.startswith(b"\x89PNG") and size == {"width": round(2 * 4.4 * 96), "height": round(3.2 * 96)}


def test_matplotlib_loads_when_the_first_picture_is_drawn():
    code = "import sys, jdl.show; assert 'matplotlib' not in sys.modules; jdl.show.plot_confusion([[1]])"
    code += "; assert 'matplotlib' in sys.modules and 'matplotlib.pyplot' not in sys.modules"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=Path(__file__).parents[2])
    assert done.returncode == 0, done.stderr


def test_without_matplotlib_the_extra_is_named(monkeypatch):
    figures._picture.cache_clear()
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(ModuleNotFoundError, match=r'plotting needs matplotlib.*pip install "jdl\[experiments\]"'):
        show.plot_history(history())


# Curves


def lines(axes) -> dict[str, tuple[list[float], list[float]]]:
    return {line.get_label(): (list(line.get_xdata()), list(line.get_ydata())) for line in axes.lines}


def test_training_and_validation_share_a_panel():
    rows = history()
    loss, accuracy = show.plot_history(rows).axes
    assert [axes.get_title(loc="left") for axes in (loss, accuracy)] == ["loss", "accuracy"]
    assert loss.get_xlabel() == "epoch"
    assert lines(loss) == {
        "training": ([1, 2, 3, 4, 5], [row["loss"] for row in rows]),
        "validation": ([1, 2, 3, 4, 5], [row["validation_loss"] for row in rows]),
        "best 0.5 at epoch 3": ([3], [0.5]),
    }
    assert lines(accuracy)["best 0.9 at epoch 4"] == ([4], [0.9])  # of an accuracy the largest
    assert (loss.get_yscale(), accuracy.get_yscale()) == ("log", "linear")


def test_the_scale_is_linear_where_a_loss_hardly_moves_or_touches_zero():
    flat = [{"step": i, "epoch": i, "loss": 1.0 + 0.1 * i} for i in range(5)]
    assert show.plot_history(flat).axes[0].get_yscale() == "linear"
    assert show.plot_history([*flat, {"step": 6, "epoch": 6, "loss": 0.0}]).axes[0].get_yscale() == "linear"


@pytest.mark.parametrize(
    ("quantity", "scale"), [("loss", "log"), ("mse", "log"), ("accuracy", "linear"), ("lr", "linear")]
)
def test_only_what_should_fall_has_a_logarithmic_axis(quantity, scale):
    rows = [{"step": i, "epoch": i, quantity: 10.0**-i} for i in range(5)]
    assert show.plot_history(rows).axes[0].get_yscale() == scale


def test_reports_within_an_epoch_stand_at_their_step():
    rows = [{"step": 5 * i, "epoch": 1, "loss": 1.0 / i} for i in range(1, 4)]
    [axes] = show.plot_history(rows).axes
    assert axes.get_xlabel() == "step" and lines(axes)["training"][0] == [5, 10, 15]


def test_gaps_and_numbers_that_are_not_finite():
    rows = history()
    rows[1]["validation_loss"] = float("nan")
    rows[2]["validation_loss"] = float("inf")
    del rows[4]["validation_loss"]
    loss = show.plot_history(rows).axes[0]
    assert lines(loss)["validation"][0] == [1, 2, 3, 4]
    assert lines(loss)["best 1.5 at epoch 4"] == ([4], [1.5])


def test_a_run_that_diverged_from_the_start_has_no_best():
    rows = [{"step": i, "epoch": i, "loss": float("nan"), "validation_loss": float("nan")} for i in range(3)]
    assert set(lines(show.plot_history(rows).axes[0])) == {"training", "validation"}


def test_what_is_not_a_number_is_left_out():
    rows = [
        {"step": 1, "epoch": 1, "loss": np.float32(2), "matrix": np.eye(2), "best": None, "note": "warm-up"},
        {"step": 2, "epoch": 2, "loss": jnp.ones(()), "matrix": np.eye(2), "best": True, "ragged": [[1], [2, 3]]},
    ]
    panels = show.plot_history(rows).axes
    assert [axes.get_title(loc="left") for axes in panels] == ["loss", "best"]
    assert [lines(axes)["training"] for axes in panels] == [([1, 2], [2, 1]), ([2], [1])]


def test_several_runs_lie_over_each_other():
    loss, _ = show.plot_runs({"slow": history(rate=0.5), "fast": history(3)}).axes
    legend = [text.get_text() for text in loss.get_legend().get_texts()]
    assert legend == ["slow", "fast"] and loss.get_legend().get_title().get_text() == "dotted: training"
    assert [len(lines(loss)[name][0]) for name in legend] == [5, 3]
    drawn = {line.get_label(): (line.get_color(), list(line.get_ydata())) for line in loss.lines}
    assert drawn["slow"][0] != drawn["fast"][0]
    for name, rows in {"slow": history(rate=0.5), "fast": history(3)}.items():
        colour, held = drawn[name]
        assert held == [row["validation_loss"] for row in rows]
        [training, _, best] = [line for line in loss.lines if line.get_color() == colour]
        assert list(training.get_ydata()) == [row["loss"] for row in rows] and training.get_linestyle() == ":"
        assert (list(best.get_xdata()), list(best.get_ydata()), best.get_marker()) == ([3], [0.5], "o")


def test_one_report_is_a_point():
    [axes] = show.plot_history([{"step": 1, "epoch": 1, "loss": 2.0}]).axes
    assert axes.lines[0].get_marker() == "o"


@pytest.mark.parametrize(
    ("drawn", "message"),
    [
        (lambda: show.plot_history([]), "nothing to draw"),
        (lambda: show.plot_history([{"step": 1, "epoch": 1, "matrix": np.eye(2)}]), "nothing to draw"),
        (lambda: show.plot_history(history()[0]), "wanted a list of dicts"),
        (lambda: show.plot_runs(history()), "wanted a dict of names to histories"),
        (lambda: show.plot_activations(["swish"]), r"names got \['swish'\], wanted some of step, linear"),
        (lambda: show.plot_activations([]), "wanted some of"),
        (lambda: show.plot_vanishing_gradient(0), "layers got 0, wanted at least 1"),
        (lambda: show.plot_images(np.zeros((4, 8, 8, 2))), r"images got float32\[4, 8, 8, 2\], wanted \[N, H, W\]"),
        (lambda: show.plot_images(np.zeros((4, 8, 8)), ["a"]), "titles got 1"),
        (lambda: show.plot_confusion(np.zeros((2, 3))), r"wanted counts \[C, C\]"),
        (lambda: show.plot_confusion(np.zeros((0, 0))), r"wanted counts \[C, C\]"),
        (lambda: show.plot_confusion(np.eye(2), ["a"]), "classes got 1 names, wanted 2"),
        (lambda: show.plot_decision(lambda p: p[:, 0], np.zeros((4, 3)), CLASSES), r"wanted points \[N, 2\]"),
        (lambda: show.plot_decision(lambda p: p[:, 0], POINTS, CLASSES[:3]), "wanted classes"),
        (lambda: show.plot_decision(lambda p: p[:, 0], POINTS, -CLASSES), "counted from 0"),
        (lambda: show.plot_decision(lambda p: p[:5, 0], POINTS, CLASSES), "predict returned float32"),
    ],
)
def test_bad_input_is_said(drawn, message):
    with pytest.raises(InputError, match=message):
        drawn()


# Activations


@pytest.mark.slow
def test_every_activation_is_drawn_with_its_derivative():
    panels = show.plot_activations().axes
    assert [axes.get_title(loc="left").split(",")[0].split("(")[0] for axes in panels] == list(ACTIVATIONS)
    for axes, activation in zip(panels, ACTIVATIONS.values(), strict=True):
        if activation.kind != "elementwise":
            continue
        x, y = lines(axes)["value"]
        smooth = np.abs(np.abs(np.asarray(x)) % 1) > 1e-3  # piecewise functions have their corners at whole numbers
        np.testing.assert_allclose(y, activation.function(jnp.asarray(x, jnp.float32)), rtol=1e-6, atol=1e-6)
        slope = activation.derivative(jnp.asarray(x, jnp.float32))
        np.testing.assert_allclose(np.asarray(lines(axes)["derivative"][1])[smooth], slope[smooth], atol=2e-6)


@pytest.mark.parametrize(
    ("name", "edge"),
    # s(1 - s) = 0.05 and 1 - tanh² = 0.05, solved for x
    [("sigmoid", np.log((1 + np.sqrt(0.8)) / (1 - np.sqrt(0.8)))), ("tanh", np.arctanh(np.sqrt(0.95)))],
)
def test_the_region_where_gradients_vanish_is_shaded(name, edge):
    [axes] = show.plot_activations([name]).axes
    [shade] = axes.collections
    assert shade.get_label() == "derivative under 0.05"
    assert tuple(shade.get_facecolor()[0]) == to_rgba(figures.RED, 0.12)
    x = np.concatenate([path.vertices[:, 0] for path in shade.get_paths()])
    assert (x.min(), x.max()) == (-6, 6) and min(x[x > 0]) == pytest.approx(edge, abs=0.03)
    assert max(x[x < 0]) == pytest.approx(-edge, abs=0.03)


def test_sigmoids_leave_a_quarter_at_each_layer():
    left, right = show.plot_vanishing_gradient(layers=6).axes
    assert max(left.lines[0].get_ydata()) == pytest.approx(0.25)
    depth, most = lines(right)["sigmoid"]
    np.testing.assert_allclose(most, 0.25 ** np.asarray(depth), rtol=1e-5)
    np.testing.assert_allclose(lines(right)["relu"][1], 1.0)
    assert right.get_yscale() == "log" and list(depth) == list(range(7))


# Decisions, images, confusion


@pytest.mark.parametrize(
    ("predict", "threshold"),
    [
        (lambda p: p @ np.float32([1, 2]) - 1.2, 0.0),
        (lambda p: 1 / (1 + np.exp(-(p @ np.float32([[1], [2]]) - 1.2))), 0.5),
        (lambda p: p @ np.float32([1, 2]) > 1.2, 0.0),
        (lambda p: np.stack([np.zeros(len(p)), p @ np.float32([1, 2]) - 1.2], axis=1), 0.0),
    ],
    ids=["logit", "probability", "label", "scores"],
)
def test_the_decision_line_stands_where_the_classifier_turns(predict, threshold):
    figure = show.plot_decision(predict, POINTS, CLASSES, threshold=threshold)
    axes = figure.axes[0]
    contours = [c for c in axes.collections if len(c.get_edgecolor()) and c.get_linewidth()[0] == 1.2]
    border = np.concatenate([path.vertices for contour in contours for path in contour.get_paths()])
    assert len(border) > 100
    np.testing.assert_allclose(border @ [1, 2], 1.2, atol=0.02)  # a grid cell is 0.0045 wide
    drawn = np.concatenate([c.get_offsets() for c in axes.collections if len(c.get_offsets()) in (2,)])
    assert sorted(map(tuple, drawn.tolist())) == sorted(map(tuple, POINTS.tolist()))


def test_a_classifier_that_never_turns_has_no_line():
    figure = show.plot_decision(lambda p: np.zeros(len(p), int), POINTS, CLASSES)
    assert not [c for c in figure.axes[0].collections if len(c.get_edgecolor()) and c.get_linewidth()[0] == 1.2]


def test_images_stand_below_their_titles():
    images = RNG.random((5, 8, 6, 1)) * 7 - 3
    figure = show.plot_images(images, list("abcde"), columns=3)
    assert [axes.get_title() for axes in figure.axes] == list("abcde")
    shown = [np.asarray(axes.images[0].get_array()) for axes in figure.axes]
    low, high = (extreme(images, axis=(1, 2, 3), keepdims=True) for extreme in (np.min, np.max))
    np.testing.assert_allclose(shown, ((images - low) / (high - low))[..., 0], atol=1e-6)
    assert tuple(figure.get_size_inches()) == pytest.approx((3 * 1.1, 2 * 1.4))
    colours = np.stack([np.full((4, 4, 3), 7.0), RNG.integers(0, 2, (4, 4, 3))])
    plain, coloured = (np.asarray(axes.images[0].get_array()) for axes in show.plot_images(colours).axes)
    assert (plain == 0).all() and (coloured == colours[1]).all()


def test_a_confusion_matrix_has_true_classes_in_rows():
    figure = show.plot_confusion([[5, 0], [2, 7]], ["cat", "dog"])
    axes = figure.axes[0]
    assert {text.get_position(): text.get_text() for text in axes.texts} == {(0, 0): "5", (0, 1): "2", (1, 1): "7"}
    np.testing.assert_allclose(axes.images[0].get_array(), np.log([[6, 1], [3, 8]]))
    for labels in (axes.get_xticklabels(), axes.get_yticklabels()):
        assert [label.get_text() for label in labels] == ["cat", "dog"]
    assert (axes.get_ylabel(), axes.get_xlabel()) == ("class", "taken for")
