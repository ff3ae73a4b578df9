"""Runs a SavedModel through TensorFlow's C library by ctypes: what a server does, without Python's TensorFlow.

Usage: python -I c_api.py LIBRARY MODEL_DIR REQUEST.npz SIGNATURE.json OUTPUT.npz
SIGNATURE.json: {"inputs": {key: [tensor name, dtype number]}, "outputs": the same}.
"""

import ctypes
import json
import sys

import numpy as np

# Numbers of tensorflow/core/framework/types.proto.
DTYPES = {1: np.float32, 2: np.float64, 3: np.int32, 4: np.uint8, 9: np.int64, 10: np.bool_}


class Output(ctypes.Structure):
    """TF_Output: one output of an operation."""

    _fields_ = [("oper", ctypes.c_void_p), ("index", ctypes.c_int)]


class Library:
    """The few functions that are needed."""

    def __init__(self, path):
        # libtensorflow_framework lies beside it and is found through its rpath.
        self.c = ctypes.CDLL(path)
        pointers = (
            "TF_NewStatus", "TF_NewGraph", "TF_NewSessionOptions", "TF_LoadSessionFromSavedModel", "TF_AllocateTensor",
            "TF_TensorData", "TF_GraphOperationByName",
        )  # fmt: skip
        for name in pointers:
            getattr(self.c, name).restype = ctypes.c_void_p
        self.c.TF_Message.restype = ctypes.c_char_p
        self.c.TF_Dim.restype = ctypes.c_int64
        self.c.TF_TensorByteSize.restype = ctypes.c_size_t
        self.status = ctypes.c_void_p(self.c.TF_NewStatus())

    def check(self):
        if self.c.TF_GetCode(self.status):
            raise RuntimeError(self.c.TF_Message(self.status).decode())

    def load(self, path):
        graph = ctypes.c_void_p(self.c.TF_NewGraph())
        tags = (ctypes.c_char_p * 1)(b"serve")
        options = ctypes.c_void_p(self.c.TF_NewSessionOptions())
        session = self.c.TF_LoadSessionFromSavedModel(options, None, path.encode(), tags, 1, graph, None, self.status)
        self.check()
        return graph, ctypes.c_void_p(session)

    def endpoint(self, graph, name):
        operation, _, index = name.partition(":")
        found = self.c.TF_GraphOperationByName(graph, operation.encode())
        if not found:
            raise RuntimeError(f"no operation {operation}")
        return Output(found, int(index or 0))

    def tensor(self, array, dtype):
        array = np.ascontiguousarray(array, dtype=DTYPES[dtype]).reshape(np.shape(array))
        dims = (ctypes.c_int64 * max(array.ndim, 1))(*array.shape)
        tensor = ctypes.c_void_p(self.c.TF_AllocateTensor(dtype, dims, array.ndim, ctypes.c_size_t(array.nbytes)))
        ctypes.memmove(self.c.TF_TensorData(tensor), array.ctypes.data, array.nbytes)
        return tensor

    def array(self, tensor):
        tensor = ctypes.c_void_p(tensor)
        shape = [self.c.TF_Dim(tensor, i) for i in range(self.c.TF_NumDims(tensor))]
        dtype = DTYPES[self.c.TF_TensorType(tensor)]
        buffer = ctypes.string_at(self.c.TF_TensorData(tensor), self.c.TF_TensorByteSize(tensor))
        return np.frombuffer(buffer, dtype).reshape(shape).copy()

    def run(self, graph, session, signature, request):
        """{output: array} for {input: array}."""
        feeds, fetches = list(signature["inputs"].items()), list(signature["outputs"].items())
        inputs = (Output * len(feeds))(*(self.endpoint(graph, name) for _, (name, _) in feeds))
        values = (ctypes.c_void_p * len(feeds))(*(self.tensor(request[k], dtype) for k, (_, dtype) in feeds))
        outputs = (Output * len(fetches))(*(self.endpoint(graph, name) for _, (name, _) in fetches))
        results = (ctypes.c_void_p * len(fetches))()
        self.c.TF_SessionRun(
            session, None, inputs, values, len(feeds), outputs, results, len(fetches), None, 0, None, self.status
        )
        self.check()
        return {key: self.array(result) for (key, _), result in zip(fetches, results)}


def main():
    library, model, request, signature, output = sys.argv[1:]
    c = Library(library)
    graph, session = c.load(model)
    with np.load(request) as f, open(signature) as g:
        arrays = c.run(graph, session, json.load(g), dict(f))
    assert "tensorflow" not in sys.modules
    np.savez(output, **arrays)


if __name__ == "__main__":
    main()
