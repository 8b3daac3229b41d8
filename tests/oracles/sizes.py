"""The bytes of a store's variables, as they are stored but for compression.

    sizes.py STORE   prints the sum over its data variables of what their arrays take
"""

import sys

import zarr

group = zarr.open_group(sys.argv[1], mode="r")
arrays = dict(group.arrays())
attributes = [array.attrs.asdict() for array in arrays.values()]
coordinates = {
    name
    for attribute in attributes
    for key in ("coordinates", "grid_mapping")
    for name in attribute.get(key, "").split()
}
total = 0
for name, array in arrays.items():
    dims = array.metadata.dimension_names or ()
    if name in coordinates or name in dims or not array.shape:
        continue
    total += array.size * array.dtype.itemsize
print(total)
