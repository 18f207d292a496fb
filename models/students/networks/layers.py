"""A shallower network to start a student from: some of the teacher's layers, spread evenly."""

import copy
from dataclasses import replace

import numpy as np
from torch import nn

from models.students.teacher import ScaleTeacher, Teacher


def with_layers(teacher: Teacher, count: int | None) -> Teacher:
    """A copy of the teacher with `count` of its layers: the first, the last and some between.

    None: the teacher itself. One layer is the first. The copy's logits are not the teacher's; they
    are what a student starts with.

    Raises:
        ValueError: the teacher has fewer layers.
    """
    every = teacher.config.num_layers
    if count is None or count == every:
        return teacher
    if not 1 <= count <= every:
        raise ValueError(f"{count} layers: the teacher has {every}")
    chosen = np.linspace(0, every - 1, count).round().astype(int).tolist()
    if isinstance(teacher, ScaleTeacher):
        scales = copy.deepcopy(teacher.model)
        scales.config = replace(scales.config, num_layers=count)
        scales.layers = nn.ModuleList(scales.layers[i] for i in chosen)
        return ScaleTeacher(scales, teacher.tokenizer)
    raster = copy.deepcopy(teacher)
    raster.config = replace(raster.config, num_layers=count)
    raster.model.layers = nn.ModuleList(raster.model.layers[i] for i in chosen)
    return raster
