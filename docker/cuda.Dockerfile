# Paceline for NVIDIA GPUs: torch brings the CUDA libraries, the node the driver.
# Build it from the repository's root:
#   docker build -f docker/cuda.Dockerfile -t paceline-cuda:0.1.0 .
FROM python:3.11-slim-bookworm AS build
RUN apt-get update && apt-get install --yes --no-install-recommends gcc libc6-dev libgomp1
WORKDIR /src
COPY pyproject.toml setup.py README.md paceline.py ./
COPY models models
COPY actors actors
COPY pipelines pipelines
COPY cluster cluster
# The kernels are compiled here: the compiler stays behind.
RUN python -m venv /opt/venv \
    && /opt/venv/bin/pip install --no-cache-dir .

FROM python:3.11-slim-bookworm
# wget and grep: KubeRay's probes. libgomp1: the kernels.
RUN apt-get update && apt-get install --yes --no-install-recommends wget grep libgomp1 tini \
    && rm -rf /var/lib/apt/lists/* \
    && useradd --uid 1000 --create-home paceline
COPY --from=build /opt/venv /opt/venv
COPY examples /opt/paceline/examples
# Login shells, which KubeRay's start command may use, reset PATH: links are found by them, too.
RUN ln -s /opt/venv/bin/ray /opt/venv/bin/serve /opt/venv/bin/paceline /usr/local/bin/
# No NVIDIA_VISIBLE_DEVICES: pods that ask for GPUs get theirs from the device plugin; the others,
# as the head's, would see all of a node where NVIDIA's runtime is the default.
ENV PATH=/opt/venv/bin:$PATH PYTHONUNBUFFERED=1 RAY_USAGE_STATS_ENABLED=0 \
    NVIDIA_DRIVER_CAPABILITIES=compute,utility
USER 1000
WORKDIR /home/paceline
ENTRYPOINT ["tini", "--"]
CMD ["paceline", "--help"]
