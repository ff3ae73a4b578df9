"""The main program of every py_test in BUILD: pytest on the files named on the command line."""

import sys

import pytest

if __name__ == "__main__":
    sys.exit(pytest.main(sys.argv[1:]))
