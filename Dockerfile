# The service and what it needs, no more. The classifier is mounted, so that one image serves them all:
#
#   docker build --tag image-classification .
#   docker run --read-only --publish 127.0.0.1:8080:8080 --volume <folder of the bundle>:/bundle:ro \
#       --env SERVICE_KEY image-classification
#
# compose.yaml says more of how to run it. tests/service/hosts/test_container.py follows these lines without an engine.
FROM python:3.12-slim-trixie

WORKDIR /service
COPY requirements-serve.txt constraints.txt ./
RUN python -m pip install --no-cache-dir -r requirements-serve.txt -c constraints.txt && \
    python -m pip uninstall --yes pip

COPY PARAMETERS.py ./
COPY libraries libraries
COPY resources/webPage resources/webPage
COPY scripts/deploymain.py scripts/
ENV PYTHONPATH=/service
RUN python -m compileall -q .

# Every parameter can be set so. There is no key in the image: give SERVICE_KEY, or a file and PARAMETERS_keyFile.
ENV PARAMETERS_host=0.0.0.0 PARAMETERS_port=8080 PARAMETERS_bundle=/bundle PARAMETERS_rootDir=/data
EXPOSE 8080
USER 10001:10001
HEALTHCHECK --interval=10s --timeout=5s --start-period=30s \
    CMD ["python", "-c", "import http.client, os, sys; c = http.client.HTTPConnection('127.0.0.1', int(os.environ['PARAMETERS_port']), timeout=4); c.request('GET', '/v2/health/ready'); sys.exit(c.getresponse().status != 200)"]
CMD ["python", "scripts/deploymain.py"]
