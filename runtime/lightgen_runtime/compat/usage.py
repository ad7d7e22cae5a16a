"""What one file uses of Lightning: names, arguments, methods, overridden hooks.

Objects are followed as far as the files that are read show them: imported names, variables
that a call of an imported class was assigned to, `self` in a class derived from one, and
whatever is called `trainer` or `pl_module`.
"""

from __future__ import annotations

import ast
import inspect
from collections.abc import Iterable
from itertools import takewhile
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

from lightgen_runtime.compat.behaviour import BEHAVIOUR
from lightgen_runtime.compat.codebase import CodeBase, Definition
from lightgen_runtime.compat.differences import GAPS, VALUES
from lightgen_runtime.compat.lookup import (
    NOTHING,
    accepts,
    find,
    key_of,
    keys_of_bases,
    members_of,
    parameters_of,
)
from lightgen_runtime.compat.names import replaced
from lightgen_runtime.compat.rules import Rule, fits, rule_for
from lightgen_runtime.compat.syntax import (
    caught_by,
    entries_of,
    facts_of_method,
    literal,
    methods_of,
    names_in,
    names_of_classes,
    path_of,
    scheduler_entries,
    stored_arguments,
)
from lightgen_runtime.core.hook_names import hook_meant_by
from lightgen_runtime.utilities.nearest import nearest

# A line, what is to be said of it, and whether the code runs nevertheless.
Found = tuple[int, str, bool]

_TRAINER: type = find("lightning.pytorch.Trainer")
_STRATEGY: type = find("lightning.pytorch.strategies.Strategy")
_MODULE: Any = find("lightning.pytorch.LightningModule")
_OWNERS_OF_HOOKS = (
    _MODULE,
    find("lightning.pytorch.LightningDataModule"),
    find("lightning.pytorch.Callback"),
)
_ENTRY_POINTS = ("fit", "validate", "test", "predict")


class Use(NamedTuple):
    """Something that rules may have something to say of.

    Attributes:
        line: Where it is.
        keys: What rules may call it.
        shown: What readers call it; "" if that is the key.
        call: Where the call begins that it belongs to; of a call, a rule is given once.
    """

    line: int
    keys: tuple[str, ...]
    shown: str = ""
    call: int = 0


class Usage:
    """What a file uses.

    Args:
        path: The file.
        tree: What is in it.
        code: It, and the files beside it.
    """

    def __init__(self, path: Path, tree: ast.Module, code: CodeBase) -> None:
        self._path = path
        self._tree = tree
        self._code = code
        self._nodes = list(ast.walk(tree))
        self._imported: dict[str, str] = {}
        self._instances: dict[str, type] = {}
        self._defined: dict[str, Definition] = {}
        self._dicts: dict[str, dict[str, ast.expr]] = {}
        self._passing_on: dict[str, ast.expr] = {}
        self._found: set[Found] = set()
        self._uses: list[Use] = []
        for node in self._nodes:
            if isinstance(node, ast.Import):
                self._import(node)
            elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
                self._import_from(node)

    def read(self) -> set[str]:
        """Find what is used, after `follow` has found nothing more; return it all."""
        if self._imported or self._instances:
            self._instances = {
                "trainer": _TRAINER,
                "pl_module": _MODULE,
            } | self._instances
            for node in self._nodes:
                self._look_at(node)
        keys = {key for use in self._uses for key in use.keys}
        return keys | set(names_of_classes(self._tree))

    def findings(self, met: frozenset[str]) -> set[Found]:
        """Return what is absent or different.

        Args:
            met: The conditions of rules that are met in the same program.
        """
        rules = [rule for rule in BEHAVIOUR if rule.concerns(met)]
        found, said = set(self._found), set()
        for use in sorted(self._uses):
            for rule in rules:
                key = next((key for key in use.keys if fits(key, rule.names)), None)
                if key is not None and (use.call or use.line, rule) not in said:
                    said.add((use.call or use.line, rule))
                    text = f"`{use.shown or key}` is different: {rule.text}"
                    found.add((use.line, text, True))
        return found

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

    def follow(self) -> int:
        """Note the types of variables, and of classes that derive from known ones.

        Returns:
            How many types are known: more if another call may find yet more.
        """
        for node in self._nodes:
            if isinstance(node, ast.ImportFrom):
                for alias in node.names:
                    if definition := self._code.find(node, alias.name):
                        self._define(alias.asname or alias.name, definition)
            elif isinstance(node, ast.ClassDef):
                definition = (self._path, node.name)
                if base := self._base(node):
                    self._code.types[definition] = base
                self._define(node.name, definition)
            elif isinstance(node, ast.Assign):
                for target in node.targets:
                    self._assign(target, node.value)
        for node in self._tree.body:
            if isinstance(node, ast.FunctionDef):
                self._follow_function(node)
        return len(self._instances)

    def _define(self, name: str, definition: Definition) -> None:
        self._defined[name] = definition
        if definition in self._code.types:
            self._instances[name] = self._code.types[definition]

    def _follow_function(self, node: ast.FunctionDef) -> None:
        """Note what a function returns, and to what it passes its keywords on."""
        for part in ast.walk(node):
            if isinstance(part, ast.Return):
                self._assign(ast.Name(node.name), part.value)
            elif isinstance(part, ast.Call) and node.args.kwarg is not None:
                passed = [path_of(k.value) for k in part.keywords if k.arg is None]
                if node.args.kwarg.arg in passed and self._dotted(part.func):
                    self._passing_on[node.name] = part.func

    def _assign(self, target: ast.expr, value: ast.expr | None) -> None:
        if isinstance(target, ast.Tuple) and isinstance(value, ast.Tuple):
            for pair in zip(target.elts, value.elts, strict=False):
                self._assign(*pair)
        elif isinstance(target, ast.Name):
            made = self._type(value) if isinstance(value, ast.Call) else None
            if made is not None:
                self._instances[target.id] = made
            elif (entries := entries_of(value)) is not None:
                self._dicts[target.id] = entries

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
            return _TRAINER
        if isinstance(node, ast.Attribute) and node.attr == "strategy":
            return _STRATEGY if self._type(node.value) is _TRAINER else None
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
        elif isinstance(node, ast.Try) and any(map(self._calls_lightning, node.body)):
            self._facts(caught_by(node))
        self._facts(scheduler_entries(node))

    def _facts(self, facts: Iterable[tuple[int, str]]) -> None:
        self._uses += [Use(line, (key,)) for line, key in facts]

    def _calls_lightning(self, node: ast.AST) -> bool:
        return any(
            self._dotted(part.func) is not None
            or (isinstance(part.func, ast.Attribute) and self._type(part.func.value))
            for part in ast.walk(node)
            if isinstance(part, ast.Call)
        )

    def _name(self, line: int, dotted: str) -> None:
        found = find(dotted)
        if found is NOTHING:
            self._absent(line, dotted)
        elif _is_fabric(dotted):
            text = f"`{dotted}` is different: it is `{replaced(dotted)}` here"
            self._found.add((line, text, True))
        elif not isinstance(found, ModuleType):
            self._uses.append(Use(line, (key_of(found, dotted),), dotted))

    def _member(self, line: int, cls: type, member: str) -> bool:
        """Look at an attribute of an instance; tell whether it is there."""
        keys = tuple(f"{key}.{member}" for key in keys_of_bases(cls))
        self._uses.append(Use(line, keys))
        for key in keys if member not in members_of(cls) else ():
            if gap := _rule_for_member(key):
                self._found.add((line, f"`{key}` is absent: {gap.text}", False))
                return False
        return True

    def _subclass(self, node: ast.ClassDef, cls: type) -> None:
        methods = methods_of(node)
        of_self = [
            part
            for part in ast.walk(node)
            if isinstance(part, ast.Attribute) and _is_self(part.value)
        ]
        own = {method.name for method in methods}
        for method in methods:
            self._facts(facts_of_method(method))
            is_there = self._member(method.lineno, cls, method.name)
            if is_there and issubclass(cls, _OWNERS_OF_HOOKS):
                meant = hook_meant_by(method.name, own, cls)
                fact = (method.lineno, f"hook {meant} as {method.name}")
                self._facts([fact] if meant else [])
        own |= {part.attr for part in of_self if isinstance(part.ctx, ast.Store)}
        inherited = [part for part in of_self if part.attr not in own]
        for part in inherited:
            self._member(part.lineno, cls, part.attr)
        for call in ast.walk(node):
            if isinstance(call, ast.Call) and call.func in inherited:
                assert isinstance(call.func, ast.Attribute)
                self._method_call(call, cls, call.func.attr)
        if issubclass(cls, _MODULE):
            self._module(node)

    def _module(self, node: ast.ClassDef) -> None:
        """Look at what a module stores, and at the modules in it."""
        for argument in stored_arguments(node):
            for name in names_in(argument.annotation):
                record = self._code.is_record(self._defined.get(name))
                if record or name in ("Path", "PurePath"):
                    self._facts([(argument.lineno, f"hyperparameter of {name}")])
        for part in ast.walk(node):
            if isinstance(part, ast.Call):
                made = self._defined.get(path_of(part.func))
                if self._code.logs_beside_hooks(made):
                    self._facts([(part.lineno, "LightningModule in another")])

    def _call(self, node: ast.Call) -> None:
        if path_of(node.func).rpartition(".")[2] == "DataLoader":
            self._facts(
                (node.lineno, f"DataLoader({keyword.arg})")
                for keyword in node.keywords
                if keyword.arg in ("shuffle", "num_workers")
                and literal(keyword.value) not in ("False", "0")
            )
        called = self._passing_on.get(path_of(node.func), node.func)
        dotted, function = self._dotted(called), self._object(called)
        if dotted is not None and function is not NOTHING:
            given = self._given(node, function)
            if called is not node.func:  # some arguments are the function's own
                given = [(name, v) for name, v in given if accepts(function, name)]
            self._arguments(node, function, [key_of(function, dotted)], given)
        elif isinstance(node.func, ast.Attribute):
            method = node.func.attr
            names = {keyword.arg for keyword in node.keywords}
            cls = self._type(node.func.value)
            if cls is None and method in _ENTRY_POINTS and "ckpt_path" in names:
                cls = _TRAINER  # nothing else has such a method
            if cls is not None:
                self._method_call(node, cls, method)
                self._loading(node)

    def _loading(self, node: ast.Call) -> None:
        """Look at what a class gets that is made from a checkpoint."""
        cls, _, method = path_of(node.func).rpartition(".")
        if method != "load_from_checkpoint":
            return
        known = inspect.signature(_MODULE.load_from_checkpoint).parameters
        for keyword in node.keywords:
            name = str(keyword.arg)
            taken = name in known or self._code.takes(self._defined.get(cls), name)
            if keyword.arg and not taken:
                fact = f"load_from_checkpoint({name} is no argument)"
                self._facts([(keyword.value.lineno, fact)])

    def _method_call(self, node: ast.Call, cls: type, method: str) -> None:
        keys = [f"{key}.{method}" for key in keys_of_bases(cls)]
        function = getattr(cls, method, None)
        if keys and callable(function):
            # Of an instance, the first parameter is itself.
            given = self._given(node, function, int(inspect.isfunction(function)))
            self._arguments(node, function, keys, given)

    def _arguments(
        self,
        node: ast.Call,
        function: Any,
        keys: list[str],
        given: list[tuple[str, ast.expr]],
    ) -> None:
        parameters, passed = parameters_of(function) or {}, []
        for name, value in given:
            if not accepts(function, name):
                self._absent_argument(value.lineno, name, function, keys)
                continue
            default = parameters[name].default if name in parameters else None
            if literal(value) == repr(default):
                continue  # as if it had not been given
            passed.append(name)
            valued = f"({name}={literal(value)})"
            if rule := rule_for(f"{keys[0]}{valued}", VALUES):
                text = f"`{keys[0]}{valued}` is absent: {rule.text}"
                self._found.add((value.lineno, text, False))
            full = tuple(k + a for k in keys for a in (f"({name})", valued))
            self._uses.append(Use(value.lineno, full, call=node.lineno))
        if len(passed) > 1:
            together = f"({', '.join(sorted(passed))})"
            full = tuple(key + together for key in keys)
            self._uses.append(Use(node.lineno, full, call=node.lineno))

    def _given(
        self, node: ast.Call, function: Any, skipped: int = 0
    ) -> list[tuple[str, ast.expr]]:
        """Return the arguments of a call with their names."""
        names = list(parameters_of(function) or ())[skipped:]
        in_order = takewhile(lambda part: not isinstance(part, ast.Starred), node.args)
        given = list(zip(names, in_order, strict=False))
        for keyword in node.keywords:
            if keyword.arg is not None:
                given.append((keyword.arg, keyword.value))
            elif isinstance(keyword.value, ast.Name):
                given += self._dicts.get(keyword.value.id, {}).items()
        return given

    # ---- saying it ----

    def _absent_argument(
        self, line: int, name: str, function: Any, keys: list[str]
    ) -> None:
        rules = (rule_for(f"{key}({name})", GAPS) for key in keys)
        rule = next((rule for rule in rules if rule), None)
        why = f": {rule.text}" if rule else _near(name, function)
        self._found.add((line, f"`{keys[0]}({name})` is absent{why}", False))

    def _absent(self, line: int, dotted: str) -> None:
        key = "lightning.fabric" if _is_fabric(dotted) else key_of(NOTHING, dotted)
        rule = rule_for(key, GAPS)
        why = (
            "Lightning 2.6.6 has no public name like it" if rule is None else rule.text
        )
        self._found.add((line, f"`{dotted}` is absent: {why}", False))


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
    near = nearest(name, inspect.signature(function).parameters)
    hint = f"; did you mean `{near}`?" if near else ""
    return f": Lightning 2.6.6 has no such argument{hint}"
