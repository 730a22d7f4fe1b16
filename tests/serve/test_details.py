"""What Ray Serve's own words become."""

from serve import details

TRACEBACK = """Deployment 'qa' in application 'qa' failed 1 times:
Traceback (most recent call last):
  File "deploy.py", line 45, in __init__
    self.predictor = load(endpoint, model)
llmray.job.errors.ModelError: /m/missing: no such folder
"""


def test_the_reason_is_the_exception_and_not_its_stack() -> None:
    assert details.reason(["", TRACEBACK]) == "ModelError: /m/missing: no such folder"
    assert details.reason(["no CPUs"]) == "no CPUs"
    assert "logs" in details.reason([""])


def test_haproxy_s_alert_is_what_stopped_it() -> None:
    said = (
        "RuntimeError: crashed\n[NOTICE] version\n[ALERT] cannot bind socket (Address already in use)\n[ALERT] Exiting"
    )
    assert details.alert(said) == "[ALERT] cannot bind socket (Address already in use)"
    assert details.alert("HTTP proxies not available") == "HTTP proxies not available"


def test_an_address_of_every_interface_is_named_by_the_machine_s_own() -> None:
    assert details.base_url("127.0.0.1", 8000, "10.0.0.7") == "http://127.0.0.1:8000"
    assert details.base_url("0.0.0.0", 8000, "10.0.0.7") == "http://10.0.0.7:8000"
    assert details.base_url("::1", 8000, "10.0.0.7") == "http://[::1]:8000"


def test_an_endpoint_counts_the_replicas_that_run() -> None:
    deployment = {
        "deployment_config": {"user_config": {"task": "qa", "model": "runs/qa"}},
        "replicas": [{"state": "RUNNING"}, {"state": "STARTING"}],
    }
    app = {"name": "qa", "route_prefix": "/qa", "status": "RUNNING", "deployments": {"qa": deployment}}
    found = details.endpoint("http://h:1", app, {})
    assert (found.url, found.model, found.replicas) == ("http://h:1/qa", "runs/qa", 1)


def test_waiting_too_long_says_what_is_free() -> None:
    assert "/qa, /caption did not get ready within 600 s; the cluster has 0.5 CPUs" in details.too_slow(
        ["/qa", "/caption"], 600, {"CPU": 0.5}
    )
