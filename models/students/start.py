"""Makes a student of a teacher, by its method and by the kind of the target."""

import torch

from models.students.config import MadeFor, StudentConfig
from models.students.methods import BY_SCORE, FLOW_MAP, TWO_HEAD
from models.students.networks.frozen import FrozenStudent
from models.students.networks.generator import Generator
from models.students.networks.raster import Student
from models.students.networks.scale import ScaleStudent
from models.students.networks.two_head import TwoHeadStudent
from models.students.scale_config import ScaleStudentConfig
from models.students.teacher import ScaleTeacher, Teacher
from models.training.raster import RasterModel

AnyConfig = StudentConfig | ScaleStudentConfig
RasterStudent = Student | TwoHeadStudent | Generator
AnyStudent = RasterStudent | ScaleStudent
Sampled = FrozenStudent | TwoHeadStudent | Generator | ScaleStudent
OF_METHODS: dict[str, type[RasterStudent]] = {
    FLOW_MAP: Student,
    TWO_HEAD: TwoHeadStudent,
    BY_SCORE: Generator,
}


def config_of(
    teacher: Teacher, target: MadeFor, guidance: float = 1.0, method: str = FLOW_MAP
) -> AnyConfig:
    """The configuration of a student of this teacher.

    Raises:
        UnsupportedCheckpoint: the method has no students of such a target.
    """
    if isinstance(teacher, ScaleTeacher):
        sizes = teacher.config
        return ScaleStudentConfig(target=target, sizes=sizes, guidance=guidance, method=method)
    return StudentConfig.of(teacher.config, target, guidance, method)


def new_student(
    config: StudentConfig, codebook: torch.Tensor, prior: torch.Tensor
) -> RasterStudent:
    """A student of a raster target with weights at their start; prior [K, n, V]."""
    return OF_METHODS[config.method](config, codebook, prior)


def student_of(teacher: Teacher, config: AnyConfig, prior: torch.Tensor) -> AnyStudent:
    """A student with the teacher's weights.

    By `flow-map`, it is this teacher where all tokens are known. By `score`, it samples all places
    independently from the prior.
    """
    if isinstance(teacher, ScaleTeacher):
        assert isinstance(config, ScaleStudentConfig)
        scales = ScaleStudent(config, teacher.tokenizer, prior)
        scales.model.load_state_dict(teacher.model.state_dict())
        return scales
    assert isinstance(teacher, RasterModel)
    assert isinstance(config, StudentConfig)
    student = new_student(config, teacher.codebook, prior)
    if isinstance(student, Generator):
        student.raster.model.load_state_dict(teacher.model.state_dict())
    else:
        student.raster.load_state_dict(teacher.state_dict())
    return student


def frozen(student: AnyStudent) -> Sampled:
    """The student for sampling: its passes on the compiled kernels where there are some for it."""
    return FrozenStudent(student) if isinstance(student, Student) else student
