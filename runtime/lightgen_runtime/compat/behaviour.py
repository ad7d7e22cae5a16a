"""What is there and does something else, and by which use of it code can be concerned.

`docs/compat.md` has one row for each such difference, with the test that shows it; a test
compares its rows with the rules here. `docs/compat/names.md` reads those patterns that are
names of Lightning's.

What `usage` finds in code has one of these forms; patterns are as in `differences`:

- `callbacks.Timer`, `Trainer.fit`, `LightningModule.teardown`: used, or overridden
- `Trainer(devices)`, `Trainer(devices=2)`: an argument that is not at its default;
  `Trainer(devices=...)`: its value is computed
- `callbacks.ModelCheckpoint(monitor, save_last)`: all such arguments of one call, sorted
- `self.log() in on_after_backward`, `self.log(on_step=True) in validation_step`: a call in
  a method of one's module or callback; `return None in training_step` and
  `dataloader_iter in training_step` (an argument that it takes) likewise
- `'frequency': 2`: an entry of a scheduler's dictionary
- `hyperparameter of Path`: an argument of that type that `save_hyperparameters` stores
- `hook on_train_epoch_end as on_epoch_end`: a method that is none, and the one meant
- `LightningModule in another`: one that logs in a method of its own
- `load_from_checkpoint(typo is no argument)`
- `except ValueError`: around a call of Lightning's
- `DataLoader(shuffle)`, `DataLoader(num_workers)`: torch's, with that argument
- `IterableDataset`: any class, where a rule asks for one
"""

from __future__ import annotations

from collections.abc import Set
from fnmatch import filter as filter_names
from itertools import chain

from lightgen_runtime.compat import keeping, running
from lightgen_runtime.compat.rules import Behaviour, fits

BEHAVIOUR = (
    *running.TRAINING,
    *running.METRICS,
    *running.DEVICES,
    *running.PRECISION,
    *keeping.RESUMING,
    *keeping.FILES,
    *keeping.SAVING,
    *keeping.OTHERS,
    *running.ENDS,
    *running.MISTAKES,
)


def behaviours_of(name: str) -> list[Behaviour]:
    """Return all that is said of a name."""
    return [rule for rule in BEHAVIOUR if fits(name, rule.names)]


def conditions_met(used: Set[str]) -> frozenset[str]:
    """Return the patterns that any rule asks for and that a use fits."""
    return frozenset(
        pattern
        for rule in BEHAVIOUR
        for pattern in chain(rule.not_with, *rule.only_with)
        if filter_names(used, pattern)
    )
