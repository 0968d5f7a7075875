"""Read the source of a component class, without importing it, to find the options it accepts and what it can do.

Importing a component imports torch, which takes seconds; a configuration is checked in a fraction of one. So the
constructor's signature (names, annotations, defaults) and the class attributes are read with `ast`, following imports,
re-exports and base classes. Classes outside vitexp are read the same way.
"""

from __future__ import annotations

import ast
import builtins
import importlib
import re
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Annotated, Any, get_args, get_origin

from typing_extensions import Doc

MISSING: Any = object()
# Modules that may be imported to evaluate an annotation: they are light and have no side effects.
_LIGHT = ("typing", "typing_extensions", "collections.abc", "pathlib", "pydantic", "vitexp.options", "vitexp.metrics")

Definition = ast.ClassDef | ast.FunctionDef


@dataclass(frozen=True)
class Option:
    """An argument of a component: type (Any if it cannot be read), default (MISSING if required) and meaning."""

    type: Any = Any
    default: Any = MISSING
    doc: str = ""


@dataclass(frozen=True)
class Component:
    """A class or function: the arguments it takes, and the literal class attributes ("facts") it has or inherits.

    is_open: whether it takes other arguments through **kwargs, which cannot be read from the source. requires: the
    arguments of each `errors.require` in the function or constructor.
    """

    options: Mapping[str, Option] = field(default_factory=dict)
    facts: Mapping[str, Any] = field(default_factory=dict)
    is_open: bool = False
    requires: tuple[Mapping[str, str], ...] = ()


@cache
def component(target: str) -> Component | None:
    """Return the options and facts of the class or function `target`; None if its source cannot be read."""
    module, _, name = target.rpartition(".")
    found = _find(module, name)
    return None if found is None else _read(*found)


def facts(node: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return the facts of the class that a configuration node names; empty if its source cannot be read."""
    found = component(str(node.get("_target_")))
    return {} if found is None else found.facts


def argument(node: Mapping[str, Any], key: str) -> Any:
    """Return the value of an option of a component: as given, otherwise its default; None if it has neither."""
    if key in node:
        return node[key]
    found = component(str(node.get("_target_")))
    option = None if found is None else found.options.get(key)
    return None if option is None or option.default is MISSING else option.default


def options_of(hints: Mapping[str, Any], defaults: Mapping[str, Any]) -> dict[str, Option]:
    """Return the options that the annotations `hints` describe."""
    return {name: Option(hint, defaults.get(name, MISSING), doc_of(hint)) for name, hint in hints.items()}


def doc_of(hint: Any) -> str:
    """Return the text of the Doc in an annotation, or ""."""
    metadata = get_args(hint)[1:] if get_origin(hint) is Annotated else ()
    return next((each.documentation for each in metadata if isinstance(each, Doc)), "")


def _read(module: str, node: Definition) -> Component:
    namespace = _Namespace(module)
    if isinstance(node, ast.FunctionDef):
        return Component(_arguments(node.args, namespace), {}, node.args.kwarg is not None, tuple(_requires(node)))
    options: dict[str, Option] = {}
    attributes: dict[str, Any] = {}
    bases_are_open = False
    requires: tuple[Mapping[str, str], ...] = ()
    for base in reversed(node.bases):
        found = _find_expression(module, base)
        inherited = Component(is_open=True) if found is None else _read(*found)
        options |= inherited.options
        attributes |= inherited.facts
        bases_are_open |= inherited.is_open
        requires += inherited.requires
    is_open = bases_are_open
    is_dataclass = any("dataclass" in ast.unparse(decorator) for decorator in node.decorator_list)
    for each in node.body:
        if isinstance(each, ast.FunctionDef) and each.name == "__init__":
            inherits = each.args.kwarg is not None
            options = (options if inherits else {}) | _arguments(each.args, namespace)
            is_open = inherits and bases_are_open
            requires += tuple(_requires(each))
        elif is_dataclass and isinstance(each, ast.AnnAssign) and "ClassVar" not in ast.unparse(each.annotation):
            options[ast.unparse(each.target)] = _option(each.annotation, each.value, namespace)
        elif isinstance(each, ast.Assign | ast.AnnAssign) and each.value is not None:
            names = each.targets if isinstance(each, ast.Assign) else [each.target]
            value = namespace.value(each.value)
            if isinstance(value, bool | int | float | str | tuple | list | dict | None):
                attributes |= {name.id: value for name in names if isinstance(name, ast.Name)}
    return Component(options, attributes, is_open, requires)


def _requires(function: ast.FunctionDef) -> Iterator[Mapping[str, str]]:
    """Yield the arguments of each call require("package", needed_by="...") with literal arguments."""
    for call in ast.walk(function):
        if isinstance(call, ast.Call) and isinstance(call.func, ast.Name) and call.func.id == "require":
            given = [(word.arg, word.value) for word in call.keywords] + [("package", each) for each in call.args]
            if all(isinstance(value, ast.Constant) for _, value in given):
                yield {str(name): value.value for name, value in given}  # type: ignore[attr-defined]


def _arguments(arguments: ast.arguments, namespace: _Namespace) -> dict[str, Option]:
    positional = [*arguments.posonlyargs, *arguments.args]
    defaults = [None] * (len(positional) - len(arguments.defaults)) + arguments.defaults
    read = {
        argument.arg: _option(argument.annotation, default, namespace)
        for argument, default in zip(
            [*positional, *arguments.kwonlyargs], [*defaults, *arguments.kw_defaults], strict=True
        )
    }
    read.pop("self", None)
    return read


def _option(annotation: ast.expr | None, default: ast.expr | None, namespace: _Namespace) -> Option:
    hint = MISSING if annotation is None else namespace.value(annotation)
    hint = Any if hint is MISSING else hint
    value = MISSING if default is None else namespace.value(default)
    # A default that cannot be read is still a default.
    return Option(hint, None if default is not None and value is MISSING else value, doc_of(hint))


class _Namespace(dict[str, Any]):
    """The names of a module that annotations use, evaluated on first lookup."""

    def __init__(self, module: str) -> None:
        super().__init__()
        self.module = module

    def value(self, expression: ast.expr) -> Any:
        """Evaluate an expression of the module; MISSING if that would require importing the module."""
        if isinstance(expression, ast.Constant) and isinstance(expression.value, str):
            return expression.value
        try:
            code = compile(ast.Expression(expression), self.module, "eval")
            return eval(code, {"__builtins__": {}}, self)  # noqa: S307 - an annotation of code that will be imported
        except Exception:  # evaluating an expression may raise anything
            return MISSING

    def __missing__(self, name: str) -> Any:
        value = self._look_up(name)
        self[name] = value
        return value

    def _look_up(self, name: str) -> Any:
        for statement in _statements(self.module):
            if isinstance(statement, ast.Assign):
                if any(isinstance(target, ast.Name) and target.id == name for target in statement.targets):
                    return self._checked(statement.value, name)
            elif isinstance(statement, ast.AnnAssign):
                if isinstance(statement.target, ast.Name) and statement.target.id == name and statement.value:
                    return self._checked(statement.value, name)
            elif isinstance(statement, ast.ImportFrom):
                for alias in statement.names:
                    if (alias.asname or alias.name) == name:
                        source = _absolute(self.module, statement)
                        if source in _LIGHT:
                            return getattr(importlib.import_module(source), alias.name)
                        if source.partition(".")[0] == "torch":  # a tensor or similar, which no configuration contains
                            raise NameError(name)
                        return _Namespace(source)[alias.name]
        if isinstance(found := getattr(builtins, name, None), type):
            return found
        raise NameError(name)

    def _checked(self, expression: ast.expr, name: str) -> Any:
        if (value := self.value(expression)) is MISSING:
            raise NameError(name)
        return value


@cache
def not_importable(target: str) -> str:
    """Return why the dotted name `target` cannot be imported; "" if it may be importable."""
    parts = target.split(".")
    for end, part in enumerate(parts):
        name, module = ".".join(parts[: end + 1]), ".".join(parts[:end])
        if _spec(name) is None:
            if not module:
                return f"there is no module {part!r}"
            return "" if _may_have(module, part) else f"{module} has no {part!r}"
    return f"{target} is a module, not a class"


def _may_have(module: str, name: str, seen: frozenset[str] = frozenset()) -> bool:
    """Return whether a module may have an attribute: its source contains the name, or creates names at run time."""
    spec = _spec(module)
    if spec is None or not spec.origin or not spec.origin.endswith(".py"):
        return True
    source = Path(spec.origin).read_text(encoding="utf-8", errors="replace")
    if re.search(rf"\b{name}\b|globals\(|setattr\((?!self\b)|__dict__(\.update|\[[^]]*\] *=[^=])", source):
        return True
    if "__getattr__" in source and "in __all__:" not in source:  # which would list the name
        return True
    everything = [
        _absolute(module, statement)
        for statement in _statements(module)
        if isinstance(statement, ast.ImportFrom) and any(alias.name == "*" for alias in statement.names)
    ]
    if "import *" in source and not everything:  # it could not be read
        return True
    return any(_may_have(each, name, seen | {module}) for each in everything if each not in seen)


def _find(module: str, name: str, seen: frozenset[str] = frozenset()) -> tuple[str, Definition] | None:
    """Return the class or function `name` of `module` and the module that defines it, following re-exports."""
    if module in seen:
        return None
    for statement in _statements(module):
        if isinstance(statement, ast.ClassDef | ast.FunctionDef) and statement.name == name:
            return module, statement
        if isinstance(statement, ast.ImportFrom):
            for alias in statement.names:
                source = _absolute(module, statement)
                if (alias.asname or alias.name) == name:
                    return _find(source, alias.name)
                if alias.name == "*" and (found := _find(source, name, seen | {module})) is not None:
                    return found
    return None


def _find_expression(module: str, expression: ast.expr) -> tuple[str, Definition] | None:
    """Return the definition that a base class expression, `Name` or `module.Name`, refers to."""
    expression = expression.value if isinstance(expression, ast.Subscript) else expression  # Generic[T]
    if isinstance(expression, ast.Name):
        return _find(module, expression.id)
    if isinstance(expression, ast.Attribute) and isinstance(expression.value, ast.Name):
        for statement in _statements(module):
            if isinstance(statement, ast.Import | ast.ImportFrom):
                for alias in statement.names:
                    if (alias.asname or alias.name) == expression.value.id:
                        prefix = f"{_absolute(module, statement)}." if isinstance(statement, ast.ImportFrom) else ""
                        return _find(prefix + alias.name, expression.attr)
    return None


def _absolute(module: str, statement: ast.ImportFrom) -> str:
    """Return the absolute name of the module that `statement` of `module` imports from."""
    if not statement.level:
        return statement.module or ""
    spec = _spec(module)
    is_package = spec is not None and spec.submodule_search_locations is not None
    parents = module.split(".")[: len(module.split(".")) - statement.level + is_package]
    return ".".join([*parents, *filter(None, [statement.module])])


def _statements(module: str) -> Iterator[ast.stmt]:
    """Yield the top-level statements of a module, including those inside `if` and `try`."""
    tree = _tree(module)
    pending = [] if tree is None else list(tree.body)
    while pending:
        statement = pending.pop(0)
        yield statement
        if isinstance(statement, ast.If | ast.Try):
            pending = [*statement.body, *statement.orelse, *pending]


@cache
def _tree(module: str) -> ast.Module | None:
    spec = _spec(module)
    if spec is None or not spec.origin or not spec.origin.endswith(".py"):
        return None
    try:
        return ast.parse(Path(spec.origin).read_text(encoding="utf-8"))
    except (OSError, ValueError, SyntaxError):
        return None


@cache
def _spec(module: str) -> Any:
    """Return the spec of a module; unlike importlib.util.find_spec, without importing its parents."""
    name, path, spec = "", None, None
    for part in module.split("."):
        name = f"{name}.{part}" if name else part
        try:
            spec = next((found for finder in sys.meta_path if (found := finder.find_spec(name, path))), None)
        except (ImportError, ValueError, AttributeError):
            return None
        if spec is None:
            return None
        path = spec.submodule_search_locations
    return spec
