"""A command line for any LightningModule, by LightningCLI's convention.

Parses, builds the classes, calls the Trainer; knows nothing of projects or run folders
(`project_cli` does).
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from pathlib import Path
from typing import Any

import yaml
from jsonargparse import Namespace
from torch.optim import Optimizer

from lightgen_runtime import callbacks, loggers, profilers
from lightgen_runtime.callbacks.callback import Callback
from lightgen_runtime.cli.argument_parser import LightningArgumentParser
from lightgen_runtime.cli.config_file import ConfigFileAction
from lightgen_runtime.cli.instantiation import (
    HyperparameterSaver,
    named_in,
    naming_only,
    raising,
)
from lightgen_runtime.cli.optimizers import (
    LRSchedulerTypeTuple,
    LRSchedulerTypeUnion,
    ReduceLROnPlateau,
    configure_module,
    link_registered,
)
from lightgen_runtime.cli.save_config import SaveConfigCallback
from lightgen_runtime.core.datamodule import LightningDataModule
from lightgen_runtime.core.hparams import CLASS_PATH_KEY, INSTANTIATOR_KEY
from lightgen_runtime.core.module import LightningModule
from lightgen_runtime.io import TorchCheckpointIO
from lightgen_runtime.trainer.trainer import Trainer
from lightgen_runtime.utilities.rank_zero import rank_zero_warn
from lightgen_runtime.utilities.seed import seed_everything

ArgsType = list[str] | dict[str, Any] | Namespace | None


class LightningCLI:
    """Run a LightningModule from the command line: fit, validate, test, predict.

    Every argument of the Trainer, the model and the datamodule is an option
    (`--trainer.max_epochs 3`) and a key of the YAML file given with `--config`. Creating
    the object does everything: parse, build, run.

    Args:
        model_class: A LightningModule class or a function returning a module; `None`
            lets the config name any subclass with `class_path`.
        datamodule_class: The same for the data; `None` lets the config name one where
            a datamodule is wanted.
        save_config_callback: Saves the resolved config when a run starts; `None` for
            none.
        save_config_kwargs: Arguments of that callback.
        trainer_class: The Trainer class or a function returning a trainer.
        trainer_defaults: Defaults for the Trainer; its `callbacks` are always added.
        seed_everything_default: Seed where the config names none; `True` for the
            standard seed, `False` for no seeding.
        parser_kwargs: Arguments of the main parser; those of a subcommand's parser are
            a dict under its name.
        parser_class: The parser to use.
        subclass_mode_model: Accept any subclass of `model_class` by `class_path`.
        subclass_mode_data: Accept any subclass of `datamodule_class` by `class_path`.
        args: Arguments instead of those of the process; a dict or Namespace holds
            them by key.
        run: Run a subcommand; otherwise there are none and only the objects are built.
        auto_configure_optimizers: Add the options `--optimizer` and `--lr_scheduler`;
            what they choose replaces the module's `configure_optimizers`.
        load_from_checkpoint_support: Have `save_hyperparameters` save what the config
            says of an argument rather than the object built from it, so that
            `load_from_checkpoint` can build it again.

    Attributes:
        config: The parsed config; with `run` the values are under the subcommand.
        config_init: The same with the classes built.
        model, datamodule, trainer: What was built.

    Compat: Lightning 2.6.
    """

    def __init__(
        self,
        model_class: (
            type[LightningModule] | Callable[..., LightningModule] | None
        ) = None,
        datamodule_class: (
            type[LightningDataModule] | Callable[..., LightningDataModule] | None
        ) = None,
        save_config_callback: type[SaveConfigCallback] | None = SaveConfigCallback,
        save_config_kwargs: dict[str, Any] | None = None,
        trainer_class: type[Trainer] | Callable[..., Trainer] = Trainer,
        trainer_defaults: dict[str, Any] | None = None,
        seed_everything_default: bool | int = True,
        parser_kwargs: dict[str, Any] | dict[str, dict[str, Any]] | None = None,
        parser_class: type[LightningArgumentParser] = LightningArgumentParser,
        subclass_mode_model: bool = False,
        subclass_mode_data: bool = False,
        args: ArgsType = None,
        run: bool = True,
        auto_configure_optimizers: bool = True,
        load_from_checkpoint_support: bool = True,
    ) -> None:
        self.model_class = model_class
        self.datamodule_class = datamodule_class
        self.save_config_callback = save_config_callback
        self.save_config_kwargs = save_config_kwargs or {}
        self.trainer_class = trainer_class
        self.trainer_defaults = trainer_defaults or {}
        self.seed_everything_default = seed_everything_default
        self.parser_kwargs = parser_kwargs or {}
        self.parser_class = parser_class
        self.auto_configure_optimizers = auto_configure_optimizers
        self.load_from_checkpoint_support = load_from_checkpoint_support
        self.subclass_mode_model = model_class is None or subclass_mode_model
        self.subclass_mode_data = datamodule_class is None or subclass_mode_data
        self.subcommand: str | None = None
        self._subcommand_parsers: dict[str, LightningArgumentParser] = {}
        self._subcommand_arguments: dict[str, list[str]] = {}

        main_kwargs, subparser_kwargs = self._split_parser_kwargs(self.parser_kwargs)
        self.setup_parser(run, main_kwargs, subparser_kwargs)
        self.parse_arguments(self.parser, args)
        self.subcommand = self.config["subcommand"] if run else None
        self._take_checkpoint_hparams()
        self._set_seed()
        self.before_instantiate_classes()
        self.instantiate_classes()
        self.after_instantiate_classes()
        if self.subcommand is not None:
            self._run_subcommand(self.subcommand)

    # --- the parser

    def init_parser(self, **kwargs: Any) -> LightningArgumentParser:
        """Return a parser that takes configs; override to configure it."""
        parser = self.parser_class(**kwargs)
        parser.add_argument(
            "-c", "--config", action=ConfigFileAction, help="Path of a YAML config."
        )
        return parser

    def setup_parser(
        self,
        add_subcommands: bool,
        main_kwargs: dict[str, Any],
        subparser_kwargs: dict[str, dict[str, Any]],
    ) -> None:
        """Build `self.parser`, with or without the subcommands."""
        _import_what_has_a_short_name()
        self.parser = self.init_parser(**main_kwargs)
        if not add_subcommands:
            self._add_arguments(self.parser)
            return
        actions = self.parser.add_subcommands(required=True)
        for name, skip in self.subcommands().items():
            method = getattr(self._trainer_type(), name)
            summary = (method.__doc__ or "").strip().partition("\n")[0]
            kwargs = {"description": summary, **subparser_kwargs.get(name, {})}
            parser = self.init_parser(**kwargs)
            self._add_arguments(parser)
            self._subcommand_arguments[name] = parser.add_method_arguments(
                self._trainer_type(), name, skip=set(skip)
            )
            actions.add_subcommand(name, parser, help=summary)
            self._subcommand_parsers[name] = parser

    def add_default_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        """Add the arguments that belong to no class."""
        parser.add_argument(
            "--seed_everything",
            type=bool | int,
            default=self.seed_everything_default,
            help="Seed of all random number generators; true for the standard one, "
            "false to set none.",
        )

    def add_core_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        """Add the arguments of the Trainer, the model and the datamodule."""
        parser.add_lightning_class_args(self.trainer_class, "trainer")
        defaults = {
            f"trainer.{name}": value
            for name, value in self.trainer_defaults.items()
            if name != "callbacks"
        }
        parser.set_defaults(defaults)
        parser.add_lightning_class_args(
            self.model_class or LightningModule,
            "model",
            subclass_mode=self.subclass_mode_model,
        )
        if self.datamodule_class is not None:
            parser.add_lightning_class_args(
                self.datamodule_class, "data", subclass_mode=self.subclass_mode_data
            )
        else:
            parser.add_lightning_class_args(
                LightningDataModule, "data", subclass_mode=True, required=False
            )

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        """Override to add or link arguments; called for each subcommand's parser."""

    @staticmethod
    def link_optimizers_and_lr_schedulers(parser: LightningArgumentParser) -> None:
        """Link the optimizers and schedulers that were added with `link_to`."""
        link_registered(parser)

    @staticmethod
    def subcommands() -> dict[str, set[str]]:
        """Return each subcommand and the arguments of its method not to expose."""
        evaluation = {"model", "dataloaders", "datamodule"}
        return {
            "fit": {"model", "train_dataloaders", "val_dataloaders", "datamodule"},
            "validate": evaluation,
            "test": evaluation,
            "predict": evaluation,
        }

    def parse_arguments(self, parser: LightningArgumentParser, args: ArgsType) -> None:
        """Parse `args`, or those of the process, into `self.config`."""
        if isinstance(args, dict | Namespace):
            self.config = parser.parse_object(args)
        else:
            self.config = parser.parse_args(args)

    # --- the objects

    def before_instantiate_classes(self) -> None:
        """Override to run code before anything is built."""

    def instantiate_classes(self) -> None:
        """Build the datamodule, the model and the trainer from `self.config`."""
        self.config_init = self.parser.instantiate(
            self.config, instantiators=self._hparam_savers()
        )
        self.datamodule = self._get(self.config_init, "data")
        self.model = self._get(self.config_init, "model")
        if self.auto_configure_optimizers:
            configure_module(
                self.model,
                self._parser(self.subcommand),
                self._own_part(self.config_init),
                self.configure_optimizers,
            )
        self.trainer = self.instantiate_trainer()

    def _hparam_savers(self) -> list[tuple[HyperparameterSaver, type, bool]]:
        """Return who builds the module and the datamodule."""
        if not self.load_from_checkpoint_support:
            return []
        given = (
            ("model", self.model_class or LightningModule, self.subclass_mode_model),
            (
                "data",
                self.datamodule_class or LightningDataModule,
                self.subclass_mode_data,
            ),
        )
        return [
            (HyperparameterSaver(self._plain_config, key), cls, is_chosen)
            for key, cls, is_chosen in given
            # A function's arguments are not those of the class that it builds.
            if inspect.isclass(cls)
        ]

    def _plain_config(self) -> dict[str, Any]:
        """Return the config as its file would have it."""
        text = self.parser.dump(
            self.config, skip_link_targets=False, skip_unset=False, skip_validation=True
        )
        config: dict[str, Any] = yaml.safe_load(text)
        return config[self.subcommand] if self.subcommand else config

    def after_instantiate_classes(self) -> None:
        """Override to run code once everything is built."""

    @staticmethod
    def configure_optimizers(
        lightning_module: LightningModule,
        optimizer: Optimizer,
        lr_scheduler: LRSchedulerTypeUnion | None = None,
    ) -> Any:
        """Return what `configure_optimizers` of the module is to return.

        Override it to set more than the classes, such as a scheduler's interval.

        Args:
            lightning_module: The module.
            optimizer: The optimizer that the config chose.
            lr_scheduler: The scheduler, if it chose one.
        """
        if lr_scheduler is None:
            return optimizer
        if isinstance(lr_scheduler, ReduceLROnPlateau):
            scheduler = {"scheduler": lr_scheduler, "monitor": lr_scheduler.monitor}
            return {"optimizer": optimizer, "lr_scheduler": scheduler}
        return [optimizer], [lr_scheduler]

    def instantiate_trainer(self, **kwargs: Any) -> Trainer:
        """Build the trainer.

        Args:
            **kwargs: Trainer arguments that replace those of the config.
        """
        config = {**self._get(self.config_init, "trainer", {}), **kwargs}
        if "callbacks" not in config:
            rank_zero_warn(
                f"`{getattr(self.trainer_class, '__name__', self.trainer_class)}` has no "
                "argument `callbacks`: those of the command line are left out"
            )
            return self.trainer_class(**config)
        config["callbacks"] = [
            *_as_list(config.get("callbacks")),
            *(
                self._get(self.config_init, key)
                for key in self._parser(self.subcommand).callback_keys
            ),
            *_as_list(self.trainer_defaults.get("callbacks")),
        ]
        if self.save_config_callback is not None and not config.get("fast_dev_run"):
            save_config = self.save_config_callback(
                self._parser(self.subcommand),
                self._own_config(),
                **self.save_config_kwargs,
            )
            config["callbacks"].append(save_config)
        return self.trainer_class(**config)

    # --- the run

    def _run_subcommand(self, subcommand: str) -> None:
        self._call_if_defined(f"before_{subcommand}")
        # A subclass of the CLI may define the method instead of the trainer.
        run = getattr(self, subcommand, None) or getattr(self.trainer, subcommand)
        run(**self._subcommand_kwargs(subcommand))
        self._call_if_defined(f"after_{subcommand}")

    def _call_if_defined(self, name: str) -> None:
        method = getattr(self, name, None)
        if callable(method):
            method()

    def _subcommand_kwargs(self, subcommand: str) -> dict[str, Any]:
        config = self.config_init[subcommand]
        kwargs = {name: config[name] for name in self._subcommand_arguments[subcommand]}
        kwargs["model"] = self.model
        if self.datamodule is not None:
            kwargs["datamodule"] = self.datamodule
        return kwargs

    def _set_seed(self) -> None:
        config = self._own_config()
        seed = config.get("seed_everything")
        if seed is None or seed is False:
            return
        config["seed_everything"] = seed_everything(
            None if seed is True else seed, workers=True
        )

    def _take_checkpoint_hparams(self) -> None:
        """Let the hyperparameters in the checkpoint replace those of the config.

        The weights fit only a model built as it was when they were saved.

        Raises:
            CheckpointFormatError: They name classes that the config does not.
        """
        path = self._get(self.config, "ckpt_path")
        if path is None or not Path(path).is_file():
            return
        hparams = self._checkpoint_hparams(Path(path))
        if hparams:
            change: dict[str, Any] = {"model": hparams}
            if self.subcommand is not None:
                change = {self.subcommand: change}
            named = named_in(self.config.as_dict())
            with naming_only(named, change, path), raising(self.parser):
                self.config = self.parser.parse_object(change, self.config)

    def _checkpoint_hparams(self, path: Path) -> dict[str, Any]:
        """Return those hyperparameters in the checkpoint that the model has."""
        checkpoint = TorchCheckpointIO().load_checkpoint(path, map_location="cpu")
        saved = dict(checkpoint.get("hyper_parameters", {}))
        class_path = saved.pop(CLASS_PATH_KEY, None)
        if self.subclass_mode_model and class_path is not None:
            saved.pop(INSTANTIATOR_KEY, None)
            return {"class_path": class_path, "init_args": saved}
        model = self._get(self.config, "model") or {}
        if self.subclass_mode_model:
            model = model.get("init_args") or {}
        known = {name: value for name, value in saved.items() if name in model}
        return {"init_args": known} if self.subclass_mode_model and known else known

    # --- the config

    def _parser(self, subcommand: str | None) -> LightningArgumentParser:
        return self._subcommand_parsers[subcommand] if subcommand else self.parser

    def _own_config(self) -> Namespace:
        """Return the part of the config that belongs to the subcommand."""
        return self._own_part(self.config)

    def _own_part(self, config: Namespace) -> Namespace:
        own: Namespace = config[self.subcommand] if self.subcommand else config
        return own

    def _get(self, config: Namespace, key: str, default: Any = None) -> Any:
        """Return a value of `config`, which may be under the subcommand."""
        return self._own_part(config).get(key, default)

    def _split_parser_kwargs(
        self, parser_kwargs: dict[str, Any]
    ) -> tuple[dict[str, Any], dict[str, dict[str, Any]]]:
        """Return the arguments of the main parser and those of each subcommand's."""
        names = self.subcommands()
        main = {key: value for key, value in parser_kwargs.items() if key not in names}
        return main, {key: parser_kwargs[key] for key in names if key in parser_kwargs}

    def _add_arguments(self, parser: LightningArgumentParser) -> None:
        self.add_default_arguments_to_parser(parser)
        self.add_core_arguments_to_parser(parser)
        self.add_arguments_to_parser(parser)
        if self.auto_configure_optimizers:
            # Those that `add_arguments_to_parser` added take the place of the default.
            if not parser._optimizers:
                parser.add_optimizer_args((Optimizer,))
            if not parser._lr_schedulers:
                parser.add_lr_scheduler_args(LRSchedulerTypeTuple)
        self.link_optimizers_and_lr_schedulers(parser)

    def _trainer_type(self) -> type[Trainer]:
        """Return the class whose methods are the subcommands."""
        return self.trainer_class if isinstance(self.trainer_class, type) else Trainer


def _import_what_has_a_short_name() -> None:
    """Import what a config may name without its module: only imported classes are found."""
    for package in (callbacks, loggers, profilers):
        for name in package.__all__:
            getattr(package, name)


def _as_list(given: Callback | list[Callback] | None) -> list[Callback]:
    if given is None:
        return []
    return [given] if isinstance(given, Callback) else list(given)
