"""The public names: listed in one place, found lazily."""

from __future__ import annotations

import importlib.util

import pytest

import fastnlp


def test_every_name_of_the_stub_is_found_and_documented():
    assert len(fastnlp.__all__) > 20
    for name in fastnlp.__all__:
        if name == "torch" and importlib.util.find_spec("torch") is None:
            with pytest.raises(ImportError, match="pip install"):
                fastnlp.torch  # noqa: B018
            continue
        assert getattr(fastnlp, name).__doc__
        assert name in dir(fastnlp)


def test_unknown_names_are_refused():
    with pytest.raises(AttributeError, match="no attribute 'sofmax'"):
        fastnlp.sofmax  # noqa: B018
