"""What tests ask of TensorFlow graphs."""


def ancestors(operation):
    """Every operation that this one waits for."""
    found, waiting = set(), [operation]
    while waiting:
        op = waiting.pop()
        before = {*(x.op for x in op.inputs), *op.control_inputs} - found
        found |= before
        waiting += before
    return found
