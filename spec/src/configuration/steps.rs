//! Steps: what a configuration runs one after the other, each in a container of its own, and what each is
//! repeated over.

mod expand;
mod foreach;
mod value;

pub use expand::{Files, Part};
pub use foreach::{Foreach, InvalidForeach};

/// What steps cannot be carried out for.
#[derive(Clone, Debug, thiserror::Error, PartialEq, Eq)]
pub enum StepProblem {
    /// A key of a step outside of one.
    #[error("`{0}` belongs to a step: move it into `steps`, or take it out")]
    OfAStep(&'static str),
    /// A key of a model beside steps.
    #[error("a configuration with `steps` has no `{0}` of its own: move it into a step")]
    BesideSteps(&'static str),
    /// Steps within a step.
    #[error("a step has no steps: write them all in one list")]
    StepsOfAStep,
    /// A step without a name.
    #[error("the step has no name: add `name`, of letters, digits, `_` and `-`")]
    NoName,
    /// A name that cannot be one.
    #[error(
        "`{0}` cannot be the name of a step: use letters, digits, `_` and `-`, and each name once"
    )]
    Name(String),
    /// An input of a step that is not there.
    #[error("there is no step `{step}`: the steps are {known}")]
    NoSuchStep {
        /// The step that is named.
        step: String,
        /// Those that there are.
        known: String,
    },
    /// An input of an output that is not there, or of one of several.
    #[error("step `{step}` has the outputs {known}: write `{step}.` and the name of one")]
    NoSuchOutput {
        /// The step that is named.
        step: String,
        /// Its outputs.
        known: String,
    },
    /// An input from a step that is not repeated for what this one is.
    #[error("step `{step}` is not run for `{value}`: let both go over the same")]
    NoSuchValue {
        /// The step that is named.
        step: String,
        /// What this one is run for.
        value: String,
    },
    /// Steps that wait for one another.
    #[error("the steps wait for one another, so that none can begin: {0}")]
    Circle(String),
    /// An input of a step and of a place.
    #[error("the dataset has a place and comes `from` a step: keep one")]
    FromAndPlace,
    /// Outputs of all repetitions at one place.
    #[error(
        "the step is repeated, and all its outputs would be published at this one place: add {{{0}}}"
    )]
    OnePlace(String),
    /// Members at places that are made of parts.
    #[error(
        "the output of a step that goes over members is given by `uri`, so that another can read it"
    )]
    MembersByParts,
    /// An output that is kept until it is read, and that no step reads.
    #[error(
        "no step has an input `from` this output, which is kept until it is read: take this key out"
    )]
    ReadByNone,
    /// Members and something else.
    #[error(
        "the step goes over something else already: take `members` out, or give the step `foreach: member in …`"
    )]
    MembersTwice,
    /// A pattern that no file is named by.
    #[error("no file is named like `{0}`: check the folder, or put the files there first")]
    NoFiles(String),
    /// A file whose name cannot be that of a repetition.
    #[error(
        "`{name}` is named like `{pattern}`, but has a space or one of `\\?#%*{{}}` in its name: call it otherwise, or take a narrower pattern"
    )]
    FileName {
        /// The file.
        name: String,
        /// The pattern.
        pattern: String,
    },
    /// A placeholder whose form is unknown.
    #[error("`{{{0}}}` has a part or form that mlwm does not know: see docs/steps.md")]
    Placeholder(String),
    /// Values that have the same name.
    #[error("`{0}` is twice in what the step goes over: name each once")]
    Twice(String),
}
