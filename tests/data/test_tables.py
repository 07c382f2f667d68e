from __future__ import annotations

import gzip
from pathlib import Path

import numpy as np
import pytest

from jdl.check import InputError
from jdl.data import read_csv

RNG = np.random.default_rng(0)


def write(path: Path, content: str | bytes) -> Path:
    data = content.encode() if isinstance(content, str) else content
    path.write_bytes(gzip.compress(data) if path.suffix == ".gz" else data)
    return path


IRIS = """length,width,species
5.1,3.5,setosa
7.0,3.2,versicolor
 6.3 ,"3.3",virginica

4.9,3,setosa
"""


@pytest.mark.parametrize("name", ["iris.csv", "iris.csv.gz"])
def test_a_table_with_labels(tmp_path, name):
    data = read_csv(write(tmp_path / name, IRIS), "species")
    np.testing.assert_array_equal(data.inputs, np.float32([[5.1, 3.5], [7, 3.2], [6.3, 3.3], [4.9, 3]]))
    assert data.inputs.dtype == np.float32 and data.features == ("length", "width")
    np.testing.assert_array_equal(data.targets, [0, 1, 2, 0])
    assert data.classes == ("setosa", "versicolor", "virginica")
    assert data.targets.dtype == np.int32 and data.name == "iris"


def test_kinds_of_targets(tmp_path):
    path = write(tmp_path / "t.csv", "﻿a,b,c,d\n1,0.5,x,3000000000\n2,1,y,1\n")
    cases = [
        ("a", np.int32([1, 2])),
        ("b", np.float32([0.5, 1])),
        ("c", np.int32([0, 1])),
        ("d", np.float32([3e9, 1])),
        (["a"], np.float32([[1], [2]])),
        (["b", "a"], np.float32([[0.5, 1], [1, 2]])),
    ]
    for targets, wanted in cases:
        got = read_csv(path, targets, ignore=["c"] if targets != "c" else []).targets
        np.testing.assert_array_equal(got, wanted)
        assert (got.dtype, got.shape) == (wanted.dtype, wanted.shape)
    alone = read_csv(path, inputs=["d", "a"])
    assert set(alone.arrays) == {"inputs"} and alone.features == ("d", "a")


def test_quotes_delimiters_and_line_ends(tmp_path):
    path = write(tmp_path / "t.tsv", '"a name"\t"b"\r\n1\t"2"\r\n"3"\t4\r\n')
    data = read_csv(path, "b", delimiter="\t")
    assert data.features == ("a name",)
    np.testing.assert_array_equal(data.inputs, [[1], [3]])
    headless = read_csv(write(tmp_path / "h.csv", "1,2\n3,4\n"), "y", columns=["x", "y"])
    np.testing.assert_array_equal(headless.targets, [2, 4])
    quoted = read_csv(write(tmp_path / "q.csv", 'a,b\n1,"he said ""no"", twice\nand left"\n2,y\n3,z\n'), "b")
    assert quoted.classes == ('he said "no", twice\nand left', "y", "z")


def test_categories_become_columns(tmp_path):
    path = write(tmp_path / "t.csv", "wind,t\nNW,1\ncv,2\nNW,3\n")
    data = read_csv(path, ["t"], categories=["wind"])
    assert data.features == ("wind=NW", "wind=cv")
    np.testing.assert_array_equal(data.inputs, [[1, 0], [0, 1], [1, 0]])
    data = read_csv(path, ["t"], categories={"wind": ("NE", "NW", "cv")})
    np.testing.assert_array_equal(data.inputs, [[0, 1, 0], [0, 0, 1], [0, 1, 0]])
    with pytest.raises(InputError, match="line 3, column 'wind': got 'cv', which is none of the categories 'NW', 'SE'"):
        read_csv(path, ["t"], categories={"wind": ("NW", "SE")})


def test_missing_values(tmp_path):
    path = write(tmp_path / "t.csv", "a,b,y\n1,NA,1\n,2,2\n3,4,?\n5,6,7\n")
    with pytest.raises(InputError, match=r"t.csv, line 3, column 'a': got '', a missing value; .*missing='drop'"):
        read_csv(path, "y")
    data = read_csv(path, "y", missing="drop")
    np.testing.assert_array_equal(data.inputs, [[5, 6]])
    np.testing.assert_array_equal(data.targets, [7])
    with pytest.raises(InputError, match=r"line 4, column 'y': got '\?', a missing value"):  # no number to predict
        read_csv(path, "y", missing=0)
    data = read_csv(path, ignore=["y"], missing=-1)
    np.testing.assert_array_equal(data.inputs, [[1, -1], [-1, 2], [3, 4], [5, 6]])


@pytest.mark.parametrize(
    ("content", "options", "message"),
    [
        ("", {}, "which is empty"),
        ("\n\n", {}, "has no row"),
        ("a,b\n", {}, "has a line of names and no row below it"),
        ("1,2\n3,4\n", {}, r"begins with 1, 2, wanted the columns' names; .*columns="),
        ("a,b\n1,2\n3\n", {}, "line 3: got 1 fields, wanted 2: 'a', 'b'"),
        ("a,b\n1,2\n\n3,4,5\n", {}, "line 4: got 3 fields"),
        ("a,a\n1,2\n", {}, "several columns named 'a'"),
        ("a;b\n1;2\n", {}, "has the one column 'a;b'; is it delimiter=';'"),
        ("a,b\n1,two\n", {}, r"line 2, column 'b': got the text 'two', wanted a number; use categories=\['b'\]"),
        ("a,b\n1,inf\n", {}, "column 'b': got the text 'inf'"),
        ("a,b\n1,1_000\n", {}, "got the text '1_000'"),
        ('a,b\n1,"2\n3,4\n', {}, "line 3: unexpected end of data"),
        ('a,b\n1,"2"x\n', {}, "line 2: "),
        (b"a,b\n1,2\n3,\xe9\n", {}, "line 3: got the byte 0xe9, wanted text in UTF-8"),
        ("a,b\n1,2\n", {"targets": "c"}, "targets got 'c', wanted columns of .*: 'a', 'b'"),
        ("a,b\n1,2\n", {"inputs": ["c"]}, "inputs got 'c'"),
        ("a,b\n1,2\n", {"ignore": "a"}, "ignore got 'a', wanted a list of columns"),
        ("a,b\n1,2\n", {"ignore": ["a", "b"]}, "has no column left for the inputs"),
        ("a,b\n1,2\n", {"delimiter": ", "}, "delimiter got ', ', wanted one character"),
        ("a,b\n1,\n", {"missing": "mean"}, "missing got 'mean', wanted a number, 'drop' or None"),
        ("a,b\n1,\n,2\n", {"missing": "drop"}, "a missing value in every row"),
        ("a,b\n1,\n2,x\n", {"targets": "b"}, "line 2, column 'b': got '', a missing value"),
    ],
)
def test_files_that_are_no_tables(tmp_path, content, options, message):
    with pytest.raises(InputError, match=message):
        read_csv(write(tmp_path / "t.csv", content), **options)


def test_a_file_that_is_not_gzipped(tmp_path):
    (tmp_path / "t.csv.gz").write_text(IRIS)
    cut = gzip.compress(IRIS.encode())[:-20]
    (tmp_path / "cut.csv.gz").write_bytes(cut)
    for name in ("t.csv.gz", "cut.csv.gz"):
        with pytest.raises(InputError, match=f"{name} is damaged, or no gzip file"):
            read_csv(tmp_path / name)


def test_a_large_table_equals_numpys(tmp_path):
    values = RNG.normal(size=(3_000, 5)) * 10.0 ** RNG.integers(-6, 6, (3_000, 5))
    np.savetxt(tmp_path / "t.csv", values, delimiter=",", header="a,b,c,d,e", comments="")
    data = read_csv(tmp_path / "t.csv", ["e"])
    np.testing.assert_array_equal(data.inputs, values[:, :4].astype(np.float32))
    np.testing.assert_array_equal(data.targets, values[:, 4:].astype(np.float32))
