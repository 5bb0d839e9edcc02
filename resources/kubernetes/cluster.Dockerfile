# A node of the Ray cluster in cluster.yaml: what scripts 1 to 5 need. From the project's folder:
#
#   docker build --file resources/kubernetes/cluster.Dockerfile --tag image-classification-cluster .
FROM python:3.12-slim-trixie

WORKDIR /pipeline
COPY requirements-serve.txt requirements-train.txt requirements-cluster.txt constraints.txt ./
RUN python -m pip install --no-cache-dir \
        -r requirements-serve.txt -r requirements-train.txt -r requirements-cluster.txt -c constraints.txt && \
    useradd --uid 10001 --home-dir /tmp --no-create-home pipeline

COPY PARAMETERS.py ./
COPY libraries libraries
COPY scripts scripts
ENV PYTHONPATH=/pipeline
RUN python -m compileall -q .

ENV PARAMETERS_rootDir=/data RAY_USAGE_STATS_ENABLED=0 HOME=/tmp
USER 10001:10001
