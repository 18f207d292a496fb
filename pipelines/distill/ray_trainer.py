"""Ray Train without the processes that do nothing for our trainings."""

from typing import Any

from ray.train.torch import TorchTrainer

# Each would be a process that loads for seconds. The first hands out datasets of Ray Data, which we
# do not use. The second frees the workers' places if Ray Train's controller dies while its driver
# lives on; ours ends then, which frees them. It asks the dashboard whether the controller lives, so
# without a dashboard, as in clusters that we start, it delays the end of a training by 12 s.
SPARE = ("DatasetsCallback", "PlacementGroupCleanerCallback")


class Trainer(TorchTrainer):
    """Ray Train's, without SPARE. A version of Ray that names them otherwise has them all."""

    def _create_default_callbacks(self) -> list[Any]:
        found: list[Any] = super()._create_default_callbacks()  # type: ignore[misc]
        return [each for each in found if type(each).__name__ not in SPARE]
