"""The job file's reference page, written from the schema's own docstrings.  It does not judge jobs."""

from typing import Any

from llmray.job.schema import Job


def markdown() -> str:
    """Every section and key: type, default, bounds, meaning."""
    schema = Job.model_json_schema()
    sections = schema["$defs"]
    lines = [
        "# The job file",
        "",
        "One YAML file per job. Any key can be overridden on the command line as `section.key=value`. Unknown keys are",
        "errors. This page is `llmray schema --markdown`.",
        "",
        *_table("Top level", schema),
    ]
    for name in sorted(sections):
        lines += _table(name, sections[name])
    return "\n".join(lines) + "\n"


def _table(title: str, section: dict[str, Any]) -> list[str]:
    head = [f"## {title}", "", *([section["description"], ""] if "description" in section else [])]
    rows = ["| key | type | default | meaning |", "|---|---|---|---|"]
    for key, field in section["properties"].items():
        default = "required" if key in section.get("required", ()) else _code(field.get("default"))
        meaning = " ".join(field.get("description", "").split())
        rows.append(f"| `{key}` | {_type(field)} | {default} | {meaning} |")
    return [*head, *rows, ""]


def _code(value: Any) -> str:
    return (
        ""
        if value is None or isinstance(value, dict)
        else f"`{value}`".replace("True", "true").replace("False", "false")
    )


def _type(field: dict[str, Any]) -> str:
    if "$ref" in field:
        return field["$ref"].rpartition("/")[2]
    if "const" in field or "enum" in field:
        return " or ".join(f"`{v}`" for v in field.get("enum", [field.get("const")]))
    for union in ("anyOf", "oneOf"):
        if union in field:
            return " or ".join(dict.fromkeys(_type(option) for option in field[union]))
    if field.get("type") == "array":
        return f"list of {_type(field.get('items', {}))}"
    return str(field.get("type", "any")) + _bounds(field)


def _bounds(field: dict[str, Any]) -> str:
    signs = {"minimum": "≥", "exclusiveMinimum": ">", "maximum": "≤", "exclusiveMaximum": "<"}
    return "".join(f" {sign} {field[name]}" for name, sign in signs.items() if name in field)
