//! Maps of a dataset variable, as PNG.
