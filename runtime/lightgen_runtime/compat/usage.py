"""What one file uses of Lightning: names, arguments, methods, overridden hooks.

Objects are followed as far as one file shows them: imported names, variables that a call
of an imported class was assigned to, `self` in a class derived from one, and whatever is
called `trainer`.
"""

from __future__ import annotations

import ast
import inspect
from difflib import get_close_matches
from types import ModuleType
from typing import Any

from lightgen_runtime.compat.differences import BEHAVIOUR, GAPS, VALUES, Rule, rule_for
from lightgen_runtime.compat.lookup import (
    NOTHING,
    accepts,
    find,
    key_of,
    keys_of_bases,
    members_of,
)
from lightgen_runtime.compat.names import replaced

# A line, what is to be said of it, and whether the code runs nevertheless.
Found = tuple[int, str, bool]


class Usage:
    """What a file uses.

    Args:
        tree: The file.
    """

    def __init__(self, tree: ast.Module) -> None:
        self._tree = tree
        self._imported: dict[str, str] = {}
        self._instances: dict[str, type] = {}
        self._found: set[Found] = set()

    def findings(self) -> set[Found]:
        """Return what is absent or different."""
        nodes = list(ast.walk(self._tree))
        for node in nodes:
            if isinstance(node, ast.Import):
                self._import(node)
            elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
                self._import_from(node)
        if self._imported:
            self._follow(nodes)
            for node in nodes:
                self._look_at(node)
        return self._found

    # ---- what names stand for ----

    def _import(self, node: ast.Import) -> None:
        for alias in node.names:
            if replaced(alias.name) is not None:
                top = alias.name.partition(".")[0]
                local, stands_for = alias.asname or top, alias.name
                self._imported[local] = stands_for if alias.asname else top
                self._name(node.lineno, alias.name)

    def _import_from(self, node: ast.ImportFrom) -> None:
        module = str(node.module)
        if replaced(module) is None:
            return
        if find(module) is NOTHING and not any(
            rule_for(key_of(NOTHING, f"{module}.{alias.name}"), GAPS)
            for alias in node.names
        ):
            self._absent(node.lineno, module)
            return
        for alias in node.names:
            if alias.name != "*":
                dotted = f"{module}.{alias.name}"
                self._imported[alias.asname or alias.name] = dotted
                self._name(node.lineno, dotted)

    def _follow(self, nodes: list[ast.AST]) -> None:
        """Note the types of variables, and of classes that derive from known ones."""
        trainer = find("lightning.pytorch.Trainer")
        self._instances["trainer"] = trainer
        for node in nodes:
            if isinstance(node, ast.ClassDef) and (base := self._base(node)):
                self._instances[node.name] = base
            elif isinstance(node, ast.Assign) and isinstance(node.value, ast.Call):
                made = self._type(node.value)
                for target in node.targets:
                    if isinstance(target, ast.Name) and made is not None:
                        self._instances[target.id] = made

    def _base(self, node: ast.ClassDef) -> type | None:
        for base in node.bases:
            found = self._object(base)
            if found is NOTHING and isinstance(base, ast.Name):
                found = self._instances.get(base.id, NOTHING)
            if inspect.isclass(found):
                return found
        return None

    def _dotted(self, node: ast.AST) -> str | None:
        """Return Lightning's name for an expression, if it is one."""
        if isinstance(node, ast.Name):
            return self._imported.get(node.id)
        if isinstance(node, ast.Attribute):
            owner = self._dotted(node.value)
            return None if owner is None else f"{owner}.{node.attr}"
        return None

    def _object(self, node: ast.AST) -> Any:
        dotted = self._dotted(node)
        return NOTHING if dotted is None else find(dotted)

    def _type(self, node: ast.AST) -> type | None:
        """Return the class of which an expression is an instance, or a subclass."""
        if isinstance(node, ast.Name):
            return self._instances.get(node.id)
        if isinstance(node, ast.Attribute) and node.attr == "trainer":
            return self._instances["trainer"]
        if isinstance(node, ast.Call):
            made = self._object(node.func)
            return made if inspect.isclass(made) else self._type(node.func)
        return None

    # ---- what is done with them ----

    def _look_at(self, node: ast.AST) -> None:
        if isinstance(node, ast.Attribute):
            dotted = self._dotted(node)
            if dotted is not None and isinstance(self._object(node.value), ModuleType):
                self._name(node.lineno, dotted)
            elif cls := self._type(node.value):
                self._member(node.lineno, cls, node.attr)
        elif isinstance(node, ast.Call):
            self._call(node)
        elif isinstance(node, ast.ClassDef) and (cls := self._base(node)):
            self._subclass(node, cls)
        elif isinstance(node, ast.Dict):
            self._scheduler(node)

    def _name(self, line: int, dotted: str) -> None:
        found = find(dotted)
        if found is NOTHING:
            self._absent(line, dotted)
        elif _is_fabric(dotted):
            text = f"`{dotted}` is different: it is `{replaced(dotted)}` here"
            self._found.add((line, text, True))
        elif not isinstance(found, ModuleType):
            key = key_of(found, dotted)
            self._different(line, dotted, rule_for(key, BEHAVIOUR))

    def _member(self, line: int, cls: type, member: str, own: bool = False) -> None:
        """Look at an attribute of an instance, or at an override where `own` is set."""
        for key in keys_of_bases(cls):
            full = f"{key}.{member}"
            gap = None if member in members_of(cls) else _rule_for_member(full)
            if gap is not None:
                self._found.add((line, f"`{full}` is absent: {gap.text}", False))
                return
            is_method = inspect.isfunction(getattr(cls, member, None))
            rule = rule_for(full, BEHAVIOUR)
            if rule is not None and (own or not is_method):
                self._different(line, full, rule)
                return

    def _subclass(self, node: ast.ClassDef, cls: type) -> None:
        methods = [part for part in node.body if isinstance(part, ast.FunctionDef)]
        of_self = [
            part
            for part in ast.walk(node)
            if isinstance(part, ast.Attribute) and _is_self(part.value)
        ]
        own = {method.name for method in methods}
        own |= {part.attr for part in of_self if isinstance(part.ctx, ast.Store)}
        for method in methods:
            self._member(method.lineno, cls, method.name, own=True)
        inherited = [part for part in of_self if part.attr not in own]
        for part in inherited:
            self._member(part.lineno, cls, part.attr)
        for call in ast.walk(node):
            if isinstance(call, ast.Call) and call.func in inherited:
                assert isinstance(call.func, ast.Attribute)
                self._method_call(call, cls, call.func.attr)

    def _call(self, node: ast.Call) -> None:
        dotted, function = self._dotted(node.func), self._object(node.func)
        if dotted is not None and function is not NOTHING:
            self._arguments(node, function, [key_of(function, dotted)])
        elif isinstance(node.func, ast.Attribute) and (
            cls := self._type(node.func.value)
        ):
            self._method_call(node, cls, node.func.attr)

    def _method_call(self, node: ast.Call, cls: type, method: str) -> None:
        keys = [f"{key}.{method}" for key in keys_of_bases(cls)]
        if keys and hasattr(cls, method):
            self._arguments(node, getattr(cls, method), keys)

    def _arguments(self, node: ast.Call, function: Any, keys: list[str]) -> None:
        for keyword in node.keywords:
            if keyword.arg is not None:
                self._argument(keyword, function, keys)

    def _argument(self, keyword: ast.keyword, function: Any, keys: list[str]) -> None:
        name, line = str(keyword.arg), keyword.value.lineno
        full = [f"{key}({name})" for key in keys]
        if not accepts(function, name):
            rules = (rule_for(argument, GAPS) for argument in full)
            rule = next((rule for rule in rules if rule), None)
            why = f": {rule.text}" if rule else _near(name, function)
            self._found.add((line, f"`{full[0]}` is absent{why}", False))
            return
        if isinstance(keyword.value, ast.Constant):
            value = f"{keys[0]}({name}={keyword.value.value!r})"
            if rule := rule_for(value, VALUES):
                self._found.add((line, f"`{value}` is absent: {rule.text}", False))
        for argument in full:
            if rule := rule_for(argument, BEHAVIOUR):
                self._different(line, argument, rule)
                return

    def _scheduler(self, node: ast.Dict) -> None:
        keys = {k.value: k for k in node.keys if isinstance(k, ast.Constant)}
        if {"scheduler", "frequency"} <= keys.keys():
            rule = rule_for("utilities.types.LRSchedulerConfigType", BEHAVIOUR)
            self._different(keys["frequency"].lineno, '"frequency"', rule)

    # ---- saying it ----

    def _absent(self, line: int, dotted: str) -> None:
        key = "lightning.fabric" if _is_fabric(dotted) else key_of(NOTHING, dotted)
        rule = rule_for(key, GAPS)
        why = (
            "Lightning 2.6.6 has no public name like it" if rule is None else rule.text
        )
        self._found.add((line, f"`{dotted}` is absent: {why}", False))

    def _different(self, line: int, name: str, rule: Rule | None) -> None:
        if rule is not None:
            self._found.add((line, f"`{name}` is different: {rule.text}", True))


def _rule_for_member(full: str) -> Rule | None:
    """Return the rule that spells a member out; `C.*` would cover those of one's own."""
    rule, member = rule_for(full, GAPS), full.rpartition(".")[2]
    spelt_out = rule and any(name.endswith(f".{member}") for name in rule.names)
    return rule if spelt_out else None


def _is_fabric(dotted: str) -> bool:
    return dotted.startswith(
        ("lightning.fabric", "lightning.Fabric", "lightning_fabric")
    )


def _is_self(node: ast.AST) -> bool:
    return isinstance(node, ast.Name) and node.id == "self"


def _near(name: str, function: Any) -> str:
    near = get_close_matches(name, inspect.signature(function).parameters, n=1)
    hint = f"; did you mean `{near[0]}`?" if near else ""
    return f": Lightning 2.6.6 has no such argument{hint}"
