"""The commands of `dlens`, each a function in a file of its name, whose signature and docstring say what it takes."""
