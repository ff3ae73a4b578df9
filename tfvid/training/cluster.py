"""TF_CONFIG: who takes part in a training on several machines, and whether all are there.

Before TensorFlow starts its own servers, every worker calls on the first one (the chief)
at the chief's address, with a digest of what it was started with. So a worker that is
missing or was started with other hyper-parameters or data is named in one line, while
nothing has been written.
"""

import dataclasses
import hashlib
import json
import os
import socket
import time

from tfvid.errors import UserError

_LIMIT = 1 << 20  # bytes of one message
_GRACE = 10.0  # seconds that an answer may come after the moment at which it is due


@dataclasses.dataclass(frozen=True)
class Cluster:
    """The workers of a training.

    Attributes:
      workers: "host:port" of each; the first one is the chief.
      index: which of them this process is.
    """

    workers: tuple
    index: int

    @property
    def chief(self):
        """Whether this process is the one that writes."""
        return self.index == 0

    def __len__(self):
        return len(self.workers)

    @classmethod
    def from_environment(cls, text=None):
        """Reads TF_CONFIG (or `text`); None where it is not set.

        Raises:
          UserError: not JSON, or not of the form {"cluster": {"worker": ["host:port", ...]},
            "task": {"type": "worker", "index": 0}}.
        """
        text = os.environ.get("TF_CONFIG", "") if text is None else text
        if not text.strip():
            return None
        try:
            config = json.loads(text)
        except (json.JSONDecodeError, RecursionError) as e:
            raise UserError(f"TF_CONFIG: expected JSON, received {_short(text)}: {getattr(e, 'msg', e)}") from None
        jobs = _at(config, "cluster", dict)
        task = _at(config, "task", dict)
        strange = sorted(set(jobs) - {"chief", "worker"})
        if strange:
            raise UserError(f"TF_CONFIG: cluster: expected the jobs chief and worker. Received: {', '.join(strange)}")
        chief, workers = jobs.get("chief", []), jobs.get("worker", [])
        for job, addresses in (("chief", chief), ("worker", workers)):
            if not isinstance(addresses, list) or not all(_is_address(a) for a in addresses):
                raise UserError(f"TF_CONFIG: cluster: {job}: expected a list of host:port. Received: {addresses!r}")
        if len(chief) > 1 or not chief + workers:
            raise UserError(f"TF_CONFIG: cluster: expected at most one chief and at least one worker. Received: {jobs}")
        everyone = chief + workers
        twice = sorted({a for a in everyone if everyone.count(a) > 1})
        if twice:
            raise UserError(f"TF_CONFIG: cluster: expected each address once. Received twice: {', '.join(twice)}")
        kind, index = _at(task, "type", str, "task: "), _at(task, "index", int, "task: ")
        own = {"chief": chief, "worker": workers}.get(kind)
        if not own:
            raise UserError(f"TF_CONFIG: task: expected a type with addresses in cluster. Received: type={kind!r}")
        if not 0 <= index < len(own):
            raise UserError(
                f"TF_CONFIG: task: expected the index of one of the {len(own)} addresses of {kind},"
                f" 0 to {len(own) - 1}. Received: index={index}"
            )
        return cls(tuple(everyone), index if kind == "chief" else len(chief) + index)

    def meet(self, facts, timeout):
        """Waits until every worker is there and was started with the same `facts`.

        Args:
          facts: {name: JSON value} that must be equal everywhere.
          timeout: seconds.

        Raises:
          UserError: on every worker, names who is missing or what differs.
        """
        if len(self) == 1:
            return
        digests = {k: hashlib.sha256(json.dumps(v, sort_keys=True).encode()).hexdigest() for k, v in facts.items()}
        if self.chief:
            self._receive(facts, digests, timeout)
        else:
            self._call(facts, digests, timeout)

    def _receive(self, facts, digests, timeout):
        deadline = time.monotonic() + timeout
        port = int(self.workers[0].rpartition(":")[2])
        try:
            server = socket.create_server(("", port), backlog=len(self))
        except OSError as e:
            raise UserError(
                f"TF_CONFIG: worker 0: cannot listen on port {port} of {self.workers[0]}: {e.strerror}"
            ) from None
        calls, problem = {}, None
        with server:
            try:
                while len(calls) < len(self) - 1 and problem is None:
                    server.settimeout(max(deadline - time.monotonic(), 0.001))
                    connection, _ = server.accept()
                    call = _receive_message(connection, max(deadline - time.monotonic(), 0.001))
                    if not isinstance(call, dict) or call.get("index") not in range(1, len(self)):
                        connection.close()  # a port scanner, a health check, ...
                        continue
                    index = call["index"]
                    if index in calls:
                        calls.pop(index).close()  # it was started again
                    calls[index] = connection
                    problem = self._difference(index, facts, digests, call)
            except TimeoutError:
                missing = [i for i in range(1, len(self)) if i not in calls]
                problem = f"expected {len(self)} workers within {timeout:g} s, missing {self._names(missing)}"
            for connection in calls.values():
                _send_message(connection, {"problem": problem})
                connection.close()
        if problem:
            raise UserError(f"TF_CONFIG: {problem}")

    def _difference(self, index, facts, digests, call):
        """What this worker was started with that the chief was not, or None."""
        theirs = call.get("digests", {})
        if not isinstance(theirs, dict):
            return f"{self._names([index])} does not speak this version's language"
        for name, digest in digests.items():
            if theirs.get(name) == digest:
                continue
            mine, other = facts[name], call.get("facts", {}).get(name)
            return f"{self._names([index])} was started with other {name} than worker 0: {difference(mine, other)}"
        return None

    def _call(self, facts, digests, timeout):
        host, _, port = self.workers[0].rpartition(":")
        deadline = time.monotonic() + timeout
        message = {"index": self.index, "digests": digests, "facts": facts}
        while True:
            left = deadline - time.monotonic()
            if left <= 0:
                raise UserError(
                    f"TF_CONFIG: worker {self.index}: expected an answer of worker 0 ({self.workers[0]})"
                    f" within {timeout:g} s, received none"
                )
            try:
                with socket.create_connection((host.strip("[]"), int(port)), timeout=min(left, 5)) as connection:
                    _send_message(connection, message)
                    # The chief is there, and answers at the latest when its own time is over:
                    # who came to it first must not leave before it could say who is missing.
                    answer = _receive_message(connection, timeout + _GRACE)
            except OSError:
                answer = None
            if isinstance(answer, dict) and "problem" in answer:
                if answer["problem"]:
                    raise UserError(f"TF_CONFIG: {answer['problem']}")
                return
            time.sleep(0.2)

    def _names(self, indices):
        return ", ".join(f"worker {i} ({self.workers[i]})" for i in indices)


def difference(mine, other):
    """What differs between two JSON values, in words: `lr 0.1 there, 0.2 here`."""
    if isinstance(mine, dict) and isinstance(other, dict):
        keys = [k for k in sorted(set(mine) | set(other)) if mine.get(k) != other.get(k)]
        shown = ", ".join(f"{k} {other.get(k)!r} instead of {mine.get(k)!r}" for k in keys[:4])
        return shown + (f" and {len(keys) - 4} more" if len(keys) > 4 else "")
    return f"{other!r} instead of {mine!r}"


def _send_message(connection, message):
    try:
        connection.sendall(json.dumps(message).encode() + b"\n")
    except OSError:
        pass  # it has gone; its absence shows at the first common operation


def _receive_message(connection, timeout):
    """One line of JSON, or None where something else comes."""
    deadline, data = time.monotonic() + timeout, b""
    try:
        while not data.endswith(b"\n") and len(data) < _LIMIT:
            connection.settimeout(max(deadline - time.monotonic(), 0.001))
            part = connection.recv(65536)
            if not part:
                return None
            data += part
        return json.loads(data)
    except (OSError, ValueError, RecursionError):
        return None


def _at(config, key, kind, where=""):
    value = config.get(key) if isinstance(config, dict) else None
    if not isinstance(value, kind) or isinstance(value, bool):
        words = {dict: "an object", str: "a string", int: "an integer"}[kind]
        raise UserError(f"TF_CONFIG: {where}{key}: expected {words}. Received: {_short(repr(value))}")
    return value


def _is_address(value):
    host, _, port = value.rpartition(":") if isinstance(value, str) else ("", "", "")
    return bool(host) and port.isdecimal() and 0 < int(port) < 65536


def _short(text, limit=80):
    return text if len(text) <= limit else text[:limit] + "..."
