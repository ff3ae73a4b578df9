"""Reads the pickle byte format as data: nothing in the file is imported, called or executed.

A pickle is a program for a small stack machine. `pickletools.genops` only splits it
into operations; this module interprets those that build plain containers and hands
every named constructor to a table that the caller gives. A name outside that table is
refused before anything is made of it.
"""

import dataclasses
import pickletools


class PickleError(ValueError):
    """The stream is damaged, or names something that is not allowed."""


@dataclasses.dataclass(frozen=True)
class Name:
    """A global that the stream names, e.g. "torch.FloatStorage"; only ever a name."""

    path: str


class Opaque:
    """Stands for an object of a class that is known to be harmless to leave out.

    Attributes:
      path: the class' full name.
      state: what the stream says that it holds, usually {attribute: value}; None if nothing.
    """

    def __init__(self, path):
        self.path, self.state = path, None

    def __repr__(self):
        return f"Opaque({self.path!r})"


def read_pickle(stream, constructors, names=(), opaque=(), persistent=None):
    """The value that one pickle describes; leaves `stream` right behind it.

    Args:
      stream: a binary file object.
      constructors: {global name: function of the pickled arguments}, the only calls made.
      names: further globals that may be named, not called (types of storages, dtypes).
      opaque: prefixes of globals of which `Opaque` placeholders are made.
      persistent: function of a persistent id (the value that a pickler left out of line).

    Returns:
      Nested dict, list, tuple, set, str, bytes, int, float, bool, None, and what the
      constructors and `persistent` return.

    Raises:
      PickleError: one line that says what was refused or where the stream is damaged.
    """
    machine = _Machine(constructors, names, opaque, persistent)
    try:
        for opcode, argument, _ in pickletools.genops(stream):
            if opcode.name == "STOP":
                return machine.stack.pop()
            machine.step(opcode.name, argument)
    except PickleError:
        raise
    except (ValueError, KeyError, IndexError, TypeError, AttributeError, OverflowError) as e:
        raise PickleError(f"damaged pickle stream: {type(e).__name__}: {e}") from None
    raise PickleError("damaged pickle stream: no end")


_MARK = object()
_PUSHED = {
    "INT", "BININT", "BININT1", "BININT2", "LONG", "LONG1", "LONG4", "FLOAT", "BINFLOAT",
    "STRING", "BINSTRING", "SHORT_BINSTRING", "UNICODE", "BINUNICODE", "SHORT_BINUNICODE", "BINUNICODE8",
    "BINBYTES", "SHORT_BINBYTES", "BINBYTES8",
}  # fmt: skip
_CONSTANTS = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False}
_EMPTY = {"EMPTY_LIST": list, "EMPTY_DICT": dict, "EMPTY_TUPLE": tuple, "EMPTY_SET": set, "MARK": lambda: _MARK}
_TUPLES = {"TUPLE1": 1, "TUPLE2": 2, "TUPLE3": 3}
_MARKED = {"TUPLE": tuple, "LIST": list, "FROZENSET": frozenset, "DICT": lambda items: dict(_pairs(items))}


class _Machine:
    """The stack and the memo, and one method for each kind of operation."""

    def __init__(self, constructors, names, opaque, persistent):
        self.stack, self.memo = [], {}
        self.constructors, self.names = constructors, frozenset(names) | frozenset(constructors)
        self.opaque, self.persistent = tuple(opaque), persistent

    def step(self, operation, argument):
        if operation in _PUSHED:
            self.stack.append(argument)
        elif operation in _CONSTANTS:
            self.stack.append(_CONSTANTS[operation])
        elif operation in _EMPTY:
            self.stack.append(_EMPTY[operation]())
        elif operation in _TUPLES:
            count = _TUPLES[operation]
            if len(self.stack) < count:
                raise PickleError("damaged pickle stream: too few values for a tuple")
            self.stack[-count:] = [tuple(self.stack[-count:])]
        elif operation in _MARKED:
            self.stack.append(_MARKED[operation](self.pop_mark()))
        else:
            method = getattr(self, f"on_{operation.lower()}", None)
            if method is None:
                raise PickleError(f"refused: pickle operation {operation}")
            method(argument)

    def pop_mark(self):
        """The values above the last mark, which goes too."""
        position = len(self.stack) - 1
        while self.stack[position] is not _MARK:
            position -= 1
            if position < 0:
                raise PickleError("damaged pickle stream: no mark")
        values = self.stack[position + 1 :]
        del self.stack[position:]
        return values

    def on_proto(self, _):
        pass

    on_frame = on_proto

    def on_pop(self, _):
        self.stack.pop()

    def on_pop_mark(self, _):
        self.pop_mark()

    def on_dup(self, _):
        self.stack.append(self.stack[-1])

    def on_put(self, index):
        self.memo[int(index)] = self.stack[-1]

    on_binput = on_long_binput = on_put

    def on_memoize(self, _):
        self.memo[len(self.memo)] = self.stack[-1]

    def on_get(self, index):
        self.stack.append(self.memo[int(index)])

    on_binget = on_long_binget = on_get

    def on_append(self, _):
        value = self.stack.pop()
        self.held(list).append(value)

    def on_appends(self, _):
        values = self.pop_mark()
        self.held(list).extend(values)

    def on_setitem(self, _):
        value = self.stack.pop()
        key = self.stack.pop()
        self.held(dict)[key] = value

    def on_setitems(self, _):
        items = self.pop_mark()
        self.held(dict).update(_pairs(items))

    def on_additems(self, _):
        values = self.pop_mark()
        _expect(self.stack[-1], set).update(values)

    def on_global(self, argument):
        module, _, name = argument.partition(" ")
        self.push_name(f"{module}.{name}")

    def on_stack_global(self, _):
        name = _expect(self.stack.pop(), str)
        module = _expect(self.stack.pop(), str)
        self.push_name(f"{module}.{name}")

    def held(self, kind):
        """The container on top, to be filled; what an opaque list or dictionary is filled with is dropped."""
        return kind() if isinstance(self.stack[-1], Opaque) else _expect(self.stack[-1], kind)

    def push_name(self, path):
        if path not in self.names and not self.is_opaque(path):
            raise PickleError(f"refused: it names {path!r}, which is neither a tensor nor a plain container")
        self.stack.append(Name(path))

    def is_opaque(self, path):
        return any(path == p or path.startswith(p + ".") for p in self.opaque)

    def on_reduce(self, _):
        arguments = _expect(self.stack.pop(), tuple)
        path = _expect(self.stack.pop(), Name).path
        if path in self.constructors:
            self.stack.append(self.constructors[path](*arguments))
        elif self.is_opaque(path):
            self.stack.append(Opaque(path))
        else:
            raise PickleError(f"refused: it calls {path!r}")

    on_newobj = on_reduce

    def on_build(self, _):
        # The state of an object: of an OrderedDict its attributes (`_metadata`), which no tensor needs.
        state = self.stack.pop()
        if isinstance(_expect(self.stack[-1], (dict, Opaque)), Opaque):
            self.stack[-1].state = state

    def on_binpersid(self, _):
        if self.persistent is None:
            raise PickleError("damaged pickle stream: a reference to data outside of it")
        self.stack.append(self.persistent(self.stack.pop()))


def _expect(value, kind):
    if not isinstance(value, kind):
        raise PickleError(f"damaged pickle stream: a {type(value).__name__} where another type belongs")
    return value


def _pairs(items):
    if len(items) % 2:
        raise PickleError("damaged pickle stream: a key without a value")
    return zip(items[::2], items[1::2])
