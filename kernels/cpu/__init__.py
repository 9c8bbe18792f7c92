"""Numba loops. Modules of operation families have their names; those with an underscore are what several share."""
