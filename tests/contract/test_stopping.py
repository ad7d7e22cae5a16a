"""EarlyStopping on both packages: the same values end a fit at the same place."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
from recording import callbacks_of, data, quiet_trainer
from test_checkpoint_files import FALLING, OURS, REFERENCE, plain, scripted

NAN, INF = math.nan, math.inf
ATTRIBUTES = (
    *("wait_count", "stopped_epoch", "best_score", "patience", "min_delta", "mode"),
    *("monitor", "strict", "check_finite", "stopping_threshold", "order_dict"),
    *("divergence_threshold", "log_rank_zero_only", "verbose", "state_key"),
)
RISING = [1.0, 2.0, 3.0, 4.0, 5.0, 6.0]

pytestmark = pytest.mark.filterwarnings("ignore")

SCENARIOS: dict[str, tuple[dict[str, Any], list[float], dict[str, Any]]] = {
    "default": ({}, RISING, {}),
    "no patience": ({"patience": 0}, [2.0, 1.0, 1.0, 0.5], {}),
    "patience of one": ({"patience": 1}, [2.0, 1.0, 1.0, 0.5], {}),
    "equal values": ({}, [1.0] * 6, {}),
    "greatest": ({"mode": "max", "patience": 2}, [1.0, 2.0, 1.5, 1.0, 3.0], {}),
    "least change": ({"min_delta": 0.5, "patience": 2}, [3.0, 2.6, 2.4, 2.2, 2.1], {}),
    "least change of all": ({"min_delta": 0.0}, [2.0, 2.0 - 1e-7, 2.0 - 2e-7], {}),
    "greatest by a change": (
        {"mode": "max", "min_delta": 0.5, "patience": 2},
        [1.0, 1.5, 2.0, 2.2],
        {},
    ),
    "NaN": ({}, [2.0, NAN, 1.0], {}),
    "infinite": ({"mode": "max"}, [2.0, INF, 1.0], {}),
    "NaN accepted": ({"check_finite": False, "patience": 2}, [2.0, NAN, NAN, 1.0], {}),
    "goal": ({"stopping_threshold": 1.5}, FALLING, {}),
    "goal just not reached": ({"stopping_threshold": 0.1}, [0.3, 0.1, 0.1, 0.1], {}),
    "goal of the greatest": (
        {"stopping_threshold": 0.3, "mode": "max"},
        [0.1, 0.3, 0.31, 0.4],
        {},
    ),
    "limit": ({"divergence_threshold": 2.5}, RISING, {}),
    "limit of the greatest": (
        {"divergence_threshold": 0.3, "mode": "max"},
        [0.5, 0.3, 0.2, 0.1],
        {},
    ),
    "by training": (
        {"monitor": "at_end", "check_on_train_epoch_end": True, "patience": 2},
        RISING,
        {},
    ),
    "at validation": ({"check_on_train_epoch_end": False}, RISING, {}),
    "validation in mid-epoch": ({"patience": 2}, RISING, {"val_check_interval": 2}),
    "validation in every second epoch": (
        {"patience": 1},
        RISING,
        {"check_val_every_n_epoch": 2, "max_epochs": 9},
    ),
    "not before min_epochs": ({"patience": 1}, RISING, {"min_epochs": 5}),
    "not strict": ({"monitor": "nobody", "strict": False}, FALLING, {}),
    "trial run": ({"stopping_threshold": 9.0}, FALLING, {"fast_dev_run": 2}),
    "said only by one": ({"log_rank_zero_only": True, "verbose": True}, RISING, {}),
}


def stopped(
    namespace: str, arguments: dict[str, Any], scores: list[float], **flags: Any
) -> Any:
    stopping = callbacks_of(namespace).EarlyStopping(
        **{"monitor": "val/loss", **arguments}
    )
    trainer = quiet_trainer(
        namespace, callbacks=[stopping], **{"max_epochs": len(scores), **flags}
    )
    trainer.fit(scripted(namespace, scores), data(), data(4))
    return trainer, stopping


@pytest.mark.parametrize("name", SCENARIOS)
def test_fits_end_at_the_same_place(name: str) -> None:
    arguments, scores, flags = SCENARIOS[name]
    found = []
    for namespace in (OURS, REFERENCE):
        trainer, stopping = stopped(namespace, arguments, scores, **flags)
        attributes = {a: plain(getattr(stopping, a), Path()) for a in ATTRIBUTES}
        reason = stopping.stopping_reason
        state = set(stopping.state_dict())
        message = stopping.stopping_reason_message is None
        op = stopping.monitor_op
        counts = trainer.current_epoch, trainer.global_step, trainer.should_stop
        found.append(
            (counts, attributes, reason.name, reason.value, message, state, op)
        )
    assert found[0] == found[1]


@pytest.mark.parametrize("writer", [OURS, REFERENCE])
def test_waiting_goes_on_from_the_other_package(writer: str, tmp_path: Path) -> None:
    scores = [1.0, 2.0, 2.0, 2.0, 2.0, 2.0]
    trainer, _ = stopped(writer, {"patience": 4}, scores, max_epochs=3)
    trainer.save_checkpoint(tmp_path / "a.ckpt")
    reader = REFERENCE if writer == OURS else OURS
    stopping = callbacks_of(reader).EarlyStopping("val/loss", patience=4)
    trainer = quiet_trainer(reader, callbacks=[stopping], max_epochs=9)
    module = scripted(reader, scores[3:])
    trainer.fit(module, data(), data(4), ckpt_path=tmp_path / "a.ckpt")
    assert (stopping.wait_count, stopping.stopped_epoch) == (4, 4)
