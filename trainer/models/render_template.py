"""Renders a chat template in a process of its own, with limits on time and memory.

A program, run by its path: JSON {"template", "chats", "values", "megabytes", "seconds"} on standard
input; one line of JSON on standard output: "" or a fault for each chat.
"""

import contextlib
import json
import resource
import sys
from datetime import datetime
from typing import Any, NoReturn

from jinja2.ext import Extension, loopcontrols
from jinja2.nodes import CallBlock, Node
from jinja2.parser import Parser
from jinja2.sandbox import ImmutableSandboxedEnvironment


class Generation(Extension):
    """The block that marks the assistant's text in some templates; written as it is."""

    tags = {"generation"}

    def parse(self, parser: Parser) -> Node:
        line = next(parser.stream).lineno
        body = parser.parse_statements(("name:endgeneration",), drop_needle=True)
        return CallBlock(self.call_method("_as_it_is"), [], [], body).set_lineno(line)

    def _as_it_is(self, caller: Any) -> str:
        return str(caller())


def refuse(message: str) -> NoReturn:
    raise ValueError(message)


def faults(asked: dict[str, Any]) -> list[str]:
    """Render each chat with the functions that transformers offers to templates."""
    sandbox = ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=[loopcontrols, Generation]
    )
    sandbox.filters["tojson"] = lambda value, indent=None: json.dumps(
        value, ensure_ascii=False, indent=indent
    )
    sandbox.globals["raise_exception"] = refuse
    sandbox.globals["strftime_now"] = lambda form: datetime.now().astimezone().strftime(form)
    found = []
    for chat in asked["chats"]:
        try:
            template = sandbox.from_string(asked["template"])
            template.render(messages=chat, add_generation_prompt=True, **asked["values"])
        except MemoryError:
            found.append(f"it needs more than {asked['megabytes']} MB")
        except Exception as error:  # templates raise whatever their authors chose
            found.append(f"{type(error).__name__}: {error}"[:300])
        else:
            found.append("")
    return found


def main() -> None:
    asked = json.load(sys.stdin)
    size = asked["megabytes"] << 20
    for limit, value in ((resource.RLIMIT_AS, size), (resource.RLIMIT_CPU, asked["seconds"])):
        with contextlib.suppress(ValueError, OSError):  # macOS has no limit of memory
            resource.setrlimit(limit, (value, value))
    sys.stdout.write(json.dumps(faults(asked)))


if __name__ == "__main__":
    main()
