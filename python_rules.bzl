"""The Python rules that BUILD loads: Bazel's own, so that `bazel query //...` needs no network.

They are built in up to Bazel 7, and Bazel 8 takes them from rules_python (MODULE.bazel) by itself. For Bazel 9 this
file becomes `load("@rules_python//python:defs.bzl", ...)` and passes the same three names on.
"""

def py_binary(**kwargs):
    native.py_binary(**kwargs)  # buildifier: disable=native-py

def py_library(**kwargs):
    native.py_library(**kwargs)  # buildifier: disable=native-py

def py_test(**kwargs):
    native.py_test(**kwargs)  # buildifier: disable=native-py
