"""Putting together what the processes of a run have."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_leaves, tree_map

from lightgen_runtime.utilities.exceptions import MisconfigurationException
from lightgen_runtime.utilities.in_turn import in_turn
from lightgen_runtime.utilities.move_data import move_data_to_device


class Gathering:
    """Gives a module `all_gather` and `gather_in_order`."""

    def all_gather(
        self: Any, data: Any, group: Any = None, sync_grads: bool = False
    ) -> Any:
        """Stack the tensors of every process. Collective: every process calls it.

        Args:
            data: Tensor or number, or any nesting of lists, tuples and dictionaries of
                them; of the same shapes in every process.
            group: Process group; by default all.
            sync_grads: Let gradients flow back to the process they belong to.

        Returns:
            The same nesting of tensors of shape (processes, ...); of unchanged shape if
            there is only one process.

        Raises:
            MisconfigurationException: While evaluating, where data are not padded: the
                processes have tensors of different shapes.

        Compat: integers become 64-bit ones and booleans stay booleans; with Lightning
            they become 32-bit integers and bytes.
        """
        trainer = self.trainer
        if trainer.evaluating or trainer.predicting:
            _check_shapes(data, trainer.strategy, group)

        def gathered(value: Any) -> Any:
            if isinstance(value, (int, float)):
                value = torch.tensor(value, device=self.device)
            if not isinstance(value, Tensor):
                return value
            return trainer.strategy.all_gather(value, group, sync_grads)

        return tree_map(gathered, data)

    def gather_in_order(self: Any, values: list[Any]) -> list[Any]:
        """Return what all processes collected batch by batch, in the data's order.

        Collective, as in `on_validation_epoch_end`. Some may have more than others.

        Args:
            values: One for each batch of a loader, plain data. Collect them in
                `on_validation_batch_end`: hooks see each batch once with any strategy.

        Returns:
            The same in every process, its tensors in host memory.
        """
        strategy = self.trainer.strategy
        values = move_data_to_device(values, torch.device("cpu"))
        return in_turn(strategy.gather_objects(values, strategy.data_group))


def _check_shapes(data: Any, strategy: Any, group: Any) -> None:
    """Raise where torch would wait for ever, or end the process."""
    own = [tuple(leaf.shape) for leaf in tree_leaves(data) if isinstance(leaf, Tensor)]
    found = strategy.gather_objects(own, group)
    if any(shapes != found[0] for shapes in found):
        told = "; ".join(f"process {rank}: {found[rank]}" for rank in range(len(found)))
        raise MisconfigurationException(
            f"`self.all_gather` of tensors whose shapes differ ({told}). Evaluated samples "
            "are shared out without padding, so that one process can have more than "
            "another. Collect a list with one value for each batch and call "
            "`self.gather_in_order(values)`, or gather sums and counts."
        )
