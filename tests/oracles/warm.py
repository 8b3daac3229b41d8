"""Adds a number to the first chunk of a variable of a Zarr store, and prints how many values that are.

usage: warm.py STORE VARIABLE NUMBER
"""

import sys

import zarr

store, variable, number = sys.argv[1], sys.argv[2], float(sys.argv[3])
array = zarr.open_group(store, mode="r+")[variable]
first = tuple(slice(0, length) for length in array.chunks)
array[first] = array[first] + number
print(array[first].size)
