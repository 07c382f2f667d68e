"""A run killed at any moment goes on to the same bits: SIGKILL, a hundred times, at random and inside saves.

A convolutional network with batch statistics, dropout, shifted images, accumulated gradients, a schedule, an average
of its weights and early stopping trains on handwritten digits, shuffled. It is killed and started again, up to five
times a run, then left to finish; every array of its state and every reported number is held against the run that
nobody disturbed. Half of the kills come at a random moment of the process, imports and compilation included; the other
half while a save is under way, and count as inside it only if they left the half-written folder behind.

Command   python -m experiments.kill_test
Machine   2 CPU cores, jax 0.10.2
Time      18 minutes, with much other work on the machine
Result    108 kills, 56 of them inside a save, with one step a call and with eight: each of the 31 runs came to the same
          bits as the undisturbed one.
"""

from __future__ import annotations

import dataclasses
import json
import os
import random
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import jax
import numpy as np
import optax
import rich

import jdl
from experiments.common import Record, Settings, experiment
from jdl import nn
from jdl.data import augment
from jdl.progress import Progress

STEPS, EVERY = 360, 24  # steps of a run, and between two checkpoints
KILLS_PER_RUN = 5
ROOT = Path(__file__).parents[1]


@dataclasses.dataclass(frozen=True)
class KillTest(Settings):
    """Settings of the experiment."""

    kills: int = 104
    """How many SIGKILLs in all."""
    inside: int = 32
    """How many of them must fall inside a save."""
    steps_per_call: tuple[int, ...] = (1, 8)
    """The kills are shared out among these."""


def train(folder: Path, steps_per_call: int) -> jdl.Run:
    """The run that is killed: everything that has a state of its own takes part in it."""
    digits = jdl.data.load("digits")
    model = nn.Chain(
        nn.Conv(8, 3, bias=False),
        nn.BatchNorm(),
        jax.nn.relu,
        nn.MaxPool(2),
        nn.Flatten(),
        nn.Dropout(0.3),
        nn.Dense(10),
    )
    objective = jdl.supervised(model, jdl.losses.cross_entropy, [jdl.metrics.accuracy])
    optimizer = optax.adamw(jdl.schedules.cosine_annealing(1e-2, STEPS, warm_up=20))
    return jdl.fit(
        model,
        jdl.accumulate(jdl.augmented(objective, augment.Crop(1)), 2),
        optax.chain(optimizer, jdl.average_params(0.98)),
        digits.train,
        validation=digits.validation,
        steps=STEPS,
        batch_size=32,
        validate_every=60,
        steps_per_call=steps_per_call,
        callbacks=[jdl.EarlyStopping("validation_loss", patience=3)],
        checkpoint=jdl.Checkpoints(folder, every=EVERY, keep=2, best="validation_loss"),
    )


def child(folder: str, steps_per_call: str) -> None:
    """What runs in the process that is killed; at its end it leaves all that it came to in one file."""
    run = train(Path(folder), int(steps_per_call))
    keyed = dataclasses.replace(run.state, key=jax.random.key_data(run.state.key))
    arrays = {
        f"state/{path}": np.asarray(leaf) for path, leaf in zip(jdl.paths(keyed), jax.tree.leaves(keyed), strict=True)
    }
    best = zip(jdl.paths(run.variables), jax.tree.leaves(run.variables), strict=True)
    arrays |= {f"best/{path}": np.asarray(leaf) for path, leaf in best}
    rows = [{name: value for name, value in row.items() if name != "seconds"} for row in run.history]
    np.savez(Path(folder) / "final.npz", **arrays, history=np.array(json.dumps(rows)))  # pyright: ignore[reportArgumentType]


def start(folder: Path, steps_per_call: int) -> subprocess.Popen[bytes]:
    """The child as a process of its own."""
    code = f"from experiments.kill_test import child; child({str(folder.resolve())!r}, '{steps_per_call}')"
    command = [sys.executable, "-c", code]
    return subprocess.Popen(command, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)


def finish(process: subprocess.Popen[bytes]) -> None:
    """Wait for a process that must succeed."""
    _, errors = process.communicate()
    if process.returncode != 0:
        raise RuntimeError(f"a run failed with exit code {process.returncode}:\n{errors.decode()}")


def kill(process: subprocess.Popen[bytes]) -> None:
    """SIGKILL, and wait until the process is gone and its pipe closed."""
    process.kill()
    process.communicate()


def saving(folder: Path) -> set[str]:
    """The names of what is being written in a folder of checkpoints."""
    try:
        return {entry.name for entry in os.scandir(folder) if entry.name.startswith(".unfinished_")}
    except FileNotFoundError:
        return set()


def kill_inside_a_save(process: subprocess.Popen[bytes], folder: Path, chance: random.Random) -> bool | None:
    """SIGKILL within some save's first milliseconds: whether it left a half-written folder, None if the run ended."""
    for _ in range(chance.randint(1, 5)):
        before = saving(folder)
        while not saving(folder) - before:
            if process.poll() is not None:
                return None
            time.sleep(0.0005)
    time.sleep(chance.uniform(0, 0.02))
    kill(process)
    return bool(saving(folder))


def kill_at_random(process: subprocess.Popen[bytes], within: float, chance: random.Random) -> bool | None:
    """SIGKILL at a random moment of so many seconds; False, or None if the run ended before."""
    try:
        process.wait(chance.uniform(0, within))
    except subprocess.TimeoutExpired:
        kill(process)
        return False
    return None


def differences(expected: Any, folder: Path) -> list[str]:
    """The names of the arrays that are not the same bits."""
    found = np.load(folder / "final.npz")
    names = expected.keys() | found.keys()
    return [name for name in sorted(names) if name not in found or expected[name].tobytes() != found[name].tobytes()]


@experiment(smoke={"kills": 3, "inside": 1, "steps_per_call": (8,)})
def main(settings: KillTest, record: Record) -> None:
    """Kill runs until enough kills are counted, and compare each finished run with the undisturbed one."""
    chance = random.Random(settings.seed)
    goals = {size: settings.kills // len(settings.steps_per_call) for size in settings.steps_per_call}
    counts = {"kills": 0, "inside a save": 0, "runs finished": 0, "runs that differ": 0}
    with Progress("kills", settings.kills) as bar:
        for size, kills in goals.items():
            folder = record.path(f"undisturbed_{size}")
            begin = time.perf_counter()
            finish(start(folder, size))
            seconds, expected = time.perf_counter() - begin, dict(np.load(folder / "final.npz"))
            own = dict.fromkeys(counts, 0)
            wanted_inside = -(-settings.inside // len(goals))
            while own["kills"] < kills or own["inside a save"] < wanted_inside:
                folder = record.path(f"killed_{size}_{own['runs finished']:03d}")
                for _ in range(KILLS_PER_RUN):
                    process = start(folder, size)
                    inside = chance.random() < 0.5
                    hit = (
                        kill_inside_a_save(process, folder, chance)
                        if inside
                        else kill_at_random(process, seconds, chance)
                    )
                    if hit is None:
                        finish(process)
                        break
                    own["kills"] += 1
                    own["inside a save"] += hit
                    bar(counts["kills"] + own["kills"], lambda own=own: f"{own['inside a save']} inside a save")
                finish(start(folder, size))
                wrong = differences(expected, folder)
                own["runs finished"] += 1
                own["runs that differ"] += bool(wrong)
                record.log(steps_per_call=size, folder=folder.name, differs=wrong, **own)
                if wrong:
                    rich.print(f"[red]{folder}: not the same bits in {', '.join(wrong[:5])}")
            for name in counts:
                counts[name] += own[name]
                record.metric(f"{size} steps a call/{name}", own[name])
    for name, count in counts.items():
        record.metric(f"all/{name}", count)


if __name__ == "__main__":
    main()
