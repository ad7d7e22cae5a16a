"""Which checkpoint files are there after a run, and what the callback knows of them."""

import threading
import time
from datetime import timedelta
from pathlib import Path

import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader

from lightgen_runtime import LightningModule, Trainer
from lightgen_runtime.callbacks import Callback, ModelCheckpoint, kept_files
from lightgen_runtime.callbacks.checkpoint_names import fill_template, link_file
from lightgen_runtime.loggers import CSVLogger
from lightgen_runtime.utilities.exceptions import (
    MisconfigurationException,
    NonFiniteLossError,
)

NAN = float("nan")


class Scored(LightningModule):
    """Log one given `val_loss` a validation; 4 training batches an epoch."""

    def __init__(self, scores=(3.0, 1.0, 2.0, NAN)):
        super().__init__()
        self.layer = nn.Linear(2, 1)
        self.scores = list(scores)
        self.raise_at = -1

    def training_step(self, batch, batch_idx):
        if self.trainer.global_step == self.raise_at:
            raise ValueError("user code failed")
        loss = self.layer(batch).square().mean()
        self.log("train_loss", loss)
        return loss

    def validation_step(self, batch, batch_idx):
        score = 9.0 if self.trainer.sanity_checking else self.scores.pop(0)
        self.log("val_loss", score)
        self.log("val/acc", 0.5)

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.1)


def loader(batches):
    return DataLoader(torch.ones(batches * 2, 2), batch_size=2)


@pytest.fixture
def fit(tmp_path):
    def run(callback, module=None, ckpt_path=None, val=True, callbacks=(), **flags):
        flags = {"max_epochs": 4, "num_sanity_val_steps": 0, "logger": False, **flags}
        trainer = Trainer(
            accelerator="cpu",
            default_root_dir=tmp_path,
            enable_progress_bar=False,
            enable_model_summary=False,
            callbacks=[callback, *callbacks],
            **flags,
        )
        module = Scored() if module is None else module
        trainer.fit(module, loader(4), loader(1) if val else None, ckpt_path=ckpt_path)
        return trainer

    return run


def names(callback):
    folder = Path(callback.dirpath)
    return sorted(p.relative_to(folder).as_posix() for p in folder.rglob("*.ckpt"))


def test_default_keeps_only_the_newest(fit, tmp_path):
    callback = ModelCheckpoint()
    fit(callback)
    assert callback.dirpath == str(tmp_path / "checkpoints")
    assert names(callback) == ["epoch=3-step=16.ckpt"]
    assert callback.best_model_path == str(
        tmp_path / "checkpoints" / "epoch=3-step=16.ckpt"
    )
    assert callback.best_model_score is None


def test_folder_is_that_of_the_logger(fit, tmp_path):
    callback = ModelCheckpoint()
    fit(callback, logger=CSVLogger(tmp_path, name="runs", version="1"), max_epochs=1)
    assert callback.dirpath == str(tmp_path / "runs" / "1" / "checkpoints")


def test_top_k_keeps_the_best_and_last_the_newest(fit, tmp_path):
    callback = ModelCheckpoint(
        tmp_path, monitor="val_loss", save_top_k=2, save_last=True
    )
    fit(callback)
    assert names(callback) == [
        "epoch=1-step=8.ckpt",
        "epoch=2-step=12.ckpt",
        "last.ckpt",
    ]
    assert callback.best_model_path == str(tmp_path / "epoch=1-step=8.ckpt")
    assert float(callback.best_model_score) == 1.0
    assert callback.kth_best_model_path == str(tmp_path / "epoch=2-step=12.ckpt")
    assert float(callback.kth_value) == 2.0
    assert callback.last_model_path == str(tmp_path / "last.ckpt")
    assert torch.load(callback.last_model_path, weights_only=True)["global_step"] == 16


def test_mode_max_keeps_the_largest(fit, tmp_path):
    callback = ModelCheckpoint(tmp_path, monitor="val_loss", mode="max")
    fit(callback)
    assert names(callback) == ["epoch=0-step=4.ckpt"]


def test_nan_is_the_worst_but_better_than_nothing(fit, tmp_path):
    callback = ModelCheckpoint(tmp_path / "a", monitor="val_loss")
    fit(callback, Scored([NAN]), max_epochs=1)
    assert names(callback) == ["epoch=0-step=4.ckpt"]
    assert float(callback.best_model_score) == float("inf")
    callback = ModelCheckpoint(tmp_path / "b", monitor="val_loss")
    fit(callback, Scored([NAN, 5.0, NAN]), max_epochs=3)
    assert names(callback) == ["epoch=1-step=8.ckpt"]
    assert float(callback.best_model_score) == 5.0


def test_one_callback_serves_two_fits(fit, tmp_path):
    callback = ModelCheckpoint(tmp_path, monitor="val_loss")
    fit(callback, Scored([2.0]), max_epochs=1)
    fit(callback, Scored([1.0]), max_epochs=1)
    assert names(callback) == ["epoch=0-step=4.ckpt"]
    assert float(callback.best_model_score) == 1.0
    assert torch.load(callback.best_model_path, weights_only=True)["callbacks"][
        callback.state_key
    ]["best_model_score"] == torch.tensor(1.0)


def test_keep_all_or_none(fit, tmp_path):
    everything = ModelCheckpoint(tmp_path / "all", monitor="val_loss", save_top_k=-1)
    nothing = ModelCheckpoint(tmp_path / "none", save_top_k=0, save_last=True)
    fit(everything, callbacks=[nothing])
    assert len(names(everything)) == 4
    assert names(nothing) == ["last.ckpt"]


def test_weights_only_leaves_the_rest_out(fit, tmp_path):
    callback = ModelCheckpoint(tmp_path, save_weights_only=True)
    fit(callback, max_epochs=1)
    keys = torch.load(callback.best_model_path, weights_only=True).keys()
    assert "state_dict" in keys
    assert "optimizer_states" not in keys


def test_file_names_follow_the_template(fit, tmp_path):
    named = ModelCheckpoint(
        tmp_path / "a",
        filename="{epoch:02d}-{val_loss:.2f}-{val/acc}-{nobody}",
        monitor="val_loss",
    )
    bare = ModelCheckpoint(
        tmp_path / "b", filename="x{epoch}-{val/acc:.1f}", auto_insert_metric_name=False
    )
    fit(named, callbacks=[bare], max_epochs=2)
    assert names(named) == ["epoch=01-val_loss=1.00-val/acc=0.5-nobody=0.ckpt"]
    assert names(bare) == ["x1-0.5.ckpt"]


def test_taken_names_get_a_version(fit, tmp_path):
    callback = ModelCheckpoint(
        tmp_path, monitor="val_loss", save_top_k=2, filename="m", save_last=True
    )
    (tmp_path / "last.ckpt").write_text("somebody else's")
    fit(callback)
    assert names(callback) == ["last-v1.ckpt", "last.ckpt", "m-v1.ckpt", "m.ckpt"]
    assert (tmp_path / "last.ckpt").read_text() == "somebody else's"


def test_without_version_counter_overwriting_is_announced(fit, tmp_path):
    (tmp_path / "m.ckpt").write_text("former")
    callback = ModelCheckpoint(tmp_path, filename="m", enable_version_counter=False)
    with pytest.warns(UserWarning, match="going to be overwritten"):
        fit(callback, max_epochs=1)
    assert names(callback) == ["m.ckpt"]


def test_last_as_a_link_points_to_the_newest_file(fit, tmp_path):
    callback = ModelCheckpoint(tmp_path, save_last="link")
    fit(callback, max_epochs=2)
    link = tmp_path / "last.ckpt"
    assert link.is_symlink()
    assert link.resolve() == Path(callback.best_model_path).resolve()


def test_second_fit_of_a_trainer_saves_its_last_state(fit, tmp_path):
    callback = ModelCheckpoint(
        tmp_path, save_last=True, every_n_train_steps=100, save_top_k=0
    )
    trainer = fit(callback, max_epochs=1)
    (tmp_path / "last.ckpt").unlink()
    trainer.max_epochs = 2
    trainer.fit(trainer.lightning_module, loader(4))
    assert trainer.global_step == 8
    assert torch.load(tmp_path / "last.ckpt")["global_step"] == 8


def test_link_becomes_a_copy_where_links_are_impossible(tmp_path, monkeypatch):
    def refuse(self, target):
        raise OSError("not here")

    monkeypatch.setattr(Path, "symlink_to", refuse)
    (tmp_path / "a").write_text("content")
    link_file(tmp_path / "a", tmp_path / "b")
    assert (tmp_path / "b").read_text() == "content"
    assert len(list(tmp_path.iterdir())) == 2


def test_every_n_epochs_skips_the_others(fit, tmp_path):
    callback = ModelCheckpoint(tmp_path, every_n_epochs=2, save_top_k=-1)
    fit(callback)
    assert names(callback) == ["epoch=1-step=8.ckpt", "epoch=3-step=16.ckpt"]


def test_every_n_train_steps_counts_optimizer_steps(fit, tmp_path):
    callback = ModelCheckpoint(tmp_path, every_n_train_steps=3, save_top_k=-1)
    fit(callback, max_epochs=2)
    assert names(callback) == ["epoch=0-step=3.ckpt", "epoch=1-step=6.ckpt"]
    accumulating = ModelCheckpoint(tmp_path / "b", every_n_train_steps=3, save_top_k=-1)
    fit(accumulating, accumulate_grad_batches=2)
    assert names(accumulating) == ["epoch=1-step=3.ckpt", "epoch=2-step=6.ckpt"]


def test_every_n_train_steps_waits_for_a_validation_metric(fit, tmp_path):
    callback = ModelCheckpoint(
        tmp_path, every_n_train_steps=3, save_top_k=-1, monitor="val_loss"
    )
    fit(callback, max_epochs=2)
    # Due at step 3, possible after the validation of step 4.
    assert names(callback) == ["epoch=0-step=4.ckpt", "epoch=1-step=6.ckpt"]


def test_train_time_interval_saves_by_the_clock(fit, tmp_path, monkeypatch):
    clock, real = iter(range(100)), time.monotonic

    def monotonic() -> float:
        # Threads that other tests have left behind look at the clock, too.
        ours = threading.current_thread() is threading.main_thread()
        return next(clock) * 10.0 if ours else real()

    monkeypatch.setattr(time, "monotonic", monotonic)
    callback = ModelCheckpoint(
        tmp_path, train_time_interval=timedelta(seconds=20), save_top_k=-1
    )
    fit(callback, max_epochs=1)
    assert names(callback) == ["epoch=0-step=2.ckpt", "epoch=0-step=4.ckpt"]


def test_validation_in_mid_epoch_saves_each_time(fit, tmp_path):
    callback = ModelCheckpoint(tmp_path, monitor="val_loss", save_top_k=-1)
    fit(callback, val_check_interval=0.5, max_epochs=2)
    assert names(callback) == [
        "epoch=0-step=2.ckpt",
        "epoch=0-step=4.ckpt",
        "epoch=1-step=6.ckpt",
        "epoch=1-step=8.ckpt",
    ]


def test_validation_in_some_epochs_saves_in_those(fit, tmp_path):
    callback = ModelCheckpoint(tmp_path, monitor="val_loss", save_top_k=-1)
    fit(callback, check_val_every_n_epoch=2)
    assert names(callback) == ["epoch=1-step=8.ckpt", "epoch=3-step=16.ckpt"]


def test_save_on_train_epoch_end_overrules_validation(fit, tmp_path):
    callback = ModelCheckpoint(tmp_path, save_on_train_epoch_end=True, save_top_k=-1)
    fit(callback, check_val_every_n_epoch=2)
    assert len(names(callback)) == 4


def test_monitored_training_metric_needs_no_validation(fit, tmp_path):
    callback = ModelCheckpoint(tmp_path, monitor="train_loss")
    fit(callback, val=False)
    assert len(names(callback)) == 1


def test_sanity_check_saves_nothing(fit, tmp_path):
    callback = ModelCheckpoint(tmp_path, monitor="val_loss", save_top_k=-1)
    fit(callback, num_sanity_val_steps=1, max_epochs=1)
    assert names(callback) == ["epoch=0-step=4.ckpt"]
    assert float(callback.best_model_score) == 3.0


def test_fast_dev_run_saves_nothing(fit, tmp_path):
    callback = ModelCheckpoint(tmp_path / "x", monitor="nobody logs this")
    fit(callback, fast_dev_run=True)
    assert not (tmp_path / "x").exists()


@pytest.mark.parametrize("trigger", [{}, {"every_n_train_steps": 3}])
def test_unknown_monitor_names_what_was_logged_and_the_nearest(fit, tmp_path, trigger):
    callback = ModelCheckpoint(tmp_path, monitor="val_los", **trigger)
    with pytest.raises(MisconfigurationException) as caught:
        fit(callback)
    assert "train_loss, val/acc, val_loss" in str(caught.value)
    assert "Nearest name: `val_loss`" in str(caught.value)
    assert names(callback) == []


def test_unknown_monitor_is_found_in_mid_epoch_validation(fit, tmp_path):
    callback = ModelCheckpoint(tmp_path, monitor="val_los")
    with pytest.raises(MisconfigurationException, match="Nearest name"):
        fit(callback, val_check_interval=2, max_epochs=1)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"mode": "lowest"}, "`mode='lowest'`"),
        ({"save_top_k": -2}, "`save_top_k=-2`"),
        ({"save_top_k": 3}, "needs a metric"),
        ({"every_n_epochs": -1}, "`every_n_epochs=-1`"),
        ({"every_n_train_steps": -1}, "`every_n_train_steps=-1`"),
        ({"every_n_epochs": 1, "every_n_train_steps": 2}, "exclude each other"),
        ({"filename": "{epoch"}, "is not a template"),
        ({"filename": "{}-x"}, "without a name"),
    ],
)
def test_impossible_arguments_are_refused(arguments, message):
    with pytest.raises(MisconfigurationException, match=message):
        ModelCheckpoint(**arguments)


def test_format_that_does_not_fit_the_metric_is_named():
    with pytest.raises(MisconfigurationException, match=r"`val_loss` is 0\.5"):
        fill_template("{val_loss:d}", {"val_loss": torch.tensor(0.5)}, "=")


def test_exception_saves_where_asked_and_keeps_the_error(fit, tmp_path):
    module = Scored()
    module.raise_at = 6
    saving = ModelCheckpoint(tmp_path / "a", monitor="val_loss", save_on_exception=True)
    other = ModelCheckpoint(tmp_path / "b")
    with pytest.raises(ValueError, match="user code failed"):
        fit(saving, module, callbacks=[other])
    assert names(saving) == ["epoch=0-step=4.ckpt", "epoch=1-step=6.ckpt"]
    assert names(other) == ["epoch=0-step=4.ckpt"]


class FullDisk(Callback):
    """Refuse every checkpoint after the first epoch, and keep what was known then."""

    def __init__(self, error):
        self.error = error

    def on_train_epoch_start(self, trainer, pl_module):
        self.state = trainer.checkpoint_callback.state_dict()

    def on_save_checkpoint(self, trainer, pl_module, checkpoint):
        if trainer.current_epoch > 0:
            raise self.error


@pytest.mark.parametrize("error", [KeyboardInterrupt(), OSError("disk full")])
@pytest.mark.parametrize(
    "arguments",
    [
        {},
        {"monitor": "val_loss"},
        {"monitor": "val_loss", "save_top_k": 2},
        {"save_top_k": 0, "save_last": True},
        {"monitor": "val_loss", "filename": "fixed", "enable_version_counter": False},
    ],
)
def test_failed_write_leaves_files_and_paths_as_they_were(
    fit, tmp_path, arguments, error
):
    callback, full = ModelCheckpoint(tmp_path, **arguments), FullDisk(error)
    with pytest.raises(type(error)):
        fit(callback, callbacks=[full])
    assert callback.state_dict() == full.state
    path = callback.best_model_path or callback.last_model_path
    assert names(callback) == [Path(path).name]
    assert torch.load(path, weights_only=True)["global_step"] == 4


def test_failed_link_leaves_the_path_as_it_was(fit, tmp_path, monkeypatch):
    callback = ModelCheckpoint(tmp_path, save_last="link")

    def refuse(target, link):
        raise OSError("disk full")

    monkeypatch.setattr(kept_files, "link_file", refuse)
    with pytest.warns(UserWarning, match="disk full|could not save"):
        fit(callback, max_epochs=1)
    assert callback.last_model_path == ""
    assert Path(callback.best_model_path).is_file()


def test_exception_before_another_step_is_not_saved_again(fit, tmp_path):
    callback, module = ModelCheckpoint(tmp_path, save_on_exception=True), Scored()
    module.raise_at = 4
    with pytest.raises(ValueError, match="user code failed"):
        fit(callback, module)
    assert names(callback) == ["epoch=0-step=4.ckpt"]


def test_exception_because_of_broken_weights_saves_nothing(fit, tmp_path):
    class Broken(Callback):
        def on_train_batch_end(self, trainer, *args):
            if trainer.global_step == 2:
                raise NonFiniteLossError("nan")

    callback = ModelCheckpoint(tmp_path, save_on_exception=True)
    with pytest.raises(NonFiniteLossError):
        fit(callback, callbacks=[Broken()])
    assert names(callback) == []


def test_resume_adopts_ranking_and_files(fit, tmp_path):
    def callback():
        return ModelCheckpoint(
            tmp_path, monitor="val_loss", save_top_k=2, save_last=True
        )

    first = callback()
    fit(first, Scored([3.0, 1.0]), max_epochs=2)
    second = callback()
    fit(
        second,
        Scored([0.5, 4.0]),
        ckpt_path=str(tmp_path / "last.ckpt"),
        max_epochs=4,
    )
    assert names(second) == [
        "epoch=1-step=8.ckpt",
        "epoch=2-step=12.ckpt",
        "last.ckpt",
    ]
    assert float(second.best_model_score) == 0.5
    assert torch.load(second.last_model_path, weights_only=True)["global_step"] == 16


def test_resume_never_removes_the_file_it_came_from(fit, tmp_path):
    first = ModelCheckpoint(tmp_path)
    fit(first, max_epochs=1)
    source = first.best_model_path
    second = ModelCheckpoint(tmp_path)
    fit(second, ckpt_path=source, max_epochs=3)
    assert names(second) == ["epoch=0-step=4.ckpt", "epoch=2-step=12.ckpt"]


def test_resume_from_a_relative_path_does_not_remove_the_file(
    fit, tmp_path, monkeypatch
):
    first = ModelCheckpoint(tmp_path)
    fit(first, max_epochs=1)
    monkeypatch.chdir(tmp_path)
    second = ModelCheckpoint(tmp_path)
    fit(second, ckpt_path="epoch=0-step=4.ckpt", max_epochs=3)
    assert names(second) == ["epoch=0-step=4.ckpt", "epoch=2-step=12.ckpt"]


@pytest.mark.parametrize(
    ("first_k", "second_k", "kept_epochs"),
    # The scores of epochs 0 to 4 are 3, 1, 2, 1.5, 0.5.
    [(3, 2, [1, 4]), (4, 2, [1, 4]), (1, 3, [1, 3, 4]), (2, -1, [1, 2, 3, 4])],
)
def test_resume_may_keep_another_number_of_files(
    fit, tmp_path, first_k, second_k, kept_epochs
):
    def callback(top_k):
        return ModelCheckpoint(
            tmp_path, monitor="val_loss", save_top_k=top_k, save_last=True
        )

    fit(callback(first_k), Scored([3.0, 1.0]), max_epochs=2)
    fit(
        callback(first_k),
        Scored([2.0]),
        ckpt_path=tmp_path / "last.ckpt",
        max_epochs=3,
    )
    second = callback(second_k)
    fit(second, Scored([1.5, 0.5]), ckpt_path=tmp_path / "last.ckpt", max_epochs=5)
    expected = [f"epoch={n}-step={4 * n + 4}.ckpt" for n in kept_epochs]
    assert names(second) == [*expected, "last.ckpt"]
    assert second.best_model_path == str(tmp_path / expected[-1])
    assert {Path(path).name for path in second.best_k_models} == set(expected)


def test_score_beside_more_files_than_are_to_be_kept_is_not_worth_a_file(tmp_path):
    callback = ModelCheckpoint(tmp_path, monitor="val_loss", save_top_k=2)
    callback.best_k_models = {name: torch.tensor(float(name)) for name in "123"}
    assert not callback.check_monitor_top_k(None, torch.tensor(2.5))
    assert not callback.check_monitor_top_k(None, torch.tensor(NAN))
    assert callback.check_monitor_top_k(None, torch.tensor(1.5))


def test_resume_into_another_folder_starts_a_new_ranking(fit, tmp_path, caplog):
    first = ModelCheckpoint(tmp_path / "a", monitor="val_loss")
    fit(first, Scored([1.0]), max_epochs=1)
    second = ModelCheckpoint(tmp_path / "b", monitor="val_loss")
    with caplog.at_level("INFO", logger="lightgen_runtime"):
        fit(second, Scored([2.0]), ckpt_path=first.best_model_path, max_epochs=2)
    assert "ranking starts anew" in caplog.text
    assert names(first) == ["epoch=0-step=4.ckpt"]
    assert names(second) == ["epoch=1-step=8.ckpt"]
    assert float(second.best_model_score) == 2.0


def test_resume_into_another_folder_removes_nothing_there(fit, tmp_path):
    first = ModelCheckpoint(tmp_path / "a", save_last=True)
    fit(first, max_epochs=1)
    second = ModelCheckpoint(tmp_path / "b")
    fit(second, ckpt_path=first.last_model_path, max_epochs=3)
    assert names(first) == ["epoch=0-step=4.ckpt", "last.ckpt"]
    assert names(second) == ["epoch=2-step=12.ckpt"]


def test_state_has_the_keys_of_lightning():
    lightning = pytest.importorskip("lightning.pytorch.callbacks")
    ours, theirs = (
        make(monitor="val_loss", every_n_epochs=2)
        for make in (ModelCheckpoint, lightning.ModelCheckpoint)
    )
    assert ours.state_key == theirs.state_key
    assert ours.state_dict().keys() == theirs.state_dict().keys()


def test_checkpoint_holds_its_own_path(fit, tmp_path):
    callback = ModelCheckpoint(tmp_path, monitor="val_loss")
    fit(callback, max_epochs=1)
    states = torch.load(callback.best_model_path, weights_only=True)["callbacks"]
    assert states[callback.state_key]["best_model_path"] == callback.best_model_path


def test_format_checkpoint_name_is_public(tmp_path):
    callback = ModelCheckpoint(tmp_path)
    metrics = {"epoch": torch.tensor(2), "step": torch.tensor(7)}
    assert callback.format_checkpoint_name(metrics, ver=3, prefix="p") == str(
        tmp_path / "p-epoch=2-step=7-v3.ckpt"
    )


def test_to_yaml_lists_kept_files(fit, tmp_path):
    import yaml

    callback = ModelCheckpoint(tmp_path, monitor="val_loss", save_top_k=2)
    fit(callback)
    callback.to_yaml()
    content = yaml.safe_load((tmp_path / "best_k_models.yaml").read_text())
    assert sorted(content.values()) == [1.0, 2.0]


def test_loggers_are_told(fit, tmp_path):
    class Recording(CSVLogger):
        seen = ()

        def after_save_checkpoint(self, checkpoint_callback):
            self.seen = (*self.seen, checkpoint_callback.best_model_path)

    logger = Recording(tmp_path)
    callback = ModelCheckpoint(tmp_path / "c")
    fit(callback, logger=logger, max_epochs=2)
    assert [Path(path).name for path in logger.seen] == [
        "epoch=0-step=4.ckpt",
        "epoch=1-step=8.ckpt",
    ]
