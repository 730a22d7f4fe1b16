"""Ends a cluster's machines, the head last, when nobody has had work for it for some time.

    python -m cluster.rest MINUTES

It runs on the head of a cluster that Ray's launcher made, and ends machines as the launcher does.  It does not know
which cloud they are of.
"""

import os
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import yaml
from ray.autoscaler._private.providers import _get_node_provider
from ray.autoscaler.tags import NODE_KIND_HEAD, NODE_KIND_WORKER, TAG_RAY_NODE_KIND
from ray.dashboard.modules.serve.sdk import ServeSubmissionClient
from ray.exceptions import RayError
from ray.job_submission import JobSubmissionClient

DASHBOARD = "http://127.0.0.1:8265"
LAUNCHED = Path("~/ray_bootstrap_config.yaml")
"""What Ray's launcher left on the head for its autoscaler."""
WATCHER = Path("~/.llmray-rest.pid")
"""Names the process that watches; one that it does not name ends, so that a newer one takes over."""
EVERY_S = 15.0


def has_work(address: str = DASHBOARD) -> bool:
    """Whether a job runs or waits, a program is connected, or endpoints are served.

    A Ray that does not answer may be busy, and one that answers to another token is another cluster's.
    """
    try:
        jobs = JobSubmissionClient(address).list_jobs()
        served = ServeSubmissionClient(address).get_serve_details()["applications"]
    except (OSError, RuntimeError, RayError) as error:
        print(f"{address} does not answer: {error}", flush=True)
        return True
    return bool(served) or any(not job.status.is_terminal() for job in jobs)


def wait_until_idle(for_s: float, watching: Callable[[], bool], busy: Callable[[], bool], every_s: float) -> bool:
    """Whether nobody had work for so long; false when this is no longer the one that watches."""
    since = time.monotonic()
    while watching():
        if busy():
            since = time.monotonic()
        elif time.monotonic() - since >= for_s:
            return True
        time.sleep(every_s)
    return False


def end_machines(launched: Mapping[str, Any]) -> None:
    """Workers first: who ends the head ends this.  Ray is stopped before, or it would replace what goes."""
    subprocess.run([sys.executable, "-m", "ray.scripts.scripts", "stop"], check=False)
    provider = _get_node_provider(launched["provider"], launched["cluster_name"])
    for kind in (NODE_KIND_WORKER, NODE_KIND_HEAD):
        if machines := provider.non_terminated_nodes({TAG_RAY_NODE_KIND: kind}):
            print(f"nobody had work: ending {', '.join(machines)}", flush=True)
            provider.terminate_nodes(machines)


def main(minutes: float) -> None:
    mark = WATCHER.expanduser()
    mark.write_text(str(os.getpid()))

    def watching() -> bool:
        return mark.exists() and mark.read_text() == str(os.getpid())

    if wait_until_idle(60 * minutes, watching, has_work, EVERY_S):
        end_machines(yaml.safe_load(LAUNCHED.expanduser().read_text()))


if __name__ == "__main__":
    main(float(sys.argv[1]))
