"""Data: sets by name, splits, normalisation, and the order that training takes the examples in.

``jdl.data.load("digits")`` gives train, validation and test; ``Dataset.of((x, y))`` makes one of your own arrays.
"""

from jdl.data import cifar as cifar  # its data sets are known to `load` by being defined
from jdl.data import standard as standard  # so are these
from jdl.data.archives import UnsafeArchive, extract
from jdl.data.augment import (
    Augmentation,
    Binarise,
    Colour,
    Compose,
    Crop,
    CutMix,
    Erase,
    Flip,
    ImageAugmentation,
    Mixup,
    Noise,
    ResizedCrop,
    Rotate,
)
from jdl.data.batches import batches
from jdl.data.dataset import Dataset
from jdl.data.files import ArrayFiles, ImageFolder, TextFile, read_csv, read_npz
from jdl.data.idx import read_idx
from jdl.data.normalise import Normaliser
from jdl.data.order import (
    batch_indices,
    epoch_end_step,
    evaluation_batches,
    indices_between,
    permutation,
    steps_in_epochs,
)
from jdl.data.prefetch import Prefetched, prefetch
from jdl.data.registry import Splits, load, names, register
from jdl.data.sources import CorruptData, DataUnavailable, cache_dir, fetch, verify
from jdl.data.stream_base import Stream
from jdl.data.stream_batches import Batches
from jdl.data.stream_examples import Examples
from jdl.data.streams import as_stream
from jdl.data.text import Vocabulary, pad, split_words
from jdl.data.text_sets import TextSplits
from jdl.data.timeseries import windows
from jdl.data.translation import TranslationSplits, join_words, sequence_pairs

__all__ = [
    "ArrayFiles",
    "Augmentation",
    "Batches",
    "Binarise",
    "Colour",
    "Compose",
    "CorruptData",
    "Crop",
    "CutMix",
    "DataUnavailable",
    "Dataset",
    "Erase",
    "Examples",
    "Flip",
    "ImageAugmentation",
    "ImageFolder",
    "Mixup",
    "Noise",
    "Normaliser",
    "Prefetched",
    "ResizedCrop",
    "Rotate",
    "Splits",
    "Stream",
    "TextFile",
    "TextSplits",
    "TranslationSplits",
    "UnsafeArchive",
    "Vocabulary",
    "as_stream",
    "batch_indices",
    "batches",
    "cache_dir",
    "epoch_end_step",
    "evaluation_batches",
    "extract",
    "fetch",
    "indices_between",
    "join_words",
    "load",
    "names",
    "pad",
    "permutation",
    "prefetch",
    "read_csv",
    "read_idx",
    "read_npz",
    "register",
    "sequence_pairs",
    "split_words",
    "steps_in_epochs",
    "verify",
    "windows",
]
