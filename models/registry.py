"""Everything that is chosen by name, one line each. An object is loaded when it is first used.

To add one: write its file and its test, and add its line here. Options, their help and the messages
about unknown names read the names from here. `where` is "module:attribute", see `load`.
"""

import difflib
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

from models.drafting.folder_kind import EAGLE, HYDRA, MEDUSA, MODEL, folder_kind
from models.errors import InvalidOption
from models.students.about import MODEL_TYPE as STUDENT_TYPE
from models.targets.decoder.config import meant


@dataclass(frozen=True, slots=True, kw_only=True)
class RuleEntry:
    """A verification rule: a function from a Round to the commits of its requests.

    `exactness` labels its tokens, see models/exactness.py. `sampled`: it needs chains that were
    sampled with random numbers of their own, with their distributions, and its tokens come from
    random numbers of its own too; other rules take trees of any tokens and a request's own map.
    """

    where: str
    exactness: str
    sampled: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class DrafterEntry:
    """A drafter: a function from an EngineConfig to a Drafter; see `Build` in models/engine.py.

    `told` describes it in the options' help. `rule`: the only rule that it works with; None: any.
    `max_width`: the most nodes of a tree for one position; 1: chains only. `free`: drafting takes
    no time worth counting. `remote`: it can work in a draft actor. `window`: its drafts come from
    the target's previous pass, and have a fixed length.
    """

    where: str
    told: str
    rule: str | None = None
    max_width: int = 1
    free: bool = True
    remote: bool = True
    window: bool = False


GUMBEL = "gumbel"  # the default map
FLOW = "flow:K20:v1"  # of image targets with a codebook; the map that students learn
NONE, SEQUENTIAL = "none", "sequential"  # nothing is drafted

# From random numbers to tokens: functions from a target to a NoiseMap, models/sampling/maps.py
MAPS: dict[str, str] = {
    GUMBEL: "models.sampling.maps:gumbel_map",
    FLOW: "models.sampling.flow:flow_map",
}
RULES: dict[str, RuleEntry] = {
    "match": RuleEntry(where="models.verify.match:match", exactness="identical", sampled=False),
    "rejection": RuleEntry(
        where="models.verify.rejection:rejection", exactness="distribution", sampled=True
    ),
    "block": RuleEntry(where="models.verify.block:block", exactness="distribution", sampled=True),
}
DRAFTERS: dict[str, DrafterEntry] = {
    NONE: DrafterEntry(where="models.drafting.drafter:build_none", told="plain decoding"),
    "lookup": DrafterEntry(
        where="models.drafting.copies.lookup:build", told="copies from the text so far"
    ),
}
# A drafter that is none of these names is the folder of a model.
FOLDER = DrafterEntry(
    where="models.drafting.draft_models.build:build",
    told="the folder of a draft model, of an EAGLE-3 drafter, or of Medusa or Hydra heads",
    max_width=8,
    free=False,
)
# Or the folder of a student of the target, where the target generates images.
STUDENT = DrafterEntry(
    where="models.drafting.parallel.canvas:build",
    told="the folder of a student of an image target",
    rule="match",
    free=False,
    remote=False,
    window=True,
)
# What a folder may hold, by its config.json; see models/drafting/folder_kind.py.
FOLDERS: dict[str, DrafterEntry] = {
    MODEL: FOLDER,
    EAGLE: DrafterEntry(
        where="models.drafting.heads.build:build_eagle",
        told="an EAGLE-3 drafter",
        max_width=FOLDER.max_width,
        free=False,
    ),
    STUDENT_TYPE: STUDENT,
    MEDUSA: DrafterEntry(
        where="models.drafting.heads.build:build_medusa",
        told="Medusa heads",
        max_width=FOLDER.max_width,
        free=False,
    ),
    HYDRA: DrafterEntry(
        where="models.drafting.heads.build:build_hydra",
        told="Hydra heads",
        max_width=FOLDER.max_width,
        free=False,
    ),
}
# The parallel decoders are drafters whose draft tokens come from the target's previous pass.
DECODERS: dict[str, DrafterEntry] = {
    SEQUENTIAL: DrafterEntry(where=DRAFTERS[NONE].where, told="one token"),
    "jacobi": DrafterEntry(
        where="models.drafting.parallel.jacobi:build",
        told="a window, the same images",
        rule="match",
        window=True,
    ),
    "sjd": DrafterEntry(
        where="models.drafting.parallel.jacobi:build",
        told="a window, images of the same distribution",
        rule="rejection",
        remote=False,
        window=True,
    ),
    "mc-sjd": DrafterEntry(
        where="models.drafting.parallel.jacobi:build",
        told="a window, images of the same distribution",
        rule="rejection",
        remote=False,
        window=True,
    ),
}


def drafters() -> dict[str, DrafterEntry]:
    """All drafters that have a name, the parallel decoders included."""
    decoders = {name: entry for name, entry in DECODERS.items() if name != SEQUENTIAL}
    return DRAFTERS | decoders


def drafter_entry(name: str) -> DrafterEntry:
    """The drafter of this name, or what the folder of this name holds."""
    return drafters().get(name) or FOLDERS[folder_kind(name)]


def is_folder(drafter: str) -> bool:
    """Whether a drafter is what a folder holds.

    Raises:
        InvalidOption: it is nothing at all; the message has the name or folder most like it.
    """
    names = drafters()
    if drafter in names:
        return False
    try:
        found = Path(drafter).is_dir()
    except OSError as error:  # it may not be looked at, or its name is too long
        told = f"{FOLDER.told}: {error.strerror}"
        raise InvalidOption("drafter", f"{drafter:.80}", told) from None
    if not found:
        near = difflib.get_close_matches(drafter, names, n=1)
        hint = f"; did you mean {near[0]!r}?" if near else meant(Path(drafter))
        told = f"{', '.join(DRAFTERS)} or {FOLDER.told}{hint}"
        raise InvalidOption("drafter", drafter, told)
    return True


def load(where: str) -> Any:
    """The object that "module:attribute" stands for."""
    module, _, name = where.partition(":")
    return getattr(import_module(module), name)


def is_draft_model(drafter: str) -> bool:
    """Whether a drafter is a folder with a draft model."""
    try:
        is_folder = drafter not in drafters() and Path(drafter).is_dir()
    except OSError:  # its name is too long, or it may not be looked at
        return False
    return is_folder and folder_kind(drafter) == MODEL
