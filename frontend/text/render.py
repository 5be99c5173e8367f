"""A worker process that renders one chat template: JSON on stdin, JSON on stdout.

A template is a program from an untrusted file. It runs in jinja2's immutable sandbox, which keeps
it from Python's objects, and in a process of its own with limits on processor time and memory,
which is what bounds loops, huge strings and nested lists. Run by `chat.py` as a script, so that it
imports nothing but the standard library and jinja2.
"""

import json
import resource
import sys
from datetime import datetime
from typing import Any, NoReturn

import jinja2
from jinja2.ext import Extension, loopcontrols
from jinja2.nodes import Node
from jinja2.parser import Parser
from jinja2.sandbox import ImmutableSandboxedEnvironment

MAX_OUTPUT = 8 << 20
_MEMORY_BYTES = 512 << 20
_SECONDS = 1


class Generation(Extension):
    """Accepts `{% generation %}`, which marks what a model wrote and renders as its body."""

    tags = {"generation"}  # noqa: RUF012 - declared so by jinja2

    def parse(self, parser: Parser) -> list[Node]:
        """The statements up to endgeneration."""
        next(parser.stream)
        return parser.parse_statements(("name:endgeneration",), drop_needle=True)


def raise_exception(message: str) -> NoReturn:
    """What a template calls on messages that it does not accept."""
    raise jinja2.TemplateError(message)


def to_json(value: Any, indent: int | None = None) -> str:
    """The filter `tojson`, without the HTML escapes of jinja2's own."""
    return json.dumps(value, ensure_ascii=False, indent=indent)


def render(template: str, variables: dict[str, Any], now: str | None) -> str:
    """The text of `template`; `now` (ISO 8601) is what strftime_now formats, if given."""
    environment = ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=[loopcontrols, Generation]
    )
    environment.filters["tojson"] = to_json
    names = {**variables, "raise_exception": raise_exception}
    if now is not None:
        names["strftime_now"] = datetime.fromisoformat(now).strftime
    found: list[str] = []
    size = 0
    for piece in environment.from_string(template).generate(names):
        size += len(piece)
        if size > MAX_OUTPUT:
            raise jinja2.TemplateError(f"gives more than {MAX_OUTPUT} characters")
        found.append(piece)
    return "".join(found)


def main() -> None:
    """Render the request on stdin; the answer has the key `text` or `error`."""
    resource.setrlimit(resource.RLIMIT_AS, (_MEMORY_BYTES, _MEMORY_BYTES))
    resource.setrlimit(resource.RLIMIT_CPU, (_SECONDS, _SECONDS))
    request = json.load(sys.stdin)
    try:
        answer = {"text": render(request["template"], request["variables"], request["now"])}
    except MemoryError:
        answer = {"error": f"needs more than {_MEMORY_BYTES >> 20} MiB"}
    except Exception as error:  # noqa: BLE001 - whatever a hostile template raises is the answer
        answer = {"error": f"{type(error).__name__}: {error}"[:500]}
    json.dump(answer, sys.stdout)


if __name__ == "__main__":
    main()
