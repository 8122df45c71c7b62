"""Pickles, read as data: nothing that a pickle names is imported, and nothing in it is called.

A pickle is a program for a stack machine. Here the machine has no way to reach Python's classes and functions: a name
becomes a ``Global``, and what would be a call or an instance becomes an ``Object``, with the name and the values.
"""

import pickletools
import warnings
from collections.abc import Callable
from typing import IO, Any

# A regular file has about ten opcodes per tensor. A single byte can create an object of a hundred bytes.
MAX_OPCODES = 1_000_000
# Python computes the hash of a tuple in a tuple by recursion: deep ones overflow the stack of the process, and those
# that hold one tuple twice take 2^depth steps.
_MAX_TUPLE_DEPTH = 16
_MAX_NAME = 300  # characters
# Of an integer. Python prints no longer ones than some thousand; the states of random generators have 128.
_MAX_BITS = 512

# Opcodes that push their argument.
_VALUES = frozenset(
    {"INT", "BININT", "BININT1", "BININT2", "LONG", "LONG1", "LONG4", "FLOAT", "BINFLOAT"}
    | {"STRING", "BINSTRING", "SHORT_BINSTRING", "UNICODE", "SHORT_BINUNICODE", "BINUNICODE", "BINUNICODE8"}
    | {"BINBYTES", "SHORT_BINBYTES", "BINBYTES8", "BYTEARRAY8"}
)
_KEY_TYPES = (str, int, float, bool, bytes, type(None))
_DICTS = {"collections.OrderedDict", "collections.defaultdict", "collections.Counter", "builtins.dict"}
_LISTS = {"builtins.list", "builtins.tuple", "torch.Size"}


class PickleError(ValueError):
    """The bytes are not a pickle, or one that no regular file has."""


class PickleLimitExceeded(PickleError):
    """The pickle is beyond the limits; the message is a sentence."""


class Global:
    """The name of a class or function, ``module.name``."""

    __slots__ = ("name",)

    def __init__(self, name: str) -> None:
        self.name = name


class Object:
    """What would be an instance: of which class, or by a call of which function, and the values it was given.

    ``args`` has what it was called with, ``state`` its attributes, ``entries`` the items of a subclass of dict, and
    ``items`` those of another container.
    """

    __slots__ = ("args", "entries", "items", "name", "state")

    def __init__(self, name: str, args: tuple[Any, ...] = ()) -> None:
        self.name = name
        self.args = args
        self.items: list[Any] = []
        self.entries: dict[Any, Any] = {}
        self.state: Any = None


class PickleReader:
    """Reads pickles, one after another.

    Args:
        call: Returns what a call of a name with arguments is read as, or ``None`` for an ``Object``.
        persistent: Returns what a persistent id is read as; ``torch.save`` writes one for each storage.

    Attributes:
        globals: The names in the pickles, in order; each once.

    """

    def __init__(
        self, call: Callable[[str, tuple[Any, ...]], Any], persistent: Callable[[Any], Any] = lambda _: None
    ) -> None:
        self.globals: dict[str, None] = {}
        self._call = call
        self._persistent = persistent
        self._opcodes = 0
        # Depths of the tuples in which there are tuples, by identity; the list keeps their identities theirs.
        self._depths: dict[int, int] = {}
        self._deep: list[tuple[Any, ...]] = []
        self._reset()

    def read(self, stream: IO[bytes]) -> Any:
        """Read the pickle at the stream's position, and leave the stream behind it.

        Raises:
            PickleError: Not a pickle.
            PickleLimitExceeded: Beyond the limits.

        """
        self._reset()
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # texts with wrong escapes, which only their author can change
                start = stream.tell()
                for _ in pickletools.genops(stream):  # all are counted before one of them makes an object
                    self._count(1)
                stream.seek(start)
                for opcode, argument, _ in pickletools.genops(stream):
                    self._run(opcode.name, argument)
            return self._stack.pop()
        except PickleError:
            raise
        except (ValueError, TypeError, LookupError, OverflowError, AttributeError, RecursionError) as error:
            raise PickleError("not a pickle") from error

    def _reset(self) -> None:
        self._stack: list[Any] = []
        self._marks: list[list[Any]] = []
        self._memo: dict[int, Any] = {}

    def _count(self, steps: int) -> None:
        self._opcodes += steps
        if self._opcodes > MAX_OPCODES:
            raise PickleLimitExceeded(f"It has more than {MAX_OPCODES:,} pickle opcodes; no network needs as many.")

    def _run(self, opcode: str, argument: Any) -> None:
        stack = self._stack
        match opcode:
            case "PROTO" | "FRAME" | "STOP" | "READONLY_BUFFER":
                pass
            case "BINPUT" | "LONG_BINPUT" | "PUT":
                self._memo[argument] = stack[-1]
            case "MEMOIZE":
                self._memo[len(self._memo)] = stack[-1]
            case "BINGET" | "LONG_BINGET" | "GET":
                stack.append(self._memo[argument])
            case "MARK":
                self._marks.append(stack)
                self._stack = []
            case "POP":
                self._pop()
            case "POP_MARK":
                self._items()
            case "DUP":
                stack.append(stack[-1])
            case "NONE" | "NEXT_BUFFER":
                stack.append(None)
            case "NEWTRUE" | "NEWFALSE":
                stack.append(opcode == "NEWTRUE")
            case "EMPTY_LIST":
                stack.append([])
            case "EMPTY_DICT":
                stack.append({})
            case "EMPTY_SET":
                stack.append(Object("builtins.set"))
            case "EMPTY_TUPLE":
                stack.append(())
            case "TUPLE1" | "TUPLE2" | "TUPLE3":
                self._push_tuple([stack.pop() for _ in range(int(opcode[-1]))][::-1])
            case "TUPLE":
                self._push_tuple(self._items())
            case "LIST":
                items = self._items()
                self._stack.append(items)
            case "FROZENSET":
                items = self._items()
                self._stack.append(Object("builtins.frozenset", tuple(items)))
            case "DICT":
                items = self._items()
                made: dict[Any, Any] = {}
                self._stack.append(made)
                _set_items(made, items)
            case "APPEND":
                item = stack.pop()
                _append(stack[-1], [item])
            case "APPENDS" | "ADDITEMS":
                items = self._items()
                _append(self._stack[-1], items)
            case "SETITEM":
                value, key = stack.pop(), stack.pop()
                _set_items(stack[-1], [key, value])
            case "SETITEMS":
                items = self._items()
                _set_items(self._stack[-1], items)
            case "GLOBAL":
                self._push_global(argument.replace(" ", ".", 1))
            case "STACK_GLOBAL":
                name, module = stack.pop(), stack.pop()
                self._push_global(f"{_text(module)}.{_text(name)}")
            case "EXT1" | "EXT2" | "EXT4":
                self._push_global(f"copyreg.extension_{argument}")
            case "INST":
                items = self._items()
                self._push_global(argument.replace(" ", ".", 1))
                self._push_call(self._stack.pop(), tuple(items))
            case "OBJ":
                items = self._items()
                self._push_call(items[0], tuple(items[1:]))
            case "REDUCE" | "NEWOBJ":
                args, function = stack.pop(), stack.pop()
                self._push_call(function, args)
            case "NEWOBJ_EX":
                _keywords, args, function = stack.pop(), stack.pop(), stack.pop()
                self._push_call(function, args)
            case "BUILD":
                state = stack.pop()
                if isinstance(stack[-1], Object):
                    stack[-1].state = state
            case "PERSID":
                stack.append(self._persistent(argument))
            case "BINPERSID":
                stack.append(self._persistent(stack.pop()))
            case _ if opcode in _VALUES:
                if isinstance(argument, int) and argument.bit_length() > _MAX_BITS:
                    raise PickleError(f"an integer of more than {_MAX_BITS} bits")
                stack.append(bytes(argument) if isinstance(argument, bytearray) else argument)
            case _:
                raise PickleError(f"the opcode {opcode}, which is not known here")

    def _pop(self) -> None:
        if self._stack:
            self._stack.pop()
        else:
            self._stack = self._marks.pop()

    def _items(self) -> list[Any]:
        """Return what was pushed after the last mark, and remove it with the mark."""
        items = self._stack
        self._stack = self._marks.pop()
        return items

    def _push_tuple(self, items: list[Any]) -> None:
        made = tuple(items)
        inner = max((self._depths.get(id(item), 1) for item in made if type(item) is tuple), default=0)
        if inner >= _MAX_TUPLE_DEPTH:
            raise PickleLimitExceeded("It has tuples in tuples, deeper than any network's.")
        if inner:
            self._depths[id(made)] = inner + 1
            self._deep.append(made)
        self._stack.append(made)

    def _push_global(self, name: str) -> None:
        if len(name) > _MAX_NAME or not name.isprintable():  # names go into messages and onto terminals
            raise PickleError("a name that no class or function has")
        self.globals[name] = None
        self._stack.append(Global(name))

    def _push_call(self, function: Any, args: Any) -> None:
        name = function.name if isinstance(function, Global) else "?"
        if not isinstance(args, tuple):
            args = (args,)
        if name in _DICTS or name in _LISTS:
            # Values can be copied again and again by few opcodes.
            self._count(sum(len(arg) for arg in args if isinstance(arg, dict | list | tuple)))
        made = _call_container(name, args)
        if made is None:
            made = self._call(name, args)
        self._stack.append(Object(name, args) if made is None else made)


def _call_container(name: str, args: tuple[Any, ...]) -> dict[Any, Any] | list[Any] | None:
    if name in _DICTS:
        made: dict[Any, Any] = {}
        for pairs in args[-1:]:
            if isinstance(pairs, dict):
                made.update(pairs)
            elif isinstance(pairs, list | tuple):
                for pair in pairs:
                    if isinstance(pair, list | tuple) and len(pair) == 2:
                        _set_items(made, list(pair))
        return made
    if name in _LISTS and len(args) == 1 and isinstance(args[0], list | tuple):
        return list(args[0])
    return None


def _append(container: Any, items: list[Any]) -> None:
    if isinstance(container, list):
        container += items
    elif isinstance(container, Object):
        container.items += items
    else:
        raise PickleError("items for something other than a list")


def _set_items(container: Any, items: list[Any]) -> None:
    """Set keys and values in turn. Keys other than plain values are left out: their hash may be anything."""
    if isinstance(container, Object):
        container = container.entries
    elif not isinstance(container, dict):
        raise PickleError("entries for something other than a dict")
    for key, value in zip(items[::2], items[1::2], strict=True):
        if type(key) in _KEY_TYPES:
            container[key] = value


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise PickleError("a name that is no text")
    return value
