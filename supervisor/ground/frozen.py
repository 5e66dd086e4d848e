"""`dataclass(frozen=True)` without its import cost: `dataclasses` pulls in `inspect`, 12 ms in every hook.

Type checkers see the real decorator (callers import it under TYPE_CHECKING); at run time this subset serves:
fields from annotations, defaults from class attributes, equality, a repr, and no assignment afterwards.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any, TypeVar

    T = TypeVar("T")


def dataclass(*, frozen: bool) -> Callable[[type[T]], type[T]]:
    """Make the decorated class an immutable record of its annotated fields; `frozen` must be True."""
    assert frozen

    def decorate(cls: type[object]) -> type[Any]:
        fields = tuple(cls.__annotations__)
        defaults = {name: cls.__dict__[name] for name in fields if name in cls.__dict__}

        def init(self: object, *args: object, **kwargs: object) -> None:
            if len(args) > len(fields):
                raise TypeError(f"{cls.__name__} takes {len(fields)} values, got {len(args)}")
            values = {**defaults, **dict(zip(fields, args, strict=False)), **kwargs}
            if values.keys() != set(fields):
                raise TypeError(f"{cls.__name__}: wrong or missing fields {sorted(values.keys() ^ set(fields))}")
            self.__dict__.update(values)

        def refuse(self: object, *_: object) -> None:
            raise AttributeError(f"{cls.__name__} is immutable")

        def equal(self: object, other: object) -> object:
            return self.__dict__ == other.__dict__ if type(other) is cls else NotImplemented

        def show(self: object) -> str:
            return f"{cls.__name__}({', '.join(f'{name}={self.__dict__[name]!r}' for name in fields)})"

        members = {
            "__init__": init,
            "__setattr__": refuse,
            "__delattr__": refuse,
            "__eq__": equal,
            "__repr__": show,
            "__hash__": lambda self: hash(tuple(self.__dict__[name] for name in fields)),
            "__match_args__": fields,
        }
        for name, member in members.items():
            setattr(cls, name, member)
        return cls

    return decorate
