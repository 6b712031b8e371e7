"""One way to compress a matrix a file, by what its inputs were; `registry.py` names them."""
