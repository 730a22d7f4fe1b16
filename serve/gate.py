"""What every request passes before its route: a key, how often its caller may ask, a deadline.

It does not know the routes behind it.
"""

from dataclasses import dataclass, field

from fastapi import FastAPI

from llmray.job.schema import Limits
from serve.deadline import Deadline
from serve.keys import Guard, Keys
from serve.quota import Quota
from serve.web import Failure


@dataclass(frozen=True)
class Gate:
    """Open without `keys`; `limits` hold for each key, or for all callers together."""

    keys: Keys | None = None
    limits: Limits = field(default_factory=Limits)

    def before(self, app: FastAPI, route: str, failure: Failure) -> None:
        """Starlette asks first what is added last."""
        app.add_middleware(Deadline, seconds=self.limits.deadline_s, failure=failure)
        if self.limits.requests_per_minute is not None or self.limits.concurrent is not None:
            app.add_middleware(Quota, limits=self.limits, route=route, failure=failure)
        if self.keys:
            app.add_middleware(Guard, keys=self.keys, failure=failure)
