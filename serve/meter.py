"""What the model's passes were like, for Prometheus; Ray adds application, deployment and replica to each figure.

It does not count HTTP requests, errors and their latency: Ray Serve does.
"""

from ray.serve.metrics import Counter, Histogram

from serve.batcher import Pass

SECONDS = [0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 30, 60]
SIZES = [1, 2, 4, 8, 16, 32, 64, 128]


class Meter:
    """Told of each pass.  Figures have these names behind `ray_`."""

    def __init__(self) -> None:
        self.waited = Histogram("llmray_queue_seconds", "Time that a request waited for the model.", SECONDS)
        self.took = Histogram("llmray_pass_seconds", "Time of one pass of the model, or of one stream.", SECONDS)
        self.size = Histogram("llmray_batch_size", "Requests in one pass.", SIZES)
        self.tokens = Counter("llmray_tokens", "Tokens that the model wrote.")

    def __call__(self, done: Pass) -> None:
        for waited_s in done.waited_s:
            self.waited.observe(waited_s)
        self.took.observe(done.took_s)
        self.size.observe(len(done.waited_s))
        if done.tokens:
            self.tokens.inc(done.tokens)
