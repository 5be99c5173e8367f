"""The `Before` and `After` of every pass: run on the one, the pass gives the other."""

import re

import pytest

from nybble.dialects.parsing import parse_module
from nybble.dialects.registry import make_context
from nybble.passes.pipeline import build_pipeline, run_passes
from nybble.passes.registry import PASSES, load_pass

SECTION = r"^{}:?(?: with `(?P<pipeline>[^`]+)`:)?\n+```mlir\n(?P<ir>.*?)^```$"


def section(text, title):
    """The IR under a title of a docstring, and the pipeline that the title names, if any."""
    found = re.search(SECTION.format(title), text, re.MULTILINE | re.DOTALL)
    assert found, f"no '{title}:' followed by a ```mlir block"
    return found["ir"], found["pipeline"]


def normalized(module):
    """The text of a module without the names that its values were given."""
    for operation in module.walk():
        for value in (*operation.results, *(a for r in operation.regions for a in arguments(r))):
            value.name_hint = None
    return str(module)


def arguments(region):
    return [argument for block in region.blocks for argument in block.args]


def run_example(documented, name):
    """What a pass makes of its Before, and its After, both normalized."""
    before, _ = section(documented, "Before")
    after, pipeline = section(documented, "After")
    context = make_context(allow_unregistered=True)
    module = parse_module(context, before, "Before")
    run_passes(context, module, build_pipeline(pipeline or name))
    return normalized(module), normalized(parse_module(context, after, "After"))


@pytest.mark.parametrize("name", PASSES)
def test_pass_turns_before_into_after(name):
    documented = __import__(load_pass(name).__module__, fromlist=["_"]).__doc__
    assert "Does not handle" in documented
    made, promised = run_example(documented, name)
    assert made == promised


EXAMPLE = """Before:

```mlir
func.func @f(%a: i32) { func.return }
```

After with `canonicalize-nothing`:

```mlir
func.func @f(%b: i32) { func.return }
```
"""


def test_example_is_compared(monkeypatch):
    monkeypatch.setattr(f"{__name__}.build_pipeline", lambda text: ())
    made, promised = run_example(EXAMPLE, "any")
    assert made == promised
    assert section(EXAMPLE, "After")[1] == "canonicalize-nothing"
    made, promised = run_example(EXAMPLE.replace("%b: i32", "%b: i64"), "any")
    assert made != promised
