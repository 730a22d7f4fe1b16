"""argv → verb, job, exit code: a thin layer over `llmray.verbs`.

It knows no verb's inner working.  Results go to standard output (`--json`: one JSON object), everything else to
standard error.
"""

import argparse
import json
import os
import signal
import sys
import threading
from collections.abc import Callable, Sequence
from types import FrameType
from typing import Any

from pydantic import BaseModel

from llmray import __version__, verbs
from llmray.job.errors import JobError, LlmrayError
from llmray.job.manual import markdown
from llmray.job.results import CheckResult, DemoResult, KeysResult, ModelsResult, ServeResult
from llmray.showcase import demo

EXIT_CODES = (
    "exit codes: 0 done; 1 the work failed; 2 job file or arguments wrong; 3 a threshold was missed; 130 interrupted"
)
AGAIN_S = 0.05
JOB_VERBS = {
    "prepare": "corpus → tokenised, packed blocks (Ray Data)",
    "train": "pretrain or fine-tune (Ray Data → Ray Train); again: resume",
    "tune": "search learning rate, batch size and any other key (Ray Tune)",
    "evaluate": "score a model on held-out data, beside a naive baseline",
}


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code."""
    os.environ.setdefault("RAY_ENABLE_AUTO_CONNECT", "0")  # a thread that outlives its Ray must not start another one
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, _interrupt)
    sys.unraisablehook = _unraisable
    args = _read(argv)
    try:
        return int(args.run(args) or 0)
    except LlmrayError as error:
        _ignore_signals()
        print(f"llmray {args.verb}: {error}", file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        _ignore_signals()  # others may have listened since; a signal that ends Python's own end hides the exit code
        print(f"llmray {args.verb}: interrupted; everything it started is shut down", file=sys.stderr)
        return 130


def _read(argv: Sequence[str] | None) -> argparse.Namespace:
    """Arguments in any order: argparse alone takes no further words of a job after an option."""
    parser = _parser()
    args, rest = parser.parse_known_args(argv)
    if rest and (not hasattr(args, "job") or any(word.startswith("-") for word in rest)):
        parser.error(f"unrecognized arguments: {' '.join(rest)}")
    if rest:
        args.job = [*args.job, *rest]
    return args


def _interrupt(_number: int, _frame: FrameType | None) -> None:
    """The first signal unwinds; further ones cannot tear the shutting down apart."""
    _ignore_signals()
    print("\nstopping …", file=sys.stderr)
    raise KeyboardInterrupt


def _unraisable(lost: "sys.UnraisableHookArgs") -> None:
    """Python drops what is raised in a destructor; an interruption that came just then is sent again."""
    if lost.exc_type is KeyboardInterrupt:
        signal.signal(signal.SIGINT, _interrupt)
        threading.Timer(AGAIN_S, os.kill, (os.getpid(), signal.SIGINT)).start()
    else:
        sys.__unraisablehook__(lost)


def _ignore_signals() -> None:
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser("llmray", description="The life of a language model on Ray.", epilog=EXIT_CODES)
    parser.add_argument("--version", action="version", version=__version__)
    add = parser.add_subparsers(dest="verb", required=True, metavar="VERB").add_parser
    _demo(add("demo", help="the whole life of a model on this machine"))
    for verb, text in JOB_VERBS.items():
        _job(add(verb, help=text, description=text, epilog=EXIT_CODES), verb)
    _export(add("export", help="a faster form of a model, checked against it"))
    _models(add("models", help="versions and aliases: list, show, register, promote, rollback"))
    _serve(add("serve", help="deploy endpoints (Ray Serve); serve status, serve stop"))
    _keys(add("keys", help="API keys of the endpoints: create, list, revoke"))
    _ui(add("ui", help="the web page in front of endpoints"))
    _submit(add("submit", help="the same verbs on a remote Ray cluster (Ray Jobs)"))
    _jobs(add("jobs", help="remote jobs: list, logs, stop"))
    _cluster(
        add("cluster", help="a Ray cluster on a cloud, on Kubernetes or on given hosts: up, down, status, check, files")
    )
    schema = add("schema", help="JSON schema of the job file, for editors")
    schema.add_argument("--markdown", action="store_true", help="as a reference page for people")
    schema.set_defaults(run=_schema)
    return parser


def _schema(args: argparse.Namespace) -> None:
    print(markdown() if args.markdown else json.dumps(verbs.schema(), indent=2), end="")


def _with_job(parser: argparse.ArgumentParser) -> None:
    text = "a job file and overrides, e.g. train.steps=100 (`llmray schema` lists the keys)"
    parser.add_argument("job", nargs="*", metavar="JOB.yaml section.key=value", help=text)
    parser.add_argument("--json", action="store_true", help="print the result as one JSON object")


def _split(words: Sequence[str]) -> tuple[str | None, list[str]]:
    files = [word for word in words if "=" not in word]
    if len(files) > 1:
        raise JobError(f"one job file at a time; found {', '.join(files)}")
    return (files[0] if files else None), [word for word in words if "=" in word]


def _job(parser: argparse.ArgumentParser, verb: str) -> None:
    def run(args: argparse.Namespace) -> None:
        job, overrides = _split(args.job)
        _print(getattr(verbs, verb)(job, *overrides), args.json)

    _with_job(parser)
    parser.set_defaults(run=run)


def _demo(parser: argparse.ArgumentParser) -> None:
    def run(args: argparse.Namespace) -> None:
        def stay(result: DemoResult) -> None:
            _print(result, args.json)
            if not args.check:
                _wait()

        demo(args.output, *args.override, until=stay)

    parser.add_argument("override", nargs="*", metavar="serve.key=value", help="e.g. serve.port=9000")
    parser.add_argument("--check", action="store_true", help="query every endpoint once, judge the figures, and leave")
    parser.add_argument("--output", default="runs/demo", help="folder for everything it writes")
    parser.add_argument("--json", action="store_true", help="print the result as one JSON object")
    parser.set_defaults(run=run)


def _export(parser: argparse.ArgumentParser) -> None:
    def run(args: argparse.Namespace) -> None:
        job, overrides = _split(args.job)
        _print(verbs.export(args.model, args.to, job, *overrides, int8=args.int8), args.json)

    parser.description = (
        "Convert a model, let both forms answer data.eval, and keep the new one beside the model unless it loses more"
        " than evaluate.tolerance_percent."
    )
    parser.epilog = EXIT_CODES
    parser.add_argument("model", metavar="MODEL", help="a model folder or registry reference")
    _with_job(parser)
    parser.add_argument("--to", required=True, choices=("ctranslate2", "onnx"), help="what is to run it")
    parser.add_argument("--int8", action="store_true", help="with weights rounded to 8 bits")
    parser.set_defaults(run=run)


def _models(parser: argparse.ArgumentParser) -> None:
    def run(args: argparse.Namespace) -> None:
        if args.action in ("list", "show"):
            _print(verbs.models_list(args.output, getattr(args, "name", None)), args.json)
        elif args.action == "register":
            _print(verbs.models_register(args.output, args.name, args.folder), args.json)
        elif args.action == "promote":
            _print(verbs.models_promote(args.output, args.name, args.version, args.alias), args.json)
        else:
            _print(verbs.models_rollback(args.output, args.name, args.alias), args.json)

    actions = parser.add_subparsers(dest="action", required=True, metavar="ACTION").add_parser
    for action, text, arguments in (
        ("list", "every version of every model", ()),
        ("show", "the versions of one model", ("name",)),
        ("register", "copy a run folder's model in as the next version", ("name", "folder")),
        ("promote", "let an alias name a version", ("name", "version")),
        ("rollback", "let an alias name what it named before", ("name",)),
    ):
        one = actions(action, help=text)
        for argument in arguments:
            one.add_argument(argument, type=int if argument == "version" else str)
        if action in ("promote", "rollback"):
            one.add_argument("--alias", default="champion")
        one.add_argument("--output", default="runs", help="the nearest registry/ at or above this folder is used")
        one.add_argument("--json", action="store_true")
    parser.set_defaults(run=run)


def _serve(parser: argparse.ArgumentParser) -> None:
    def run(args: argparse.Namespace) -> None:
        if args.job == ["status"]:
            _print(verbs.serve_status(args.address), args.json)
        elif args.job == ["stop"]:
            verbs.serve_stop(args.address)
        else:
            job, overrides = _split(args.job)
            stayed = False

            def stay(result: ServeResult) -> None:
                nonlocal stayed
                stayed = True
                _print(result, args.json)
                _wait()

            result = verbs.serve(job, *overrides, until=stay)
            if not stayed:  # they live on where they are
                _print(result, args.json)

    _with_job(parser)
    parser.description = "Deploy endpoints; `serve status` and `serve stop` look at a running cluster."
    parser.add_argument("--address", default="auto", help="Ray cluster of `serve status` and `serve stop`")
    parser.set_defaults(run=run)


def _keys(parser: argparse.ArgumentParser) -> None:
    def run(args: argparse.Namespace) -> None:
        job, overrides = _split(args.job)
        if args.action == "list":
            _print(verbs.keys_list(job, *overrides), args.json)
        elif args.action == "create":
            _print(verbs.keys_create(args.name, job, *overrides), args.json)
        else:
            _print(verbs.keys_revoke(args.id, job, *overrides), args.json)

    actions = parser.add_subparsers(dest="action", required=True, metavar="ACTION").add_parser
    for action, text, argument in (
        ("create", "make a key and tell it, this once", "name"),
        ("list", "every key's id, name and dates", None),
        ("revoke", "make a key worthless", "id"),
    ):
        one = actions(action, help=text)
        if argument:
            one.add_argument(argument)
        _with_job(one)
    parser.set_defaults(run=run)


def _ui(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--url", default="http://127.0.0.1:8000", help="base URL of the endpoints")
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on")
    parser.add_argument("--port", type=int, help="port to listen on (default: a free one)")
    parser.add_argument(
        "--key", default=os.environ.get("LLMRAY_API_KEY", ""), help="API key for whoever opens it (or $LLMRAY_API_KEY)"
    )

    def run(args: argparse.Namespace) -> None:
        verbs.ui(args.url, key=args.key, host=args.host, port=args.port, until=_wait)

    parser.set_defaults(run=run)


def _submit(parser: argparse.ArgumentParser) -> None:
    def run(args: argparse.Namespace) -> int:
        job, overrides = _split(args.job)
        chosen = {"address": args.address, "retries": args.retries, "follow": not args.no_wait}
        identity, code = verbs.submit(args.remote, job, *overrides, **chosen)
        print(json.dumps({"job_id": identity, "exit_code": code}) if args.json else identity)
        return code

    parser.add_argument("remote", choices=verbs.REMOTE_VERBS, metavar="VERB", help=", ".join(verbs.REMOTE_VERBS))
    _with_job(parser)
    parser.add_argument("--address", required=True, help="the cluster's dashboard, e.g. http://HOST:8265")
    parser.add_argument("--retries", type=int, default=0, metavar="N", help="run it again, up to N times, if it fails")
    parser.add_argument("--no-wait", action="store_true", help="return once the job is submitted")
    parser.set_defaults(run=run)


def _jobs(parser: argparse.ArgumentParser) -> None:
    def run(args: argparse.Namespace) -> None:
        if args.action == "list":
            _print(verbs.jobs_list(args.address), args.json)
        elif args.action == "logs":
            verbs.jobs_logs(args.address, args.id, follow=args.follow, on_line=print)
        else:
            verbs.jobs_stop(args.address, args.id)

    actions = parser.add_subparsers(dest="action", required=True, metavar="ACTION").add_parser
    for action, text in (("list", "every job"), ("logs", "a job's output"), ("stop", "stop a job")):
        one = actions(action, help=text)
        if action != "list":
            one.add_argument("id")
        if action == "logs":
            one.add_argument("--follow", action="store_true", help="to its end")
        one.add_argument("--address", required=True, help="the cluster's dashboard, e.g. http://HOST:8265")
        one.add_argument("--json", action="store_true")
    parser.set_defaults(run=run)


def _cluster(parser: argparse.ArgumentParser) -> None:
    actions = parser.add_subparsers(dest="action", required=True, metavar="ACTION").add_parser
    for action, text in (
        ("up", "bring it up, or in line with its file"),
        ("down", "take it down with all that it owns, and say what is left"),
        ("status", "what runs, what it costs, how to reach it"),
    ):
        one = actions(action, help=text)
        one.add_argument("cluster", metavar="CLUSTER.yaml")
        one.add_argument("override", nargs="*", metavar="section.key=value")
        one.add_argument("--json", action="store_true", help="print the result as one JSON object")
    check = actions("check", help="what is wrong with a running cluster, and whether a job fits there")
    check.add_argument("cluster", nargs="?", metavar="CLUSTER.yaml", help="whose storage every node is to reach")
    check.add_argument("--job", metavar="JOB.yaml", help="the job that is to fit")
    check.add_argument("--address", default="auto", help="the cluster: auto, HOST:PORT, or its dashboard's http://…")
    check.add_argument("--json", action="store_true", help="print the result as one JSON object")
    files = actions("files", help="what kubectl and SkyPilot need to run one verb on a cluster of its own")
    files.add_argument("cluster", metavar="CLUSTER.yaml")
    files.add_argument("remote", choices=verbs.REMOTE_VERBS, metavar="VERB", help=", ".join(verbs.REMOTE_VERBS))
    files.add_argument("job", metavar="JOB.yaml")
    files.add_argument("--output", default="runs/cluster", help="folder to write to")
    files.add_argument("--json", action="store_true", help="print the result as one JSON object")
    parser.set_defaults(run=_act_on_cluster)


def _act_on_cluster(args: argparse.Namespace) -> int:
    if args.action == "check":
        result = verbs.cluster_check(args.cluster, args.job, address=args.address)
        _print(result, args.json)
        return int(bool(result.findings))
    if args.action == "files":
        _print(verbs.cluster_files(args.cluster, args.remote, args.job, args.output), args.json)
    elif args.action == "down":
        gone = verbs.cluster_down(args.cluster, *args.override)
        _print(gone, args.json)
        return int(bool(gone.left))
    else:
        act = verbs.cluster_up if args.action == "up" else verbs.cluster_status
        _print(act(args.cluster, *args.override), args.json)
    return 0


def _wait() -> None:
    print("Press Ctrl-C to stop.", file=sys.stderr)
    threading.Event().wait()


def _print(result: BaseModel, as_json: bool) -> None:
    if as_json:
        print(result.model_dump_json(), flush=True)
        return
    from rich.console import Console

    show: Callable[..., None] = Console(highlight=False, soft_wrap=True).print
    for table in _tables(result):
        show(table)


def _tables(result: BaseModel) -> list[Any]:
    from rich.table import Table

    if isinstance(result, (KeysResult, ModelsResult, ServeResult)) or hasattr(result, "jobs"):
        rows = next(v for _, v in result if isinstance(v, tuple))
        return [_grid([row.model_dump() for row in rows])] if rows else ["nothing yet"]
    if isinstance(result, CheckResult):
        rest = Table(show_header=False, box=None)
        for key in ("nodes", "gpus", "worker_gib", "hours", "cost"):
            rest.add_row(key, _cell(getattr(result, key)))
        return [rest, _grid([f.model_dump() for f in result.findings]) if result.findings else "no fault found"]
    if isinstance(result, DemoResult):
        scores = [{"model": m, "metric": k, "value": v} for m, ks in result.metrics.items() for k, v in ks.items()]
        urls = [
            {"route": route, "URL": url, "answer": result.answers.get(route, "")} for route, url in result.urls.items()
        ]
        return [_grid(scores), _grid(urls)]
    table = Table(show_header=False, box=None)
    for key, value in result:
        table.add_row(key, _cell(value))
    return [table]


def _grid(rows: Sequence[dict[str, Any]]) -> Any:
    from rich.table import Table

    table = Table(*rows[0])
    for row in rows:
        table.add_row(*(_cell(value) for value in row.values()))
    return table


def _cell(value: Any) -> str:
    if isinstance(value, dict):
        return "\n".join(f"{k} {_cell(v)}" for k, v in value.items())
    if isinstance(value, (list, tuple)):
        words = [str(each) for each in value]
        return ("\n" if any(" " in word for word in words) else ", ").join(words)  # commands are to be copied
    return f"{value:,.3f}" if isinstance(value, float) else str(value)
