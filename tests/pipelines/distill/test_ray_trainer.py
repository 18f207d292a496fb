"""What Ray Train starts beside the workers, without Ray."""

from ray.train import ScalingConfig
from ray.train.torch import TorchTrainer

from pipelines.distill.ray_trainer import SPARE, Trainer


def callbacks_of(kind):
    trainer = kind(print, scaling_config=ScalingConfig(num_workers=1))
    return {type(each).__name__ for each in trainer._create_default_callbacks()}


def test_what_does_nothing_here_is_left_out():
    everything = callbacks_of(TorchTrainer)
    assert everything >= set(SPARE), "this version of Ray names them otherwise"
    assert callbacks_of(Trainer) == everything - set(SPARE)
