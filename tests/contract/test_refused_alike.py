"""What Lightning refuses, because it cannot mean anything, is refused here too."""

from __future__ import annotations

import importlib
from typing import Any

import pytest
from recording import data, quiet_trainer, small_module

BOTH = ("lightgen_runtime", "lightning")

pytestmark = pytest.mark.filterwarnings("ignore")


def refused(namespace: str) -> Any:
    utilities = importlib.import_module(f"{namespace}.pytorch.utilities.exceptions")
    return pytest.raises((utilities.MisconfigurationException, TypeError))


@pytest.mark.parametrize("namespace", BOTH)
@pytest.mark.parametrize("output", [1.5, [1], "loss"], ids=str)
def test_output_of_manual_optimization(namespace: str, output: Any) -> None:
    module = small_module(namespace)()
    module.automatic_optimization = False
    module.training_step = lambda batch, batch_idx: output
    with refused(namespace):
        quiet_trainer(namespace, max_epochs=1).fit(module, data())


@pytest.mark.parametrize("namespace", BOTH)
@pytest.mark.parametrize("name", ["loss/dataloader_idx_0", 3], ids=str)
def test_name_of_a_logged_value(namespace: str, name: Any) -> None:
    module = small_module(namespace)()
    module.on_train_epoch_end = lambda: module.log(name, 1.0)
    with refused(namespace):
        quiet_trainer(namespace, max_epochs=1).fit(module, data())


@pytest.mark.parametrize("namespace", BOTH)
@pytest.mark.parametrize("share", [0.5, 1.0])
def test_share_of_an_epoch_counted_across_epochs(namespace: str, share: float) -> None:
    with refused(namespace):
        quiet_trainer(namespace, val_check_interval=share, check_val_every_n_epoch=None)


@pytest.mark.parametrize("namespace", BOTH)
def test_no_interval_counted_across_epochs_is_an_epoch(namespace: str) -> None:
    trainer = quiet_trainer(namespace, max_epochs=2, check_val_every_n_epoch=None)
    trainer.fit(small_module(namespace)(), data(), data(4))
    assert trainer.val_check_batch == 4
