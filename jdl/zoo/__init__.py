"""Networks by name, built from the public layers of :mod:`jdl.nn`: to train, to change, and to read."""

__all__: list[str] = []
