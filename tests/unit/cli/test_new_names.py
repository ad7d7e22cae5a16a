from __future__ import annotations

from pathlib import Path

import pytest
from command_line import Cli, snapshot

from lightgen.errors import InvalidNameError
from lightgen.project.names import check_name, suggest_name

REFUSED = {
    "": "it is empty",
    "my-model": "it contains '-'",
    "my model": "it contains ' '",
    "my.model": "it contains '.'",
    "mo'del": 'it contains "\'"',
    'mo"del': "it contains '\"'",
    "model\n": "it contains '\\n'",
    "../model": "it contains '.'",
    "a/b": "it contains '/'",
    "a\\b": "it contains '\\\\'",
    "{{x}}": "it contains '{'",
    "2model": "it begins with '2'",
    "_model": "it begins with '_'",
    "model_": "must not end with '_'",
    "mod\u00e9le": "it contains '\u00e9'",
    "\uff4dodel": "look-alike",
    "m" * 101: "it has 101 characters",
    "class": "a Python keyword",
    "None": "a Python keyword",
    "match": "a Python keyword",
    "random": "standard library",
    "Queue": "standard library",
    "con": "a device",
    "LPT1": "a device",
    "tests": "a folder of that name inside",
    "conftest": "pytest would take it",
    "test_model": "pytest would take it",
    "Test_model": "pytest would take it",
    "model_test": "pytest would take it",
    "torch": "the package `torch`",
    "lightgen": "the package `lightgen`",
    "lightgen_runtime": "the package `lightgen_runtime`",
    "lightning": "the package `lightning`",
    "yaml": "the installed package `yaml`",
    "PyYAML": "the installed distribution `PyYAML`",
    "typing_extensions": "the installed distribution `typing_extensions`",
}


@pytest.mark.parametrize("name", REFUSED)
def test_name_is_refused_with_the_reason(name: str, tmp_path: Path) -> None:
    with pytest.raises(InvalidNameError) as caught:
        check_name(name, tmp_path)
    assert REFUSED[name] in caught.value.given
    assert repr(name) in caught.value.given


@pytest.mark.parametrize("name", REFUSED)
def test_suggested_name_is_legal(name: str, tmp_path: Path) -> None:
    check_name(suggest_name(name, tmp_path), tmp_path)


@pytest.mark.parametrize(
    ("name", "near"),
    [
        ("my-model", "my_model"),
        ("  My Model ", "My_Model"),
        ("class", "class_model"),
        ("torch", "torch_model"),
        ("2d-net", "model_2d_net"),
        ("test-net", "model_test_net"),
        ("net-test", "net_test_model"),
        ("../../etc/net", "net"),
        ("\uff4dodel", "model"),
        ("...", "mymodel"),
    ],
)
def test_suggested_name_is_the_nearest(name: str, near: str, tmp_path: Path) -> None:
    assert suggest_name(name, tmp_path) == near


@pytest.mark.parametrize("name", ["mymodel", "MyModel", "net2", "a", "my_model_3"])
def test_legal_name_passes(name: str, tmp_path: Path) -> None:
    check_name(name, tmp_path)


def test_name_that_differs_from_a_sibling_in_case_is_refused(tmp_path: Path) -> None:
    (tmp_path / "mymodel").mkdir()
    with pytest.raises(InvalidNameError, match="differs only in case from 'mymodel'"):
        check_name("MyModel", tmp_path)
    check_name("mymodel", tmp_path)


def test_project_may_keep_its_name_once_installed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = tmp_path / "mymodel/src"
    (source / "mymodel").mkdir(parents=True)
    (source / "mymodel/__init__.py").touch()
    monkeypatch.syspath_prepend(source)
    with pytest.raises(InvalidNameError, match="the installed package `mymodel`"):
        check_name("mymodel", tmp_path)
    (tmp_path / "mymodel/.lightgen").mkdir()
    (tmp_path / "mymodel/.lightgen/state.json").write_text("{}")
    check_name("mymodel", tmp_path)


def test_target_found_through_the_working_folder_is_not_taken(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "mymodel").mkdir()
    monkeypatch.syspath_prepend(tmp_path)
    check_name("mymodel", tmp_path)


def test_validation_imports_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "explosive.py").write_text("raise SystemExit('imported')\n")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(InvalidNameError, match="the installed package `explosive`"):
        check_name("explosive", tmp_path / "elsewhere")


@pytest.mark.parametrize("name", ["my-model", "class", "../up", "a'b", "a\nb", "nul"])
def test_new_refuses_a_bad_name_and_touches_nothing(
    name: str, run_cli: Cli, tmp_path: Path
) -> None:
    before = snapshot(tmp_path)
    result = run_cli("new", name)
    assert result.code == 2
    assert repr(name) in result.err
    assert "  next:     lightgen new " in result.err
    assert result.out == ""
    assert snapshot(tmp_path) == before
