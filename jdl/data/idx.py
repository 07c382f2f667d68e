"""The IDX format: MNIST and the sets made after it."""

from __future__ import annotations

import gzip
import math
import struct
from pathlib import Path

import numpy as np

from jdl.check import InputError

DTYPES = {0x08: ">u1", 0x09: ">i1", 0x0B: ">i2", 0x0C: ">i4", 0x0D: ">f4", 0x0E: ">f8"}


def read_idx(path: str | Path) -> np.ndarray:
    """The array in an IDX file, gzipped if its name ends in ``.gz``.

    Two zero bytes, one for the dtype, one for the number of axes, their sizes as big-endian int32, the values:
    LeCun et al., "The MNIST database".

    Raises:
        InputError: it is not an IDX file, or its values are fewer or more than its shape says.
    """
    path = Path(path)
    with gzip.open(path, "rb") if path.suffix == ".gz" else open(path, "rb") as stream:
        data = stream.read()
    if len(data) < 4 or data[:2] != b"\0\0" or data[2] not in DTYPES or len(data) < 4 + 4 * data[3]:
        raise InputError(f"{path} starts with {data[:4].hex(' ')}, wanted an IDX file: 00 00, dtype, number of axes")
    axes = data[3]
    dtype = np.dtype(DTYPES[data[2]])
    shape = struct.unpack(f">{axes}i", data[4 : 4 + 4 * axes])
    wanted, found = math.prod(shape) * dtype.itemsize, len(data) - 4 - 4 * axes
    if wanted != found:
        raise InputError(f"{path} has {found} bytes of values, wanted {wanted} for its shape {list(shape)}")
    values = np.frombuffer(data, dtype, offset=4 + 4 * axes).reshape(shape)
    return values.astype(dtype.newbyteorder("="), copy=False)
