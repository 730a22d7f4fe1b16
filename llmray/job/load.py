"""YAML and `key=value` overrides → one judged `Job`, or another kind of file that is a pydantic model.

It does not know what a job is for.  Every error names file, line, key, the value found, what is allowed and, for a
mistyped key, the nearest valid one.
"""

import difflib
import re
import types
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, NamedTuple, TypeVar, Union, get_args, get_origin

import yaml
from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from llmray.job.errors import JobError
from llmray.job.schema import Job
from llmray.job.task import TaskName

Loc = tuple[int | str, ...]
Model = TypeVar("Model", bound=BaseModel)


class _Loader(yaml.SafeLoader):
    """YAML 1.2's core schema, so that 5e-4 is a number and `no` is a word; a key given twice is an error."""

    yaml_implicit_resolvers: dict[str, list[tuple[str, re.Pattern[str]]]] = {}  # noqa: RUF012 — as in the base class

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen: set[str] = set()
        for key, _ in node.value:
            if key.value in seen:
                raise yaml.constructor.ConstructorError(None, None, f"key {key.value!r} is given twice", key.start_mark)
            seen.add(key.value)
        return super().construct_mapping(node, deep)


class _Dumper(yaml.SafeDumper):
    """Quotes whatever `_Loader` would read as something else than text."""

    yaml_implicit_resolvers: dict[str, list[tuple[str, re.Pattern[str]]]] = {}  # noqa: RUF012 — as in the base class


for _tag, _pattern, _first in (
    ("bool", r"^(?:true|True|TRUE|false|False|FALSE)$", "tTfF"),
    ("int", r"^[-+]?[0-9]+$", "-+0123456789"),
    ("float", r"^[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?$|^[-+]?\.inf$|^\.nan$", "-+.0123456789"),
    ("null", r"^(?:~|null|Null|NULL|)$", ["~", "n", "N", ""]),
):
    for _side in (_Loader, _Dumper):
        _side.add_implicit_resolver(f"tag:yaml.org,2002:{_tag}", re.compile(_pattern), list(_first))


def load(job: Job | Mapping[str, Any] | str | Path | None, overrides: Sequence[str] = ()) -> Job:
    """Judge a job file (or a mapping, or nothing) with `section.key=value` overrides.  Raises `JobError`."""
    return judge(Job, job.model_dump(by_alias=True, exclude_unset=True) if isinstance(job, Job) else job, overrides)


def judge(
    model: type[Model],
    source: Mapping[str, Any] | str | Path | None,
    overrides: Sequence[str] = (),
    what: str = "job",
) -> Model:
    """Judge a file of some kind (or a mapping, or nothing) with overrides.  Raises `JobError`."""
    if isinstance(source, (str, Path)):
        name = str(source)
        tree, node = _parse(_read(Path(source), what), name)
    else:
        name, tree, node = what, dict(source or {}), None
    if not isinstance(tree, dict):
        raise JobError(f"{name}: a {what} file is a mapping of sections; found {type(tree).__name__}")
    overridden = {_override(tree, text): text for text in overrides}
    try:
        return model.model_validate(tree)
    except ValidationError as error:
        details = error.errors(include_url=False)
        place = _Place(model, what, name, node, overridden)
        raise JobError("\n".join(_message(e, place) for e in details)) from None


def dump(job: Job) -> str:
    """The resolved job as YAML that `load` reads back to an equal job."""
    return as_yaml(job)


def as_yaml(value: BaseModel) -> str:
    """Any judged file as YAML that `judge` reads back to an equal value."""
    return yaml.dump(value.model_dump(mode="json", by_alias=True), Dumper=_Dumper, sort_keys=False, allow_unicode=True)


def require(job: Job, *keys: str) -> None:
    """Raise `JobError` unless each dotted key has a value."""
    for key in keys:
        value: Any = job
        for part in key.split("."):
            value = getattr(value, "from_" if part == "from" else part, None)
        if value in (None, ()):
            raise JobError(f"{key}: this verb needs it, in the job file or as `{key}=…` on the command line")


def set_key(tree: dict[str, Any], dotted: str, value: Any) -> None:
    """Set `a.b.0.c` in nested mappings and lists, opening `task: qa` and `train: file` shorthands on the way."""
    *path, last = [int(part) if part.isdigit() else part for part in dotted.split(".")]
    here: Any = tree
    for depth, part in enumerate(path):
        if isinstance(part, int) != isinstance(here, list):
            raise TypeError(f"{part} does not name a place in {type(here).__name__}")
        child = here.get(part) if isinstance(here, dict) else here[part]
        if isinstance(child, str):
            child = {"name" if depth == 0 else "path": child}
        elif child is None:
            child = {}
        here[part] = list(child) if isinstance(child, tuple) else child
        here = here[part]
    here[last] = value


def _read(path: Path, what: str) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except FileNotFoundError:
        beside = sorted(str(p) for p in path.parent.glob("*.yaml")) if path.parent.is_dir() else []
        near = difflib.get_close_matches(str(path), beside, 1, 0.5)
        raise JobError(f"{path}: no such {what} file" + (f"; did you mean {near[0]}?" if near else "")) from None
    except (OSError, UnicodeDecodeError) as error:
        raise JobError(f"{path}: cannot be read as a {what} file: {error}") from None


def _parse(text: str, name: str) -> tuple[Any, yaml.Node | None]:
    try:
        return yaml.load(text, _Loader) or {}, yaml.compose(text, _Loader)
    except yaml.MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else 1
        raise JobError(f"{name}:{line}: not valid YAML: {error.problem}") from None
    except yaml.YAMLError as error:
        raise JobError(f"{name}: not valid YAML: {error}") from None


def _override(tree: dict[str, Any], text: str) -> str:
    key, equals, value = text.partition("=")
    if not equals or not key:
        raise JobError(f"{text!r}: an override is written section.key=value")
    try:
        set_key(tree, key, yaml.load(value, _Loader))
    except yaml.YAMLError as error:
        raise JobError(f"{text!r}: the value is not valid YAML: {error}") from None
    except (IndexError, TypeError, ValueError, AttributeError):
        raise JobError(f"{text!r}: there is nothing at {key!r} to set; see `llmray schema` for the keys") from None
    return key


class _Place(NamedTuple):
    """Where the values came from that an error is about."""

    model: type[BaseModel]
    what: str
    name: str
    node: yaml.Node | None
    overridden: dict[str, str]


def _message(error: ErrorDetails, place: _Place) -> str:
    loc = error["loc"]
    key = ".".join(str(part) for part in _written(loc)) or place.what
    text = next((t for k, t in place.overridden.items() if key == k or k.startswith(key + ".")), None)
    in_file = f"{place.name}:{_line(loc, place.node)}" if place.node else place.name
    where = f"on the command line, {text!r}" if text else in_file
    lines = [": ".join([*dict.fromkeys((where, key)), _problem(error)])]
    if error["type"] not in ("missing", "value_error"):
        lines.append(f"  found: {_short(error['input'])}")
    wrong, valid = _wrong_and_valid(error, place.model)
    if valid:
        near = difflib.get_close_matches(wrong, valid, 1, 0.4)
        lines += [f"  did you mean {near[0]!r}?"] if near else []
        lines.append(f"  allowed: {', '.join(valid)}")
    return "\n".join(lines)


def _wrong_and_valid(error: ErrorDetails, model: type[BaseModel]) -> tuple[str, list[str]]:
    if error["type"] == "union_tag_invalid":
        return error["ctx"]["tag"], list(get_args(TaskName))
    if error["type"] == "extra_forbidden":
        return str(error["loc"][-1]), sorted(_keys(error["loc"][:-1], model))
    return "", []


def _problem(error: ErrorDetails) -> str:
    if error["type"] == "extra_forbidden":
        return "unknown key"
    if error["type"] == "missing":
        return "this key is required"
    if error["type"] == "union_tag_invalid":
        return "unknown task"
    message = error["msg"].removeprefix("Value error, ")
    return message[:1].lower() + message[1:]


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 120 else text[:117] + "..."


def _steps(loc: Loc, node: yaml.Node | None) -> Iterator[tuple[int | str, yaml.Node]]:
    """The parts of a pydantic location that were written in the file (tags of unions and list shorthands were not)."""
    for part in loc:
        if isinstance(node, yaml.MappingNode):
            found = next(((k, v) for k, v in node.value if k.value == str(part)), None)
            if found:
                yield part, found[0]
                node = found[1]
        elif isinstance(node, yaml.SequenceNode) and isinstance(part, int) and part < len(node.value):
            node = node.value[part]
            yield part, node


def _line(loc: Loc, node: yaml.Node | None) -> int:
    return next((n.start_mark.line + 1 for _, n in reversed(list(_steps(loc, node)))), 1)


def _written(loc: Loc) -> list[int | str]:
    """A pydantic location without the tags of its unions, as a person would write it."""
    tags = {*get_args(TaskName), "choices", "range"}
    return [part for i, part in enumerate(loc) if not (part in tags and i and loc[i - 1] != "space")]


def _models(annotation: Any) -> Iterator[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    elif get_origin(annotation) in (Union, types.UnionType, Annotated, tuple, list, dict):
        for arg in get_args(annotation):
            yield from _models(arg)


def _keys(loc: Loc, root: type[BaseModel]) -> set[str]:
    """Valid keys of the section at a pydantic location."""
    models: list[type[BaseModel]] = [root]
    for part in loc:
        by_name = [f.annotation for m in models for n, f in m.model_fields.items() if part in (n, f.alias)]
        tagged = [m for m in models if "name" in m.model_fields and m.model_fields["name"].default == part]
        models = [m for a in by_name for m in _models(a)] or tagged or models
    return {f.alias or n for m in models for n, f in m.model_fields.items()}
