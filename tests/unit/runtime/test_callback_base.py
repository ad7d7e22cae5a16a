"""The surface that user callbacks are written against."""

import inspect
import subprocess
import sys

import pytest

from lightgen_runtime import callbacks
from lightgen_runtime.callbacks import Callback, Checkpoint
from lightgen_runtime.core.hooks import HOOKS


def public(owner):
    return {name for name in dir(owner) if not name.startswith("_")}


def arguments(owner, name):
    return list(inspect.signature(getattr(owner, name)).parameters)


def test_callback_has_every_hook_of_lightning_with_the_same_arguments():
    theirs = pytest.importorskip("lightning.pytorch").Callback
    assert public(Callback) == public(theirs)
    for name in public(Callback) - {"state_key"}:
        assert arguments(Callback, name) == arguments(theirs, name), name


def test_callback_has_every_hook_that_the_loops_fire():
    fired = {hook.name for hook in HOOKS if "callback" in hook.owners}
    assert fired <= public(Callback)


def test_state_key_is_the_class_or_tells_instances_apart():
    class Two(Callback):
        @property
        def state_key(self):
            return self._generate_state_key(metric="x", n=1)

    assert Checkpoint().state_key == "Checkpoint"
    assert Two().state_key.endswith("Two{'metric': 'x', 'n': 1}")


def test_callback_keeps_no_state_unless_it_says_so():
    assert Callback().state_dict() == {}
    Callback().load_state_dict({"anything": 1})


def test_every_public_name_can_be_imported_and_a_typo_cannot():
    for name in callbacks.__all__:
        assert getattr(callbacks, name).__name__ == name
    with pytest.raises(AttributeError, match="ModelCheckpont"):
        _ = callbacks.ModelCheckpont


def test_importing_callbacks_does_not_import_rich():
    program = (
        "import sys; from lightgen_runtime.callbacks import "
        f"{', '.join(callbacks.__all__)}; sys.exit('rich' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0
