"""Data from files: small sets read into a `Dataset`, large ones as sources that read an example when it is asked for.

A source has ``len(source)`` and ``source[i]``, gives the same example whenever it is asked, and can be sent to a worker
process.
"""

from jdl.data.files.arrays import ArrayFiles, read_npz
from jdl.data.files.images import ImageFolder
from jdl.data.files.tables import read_csv
from jdl.data.files.text import TextFile

__all__ = ["ArrayFiles", "ImageFolder", "TextFile", "read_csv", "read_npz"]
