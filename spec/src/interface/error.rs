//! What can be wrong with an interface.

use super::{INTERFACE_VERSION, PROGRAM_VERSION, PointProblem, ProgramProblem, STATE_SCHEMA};

/// The longest window in time, in steps: beyond it is a slip of the finger or an attack.
pub(super) const LONGEST_WINDOW: u64 = 1_000;

/// More fields of noise than any model needs.
pub(super) const MOST_CHANNELS: u64 = 10_000;

/// An interface that contradicts itself, or that no forecast can be made with.
#[derive(Clone, Debug, thiserror::Error, PartialEq, Eq)]
pub enum InvalidInterface {
    /// Another version.
    #[error(
        "interface.json has version {0}, and this mlwm reads versions {INTERFACE_VERSION} to {PROGRAM_VERSION}: use a matching mlwm, or build the artifact anew"
    )]
    Version(u32),
    /// A step that does not go forward.
    #[error("`step_seconds` of interface.json is {0}: give the length of a step, more than 0")]
    StepSeconds(i64),
    /// A name that is empty.
    #[error("`{0}` of interface.json is empty: give it a name")]
    Empty(&'static str),
    /// Features that are none.
    #[error("the {0} of interface.json has no features or no sources: name them")]
    NoFeatures(String),
    /// A name that stands in a list twice.
    #[error("`{name}` stands twice among the {list} of interface.json: name each once")]
    Twice {
        /// What the list holds.
        list: String,
        /// The name.
        name: String,
    },
    /// An input or output of the graph that has no name of its own.
    #[error(
        "two inputs or outputs of the model in interface.json are called `{0}`: each has a name of its own"
    )]
    TensorName(String),
    /// The model does not see the state that it steps from.
    #[error(
        "no input of the model in interface.json is the last known state: one must have the role `state` with `steps_back` 0"
    )]
    NoLastState,
    /// A window that is out of all proportion.
    #[error(
        "input `{input}` of interface.json looks {steps} steps away: a window has at most {LONGEST_WINDOW}"
    )]
    Window {
        /// Name of the input.
        input: String,
        /// Its longest reach.
        steps: u64,
    },
    /// A grid whose parts do not fit together.
    #[error("the grid of the {of} in interface.json does not fit together: {problem}")]
    Grid {
        /// Whose grid.
        of: String,
        /// What does not fit.
        problem: GridProblem,
    },
    /// A boundary on a grid that has no sides.
    #[error(
        "interface.json has a boundary, which needs a grid of two dimensions, and the grid has {0}: set `boundary_width` to 0"
    )]
    BoundaryDimensions(usize),
    /// A boundary that leaves nothing to predict.
    #[error(
        "a boundary of {width} points on each side covers all {length} points of `{dim}` in interface.json, so that the forecast would be its own input: use a narrower boundary or a larger grid"
    )]
    BoundaryCoversAll {
        /// `boundary_width`.
        width: u64,
        /// The dimension.
        dim: String,
        /// Its length.
        length: u64,
    },
    /// A tensor whose dimensions do not fit its role.
    #[error("the dimensions of {of} in interface.json do not fit its role: {problem}")]
    Dims {
        /// The input or output.
        of: String,
        /// What does not fit.
        problem: DimsProblem,
    },
    /// A feature that there is none of.
    #[error("{of} of interface.json names `{name}`, which is not a feature of the state")]
    NotOfState {
        /// What names it.
        of: String,
        /// The name.
        name: String,
    },
    /// Nothing that the next step could start from.
    #[error(
        "no output of the model in interface.json has the role `next_state`: one must predict features of the state"
    )]
    NoNextState,
    /// A feature of the state of datastores that is not predicted.
    #[error(
        "no output of the model in interface.json predicts `{0}`: a state of datastores is predicted whole"
    )]
    NotPredicted(String),
    /// A variable that two outputs predict, or one that is predicted beside the state.
    #[error(
        "two features of outputs in interface.json are called `{0}`: each has a name of its own"
    )]
    PredictedTwice(String),
    /// An input state that does not fit together, or not with the rest.
    #[error("the input state of interface.json does not fit together: {0}")]
    State(StateProblem),
    /// A model of points that does not fit together.
    #[error("the model of points in interface.json does not fit together: {0}")]
    Points(PointProblem),
    /// A model without ONNX whose interface does not fit together.
    #[error("interface.json does not fit together: {0}")]
    Program(ProgramProblem),
}

/// What does not fit in the dimensions of a tensor.
#[derive(Clone, Debug, thiserror::Error, PartialEq, Eq)]
pub enum DimsProblem {
    /// A dimension twice.
    #[error("one stands there twice")]
    Twice,
    /// Points of the grid are missing.
    #[error("`grid` must be among them")]
    NoGrid,
    /// Several features and no dimension for them.
    #[error("it has several features, so `feature` must be among them")]
    NoFeature,
    /// Several states and no dimension for them.
    #[error("it has several `steps_back`, so `time` must be among them")]
    NoTime,
    /// No state at all, or one twice.
    #[error("`steps_back` names at least one step, and each once")]
    StepsBack,
    /// Noise of no channels, or of too many.
    #[error("`channels` is from 1 to {MOST_CHANNELS}")]
    Channels,
}

/// What does not fit in an input state.
#[derive(Clone, Debug, thiserror::Error, PartialEq, Eq)]
pub enum StateProblem {
    /// Another schema.
    #[error("its schema is `{0}`, and this mlwm reads `{STATE_SCHEMA}`")]
    Schema(String),
    /// Not the fields of the state.
    #[error(
        "its fields are not the features of `state`, or `state` has sources: leave `state` out"
    )]
    Fields,
    /// Times out of order.
    #[error("`offsets_seconds` must ascend and end with 0")]
    Offsets,
    /// A state that the model looks at, and the input has not.
    #[error(
        "a state {0} steps back is needed, {1} s before the analysis time, which is not among `offsets_seconds`"
    )]
    NoOffset(u64, i64),
    /// Standardized, without statistics.
    #[error("`standardization` must be `none`: there are statistics of datastores only")]
    Standardized,
    /// A boundary without a driving state.
    #[error("`boundary_width` must be 0: there is no driving state")]
    Boundary,
    /// Features of datastores.
    #[error(
        "input `{0}` is of datastores: a model that starts from an input state is given its states, its constant fields and noise"
    )]
    Datastores(String),
    /// A static feature or mask that is not a constant field.
    #[error("`{0}` must be one of its fields, with `constant: true` and without `missing`")]
    NotConstant(String),
    /// A range that is none.
    #[error("the range of `{0}` must be two finite numbers, the lesser first")]
    Range(String),
    /// A name that has a meaning of its own.
    #[error("a field or coordinate cannot be called `{0}`")]
    Name(String),
    /// A mask, where there is no input state that could have it.
    #[error("`missing` of `{0}` needs a constant field of an input state, and there is none")]
    NoMask(String),
}

/// What does not fit together in a grid.
#[derive(Clone, Debug, thiserror::Error, PartialEq, Eq)]
pub enum GridProblem {
    /// Not one length per dimension.
    #[error("give one length in `shape` for each of the dimensions in `dims`, at least one")]
    Lengths,
    /// A dimension without points, or more points than can be counted.
    #[error("every length must be at least 1, and the number of points must be countable")]
    Points,
    /// A dimension twice.
    #[error("the dimension `{0}` stands there twice")]
    Dimension(String),
    /// Coordinates of some dimensions only.
    #[error("give the coordinates of all dimensions, or of none")]
    Coordinates,
    /// Coordinates of another length.
    #[error("`{dim}` has {length} points and {coordinates} coordinates")]
    CoordinateLength {
        /// The dimension.
        dim: String,
        /// Its length.
        length: u64,
        /// Number of its coordinates.
        coordinates: usize,
    },
    /// A coordinate that is NaN or infinite.
    #[error("`{0}` has a coordinate that is not a finite number")]
    CoordinateValue(String),
}
