//! Why an input state is refused.

use std::path::PathBuf;

use mlwm_spec::ExitCode;
use mlwm_spec::time::utc_text;

/// An input state that is not what `interface.json` declares.
#[derive(Debug, thiserror::Error)]
pub enum StateError {
    /// Nothing is there.
    #[error("there is no input state at `{}`: stage one", .0.display())]
    NotThere(PathBuf),
    /// Neither a Zarr store nor NetCDF nor a `.npz`, or one that cannot be read.
    #[error("the input state `{}` cannot be read: {reason}", path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// Why.
        reason: String,
    },
    /// A state of another time.
    #[error(
        "the input state `{}` is valid at {}, but the forecast starts from {}: stage the state of this analysis time",
        path.display(),
        times_text(found),
        times_text(expected)
    )]
    Times {
        /// The file.
        path: PathBuf,
        /// Its times in Unix seconds.
        found: Vec<i64>,
        /// The times that were expected.
        expected: Vec<i64>,
    },
    /// A field or coordinate is not there.
    #[error("the input state `{}` has no `{name}`; it has {}", path.display(), there.join(", "))]
    Missing {
        /// The file.
        path: PathBuf,
        /// What is missing.
        name: String,
        /// What is there.
        there: Vec<String>,
    },
    /// Something that is not declared.
    #[error(
        "the input state `{}` has `{name}`, which the model's interface does not know: is it the state of another model?",
        path.display()
    )]
    Extra {
        /// The file.
        path: PathBuf,
        /// What is too much.
        name: String,
    },
    /// Another shape, or other dimensions.
    #[error(
        "`{field}` in the input state `{}` has the shape {found}, but the model needs {expected}",
        path.display()
    )]
    Shape {
        /// The file.
        path: PathBuf,
        /// The field.
        field: String,
        /// Its shape.
        found: String,
        /// The shape that was expected.
        expected: String,
    },
    /// Another type.
    #[error(
        "`{field}` in the input state `{}` is of type {found}, but the model needs {expected}",
        path.display()
    )]
    Type {
        /// The file.
        path: PathBuf,
        /// The field.
        field: String,
        /// Its type.
        found: String,
        /// The type that was expected.
        expected: String,
    },
    /// NaN or infinity where there must be a number.
    #[error(
        "`{field}` in the input state `{}` has {count} values that are NaN or infinite, but must be finite {place}",
        path.display()
    )]
    NotFinite {
        /// The file.
        path: PathBuf,
        /// The field.
        field: String,
        /// How many.
        count: usize,
        /// Where it must be finite.
        place: String,
    },
    /// A number where there must be none.
    #[error(
        "`{field}` in the input state `{}` has {count} values where it must be NaN: {place}",
        path.display()
    )]
    NotMissing {
        /// The file.
        path: PathBuf,
        /// The field.
        field: String,
        /// How many.
        count: usize,
        /// Where it must be NaN.
        place: String,
    },
    /// A value out of range.
    #[error(
        "`{field}` in the input state `{}` has the value {value}, but must be from {} to {}: is it in other units?",
        path.display(),
        range[0],
        range[1]
    )]
    Range {
        /// The file.
        path: PathBuf,
        /// The field.
        field: String,
        /// The value.
        value: f64,
        /// The range.
        range: [f64; 2],
    },
    /// A constant field that changes.
    #[error(
        "`{field}` in the input state `{}` is not the same at all times, but is declared constant",
        path.display()
    )]
    NotConstant {
        /// The file.
        path: PathBuf,
        /// The field.
        field: String,
    },
}

impl StateError {
    /// The exit code of a runner that ends with it.
    pub fn exit_code(&self) -> ExitCode {
        match self {
            Self::NotThere(_) | Self::Missing { .. } => ExitCode::InputMissing,
            _ => ExitCode::InputCorrupt,
        }
    }
}

/// How many times a message shows.
const SHOWN: usize = 6;

fn times_text(times: &[i64]) -> String {
    let shown: Vec<String> = times
        .iter()
        .take(SHOWN)
        .map(|time| utc_text(*time).to_string())
        .collect();
    let more = if times.len() > SHOWN { ", …" } else { "" };
    format!("{}{more}", shown.join(", "))
}
