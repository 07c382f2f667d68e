"""Compare runs: ``python -m jdl.show runs/*`` writes one page and says where."""

from __future__ import annotations

import argparse
import sys
import webbrowser
from collections.abc import Sequence
from pathlib import Path

from jdl.check import InputError
from jdl.show.page_compare import compare


def main(arguments: Sequence[str] | None = None) -> int:
    """The command; returns its exit status."""
    parser = argparse.ArgumentParser(prog="python -m jdl.show", description=__doc__)
    parser.add_argument("folders", nargs="+", help="folders of runs, each with metrics.jsonl or result.json")
    parser.add_argument("--out", default="comparison.html", help="the page to write (default: %(default)s)")
    parser.add_argument("--open", action="store_true", help="show it in the browser")
    given = parser.parse_args(arguments)
    try:
        troubles = compare(given.folders, given.out)
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    for trouble in troubles:
        print(trouble, file=sys.stderr)
    print(given.out)
    if given.open:
        webbrowser.open(Path(given.out).resolve().as_uri())
    return 0


if __name__ == "__main__":
    sys.exit(main())
