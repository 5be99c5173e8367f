"""Chat templates: what published ones use works; hostile ones end soon, with one error."""

from datetime import datetime

import pytest

from nybble.frontend.text import TextError
from nybble.frontend.text.chat import render_chat

MESSAGES = [{"role": "user", "content": "Hi <b> \u00e9"}, {"role": "assistant", "content": "Yo"}]


def render(template, messages=MESSAGES, **variables):
    return render_chat(template, messages, variables)


def test_what_templates_use():
    template = """{%- set ns = namespace(n=0) -%}
    {%- for message in messages -%}
        {%- if not loop.first %}{% continue %}{% endif -%}
        {%- set ns.n = ns.n + 1 -%}
        {{ bos_token + message['role'] + '|' + message.content | trim }}
        {%- break -%}
    {%- endfor -%}
    {% generation %}{{ ns.n }}{% endgeneration %}{{ {"a": "\u00e9<"} | tojson }}"""
    assert render(template, bos_token="<s>") == '<s>user|Hi <b> \u00e91{"a": "\u00e9<"}'


def test_blocks_leave_no_lines():
    assert render("{% if true %}\n  a\n  {% endif %}\nb") == "  a\nb"


def test_messages_that_a_template_refuses():
    with pytest.raises(TextError, match="chat template: TemplateError: roles must alternate"):
        render("{{ raise_exception('roles must alternate') }}")


def test_time_is_given_or_undefined():
    template = (
        "{% if strftime_now is defined %}{{ strftime_now('%d %b %Y') }}{% else %}-{% endif %}"
    )
    assert render(template) == "-"
    assert render_chat(template, MESSAGES, {}, datetime(2026, 3, 4)) == "04 Mar 2026"


HOSTILE = {
    "syntax": ("{% for %}", "TemplateSyntaxError"),
    "unknown tag": ("{% load x %}", "TemplateSyntaxError"),
    "class": ("{{ ''.__class__.__mro__[1].__subclasses__() }}", "SecurityError"),
    "globals": ("{{ raise_exception.__globals__['sys'].exit() }}", "SecurityError"),
    "cycler": ("{{ cycler.__init__.__globals__.os.system('id') }}", "SecurityError"),
    "attr filter": ("{{ (''|attr('__class__')).mro() }}", "SecurityError"),
    "format": (
        "{{ '{0.__class__.__init__.__globals__}'.format(raise_exception) }}",
        "SecurityError",
    ),
    "change": ("{{ messages.append(1) }}", "SecurityError"),
    "import": ("{% import 'os' as os %}", "TypeError"),
    "include": ("{% include '/etc/passwd' %}", "TypeError"),
    "range": ("{% for i in range(10**9) %}{% endfor %}", "OverflowError"),
    "loops": (
        "{% for i in range(99999) %}{% for j in range(99999) %}{% endfor %}{% endfor %}",
        "stopped with status",
    ),
    "memory": ("{{ 'a' * 10**10 }}", "needs more than 512 MiB"),
    "doubling": ("{% set x='a' %}" + "{% set x = x ~ x %}" * 40 + "{{ x|length }}", "512 MiB"),
    "power": ("{{ 9**(9**9) }}", "stopped with status"),
    "width": ("{{ '%1000000000d' % 1 }}", "needs more than 512 MiB"),
    "output": ("{% for i in range(99999) %}{{ 'a' * 1000 }}{% endfor %}", "more than 8388608"),
    "recursion": ("{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}", "RecursionError"),
    "laughs": (
        "{% set a = ['ha','ha','ha','ha','ha','ha','ha','ha'] %}"
        + "{% set a = [a,a,a,a,a,a,a,a] %}" * 12
        + "{{ a }}",
        "chat template",
    ),
}


@pytest.mark.parametrize("case", HOSTILE)
def test_hostile(case):
    template, message = HOSTILE[case]
    with pytest.raises(TextError) as caught:
        render(template)
    assert message in str(caught.value)
    assert len(str(caught.value)) < 700


def test_sizes():
    with pytest.raises(TextError, match="chat template has 262145 characters"):
        render("a" * ((1 << 18) + 1))
    with pytest.raises(TextError, match="at most 16777216 are accepted"):
        render("a", [{"role": "user", "content": "a" * (1 << 24)}])


def test_no_template(tokenizer):
    with pytest.raises(TextError, match="has no chat template"):
        tokenizer().chat(MESSAGES)
