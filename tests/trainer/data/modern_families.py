"""Chat formats with reasoning, calls of tools and variables of their templates.

Like those of chat_families.py they are written from the documented formats, as short as possible:
no template of another project is copied. They keep what matters here: which variables there are,
what marks reasoning, where it is left out, how a call and its result are written, and which
conversations the template itself refuses.
"""

from tests.trainer.data.chat_families import (
    CHATML,
    CHATML_PROMPT,
    CHATML_TURN,
    GEMMA_TOKENS,
    LLAMA_3_TOKENS,
    Family,
)

ALTERNATE = (
    "{% if (m.role == 'user') != (loop.index0 % 2 == 0) %}"
    "{{ raise_exception('Conversation roles must alternate user/assistant/user/assistant/...') }}"
    "{% endif %}"
)
# Hermes' form of calls, which Qwen 2.5 and 3 use
HERMES_CALLS = (
    '{% for c in m.tool_calls or [] %}{{ \'\n<tool_call>\n{"name": "\' + c.function.name +'
    " '\", \"arguments\": ' }}{{ c.function.arguments | tojson }}{{ '}\n</tool_call>' }}"
    "{% endfor %}"
)
HERMES_RESULT = (
    "{{ '<|im_start|>user\n<tool_response>\n' + m.content + '\n</tool_response><|im_end|>\n' }}"
)
# reasoning stays in the turn that is being answered, tools included, and leaves earlier ones
QWEN_3 = (
    "{% if tools %}{{ '<|im_start|>system\n# Tools\n' }}"
    "{% for tool in tools %}{{ (tool | tojson) + '\n' }}{% endfor %}{{ '<|im_end|>\n' }}{% endif %}"
    "{% set last = namespace(query=0) %}"
    "{% for m in messages %}{% if m.role == 'user' %}{% set last.query = loop.index0 %}{% endif %}"
    "{% endfor %}{% for m in messages %}{% if m.role == 'assistant' %}"
    "{% set said = m.content.split('</think>')[-1].lstrip('\n') %}"
    "{% set thought = m.content.split('</think>')[0].split('<think>')[-1].strip('\n')"
    " if '</think>' in m.content else '' %}{{ '<|im_start|>assistant\n' }}"
    "{% if loop.index0 > last.query %}{{ '<think>\n' + thought + '\n</think>\n\n' }}{% endif %}"
    "{{ said }}" + HERMES_CALLS + "{{ '<|im_end|>\n' }}"
    "{% elif m.role == 'tool' %}" + HERMES_RESULT + "{% else %}" + CHATML_TURN + "{% endif %}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}"
    "{% if enable_thinking is defined and enable_thinking is false %}"
    "{{ '<think>\n\n</think>\n\n' }}{% endif %}{% endif %}"
)
# the template opens the reasoning itself: an answer begins without the mark
OPENS_REASONING = (
    "{% for m in messages %}{{ '<|im_start|>' + m.role + '\n' }}"
    "{{ m.content.split('</think>')[-1].lstrip('\n') if m.role == 'assistant' else m.content }}"
    "{{ '<|im_end|>\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n<think>\n' }}{% endif %}"
)
SMOLLM_3 = (  # the mode is a line of the system turn, which is always there
    "{% set think = enable_thinking is not defined or enable_thinking %}"
    "{% set mode = '/think' if think else '/no_think' %}"
    "{% set head = messages[0].content if messages[0].role == 'system' else '' %}"
    "{{ '<|im_start|>system\n' + head + '\n' + mode + '<|im_end|>\n' }}"
    "{% for m in messages %}{% if m.role == 'user' %}" + CHATML_TURN + "{% elif m.role ==  "
    "'assistant' %}{{ '<|im_start|>assistant\n' + m.content.split('</think>')[-1].lstrip('\n') }}"
    "{{ '<|im_end|>\n' }}{% endif %}{% endfor %}" + CHATML_PROMPT
)
LLAMA_3_1 = (  # one call at a time; a result is the turn of 'ipython'
    "{{ bos_token }}{% for m in messages %}{% if m.role == 'tool' %}"
    "{{ '<|start_header_id|>ipython<|end_header_id|>\n\n' + (m.content | tojson) + '<|eot_id|>' }}"
    "{% elif 'tool_calls' in m %}{% if m.tool_calls | length != 1 %}"
    "{{ raise_exception('This model only supports single tool-calls at once!') }}{% endif %}"
    "{% set c = m.tool_calls[0].function %}"
    "{{ '<|start_header_id|>assistant<|end_header_id|>\n\n' }}"
    '{{ \'{"name": "\' + c.name + \'", "parameters": \' }}{{ c.arguments | tojson }}'
    "{{ '}<|eot_id|>' }}{% else %}"
    "{{ '<|start_header_id|>' + m.role + '<|end_header_id|>\n\n' }}"
    "{{ m.content | trim + '<|eot_id|>' }}{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}"
    "{{ '<|start_header_id|>assistant<|end_header_id|>\n\n' }}{% endif %}"
)
MISTRAL_TOOLS = (  # ids of calls have nine characters
    "{{ bos_token }}{% if tools %}{{ '[AVAILABLE_TOOLS] ' + (tools | tojson) }}"
    "{{ '[/AVAILABLE_TOOLS]' }}{% endif %}"
    "{% for m in messages %}{% if m.role == 'user' %}"
    "{{ '[INST] ' + m.content + '[/INST]' }}{% elif m.tool_calls is defined %}"
    "{{ '[TOOL_CALLS] [' }}{% for c in m.tool_calls %}{% if c.id | length != 9 %}"
    "{{ raise_exception('Tool call IDs should be alphanumeric strings with length 9!') }}"
    "{% endif %}"
    '{{ \'{"name": "\' + c.function.name + \'", "arguments": \' }}'
    "{{ c.function.arguments | tojson }}"
    "{{ ', \"id\": \"' + c.id + '\"}' }}{{ ', ' if not loop.last else '' }}{% endfor %}"
    "{{ ']' + eos_token }}{% elif m.role == 'assistant' %}{{ ' ' + m.content + eos_token }}"
    "{% elif m.role == 'tool' %}{{ '[TOOL_RESULTS] {\"content\": ' }}{{ m.content | tojson }}"
    "{{ ', \"call_id\": \"' + m.tool_call_id + '\"}[/TOOL_RESULTS]' }}"
    "{% else %}{{ raise_exception('Only user and assistant roles are supported') }}{% endif %}"
    "{% endfor %}"
)
GEMMA_3 = (  # the system prompt is the head of the first user turn; no calls of tools
    "{{ bos_token }}{% set head = messages[0].content + '\n\n' if messages[0].role == 'system' "
    "else '' %}{% set turns = messages[1:] if messages[0].role == 'system' else messages %}"
    "{% for m in turns %}" + ALTERNATE + "{{ '<start_of_turn>' }}"
    "{{ 'model' if m.role == 'assistant' else m.role }}{{ '\n' + (head if loop.first else '') }}"
    "{{ m.content | trim + '<end_of_turn>\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<start_of_turn>model\n' }}{% endif %}"
)
GPT_OSS = (  # channels: reasoning in 'analysis', calls in 'commentary', the answer in 'final'
    "{{ '<|start|>system<|message|>Reasoning: ' + (reasoning_effort or 'medium') + '<|end|>' }}"
    "{% for m in messages %}{% if m.tool_calls %}{% set c = m.tool_calls[0].function %}"
    "{{ '<|start|>assistant<|channel|>commentary to=functions.' + c.name + ' json<|message|>' }}"
    "{{ c.arguments | tojson }}{{ '<|call|>' }}{% elif m.role == 'tool' %}"
    "{{ '<|start|>functions to=assistant<|channel|>commentary<|message|>' }}"
    "{{ m.content | tojson }}"
    "{{ '<|end|>' }}{% elif m.role == 'assistant' %}"
    "{{ '<|start|>assistant<|channel|>final<|message|>' + m.content }}"
    "{{ '<|return|>' if loop.last else '<|end|>' }}{% else %}"
    "{{ '<|start|>' + ('developer' if m.role == 'system' else m.role) + '<|message|>' }}"
    "{{ m.content + '<|end|>' }}{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|start|>assistant' }}{% endif %}"
)
HARMONY = tuple(
    f"<|{name}|>" for name in ("start", "message", "channel", "end", "return", "call", "endoftext")
)
THINKING = (*CHATML, "<think>", "</think>")
LLAMA_NAMED = ("<|end_of_text|>", "<|eot_id|>")


def _chatml(name: str, template: str) -> Family:
    return Family(name, "bytes", THINKING, template, None, "<|im_end|>", ("<|im_end|>",))


MODERN = {
    family.name: family
    for family in (
        _chatml("qwen-3", QWEN_3),
        _chatml("opens-reasoning", OPENS_REASONING),
        _chatml("smollm-3", SMOLLM_3),
        Family(
            "llama-3.1",
            "bytes",
            LLAMA_3_TOKENS,
            LLAMA_3_1,
            "<|begin_of_text|>",
            "<|eot_id|>",
            LLAMA_NAMED,
        ),
        Family(
            "mistral-tools",
            "bytes",
            (
                "<s>",
                "</s>",
                "[INST]",
                "[/INST]",
                "[TOOL_CALLS]",
                "[TOOL_RESULTS]",
                "[/TOOL_RESULTS]",
            ),
            MISTRAL_TOOLS,
            "<s>",
            "</s>",
            ("</s>",),
        ),
        Family(
            "gemma-3",
            "unspaced",
            GEMMA_TOKENS,
            GEMMA_3,
            "<bos>",
            "<eos>",
            ("<eos>", "<end_of_turn>"),
        ),
        Family(
            "gpt-oss",
            "bytes",
            HARMONY,
            GPT_OSS,
            None,
            "<|return|>",
            ("<|return|>", "<|call|>"),
        ),
    )
}
