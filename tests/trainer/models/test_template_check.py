"""A chat template is a program that comes with the base model: harmful ones are refused."""

import time
from types import SimpleNamespace

import pytest

from tests.trainer.data.chat_families import FAMILIES
from trainer.errors import Refused
from trainer.models.template_check import template_check

pytestmark = pytest.mark.slow


def tokenizer_with(template: str | dict[str, str] | None) -> SimpleNamespace:
    return SimpleNamespace(chat_template=template, special_tokens_map={"eos_token": "</s>"})


@pytest.mark.parametrize(
    ("template", "reason"),
    [
        ("{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}", "after"),
        ("{% set x = 'a' * 10**10 %}{{ x }}", "512 MB"),
        ("{{ ''.__class__.__mro__[1].__subclasses__() }}", "SecurityError"),
        ("{{ cycler.__init__.__globals__.os.popen('id').read() }}", "SecurityError"),
        ("{% include '/etc/passwd' %}", "no loader"),
        ("{% for m in messages %}", "TemplateSyntaxError"),
        ("{{ raise_exception('never') }}", "never"),
    ],
)
def test_bad_template_is_refused_with_the_reason(template: str, reason: str) -> None:
    start = time.monotonic()
    with pytest.raises(Refused, match="chat template cannot be used") as refused:
        template_check(tokenizer_with(template), seconds=1)
    assert reason in str(refused.value)
    assert time.monotonic() - start < 60  # of the waiting time on a busy machine; it ends


@pytest.mark.parametrize("family", FAMILIES)
def test_templates_of_known_families_are_accepted(family: str) -> None:
    template_check(FAMILIES[family].tokenizer)


def test_named_templates_and_none_are_accepted() -> None:
    template_check(tokenizer_with({"default": "{{ messages }}", "tool": "{% for"}))
    template_check(tokenizer_with("{% generation %}{{ messages }}{% endgeneration %}"))
    template_check(tokenizer_with(None))
