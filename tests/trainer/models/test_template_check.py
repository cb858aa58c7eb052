"""A chat template is a program that comes with the base model: harmful ones are refused."""

from types import SimpleNamespace

import pytest

from tests.trainer.data.chat_families import FAMILIES
from trainer.errors import Refused
from trainer.models.template_check import template_check, template_fault

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
    assert reason in template_fault(tokenizer_with(template), seconds=1)


def test_fault_is_refused_in_a_sentence() -> None:
    with pytest.raises(Refused, match=r"chat template cannot be used: .*Choose another base model"):
        template_check(tokenizer_with("{% for m in messages %}"))


@pytest.mark.parametrize("family", FAMILIES)
def test_templates_of_known_families_are_accepted(family: str) -> None:
    assert template_fault(FAMILIES[family].tokenizer) == ""


@pytest.mark.parametrize(
    "template",
    [
        {"default": "{{ messages }}", "tool": "{% for"},
        "{% generation %}{{ messages }}{% endgeneration %}",
        None,
    ],
)
def test_named_templates_and_none_are_accepted(template: str | dict[str, str] | None) -> None:
    assert template_fault(tokenizer_with(template)) == ""
