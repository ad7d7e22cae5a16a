"""A model in parts in several processes trains, evaluates and saves as in one process."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from mesh_cases import Columns
from processes import program
from sharded_net import Deep, data, weights
from trial_net import quiet

pytestmark = pytest.mark.slow

HERE = Path(__file__).parent


@dataclass
class Found:
    """What one process, and each of two, have found; and where their files are."""

    alone: dict[str, Any]
    together: list[dict[str, Any]]
    folder: Path


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> Found:
    folder = tmp_path_factory.mktemp("sharded")

    def of(world: int) -> list[dict[str, Any]]:
        done = program(str(HERE / "sharded_main.py"), str(world), cwd=folder)
        assert done.returncode == 0, done.stderr
        texts = [(folder / f"{rank}.json").read_text() for rank in range(world)]
        return [json.loads(text) for text in texts]

    (alone,) = of(1)
    return Found(alone, of(2), folder)


COMPILED = [
    "compiled",
    "compiled_of_torch",
    "compiled_by_user",
    "compiled_by_hand",
]
FITS = [
    "automatic",
    *COMPILED,
    "by_classes",
    "replicated",
    "offloaded",
    "accumulating",
    "clipped_by_value",
    "by_user",
    "made_without_content",
    "by_hand",
    "accumulating_by_hand",
    "named",
    "accumulating_named",
    "unfreezing",
    "among_callbacks",
    "tensor_parallel",
    "tensor_parallel_by_value",
    "data_parallel",
]


SPREAD = [
    "automatic",
    *COMPILED,
    "by_classes",
    "offloaded",
    "by_user",
    "by_hand",
    "data_parallel",
]


@pytest.mark.parametrize("case", FITS)
def test_weights_are_those_of_a_single_process(case: str, found: Found) -> None:
    alone = found.alone[case]
    for own in found.together:
        assert own[case]["weights"] == pytest.approx(alone["weights"], abs=1e-5)
        assert own[case].get("steps") == alone.get("steps")


@pytest.mark.parametrize("case", COMPILED)
def test_blocks_are_compiled_once_for_all(case: str, found: Found) -> None:
    for own in found.together:
        assert own[case]["breaks"] == 0
        assert own[case]["graphs"] == 1


@pytest.mark.parametrize("case", ["automatic", "by_hand", "data_parallel"])
def test_logged_values_are_those_of_a_single_process(case: str, found: Found) -> None:
    alone = found.alone[case]["loss"]
    for own in found.together:
        assert own[case]["loss"] == pytest.approx(alone, rel=1e-4)


@pytest.mark.parametrize("case", SPREAD)
def test_no_process_holds_a_whole_weight(case: str, found: Found) -> None:
    assert not any(found.alone[case].get("spread", {}).values())
    for own in found.together:
        assert own[case]["spread"]
        assert all(own[case]["spread"].values())


def test_gradients_are_reduced_once_a_window(found: Found) -> None:
    for own in found.together:
        assert own["accumulating"]["reduced"] == [False, True, False, True, True] * 2
    assert found.alone["accumulating"]["reduced"] == [True] * 10


def test_callbacks_find_whole_values_and_files(found: Found) -> None:
    alone = found.alone["among_callbacks"]
    for own in (found["among_callbacks"] for found in found.together):
        assert own["norms"] == pytest.approx(alone["norms"], rel=1e-4)
        assert own["kept"] == alone["kept"]
        assert len(own["kept"]) == 2


def test_mixed_precision(found: Found) -> None:
    """Blocks are computed from weights of 16 bits, which stay of 32 in their parts."""
    alone = found.alone["mixed"]
    for own in (found["mixed"] for found in found.together):
        assert own["kinds"] == ["torch.bfloat16"]
        assert own["normed"] == ["torch.float32"]
        assert own["weights"] == pytest.approx(alone["weights"], abs=0.01)
        # As numbers of 32 bits: 16 would not tell most steps of the optimizer.
        assert torch.tensor(own["weights"]).bfloat16().tolist() != own["weights"]
        assert own["true"] == pytest.approx(alone["true"], abs=0.02)
        assert torch.tensor(own["true"]).bfloat16().tolist() == own["true"]


def test_every_sample_is_evaluated_exactly_once(found: Found) -> None:
    """Also where processes have different numbers of batches, or one has none."""
    alone = found.alone["evaluations"]
    for own in (found["evaluations"] for found in found.together):
        for name in ("in_fit", "of_10", "of_1"):
            assert own[name] == pytest.approx(alone[name], abs=1e-5)
        assert own["of_10"]["seen"] == 10
        assert own["of_1"]["seen"] == 1
        # Sums, the largest, the least and the mean of the samples 0 to 9, and of 0.
        assert own["counted_10"] == [45.0, 45.0, 9.0, 0.0, 4.5]
        assert own["counted_1"] == [0.0] * 5
        assert own["order"] == list(range(10))
        assert own["predicted"] == pytest.approx(alone["predicted"], abs=1e-5)
        assert own["streamed"] == 6 + 2


def test_processes_that_compute_together_read_alike(found: Found) -> None:
    alone = found.alone["tensor_parallel"]
    for own in (found["tensor_parallel"] for found in found.together):
        assert own["numbers"] == alone["numbers"]
        assert own["seen"] == alone["seen"] == 10
        assert own["val"] == pytest.approx(alone["val"], abs=1e-5)
        assert own["order"] == list(range(10))
        assert own["sum"] == 1


def test_resumed_from_either_number_of_processes(found: Found) -> None:
    own = found.together[0]["checkpoints"]
    expected = found.alone["checkpoints"]["uninterrupted"]
    for name in ("uninterrupted", "by_1.ckpt", "by_2.ckpt"):
        assert own[name] == pytest.approx(expected, abs=1e-5)
    assert own["by_2.ckpt"] == own["uninterrupted"]  # to the bit


@pytest.mark.parametrize(
    ("kind", "name", "case"),
    [
        (Deep, "by_2.ckpt", "checkpoints"),
        (Columns, "mesh_by_2.ckpt", "mesh_checkpoints"),
    ],
)
def test_one_process_goes_on_from_two(
    kind: Any, name: str, case: str, found: Found
) -> None:
    path = found.folder / name
    module = kind(seed=1)
    quiet(1, max_epochs=4).fit(module, data(1), ckpt_path=path)
    expected = found.alone[case][name.replace("2", "1")]
    assert weights(module) == pytest.approx(expected, abs=1e-5)
    assert found.together[0][case][name] == pytest.approx(expected, abs=1e-5)
    plain = torch.load(path, weights_only=True)
    by_one = torch.load(found.folder / name.replace("2", "1"), weights_only=True)
    assert plain.keys() == by_one.keys()
    assert plain["state_dict"].keys() == by_one["state_dict"].keys()
    assert all(
        type(t) is torch.Tensor and t.device.type == "cpu"
        for t in plain["state_dict"].values()
    )


def test_weights_alone_load_anywhere(found: Found) -> None:
    module = Deep.load_from_checkpoint(found.folder / "weights_by_2.ckpt")
    whole = torch.load(found.folder / "by_2.ckpt", weights_only=True)["state_dict"]
    assert all(torch.equal(t, whole[n]) for n, t in module.state_dict().items())


def test_checkpoints_in_parts_reach_the_io_of_each_process(found: Found) -> None:
    elements = sum(p.numel() for p in Deep().parameters())
    parts = [own["in_parts"] for own in found.together]
    assert all(part["parts"] == len(Deep().state_dict()) for part in parts)
    assert sum(part["size"] for part in parts) == elements


def test_fit_goes_on_from_a_folder_of_parts(found: Found) -> None:
    expected = found.alone["checkpoints"]["uninterrupted"]
    for own in found.together:
        assert own["folder_of_parts"] == pytest.approx(expected, abs=1e-5)
    assert (found.folder / "folder.ckpt" / ".metadata").is_file()


def test_checkpoint_in_an_open_window_says_so(found: Found) -> None:
    (said,) = found.together[0]["open_window"]
    assert "Save where a window closes" in said


def test_one_device_is_enough(found: Found) -> None:
    own, plain = found.alone["one_device"], found.alone["automatic"]
    assert own["weights"] == pytest.approx(plain["weights"], abs=1e-5)
    assert all(own["spread"].values())


WRONG = {
    "Early": ["SGD", "shape (3,)", "inside `configure_optimizers`"],
    "Flat": ["LBFGS", "Use another optimizer"],
    "OwnByHand": ["OwnByHand", "['shift']", "into a submodule"],
    "Empty": ["meta device", "'before.weight'", "`configure_model`", "fully_shard"],
    "NoReset": ["`net`", "`reset_parameters`"],
    "Silent": ["returned None in process", "0.0 * loss"],
    "Inside": ["mixed torch.Tensor and DTensor", "not a layer inside it"],
}


@pytest.mark.parametrize("case", WRONG)
def test_wrong_use_says_what_to_do(case: str, found: Found) -> None:
    for own in found.together:
        for text in WRONG[case]:
            assert text in own["wrong_uses"][case]


@pytest.mark.parametrize(
    ("case", "texts"),
    [
        ("Deep", ["shared nothing out", "parallelize_module", "strategy='fsdp'"]),
        ("Half", ["left parameters whole", "'before.weight'", "fully_shard"]),
        ("Again", ["`configure_model` is called in every run"]),
        ("Scaled", ["gradient scaler", "precision='bf16-mixed'"]),
    ],
)
def test_wrong_mesh_says_what_to_do(case: str, texts: list[str], found: Found) -> None:
    for own in found.together:
        for text in texts:
            assert text in own["wrong_meshes"][case]
