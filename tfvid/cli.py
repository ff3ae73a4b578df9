"""What every command does around its own work: flags, one-line errors, exit status."""

import os
import sys
import tempfile

# Before TensorFlow is imported: its start-up messages are noise to a user.
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("KERAS_BACKEND", "tensorflow")

from absl import app, flags, logging

from tfvid.errors import UserError


def run(main):
    """Runs `main()` after absl has parsed the flags; never a traceback for a user's mistake.

    Exit status: 0 done, 1 a mistake in what was given or an input/output failure,
    2 flags that do not parse, 130 interrupted.
    """

    def guarded(argv):
        if len(argv) > 1:
            fail(f"expected flags only (--name=value). Received: {' '.join(argv[1:])!r}", status=2)
        logging.set_verbosity(logging.INFO if flags.FLAGS.verbosity >= 1 else logging.WARNING)
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
        app.run(guarded, flags_parser=_parse_flags)
    except BrokenPipeError:
        sys.exit(1)


def import_tensorflow_quietly():
    """Imports TensorFlow without the start-up lines that no setting of it turns off.

    They are shown where the user asks for them: TF_CPP_MIN_LOG_LEVEL=0 or 1.
    """
    if "tensorflow" in sys.modules or os.environ["TF_CPP_MIN_LOG_LEVEL"] in ("0", "1"):
        return
    sys.stderr.flush()
    kept = os.dup(2)
    with tempfile.TemporaryFile() as hidden:
        os.dup2(hidden.fileno(), 2)
        try:
            import tensorflow  # noqa: F401
        except BaseException:
            hidden.seek(0)
            os.write(kept, hidden.read())  # it may say why
            raise
        finally:
            os.dup2(kept, 2)
            os.close(kept)


def fail(message, status=1):
    """Prints one line to standard error and exits."""
    print("error: " + " ".join(str(message).split()), file=sys.stderr)
    sys.exit(status)


def _parse_flags(argv):
    try:
        return flags.FLAGS(argv)
    except flags.Error as e:
        fail(f"{e}; see --help", status=2)


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
        return error.message
    return None
