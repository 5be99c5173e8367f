"""Rendering a conversation with a model's own chat template, in a bounded worker process."""

import json
import subprocess
import sys
from collections.abc import Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

from nybble.frontend.text.errors import TextError

MAX_TEMPLATE_CHARACTERS = 1 << 18
MAX_MESSAGES_CHARACTERS = 1 << 24
_WORKER = Path(__file__).with_name("render.py")
_SECONDS = 10  # of waiting; the worker's own limit on processor time comes first

Message = Mapping[str, Any]


def render_chat(
    template: str,
    messages: Sequence[Message],
    variables: Mapping[str, Any],
    now: datetime | None = None,
) -> str:
    """The prompt text for `messages` ({"role": .., "content": ..}); about 0.1 s.

    `variables` are the template's other names (bos_token, add_generation_prompt, ..). `now` is the
    time that a template which asks for it gets. TextError when the template is not usable, does not
    accept the messages, or takes more than 1 s or 512 MiB.
    """
    if len(template) > MAX_TEMPLATE_CHARACTERS:
        raise TextError(
            f"chat template has {len(template)} characters; at most {MAX_TEMPLATE_CHARACTERS} "
            "are accepted"
        )
    request = json.dumps(
        {
            "template": template,
            "variables": {**variables, "messages": list(messages)},
            "now": None if now is None else now.isoformat(),
        }
    )
    if len(request) > MAX_MESSAGES_CHARACTERS:
        raise TextError(
            f"conversation has {len(request)} characters; at most {MAX_MESSAGES_CHARACTERS} "
            "are accepted"
        )
    return _answer(request)


def _answer(request: str) -> str:
    command = [sys.executable, "-P", str(_WORKER)]
    try:
        done = subprocess.run(
            command, input=request.encode(), capture_output=True, timeout=_SECONDS, check=False
        )
    except subprocess.TimeoutExpired:
        raise TextError(f"chat template did not finish in {_SECONDS} s") from None
    if done.returncode:
        raise TextError(
            f"chat template: its worker stopped with status {done.returncode}; the limits are 1 s "
            "and 512 MiB"
        )
    answer = json.loads(done.stdout)
    if "text" not in answer:
        raise TextError(f"chat template: {answer['error']}")
    return answer["text"]
