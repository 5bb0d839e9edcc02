"""What the service counts, for Prometheus."""

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)
STAGES = ("queue", "decode", "compute")


class Metrics:
    """Counters of one service, in a registry of their own."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.requests = Counter("requests", "Requests answered", ["path", "status"], registry=self.registry)
        self.seconds = Histogram(
            "request_seconds", "Whole time of a request", ["path"], buckets=_SECONDS, registry=self.registry
        )
        stages = Histogram(
            "stage_seconds", "Time of a stage, per image", ["stage"], buckets=_SECONDS, registry=self.registry
        )
        self.stages = {stage: stages.labels(stage) for stage in STAGES}
        self.images = Histogram(
            "images_per_request", "Images in a request", buckets=(1, 2, 4, 8, 16, 32, 64), registry=self.registry
        )
        self.rejected = Counter("rejected", "Requests turned away", ["reason"], registry=self.registry)
        self.predictions = Counter("predictions", "Images classified, by label", ["label"], registry=self.registry)
        self.image_errors = Counter("image_errors", "Images that could not be used", registry=self.registry)
        self.queue = Gauge("queue_images", "Images waiting for a thread", registry=self.registry)
        self.model = Gauge("model", "The bundle in service", ["name", "version"], registry=self.registry)

    def text(self) -> bytes:
        """All of it in Prometheus' text format."""
        return generate_latest(self.registry)
