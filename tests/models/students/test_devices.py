"""Trainings of students on another device than the CPU: everything is there, losses are the same.

On the device of tests/models/accelerator.py, which refuses to mix devices, as CUDA does.
"""

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel

from models.sampling.flow import FlowMap
from models.students.checkpoint import load_student
from models.students.config import MadeFor
from models.students.kind import StudentLessons, build_student
from models.students.losses import Given
from models.students.methods import BY_SCORE, FLOW_MAP, TWO_HEAD
from models.students.sample import image_noise, sample
from models.students.start import frozen
from models.targets.next_scale.model import NextScaleConfig, NextScaleModel
from models.tokenizers import TOKENIZER_FOLDER
from models.training.alternating import step_of
from models.training.determinism import be_deterministic
from models.training.engines.worker import Worker
from models.training.raster import RasterConfig, RasterModel
from models.training.state import load_state, save_state
from models.training.step import TrainingPlan
from tests.models.tokenizers.tiny_images import SCALES, VOCABULARY, grid, scales

CPU, RECORDS, CLASSES = torch.device("cpu"), 44, 3
CASES = [("raster", FLOW_MAP), ("raster", TWO_HEAD), ("raster", BY_SCORE), ("scale", FLOW_MAP)]


def raster_target(folder):
    torch.manual_seed(1)
    config = RasterConfig(
        vocab_size=VOCABULARY, code_width=4, num_classes=CLASSES, grid_width=4, grid_height=4,
        width=16, inner_width=24, num_layers=2, num_heads=2,
    )  # fmt: skip
    model = RasterModel(config, grid().codebook())
    model.lm_head.weight.data *= 50  # laws far from equal
    model.save(folder, torch.float32)
    grid().save(folder / TOKENIZER_FOLDER)
    return config.num_tokens


def scale_target(folder):
    torch.manual_seed(1)
    config = NextScaleConfig(
        vocab_size=VOCABULARY, code_width=4, num_classes=CLASSES, scales=SCALES, width=16,
        inner_width=24, num_layers=2, num_heads=2,
    )  # fmt: skip
    model = NextScaleModel(config)
    model.head.weight.data *= 50
    model.save(folder, torch.float32)
    scales().save(folder / TOKENIZER_FOLDER)
    return config.num_tokens


@pytest.fixture(scope="module")
def targets(tmp_path_factory):
    """Folders with a target and a file of records, by kind."""
    found = {}
    for kind, make in (("raster", raster_target), ("scale", scale_target)):
        folder = tmp_path_factory.mktemp(kind)
        tokens = np.random.default_rng(0).integers(0, VOCABULARY, (RECORDS, make(folder)))
        rows = {
            "label": [row % CLASSES for row in range(RECORDS)],
            "tokens": tokens.tolist(),
            "seed": list(range(RECORDS)),
        }
        pq.write_table(pa.table(rows), folder / "records.parquet")
        found[kind] = folder
    return found


def lessons_of(folder, method=FLOW_MAP):
    """Of a folder of `targets`."""
    return StudentLessons(
        target=str(folder),
        made_for=MadeFor(path=str(folder), digest="0" * 32),
        files=(str(folder / "records.parquet"),),
        label_field="label",
        guidance=1.5,
        method=method,
        seed=0,
    )


def training_on(device, folder, method):
    worker = Worker(device=device)
    plan = TrainingPlan(steps=4, batch=6, rate=1e-2)
    return step_of(build_student(lessons_of(folder, method), worker), plan, worker)


def figures_on(device, folder, method, place):
    """Of all steps and exams of a training that is resumed after half of them, and itself."""
    first = training_on(device, folder, method)
    found = [first.examine(), first.step(), first.step(), first.examine()]
    second = training_on(device, folder, method)
    load_state(save_state(place / "state", first, {}), second, {})
    found += [second.step(), second.step(), second.examine()]
    second.kind.export(second.chosen(), place / "student")
    return found, second


def sampled(folder, device):
    """The tokens of a few images, in two passes."""
    student = frozen(load_student(folder, device))
    config, classes = student.config, (torch.arange(4) % CLASSES).to(device)
    noise = image_noise(np.arange(4), config.num_tokens, config.code_width).to(device)
    return sample(student, FlowMap(student.codebook), classes, noise, steps=2)


@sdpa_kernel(SDPBackend.MATH)  # the only one that the other device has
@pytest.mark.parametrize(("kind", "method"), CASES)
def test_figures_are_those_of_the_cpu(tmp_path, targets, kind, method, accel):
    wanted, _ = figures_on(CPU, targets[kind], method, tmp_path / "cpu")
    found, training = figures_on(accel, targets[kind], method, tmp_path / "accel")
    for own, other in zip(found, wanted, strict=True):
        assert own == pytest.approx(other, rel=1e-6, abs=1e-6)
    networks = [training.kind.model, training.average, training.chosen()]
    networks += [training.kind.second] if method == BY_SCORE else []
    tensors = [tensor for network in networks for tensor in network.state_dict().values()]
    assert {tensor.device for tensor in [*tensors, *training.engine.moments().values()]} == {accel}
    folder = tmp_path / "cpu" / "student"
    assert torch.equal(sampled(folder, accel).cpu(), sampled(folder, CPU))


def test_a_batch_that_is_left_on_the_cpu_is_noticed(targets, accel, monkeypatch):
    training = training_on(accel, targets["raster"], FLOW_MAP)
    monkeypatch.setattr(Given, "to", lambda self, device: self)
    with pytest.raises(RuntimeError, match="Expected all tensors to be on the same device"):
        training.step()


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU is here")
@pytest.mark.parametrize(("kind", "method"), CASES)
def test_two_trainings_on_a_gpu_have_the_same_figures(tmp_path, targets, kind, method):
    gpu = torch.device("cuda")
    be_deterministic(gpu)
    one, other = (figures_on(gpu, targets[kind], method, tmp_path / name)[0] for name in "ab")
    torch.use_deterministic_algorithms(False)
    assert one == other
    assert one[1]["loss"] == pytest.approx(
        training_on(CPU, targets[kind], method).step()["loss"], rel=1e-3
    )
