"""Pooled states: a row's are its own, whatever runs beside it and whichever adapter was there."""

from pathlib import Path

import numpy as np
import pytest
import torch

from tests.tiny import make_tiny_adapter
from trainer.artifacts.adapted import adapted
from trainer.evaluation import embeddings
from trainer.evaluation.embeddings import pooled_states
from trainer.forward.logprobs import Row
from trainer.models.loading import LoadedBase

ROWS: list[Row] = [
    ((1, 40, 41, 42), (50, 51, 52)),
    ((1, 40, 41, 42), (60,) * 90),
    ((1, 43), ()),
    ((1,), (44, 45)),
    (tuple(range(30, 100)), (7, 8, 9)),
]


def test_row_gets_the_same_states_alone_and_in_a_batch(tiny: LoadedBase) -> None:
    together = pooled_states(tiny, ROWS)
    assert together.prompt.shape == together.completion.shape == (5, 64)
    assert together.prompt.dtype == together.completion.dtype == np.float32
    for number, row in enumerate(ROWS):
        alone = pooled_states(tiny, [row])
        np.testing.assert_allclose(together.prompt[number], alone.prompt[0], atol=1e-5)
        np.testing.assert_allclose(together.completion[number], alone.completion[0], atol=1e-5)


def test_batches_stay_within_the_token_budget(
    tiny: LoadedBase, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[torch.Size] = []
    handle = tiny.model.get_decoder().register_forward_pre_hook(
        lambda _, __, given: seen.append(given["input_ids"].shape), with_kwargs=True
    )
    monkeypatch.setattr(embeddings, "_TOKEN_BUDGET", 80)
    found = pooled_states(tiny, ROWS)
    handle.remove()
    assert sum(rows for rows, _ in seen) == len(ROWS)
    assert [width for rows, width in seen if rows * width > 80] == [94]  # longer than the budget
    assert len(seen) < len(ROWS)
    monkeypatch.undo()
    np.testing.assert_allclose(found.completion, pooled_states(tiny, ROWS).completion, atol=1e-5)


def test_prompt_and_completion_are_averaged_apart(tiny: LoadedBase) -> None:
    whole = (1, 40, 41, 42, 50, 51)
    parts = pooled_states(tiny, [(whole[:4], whole[4:]), (whole, ()), (whole[:4], ())])
    # Causality: what follows does not change the prompt's states.
    np.testing.assert_allclose(parts.prompt[0], parts.prompt[2], atol=1e-5)
    mean = (4 * parts.prompt[0] + 2 * parts.completion[0]) / 6
    np.testing.assert_allclose(mean, parts.prompt[1], atol=1e-5)


def test_empty_completion_has_the_state_of_the_prompts_last_token(tiny: LoadedBase) -> None:
    found = pooled_states(tiny, [((1, 40, 41, 42), ()), ((1, 40, 41), (42,))])
    np.testing.assert_allclose(found.completion[0], found.completion[1], atol=1e-5)


def test_no_rows_give_no_states(tiny: LoadedBase) -> None:
    assert pooled_states(tiny, []).completion.shape == (0, 64)


def test_empty_prompt_is_refused(tiny: LoadedBase) -> None:
    with pytest.raises(ValueError, match="at least one prompt token"):
        pooled_states(tiny, [((), (5,))])


def test_adapter_must_be_switched_off(tiny: LoadedBase, tmp_path: Path) -> None:
    make_tiny_adapter(tmp_path / "one", tiny)
    before = pooled_states(tiny, ROWS)
    with adapted(tiny, tmp_path / "one") as lora:
        assert lora is not None
        with pytest.raises(ValueError, match="switch the adapter off"):
            pooled_states(tiny, ROWS)
        with lora.off():
            np.testing.assert_array_equal(pooled_states(tiny, ROWS).prompt, before.prompt)
