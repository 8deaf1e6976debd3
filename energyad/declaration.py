"""Settings as declared fields: each names its type, its legal values, its default and what it is for.

The declaration is what values are checked by, what error messages quote, and what the reference is generated from.
"""

from __future__ import annotations

import functools
from dataclasses import Field, dataclass, field, fields
from types import NoneType, UnionType
from typing import Annotated, Any, ClassVar, Literal, TypeAlias, Union, get_args, get_origin, get_type_hints

from annotated_types import Ge, Gt, Le, Lt, MinLen
from pydantic import ConfigDict, TypeAdapter, ValidationError

from energyad.errors import SettingsError

PositiveInt: TypeAlias = Annotated[int, Ge(1)]
NonNegativeInt: TypeAlias = Annotated[int, Ge(0)]
PositiveFloat: TypeAlias = Annotated[float, Gt(0)]
NonNegativeFloat: TypeAlias = Annotated[float, Ge(0)]
Fraction: TypeAlias = Annotated[float, Gt(0), Lt(1)]
"""A number strictly between 0 and 1."""

STRICT = ConfigDict(strict=True, allow_inf_nan=False)
BOUNDS = {Ge: ("at least", "ge"), Gt: ("above", "gt"), Le: ("at most", "le"), Lt: ("below", "lt")}
SINGULAR = {int: "an integer", float: "a number", str: "a text", bool: "true or false", NoneType: "none"}
PLURAL = {int: "integers", float: "numbers", str: "texts"}


def setting(default: Any, description: str, *, legal: str | None = None) -> Any:
    """Declare a field of a `SettingsGroup`.

    Args:
        default: its value where none is given.
        description: one line of what it is for.
        legal: its legal values in words, where the annotation alone does not say them.
    """
    return field(default=default, metadata={"description": description, "legal": legal})


@dataclass(frozen=True)
class Declaration:
    """What is declared of one setting."""

    name: str
    type: str
    legal: str
    description: str


@dataclass(frozen=True, kw_only=True)
class SettingsGroup:
    """Base of groups of settings: a frozen dataclass whose values are checked against their declaration."""

    PREFIX: ClassVar[str] = ""
    """What stands before a setting's name in messages, such as «heatmap.»."""

    def __post_init__(self) -> None:
        """Check every value. Lists become tuples, and integers of a number become floats. Raises SettingsError."""
        for declared, adapter in _checks(type(self)):
            value = getattr(self, declared.name)
            try:
                checked = adapter.validate_python(_as_tuples(value))
            except ValidationError:
                self.require(False, declared.name, f"must be {declared.legal}")
            object.__setattr__(self, declared.name, checked)

    def require(self, legal: bool, name: str, rule: str) -> None:
        """Raise SettingsError where a value is not legal.

        Args:
            legal: whether it is.
            name: of the setting, without the group's.
            rule: what it breaks, such as "must be at least 1".
        """
        if not legal:
            value = shown(getattr(self, name))
            raise SettingsError(f"setting {self.PREFIX}{name} = {value}: {rule}")


def declarations(group: type[SettingsGroup]) -> list[Declaration]:
    """The settings of a group in their order. A field without `setting`, which holds a group, is not one of them."""
    return [declared for declared, _ in _checks(group)]


def _checks(group: type[SettingsGroup]) -> list[tuple[Declaration, TypeAdapter[Any]]]:
    return _cached_checks(group)  # type: ignore[arg-type]  # mypy asks the class for its instances' hash


@functools.cache
def _cached_checks(group: type[SettingsGroup]) -> list[tuple[Declaration, TypeAdapter[Any]]]:
    hints = get_type_hints(group, include_extras=True)
    return [
        (_declaration(entry, hints[entry.name]), TypeAdapter(hints[entry.name], config=STRICT))
        for entry in fields(group)
        if "description" in entry.metadata
    ]


def _declaration(of: Field[Any], hint: Any) -> Declaration:
    legal = of.metadata["legal"] or legal_values(hint)
    return Declaration(of.name, type_name(hint), legal, of.metadata["description"])


def legal_values(hint: Any) -> str:
    """An annotation's legal values in words, such as "an integer of at least 1, or none"."""
    base, constraints = _parts(hint)
    if get_origin(base) in (Union, UnionType):
        *options, last = sorted(get_args(base), key=lambda option: option is NoneType)
        return ", ".join(map(legal_values, options)) + f", or {legal_values(last)}"
    if get_origin(base) is Literal:
        return " or ".join(map(str, get_args(base)))
    if get_origin(base) is tuple:
        return _legal_lists(base, constraints)
    return f"{SINGULAR[base]}{_bounds(constraints)}"


def _legal_lists(base: Any, constraints: tuple[Any, ...]) -> str:
    first, *others = get_args(base)
    element, bounds = _parts(first)
    elements = f"{PLURAL[element]}{_bounds(bounds, each='each ')}"
    if others != [Ellipsis]:
        return f"a list of {1 + len(others)} {elements}"
    least = max(
        (constraint.min_length for constraint in constraints if isinstance(constraint, MinLen)), default=0
    )
    return f"a list of {f'at least {least} ' if least else ''}{elements}"


def _bounds(constraints: tuple[Any, ...], *, each: str = "") -> str:
    words = [
        f"{BOUNDS[type(bound)][0]} {getattr(bound, BOUNDS[type(bound)][1])}"
        for bound in constraints
        if type(bound) in BOUNDS
    ]
    return f", {each}{' and '.join(words)}" if words else ""


def type_name(hint: Any) -> str:
    """An annotation's type in Python's words, such as `int | None`, without its constraints."""
    base, _ = _parts(hint)
    if get_origin(base) in (Union, UnionType):
        return " | ".join(type_name(option) for option in get_args(base))
    if get_origin(base) is Literal:
        return "str"
    if get_origin(base) is tuple:
        elements = ("..." if element is Ellipsis else type_name(element) for element in get_args(base))
        return f"tuple[{', '.join(elements)}]"
    return "None" if base is NoneType else str(base.__name__)


def _parts(hint: Any) -> tuple[Any, tuple[Any, ...]]:
    """An annotation's bare type, and its constraints."""
    return (hint.__origin__, hint.__metadata__) if get_origin(hint) is Annotated else (hint, ())


def _as_tuples(value: Any) -> Any:
    return tuple(map(_as_tuples, value)) if isinstance(value, list | tuple) else value


def shown(value: Any) -> str:
    """A value as a person writes it: none for None, lists in square brackets."""
    if value is None or isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, list | tuple):
        return f"[{', '.join(map(shown, value))}]"
    return repr(value)
