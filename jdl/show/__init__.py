"""What a person looks at: a table of a model, its graph, curves of training, runs compared on a page, and pictures.

Pictures need matplotlib: ``pip install "jdl[experiments]"``. Each ``plot_`` function returns the figure and, given a
path, writes it whole or not at all.
"""

from jdl.show.activations import plot_activations, plot_vanishing_gradient
from jdl.show.curves import plot_history, plot_runs
from jdl.show.graphs import Graph, graph
from jdl.show.histograms import Histogram, histogram, plot_histograms
from jdl.show.page_compare import compare
from jdl.show.pictures import plot_confusion, plot_decision, plot_images
from jdl.show.schedules import plot_schedules
from jdl.show.table import Summary, summary

__all__ = [
    "Graph",
    "Histogram",
    "Summary",
    "compare",
    "graph",
    "histogram",
    "plot_activations",
    "plot_confusion",
    "plot_decision",
    "plot_histograms",
    "plot_history",
    "plot_images",
    "plot_runs",
    "plot_schedules",
    "plot_vanishing_gradient",
    "summary",
]
