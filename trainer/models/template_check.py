"""Is a base model's chat template safe to render? Asked once, before the model is loaded.

A template is a program that comes with the model. Jinja's sandbox keeps it from files and from
Python, and bounds neither its time nor its memory (CVE-2024-34359 is a report about templates
outside a sandbox): two loops of 100,000 rounds would occupy the trainer or the engine for ever.
"""

import json
import subprocess
import sys
from functools import lru_cache
from pathlib import Path
from typing import Any

from trainer.errors import Refused

SECONDS = 10
MEGABYTES = 512
PROGRAM = Path(__file__).with_name("render_template.py")
_QUESTION = {"role": "user", "content": "A question?"}
_ANSWER = {"role": "assistant", "content": "An answer."}
#: The shapes of conversations that are trained on and served.
CHATS = (
    [_QUESTION],
    [_QUESTION, _ANSWER, _QUESTION],
    [{"role": "system", "content": "A rule."}, _QUESTION],
)


def template_check(tokenizer: Any) -> None:
    """Raise Refused for a chat template that cannot be used."""
    if fault := template_fault(tokenizer):
        raise Refused(
            f"The base model's chat template cannot be used: {fault}. Choose another base model, "
            "or repair its template."
        )


def template_fault(tokenizer: Any, *, seconds: int = SECONDS) -> str:
    """Return why a chat template cannot be used, or nothing: it renders no conversation, or takes
    too much time or memory.

    One that refuses some conversations is fine: many know no system message. A missing template is
    reported where a conversation is rendered.
    """
    template = getattr(tokenizer, "chat_template", None)
    if isinstance(template, dict):  # several, by name
        template = template.get("default")
    if not template:
        return ""
    special = {name: str(value) for name, value in tokenizer.special_tokens_map.items()}
    return _fault(str(template), json.dumps(special, sort_keys=True), seconds)


@lru_cache(maxsize=32)
def _fault(template: str, special: str, seconds: int) -> str:
    asked = {
        "template": template,
        "chats": CHATS,
        "values": json.loads(special),
        "megabytes": MEGABYTES,
        "seconds": seconds,
    }
    endless = f"it is not rendered after {seconds} seconds"
    try:
        done = subprocess.run(
            [sys.executable, "-I", str(PROGRAM)],
            input=json.dumps(asked),
            capture_output=True,
            text=True,
            check=False,
            # processor time is limited in the process; this is for one that waits
            timeout=10 * seconds,
        )
    except subprocess.TimeoutExpired:
        return endless
    if done.returncode < 0:
        return endless
    if done.returncode:
        return f"rendering it failed: {done.stderr.strip()[-300:]}"
    faults = json.loads(done.stdout)
    return "" if "" in faults else str(faults[0])
