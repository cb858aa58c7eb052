"""Whatever a run's config.json holds, it is accepted or refused with reasons."""

import json
from dataclasses import fields
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from trainer.config import TrainConfig
from trainer.errors import Refused

pytestmark = pytest.mark.slow

VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.sampled_from([10**400, -(10**4000), 2**63, float("nan"), float("inf"), "", "kto", "cpu:9"])
    | st.floats()
    | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text(max_size=3), inner),
    max_leaves=4,
)
NAMES = st.sampled_from([field.name for field in fields(TrainConfig)])


@example({"loss": []})
@example({"max_grad_norm": 10**400})
@given(st.dictionaries(NAMES | st.text(max_size=6), VALUES, max_size=6))
def test_any_config_is_accepted_or_refused_with_reasons(changes: dict[str, Any]) -> None:
    raw = {"base_model": "some/model", "adapter_name": "starter@3", **changes}
    try:
        config = TrainConfig.from_dict(raw)
    except Refused as refused:
        assert refused.faults
        assert all(refused.faults)
        return
    assert TrainConfig.from_dict(config.as_dict()) == config
    json.dumps(config.as_dict(), allow_nan=False)
