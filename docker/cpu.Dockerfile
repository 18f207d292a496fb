# Paceline for CPUs. Build it from the repository's root:
#   docker build -f docker/cpu.Dockerfile -t paceline-cpu:0.1.0 .
# PIP_ARGS: more arguments for pip, such as an index of torch's CPU packages.
FROM python:3.11-slim-bookworm AS build
ARG PIP_ARGS=""
RUN apt-get update && apt-get install --yes --no-install-recommends gcc libc6-dev libgomp1
WORKDIR /src
COPY pyproject.toml setup.py constraints-cpu.txt README.md paceline.py ./
COPY models models
COPY actors actors
COPY pipelines pipelines
COPY cluster cluster
# The kernels are compiled here: the compiler stays behind.
RUN python -m venv /opt/venv \
    && /opt/venv/bin/pip install --no-cache-dir ${PIP_ARGS} -c constraints-cpu.txt .

FROM python:3.11-slim-bookworm
# wget and grep: KubeRay's probes. libgomp1: the kernels.
RUN apt-get update && apt-get install --yes --no-install-recommends wget grep libgomp1 tini \
    && rm -rf /var/lib/apt/lists/* \
    && useradd --uid 1000 --create-home paceline
COPY --from=build /opt/venv /opt/venv
COPY examples /opt/paceline/examples
# Login shells, which KubeRay's start command may use, reset PATH: links are found by them, too.
RUN ln -s /opt/venv/bin/ray /opt/venv/bin/serve /opt/venv/bin/paceline /usr/local/bin/
ENV PATH=/opt/venv/bin:$PATH PYTHONUNBUFFERED=1 RAY_USAGE_STATS_ENABLED=0
USER 1000
WORKDIR /home/paceline
ENTRYPOINT ["tini", "--"]
CMD ["paceline", "--help"]
