"""Table of contents: public names and where they live. ``__init__.py`` reads it and loads names when first used."""

from jdl import data as data
from jdl import losses as losses
from jdl import metrics as metrics
from jdl import nn as nn
from jdl import schedules as schedules
from jdl import show as show
from jdl.check import InputError as InputError
from jdl.fitting import fit as fit
from jdl.gradients import Gradient as Gradient
from jdl.gradients import accumulate as accumulate
from jdl.gradients import clip_per_example as clip_per_example
from jdl.gradients import gradient as gradient
from jdl.gradients import loss_scaled as loss_scaled
from jdl.gradients import mean_over_devices as mean_over_devices
from jdl.gradients import per_example_gradients as per_example_gradients
from jdl.gradients import sharpness_aware as sharpness_aware
from jdl.gradients import vector_field as vector_field
from jdl.nn.paths import freeze as freeze
from jdl.nn.paths import label as label
from jdl.nn.paths import paths as paths
from jdl.nn.paths import select as select
from jdl.nn.paths import unfreeze as unfreeze
from jdl.nn.settings import Variables as Variables
from jdl.objectives import Aux as Aux
from jdl.objectives import Objective as Objective
from jdl.objectives import augmented as augmented
from jdl.objectives import l1 as l1
from jdl.objectives import l2 as l2
from jdl.objectives import supervised as supervised
from jdl.programs import CompilationWarning as CompilationWarning
from jdl.runs import Run as Run
from jdl.runs import evaluate as evaluate
from jdl.runs import predict as predict
from jdl.show import graph as graph
from jdl.show import summary as summary
from jdl.steps import TrainState as TrainState
from jdl.steps import average_params as average_params
from jdl.steps import eval_params as eval_params
from jdl.steps import init_state as init_state
from jdl.steps import make_step as make_step
from jdl.steps import scan_steps as scan_steps
from jdl.steps import start_state as start_state

__version__: str
