"""NumPy: the meaning of each operation, the oracle of the tests, and the fallback without a compiler."""
