"""What jdl does on real data, one file an experiment; README.md holds the table of results.

They run from a checkout: ``python -m experiments.digits``.
"""

import time

STARTED = time.perf_counter()  # before the first heavy import, so that an experiment's seconds hold its imports too
