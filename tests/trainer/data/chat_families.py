"""Small tokenisers with the chat formats of well-known model families.

The templates are written from the documented formats, as short as possible, and keep the
differences that matter: what adds BOS, which roles are refused, where the system prompt goes, what
ends a turn. The vocabularies are tiny; only the cuts around special tokens matter.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from types import SimpleNamespace
from typing import Any

from tokenizers import (
    AddedToken,
    Tokenizer,
    decoders,
    models,
    normalizers,
    pre_tokenizers,
    processors,
    trainers,
)
from transformers import GenerationConfig, PreTrainedTokenizerFast

from tests.tiny import CORPUS

ALTERNATE = (
    "{% if (m.role == 'user') != (loop.index0 % 2 == 0) %}"
    "{{ raise_exception('roles must alternate user/assistant') }}{% endif %}"
)
CHATML_TURN = "{{ '<|im_start|>' + m.role + '\n' + m.content + '<|im_end|>\n' }}"
CHATML_PROMPT = "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"


def chatml(default_system: str) -> str:
    return (
        "{% if messages[0].role != 'system' %}"
        "{{ '<|im_start|>system\n" + default_system + "<|im_end|>\n' }}{% endif %}"
        "{% for m in messages %}" + CHATML_TURN + "{% endfor %}" + CHATML_PROMPT
    )


LLAMA_2 = (
    "{% set turns = messages[1:] if messages[0].role == 'system' else messages %}"
    "{% for m in turns %}" + ALTERNATE + "{% if m.role == 'user' %}{{ bos_token + '[INST] ' }}"
    "{% if loop.first and messages[0].role == 'system' %}"
    "{{ '<<SYS>>\n' + messages[0].content + '\n<</SYS>>\n\n' }}{% endif %}"
    "{{ m.content.strip() + ' [/INST]' }}"
    "{% else %}{{ ' ' + m.content.strip() + ' ' + eos_token }}{% endif %}{% endfor %}"
)
LLAMA_3 = (
    "{% for m in messages %}{% if loop.first %}{{ bos_token }}{% endif %}"
    "{{ '<|start_header_id|>' + m.role + '<|end_header_id|>\n\n' }}"
    "{{ m.content | trim + '<|eot_id|>' }}{% endfor %}"
    "{% if add_generation_prompt %}"
    "{{ '<|start_header_id|>assistant<|end_header_id|>\n\n' }}{% endif %}"
)
MISTRAL_FIRST = (  # 7B Instruct v0.1 and v0.2: no system role
    "{{ bos_token }}{% for m in messages %}" + ALTERNATE + "{% if m.role == 'user' %}"
    "{{ '[INST] ' + m.content + ' [/INST]' }}{% elif m.role == 'assistant' %}"
    "{{ m.content + eos_token }}{% else %}"
    "{{ raise_exception('Only user and assistant roles are supported!') }}{% endif %}{% endfor %}"
)
MISTRAL_LATER = (  # the system prompt is in the last user turn
    "{{ bos_token }}{% set turns = messages[1:] if messages[0].role == 'system' else messages %}"
    "{% for m in turns %}" + ALTERNATE + "{% if m.role == 'user' %}{{ '[INST] ' }}"
    "{% if loop.last and messages[0].role == 'system' %}"
    "{{ messages[0].content + '\n\n' }}{% endif %}{{ m.content + '[/INST]' }}"
    "{% else %}{{ ' ' + m.content + eos_token }}{% endif %}{% endfor %}"
)
QWEN_3 = (  # reasoning is kept in the turn being answered and removed from earlier ones
    "{% set last = namespace(query=0) %}"
    "{% for m in messages %}{% if m.role == 'user' %}{% set last.query = loop.index0 %}{% endif %}"
    "{% endfor %}{% for m in messages %}{% if m.role == 'assistant' %}"
    "{% set said = m.content.split('</think>')[-1].lstrip('\n') %}"
    "{% set thought = m.content.split('</think>')[0].split('<think>')[-1].strip('\n')"
    " if '</think>' in m.content else '' %}{{ '<|im_start|>assistant\n' }}"
    "{% if loop.index0 > last.query %}{{ '<think>\n' + thought + '\n</think>\n\n' }}{% endif %}"
    "{{ said + '<|im_end|>\n' }}{% else %}" + CHATML_TURN + "{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}"
    "{% if enable_thinking is defined and enable_thinking is false %}"
    "{{ '<think>\n\n</think>\n\n' }}{% endif %}{% endif %}"
)
GEMMA_2 = (
    "{{ bos_token }}{% if messages[0].role == 'system' %}"
    "{{ raise_exception('System role not supported') }}{% endif %}"
    "{% for m in messages %}" + ALTERNATE + "{{ '<start_of_turn>' }}"
    "{{ 'model' if m.role == 'assistant' else m.role }}"
    "{{ '\n' + m.content | trim + '<end_of_turn>\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<start_of_turn>model\n' }}{% endif %}"
)
PHI_3_FIRST = (  # system messages are dropped, and a user's turn always opens the answer
    "{{ bos_token }}{% for m in messages %}{% if m.role == 'user' %}"
    "{{ '<|user|>\n' + m.content + '<|end|>\n<|assistant|>\n' }}{% elif m.role == 'assistant' %}"
    "{{ m.content + '<|end|>\n' }}{% endif %}{% endfor %}"
)
PHI_3 = (  # a text that is complete is closed with EOS, after the turn's own end
    "{% for m in messages %}{{ '<|' + m.role + '|>\n' + m.content + '<|end|>\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|assistant|>\n' }}{% else %}{{ eos_token }}{% endif %}"
)
GLM_4 = (  # no end token: a turn ends where the next one begins
    "{{ '[gMASK]<sop>' }}{% for m in messages %}{{ '<|' + m.role + '|>\n' + m.content }}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|assistant|>\n' }}{% endif %}"
)


@dataclass(frozen=True)
class Family:
    """A format: how text is cut ("bytes", or SentencePiece's "spaced" with a blank before each
    piece and "unspaced" without), its special tokens, and the tokens named in its configs."""

    name: str
    cut: str
    special: tuple[str, ...]
    template: str
    bos: str | None
    eos: str
    named: tuple[str, ...]  # eos_token_id of the generation config

    @property
    def tokenizer(self) -> Any:
        return _tokenizer(self)

    @property
    def model(self) -> Any:
        """Return an object with the model attributes that `eos_ids` reads."""
        ids = [self.tokenizer.convert_tokens_to_ids(token) for token in self.named]
        return SimpleNamespace(generation_config=GenerationConfig(eos_token_id=ids or None))


CHATML = ("<|endoftext|>", "<|im_start|>", "<|im_end|>")
LLAMA_3_TOKENS = (
    "<|begin_of_text|>",
    "<|end_of_text|>",
    "<|start_header_id|>",
    "<|end_header_id|>",
    "<|eot_id|>",
)
GEMMA_TOKENS = ("<pad>", "<eos>", "<bos>", "<start_of_turn>", "<end_of_turn>")
PHI_3_TOKENS = ("<s>", "<|endoftext|>", "<|assistant|>", "<|system|>", "<|end|>", "<|user|>")
GLM_TOKENS = ("<|endoftext|>", "[gMASK]", "<sop>", "<|system|>", "<|user|>", "<|assistant|>")

FAMILIES = {
    family.name: family
    for family in (
        Family("llama-2", "spaced", ("<s>", "</s>"), LLAMA_2, "<s>", "</s>", ("</s>",)),
        # as released: the tokenizer's EOS ends texts, not turns
        Family(
            "llama-3",
            "bytes",
            LLAMA_3_TOKENS,
            LLAMA_3,
            "<|begin_of_text|>",
            "<|end_of_text|>",
            ("<|end_of_text|>", "<|eot_id|>"),
        ),
        Family("mistral-0.2", "spaced", ("<s>", "</s>"), MISTRAL_FIRST, "<s>", "</s>", ("</s>",)),
        Family(
            "mistral-0.3",
            "spaced",
            ("<s>", "</s>", "[INST]", "[/INST]"),
            MISTRAL_LATER,
            "<s>",
            "</s>",
            ("</s>",),
        ),
        Family(
            "qwen-2",
            "bytes",
            CHATML,
            chatml("You are a helpful assistant."),
            None,
            "<|im_end|>",
            ("<|im_end|>", "<|endoftext|>"),
        ),
        Family(
            "qwen-3",
            "bytes",
            (*CHATML, "<think>", "</think>"),
            QWEN_3,
            None,
            "<|im_end|>",
            ("<|im_end|>", "<|endoftext|>"),
        ),
        Family(
            "gemma-2",
            "unspaced",
            GEMMA_TOKENS,
            GEMMA_2,
            "<bos>",
            "<eos>",
            ("<eos>", "<end_of_turn>"),
        ),
        # as released: only the template names the end of a turn
        Family("gemma-1", "unspaced", GEMMA_TOKENS, GEMMA_2, "<bos>", "<eos>", ("<eos>",)),
        Family(
            "phi-3",
            "spaced",
            PHI_3_TOKENS,
            PHI_3,
            "<s>",
            "<|endoftext|>",
            ("<|endoftext|>", "<|assistant|>", "<|end|>"),
        ),
        Family(
            "phi-3-first",
            "spaced",
            PHI_3_TOKENS,
            PHI_3_FIRST,
            "<s>",
            "<|endoftext|>",
            ("<|endoftext|>",),
        ),
        Family(
            "smollm2",
            "bytes",
            CHATML,
            chatml("You are a helpful AI assistant named SmolLM, trained by Hugging Face"),
            "<|im_start|>",
            "<|im_end|>",
            ("<|im_end|>",),
        ),
        Family(
            "glm-4",
            "bytes",
            GLM_TOKENS,
            GLM_4,
            None,
            "<|endoftext|>",
            ("<|endoftext|>", "<|user|>"),
        ),
    )
}


@cache
def _tokenizer(family: Family) -> Any:
    raw = _bytes(family.special) if family.cut == "bytes" else _pieces(family)
    if family.bos is not None and family.name != "smollm2":
        # As released: plain text gets a BOS, which would duplicate that of the template.
        raw.post_processor = processors.TemplateProcessing(
            single=f"{family.bos} $A", special_tokens=[(family.bos, raw.token_to_id(family.bos))]
        )
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=raw,
        bos_token=family.bos,
        eos_token=family.eos,
        clean_up_tokenization_spaces=False,
    )
    tokenizer.chat_template = family.template
    return tokenizer


def _added(special: Sequence[str]) -> list[AddedToken]:
    # Phi-3's special tokens swallow the line break that follows them.
    return [
        AddedToken(token, special=True, normalized=False, rstrip=special == PHI_3_TOKENS)
        for token in special
    ]


def _bytes(special: Sequence[str]) -> Any:
    raw = Tokenizer(models.BPE())
    raw.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    raw.decoder = decoders.ByteLevel()
    raw.train_from_iterator(
        CORPUS,
        trainers.BpeTrainer(
            vocab_size=400,
            initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
            special_tokens=_added(special),
            show_progress=False,
        ),
    )
    return raw


def _pieces(family: Family) -> Any:
    """SentencePiece: a blank is the character ▁, and nothing else splits text into words."""
    raw = Tokenizer(models.BPE(unk_token="<unk>"))
    blanks: list[Any] = [normalizers.Replace(" ", "▁")]
    first: list[Any] = [normalizers.Prepend("▁")] if family.cut == "spaced" else []
    raw.normalizer = normalizers.Sequence([*first, *blanks])
    raw.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.Fuse()])
    raw.train_from_iterator(
        [word for text in CORPUS for word in text.split()],
        trainers.BpeTrainer(
            vocab_size=260,
            initial_alphabet=["\n", "▁", *map(chr, range(33, 127))],
            special_tokens=["<unk>", *_added(family.special)],
            show_progress=False,
        ),
    )
    return raw
