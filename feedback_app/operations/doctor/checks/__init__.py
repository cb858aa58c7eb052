"""The checks, one function each: they yield a Problem for each thing that is wrong."""
