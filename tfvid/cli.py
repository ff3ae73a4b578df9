"""What every command does around its own work: flags, one-line errors, exit status."""

import contextlib
import ctypes
import math
import os
import re
import sys
import tempfile

# Before TensorFlow is imported: its start-up messages are noise to a user.
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("KERAS_BACKEND", "tensorflow")

from absl import app, flags, logging

from tfvid.errors import UserError

_M_ARENA_MAX = -8  # in glibc's malloc.h
# What Keras imports, where it is installed, for its pictures of bounding boxes and its wrappers for scikit-learn.
_KERAS_EXTRAS = ("matplotlib", "sklearn")


def run(main, may_be_empty=()):
    """Runs `main()` after absl has parsed the flags; never a traceback for a user's mistake.

    Args:
      may_be_empty: names of flags without a default for which an empty text is a value.

    Exit status: 0 done or help shown, 1 a mistake in what was given or an input/output failure,
    2 flags that do not parse, 130 interrupted.
    """

    def guarded(argv):
        if len(argv) > 1:
            fail(f"expected flags only (--name=value). Received: {' '.join(argv[1:])!r}", status=2)
        logging.set_verbosity(logging.INFO if flags.FLAGS.verbosity >= 1 else logging.WARNING)
        _share_heaps()
        _compile_in_less_memory()
        import_tensorflow_quietly()
        try:
            main()
        except UserError as e:
            fail(str(e))
        except KeyboardInterrupt:
            fail("interrupted", status=130)
        except OSError as e:
            where = f"{e.filename}: " if e.filename else ""
            fail(f"{where}{e.strerror or e}")
        except Exception as e:
            message = _io_failure(e)
            if message is None:
                raise
            fail(message)

    try:
        for stream in (sys.stdout, sys.stderr):  # a name that the terminal cannot show is no reason to end
            if hasattr(stream, "reconfigure"):
                stream.reconfigure(errors="backslashreplace")
        app.run(guarded, flags_parser=lambda argv: _parse_flags(argv, may_be_empty))
    except BrokenPipeError:
        sys.exit(1)


def _share_heaps():
    """Lets two cores share a heap of glibc, which otherwise keeps up to eight a core, each with what its threads freed.

    0.1 GB less in training deterministic SAVP, 0.3 in training AG2Vid, and no slower. MALLOC_ARENA_MAX in the
    environment has the last word.
    """
    libc = ctypes.CDLL(None) if sys.platform == "linux" else None
    if hasattr(libc, "mallopt") and "MALLOC_ARENA_MAX" not in os.environ:
        libc.mallopt(_M_ARENA_MAX, max(1, (os.cpu_count() or 1) // 2))


def _compile_in_less_memory():
    """Lets XLA emit its loops without MLIR, which holds all of them at once: 0.1 GB less where SAVP generates.

    What is compiled is as fast, and sooner there. Read when XLA compiles for the first time; a
    --xla_cpu_use_fusion_emitters in XLA_FLAGS has the last word. It stands here, not in `tfvid`, as other libraries
    that read XLA_FLAGS end at a flag that they do not know.
    """
    given = os.environ.get("XLA_FLAGS", "")
    if "xla_cpu_use_fusion_emitters" not in given:
        os.environ["XLA_FLAGS"] = f"{given} --xla_cpu_use_fusion_emitters=false".lstrip()


def import_tensorflow_quietly():
    """Imports TensorFlow without what no setting of it turns off: lines at its start, and extras of Keras.

    The lines are shown where the user asks for them: TF_CPP_MIN_LOG_LEVEL=0 or 1.
    """
    if "tensorflow" in sys.modules:
        return
    shown = os.environ["TF_CPP_MIN_LOG_LEVEL"] in ("0", "1")
    # Keras' extras are 80 MB and half of the time that the import takes.
    with contextlib.nullcontext() if shown else _silence(), _as_if_missing(_KERAS_EXTRAS):
        import tensorflow  # noqa: F401


@contextlib.contextmanager
def _silence():
    """Context in which nothing reaches standard error, unless it ends in an exception."""
    sys.stderr.flush()
    kept = os.dup(2)
    with tempfile.TemporaryFile() as hidden:
        os.dup2(hidden.fileno(), 2)
        try:
            yield
        except BaseException:
            hidden.seek(0)
            os.write(kept, hidden.read())  # it may say why
            raise
        finally:
            os.dup2(kept, 2)
            os.close(kept)


@contextlib.contextmanager
def _as_if_missing(names):
    """Context in which to import one of the modules raises ImportError; those imported before stay."""
    names = [name for name in names if name not in sys.modules]
    sys.modules.update(dict.fromkeys(names))
    try:
        yield
    finally:
        for name in names:
            del sys.modules[name]


def fail(message, status=1):
    """Prints one line to standard error and exits."""
    print("error: " + " ".join(str(message).split()), file=sys.stderr)
    sys.exit(status)


def _parse_flags(argv, may_be_empty):
    try:
        rest = flags.FLAGS(argv)
    except flags.Error as e:
        fail(f"{e}; see --help", status=2)
    except SystemExit:  # with 1: absl has shown the help
        sys.exit(0)
    for name in flags.FLAGS:
        flag = flags.FLAGS[name]
        if flag.present:
            _check_flag(flag, may_be_empty)
    return rest


def _check_flag(flag, may_be_empty):
    """What absl lets pass and no command can use; `~`, which shells leave as it is behind a `=`, becomes the home."""
    several = isinstance(flag.value, list)
    values = (flag.value or [""]) if several else [flag.value]
    for value in values:
        # An unset variable of a shell script, as in --checkpoint=$RUN, is not "no such flag".
        if value == "" and (several or flag.default is None) and flag.name not in may_be_empty:
            fail(f"--{flag.name}: expected a value, received an empty one; see --help", status=2)
        if isinstance(value, float) and not math.isfinite(value):
            fail(f"--{flag.name}: expected a finite number. Received: {value}; see --help", status=2)
        if isinstance(value, int) and not -(2**63) <= value < 2**63:
            fail(f"--{flag.name}: expected an integer of 64 bits. Received: {value}; see --help", status=2)
    home = [os.path.expanduser(v) if isinstance(v, str) and re.match("~(/|$)", v) else v for v in values]
    if home != values:
        flag.value = home if several else home[0]


def _io_failure(error):
    """The line for TensorFlow's own file errors (no space, no permission, ...), else None."""
    import tensorflow as tf

    kinds = (
        tf.errors.NotFoundError,
        tf.errors.PermissionDeniedError,
        tf.errors.ResourceExhaustedError,
        tf.errors.FailedPreconditionError,
        tf.errors.UnimplementedError,
        tf.errors.DataLossError,
        tf.errors.AlreadyExistsError,
    )
    if isinstance(error, kinds) and getattr(error, "op", None) is None:
        return re.sub(r"\{\{.*?\}\} ?| ?\[Op:\w+\]", "", error.message)  # where in TensorFlow it was
    return None
