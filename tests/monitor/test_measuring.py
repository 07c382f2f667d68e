"""Every quantity of a report against NumPy and closed forms."""

from __future__ import annotations

import re
from pathlib import Path
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import jdl
from jdl import monitor, nn
from jdl.monitor import devices, measuring
from tests.monitor.watched import STEPS, Watched
from tests.networks import classify, mlp

DOCUMENTED = (Path(__file__).parents[2] / "docs" / "api" / "monitor.md").read_text()


def norm(tree) -> float:
    return float(np.sqrt(sum(np.sum(np.square(np.asarray(leaf, np.float64))) for leaf in jax.tree.leaves(tree))))


def reported(**options) -> tuple[jdl.Run, dict]:
    watched = Watched(**options)
    watched.report()
    return watched.run, monitor.measure(watched.run)


def test_it_holds_the_row_and_what_is_beside_it():
    run, found = reported(row=lambda report: {"validation_loss": 0.5})
    assert {name: found[name] for name in run.history[-1]} == run.history[-1]
    assert found["machine/examples_per_second"] == 1200
    assert found["machine/waiting"] == 0.25
    assert found["optimizer/learning_rate"] == 0.5
    assert "validation_loss" in found


def test_norms_are_those_of_the_last_step():
    watched = Watched()
    watched.report()
    before = jax.tree.map(np.asarray, watched.run.state.params)
    watched.report()  # three steps of plain gradient descent
    found = monitor.measure(watched.run)
    objective, batch = watched.run.objective, watched.batch
    params = before
    for _ in range(STEPS):
        last = params
        gradient = jax.grad(lambda params: objective(params, {}, batch, None, True)[0])(params)
        params = jax.tree.map(lambda w, g: w - 0.5 * g, params, gradient)
    expected = {"gradient": norm(gradient), "update": 0.5 * norm(gradient), "parameter": norm(last)}
    for name, value in expected.items():
        assert found[f"optimizer/{name}_norm"] == pytest.approx(value, rel=1e-5)
    assert found["optimizer/update_ratio"] == pytest.approx(expected["update"] / expected["parameter"], rel=1e-5)


def test_without_a_record_the_parameters_have_their_norm_alone():
    run, found = reported(optimizer=optax.sgd(0.1))
    assert found["optimizer/parameter_norm"] == pytest.approx(norm(run.state.params), rel=1e-6)
    assert not {"optimizer/gradient_norm", "optimizer/update_norm", "optimizer/update_ratio"} & found.keys()
    assert "optimizer/learning_rate" not in found


def test_the_norm_takes_parameters_of_any_dtype():
    params = {"a": jnp.full((3,), 2, jnp.bfloat16), "b": jnp.full((2, 2), -1.0), "c": jnp.full((1,), 3 + 4j)}
    assert float(measuring.parameter_norm(params)) == pytest.approx(np.sqrt(12 + 4 + 25))


def test_skipped_steps_are_counted():
    def bad(params, state, batch, key):
        grads, aux = jdl.gradient(classify(mlp()))(params, state, batch, key)
        return jax.tree.map(lambda g: g * jnp.nan, grads), aux

    optimizer = jdl.skip_nonfinite(optax.sgd(0.1))
    watched = Watched(optimizer=optimizer)
    watched.step = jax.jit(jdl.make_step(bad, optimizer))
    watched.report()
    assert monitor.measure(watched.run)["optimizer/skipped_steps"] == STEPS


class TestUtilisation:
    # Dense(7), tanh, Dense(3) on [12, 5]: products, biases, one operation an element of tanh.
    FORWARD = 12 * (2 * 5 * 7 + 7 + 7 + 2 * 7 * 3 + 3)

    def test_forward_flops_are_those_of_the_batch(self):
        run, _ = reported()
        assert monitor.forward_flops(run) == self.FORWARD

    def test_it_is_the_formula(self):
        run, _ = reported()
        found = monitor.measure(run, peak_flops=1e9)
        assert found["machine/model_flops_utilisation"] == pytest.approx(3 * self.FORWARD * 100.0 / 1e9)

    def test_every_supervised_term_counts_and_penalties_do_not(self):
        run, _ = reported(objective=classify(mlp()) + 0.5 * jdl.supervised(mlp(), jdl.losses.cross_entropy))
        assert monitor.forward_flops(run) == 2 * self.FORWARD
        run, _ = reported(objective=classify(mlp()) + 0.1 * jdl.l2("**"))
        assert monitor.forward_flops(run) == self.FORWARD

    def test_the_model_sees_what_the_augmentation_makes(self):
        run, _ = reported()
        cut = lambda key, batch: batch | {"inputs": batch["inputs"][:, :3]}  # noqa: E731
        run = jdl.Run(run.model, jdl.augmented(run.objective, cut), run.state)
        run.batch = Watched().run.batch
        assert monitor.forward_flops(run) == self.FORWARD - 12 * 2 * 2 * 7

    def test_what_cannot_be_traced_is_not_known(self):
        run, _ = reported()
        other = jdl.Run(nn.Chain(nn.Dense(3)), None, run.state)
        other.batch, other.speed, other.history = {"x": run.batch["inputs"]}, run.speed, run.history
        assert monitor.forward_flops(other) is None
        assert "machine/model_flops_utilisation" not in monitor.measure(other)
        assert "not known" in monitor.explain(other)

    def test_the_formula_is_told_with_its_numbers(self):
        told = monitor.explain(reported()[0], peak_flops=2e12)
        assert "3 × forward FLOPs of a batch × steps/s ÷ peak" in told
        assert "3 × 1.55 k × steps/s ÷ 2 TFLOP/s (as given)" in told


class TestPeak:
    @pytest.mark.parametrize(
        ("kind", "count", "flops"),
        [
            ("NVIDIA H100 80GB HBM3", 1, 989e12),
            ("NVIDIA H100 PCIe", 1, 756e12),
            ("NVIDIA A100-SXM4-80GB", 8, 8 * 312e12),
            ("NVIDIA L4", 1, 121e12),
            ("NVIDIA L40S", 1, 362e12),
            ("NVIDIA A10G", 1, 70e12),
            ("Tesla T4", 1, 65e12),
            ("TPU v5 lite", 4, 4 * 197e12),
            ("TPU v5", 1, 459e12),
            ("TPU v3", 2, 123e12),
        ],
    )
    def test_is_that_of_the_data_sheet(self, kind: str, count: int, flops: float):
        found = monitor.peak_of([SimpleNamespace(platform="gpu", device_kind=kind)] * count)
        assert found.flops == flops
        assert kind in found.source

    def test_of_an_unknown_device_is_not_known(self):
        assert monitor.peak_of([SimpleNamespace(platform="gpu", device_kind="Abacus 3")]) is None

    def test_longer_names_come_before_those_they_begin_with(self):
        names = [name.lower() for name in devices.PEAKS]
        hidden = [name for place, name in enumerate(names) if any(other in name for other in names[:place])]
        assert hidden == []

    def test_of_a_cpu_is_measured_once_for_all_its_devices(self):
        one, two = monitor.peak_of(jax.devices()[:1]), monitor.peak_of(jax.devices())
        assert one is two
        assert 1e8 < one.flops < 1e14
        assert "measured" in str(one)


class TestMemory:
    def test_is_that_of_the_fullest_device(self):
        stats = [{"bytes_in_use": 3, "peak_bytes_in_use": 9}, {"bytes_in_use": 5, "peak_bytes_in_use": 7}, None]
        found = devices.memory([SimpleNamespace(memory_stats=lambda each=each: each) for each in stats])
        assert (found["device_memory"], found["device_memory_peak"]) == (5, 9)

    def test_of_the_process_is_what_the_system_says(self):
        status = Path("/proc/self/status")
        if not status.exists():
            pytest.skip("no /proc here")
        kilobytes = int(re.search(r"VmRSS:\s+(\d+) kB", status.read_text()).group(1))
        assert devices.memory([])["process_memory"] == pytest.approx(1024 * kilobytes, rel=0.1)


def test_monitors_of_one_report_share_a_measurement(monkeypatch: pytest.MonkeyPatch):
    count = []
    monkeypatch.setattr(measuring, "memory", lambda devices: count.append(1) or {})
    watched = Watched([monitor.measure, monitor.measure])
    watched.report()
    assert len(count) == 1
    watched.report()
    assert len(count) == 2
    watched.run.history[-1]["fid"] = 3.0  # what another callback adds is seen
    assert monitor.measure(watched.run)["fid"] == 3.0
    assert len(count) == 2
    watched.run.history.append(dict(watched.run.history[-1]))  # another report, of the same state
    monitor.measure(watched.run)
    assert len(count) == 3


def test_every_quantity_is_documented():
    _, found = reported(optimizer=jdl.skip_nonfinite(jdl.record_norms(optax.inject_hyperparams(optax.sgd)(0.5))))
    assert [name for name in found if f"`{name}`" not in DOCUMENTED] == []
