//! What the container of a converter is given, and where it leaves what it made
//! (docs/container-contract.md, section "Converters").

/// The folder in which the staged input lies, under the input's name.
pub const IN: &str = "/convert/in";
/// The folder for what is made of it.
pub const OUT: &str = "/convert/out";

/// The path of the staged input.
pub const MLWM_CONVERT_IN: &str = "MLWM_CONVERT_IN";
/// The path at which the converter leaves a file or a folder: the one thing in [`OUT`].
pub const MLWM_CONVERT_OUT: &str = "MLWM_CONVERT_OUT";
