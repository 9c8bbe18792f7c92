"""One file an operation family: the public function, its checks, and what a backend must provide."""
