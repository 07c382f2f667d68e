"""A step that came out non-finite: kept in a file, and run again alone to see where."""

from jdl.replaying.files import save_step
from jdl.replaying.replay import replay
from jdl.replaying.report import First, Replay, Row

__all__ = ["First", "Replay", "Row", "replay", "save_step"]
