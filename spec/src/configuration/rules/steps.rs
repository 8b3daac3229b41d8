//! The rules for steps and what they are repeated over.

use std::collections::BTreeSet;

use super::{Broken, Key, Problem, broken_by_model};
use crate::Members;
use crate::configuration::{Configuration, Files, Part, StepProblem};

/// The largest seed that every reader of JSON has exactly.
const LARGEST_SEED: u64 = (1 << 53) - 1;

/// Every rule that a configuration with steps or repetitions breaks.
pub(super) fn broken(configuration: &Configuration) -> Vec<(Key, Problem)> {
    let mut broken = Broken(Vec::new());
    if !configuration.steps.is_empty() {
        broken.beside_steps(configuration);
    }
    broken.step_names(configuration);
    broken.read_by_none(configuration);
    if !broken.0.is_empty() {
        return broken.0;
    }
    // Which files there are is not known yet; for what must hold of each, one will do.
    let files: Files = configuration
        .patterns()
        .map(|pattern| {
            (
                pattern.to_owned(),
                vec!["file".to_owned(), "other".to_owned()],
            )
        })
        .collect();
    let parts = match configuration.parts("image", &files) {
        Ok(parts) => parts,
        Err((key, problem)) => return vec![(key, problem.into())],
    };
    let mut seen = BTreeSet::new();
    for (at, part) in parts.iter().enumerate() {
        if !seen.insert(part.step) {
            continue;
        }
        let prefix = prefix(part);
        let found = broken_by_model(&part.configuration);
        let found = found
            .into_iter()
            .map(|(key, problem)| ([&prefix[..], &key].concat(), problem));
        broken.0.extend(found);
        let next = parts.get(at + 1).filter(|next| next.step == part.step);
        if let Some(next) = next {
            broken.one_place(configuration, part, next);
        }
    }
    broken.0
}

fn prefix(part: &Part) -> Key {
    let at = part.step.map(|at| vec!["steps".to_owned(), at.to_string()]);
    at.unwrap_or_default()
}

impl Broken {
    /// What only a step has.
    pub(super) fn no_step(&mut self, configuration: &Configuration) {
        if configuration.name.is_some() {
            self.add(["name"], StepProblem::OfAStep("name").into());
        }
        for (name, input) in &configuration.inputs {
            if input.from.is_some() {
                self.add(
                    ["inputs", name, "from"],
                    StepProblem::OfAStep("from").into(),
                );
            }
        }
    }

    /// What belongs to one of the steps.
    fn beside_steps(&mut self, configuration: &Configuration) {
        let there = [
            ("artifact", configuration.artifact.is_some()),
            ("command", configuration.command.is_some()),
            ("foreach", configuration.foreach.is_some()),
            ("inputs", !configuration.inputs.is_empty()),
            ("outputs", !configuration.outputs.is_empty()),
            (
                "forecast_duration",
                configuration.forecast_duration.is_some(),
            ),
            ("time_layout", configuration.time_layout.is_some()),
            ("members", configuration.members.is_some()),
            ("seed", configuration.seed.is_some()),
            ("deterministic", configuration.deterministic),
            ("ensemble", configuration.ensemble.is_some()),
        ];
        for (key, _) in there.into_iter().filter(|(_, is_there)| *is_there) {
            self.add([key], StepProblem::BesideSteps(key).into());
        }
        if configuration.name.is_some() {
            self.add(["name"], StepProblem::OfAStep("name").into());
        }
    }

    /// What is kept until it is read is that of a step.
    pub(super) fn kept_alone(&mut self, configuration: &Configuration) {
        for (name, output) in &configuration.outputs {
            if !output.keep.is_default() {
                self.add(
                    ["outputs", name, "keep"],
                    StepProblem::OfAStep("keep").into(),
                );
            }
        }
    }

    /// What is kept until it is read must be read.
    fn read_by_none(&mut self, configuration: &Configuration) {
        for (at, step) in configuration.steps.iter().enumerate() {
            let name = step.name.as_deref().unwrap_or_default();
            let inputs = configuration
                .steps
                .iter()
                .flat_map(|step| step.inputs.values());
            let mut from = inputs.filter_map(|input| input.from.as_deref());
            let mut reads = |output: &str| {
                from.any(|from| match from.split_once('.') {
                    Some((of, one)) => of == name && one == output,
                    None => from == name,
                })
            };
            for (output, made) in &step.outputs {
                if !made.keep.is_default() && !reads(output) {
                    let key = ["steps", &at.to_string(), "outputs", output, "keep"];
                    self.add(key, StepProblem::ReadByNone.into());
                }
            }
        }
    }

    fn step_names(&mut self, configuration: &Configuration) {
        let mut seen = BTreeSet::new();
        let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-');
        for (at, step) in configuration.steps.iter().enumerate() {
            let at = at.to_string();
            match step.name.as_deref() {
                None => self.add(["steps", &at], StepProblem::NoName.into()),
                Some(name) if name.is_empty() || !name.chars().all(plain) || !seen.insert(name) => {
                    self.add(
                        ["steps", &at, "name"],
                        StepProblem::Name(name.to_owned()).into(),
                    );
                }
                Some(_) => {}
            }
            if !step.steps.is_empty() {
                self.add(["steps", &at, "steps"], StepProblem::StepsOfAStep.into());
            }
        }
    }

    /// Repetitions have outputs of their own.
    fn one_place(&mut self, configuration: &Configuration, part: &Part, next: &Part) {
        let step = part.step.and_then(|at| configuration.steps.get(at));
        let foreach = step.unwrap_or(configuration).foreach.as_ref();
        let variable = foreach.map_or("", |foreach| foreach.variable());
        for (name, output) in &part.configuration.outputs {
            let other = next.configuration.outputs.get(name);
            let is_one = other.is_some_and(|other| {
                (&other.uri, &other.uri_args) == (&output.uri, &output.uri_args)
            });
            if is_one {
                let key = [&prefix(part)[..], &["outputs".to_owned(), name.clone()]].concat();
                self.0
                    .push((key, StepProblem::OnePlace(variable.to_owned()).into()));
            }
        }
    }

    /// What is no Zarr store has nothing of one.
    pub(super) fn forms(&mut self, configuration: &Configuration) {
        for (name, output) in &configuration.outputs {
            if output.replace && output.windows.is_some() {
                self.add(["outputs", name, "replace"], Problem::ReplaceWindows);
            }
            let is_needed = output.windows.is_some() || configuration.ensemble.is_some();
            if !output.keep.is_default() && is_needed {
                self.add(["outputs", name, "keep"], Problem::KeepNeeded);
            }
            if output.format.is_default() {
                continue;
            }
            for (key, is_there) in [
                ("variables", output.variables.is_some()),
                ("ranges", !output.ranges.is_empty()),
                ("windows", output.windows.is_some()),
                ("zarr_format", output.zarr_format.is_some()),
            ] {
                if is_there {
                    self.add(["outputs", name, key], Problem::OfFiles(key));
                }
            }
        }
    }

    /// The command, and the seed.
    pub(super) fn command(&mut self, configuration: &Configuration) {
        let command = configuration.command.as_ref();
        if command.is_some_and(|command| command.first().is_none_or(String::is_empty)) {
            self.add(["command"], Problem::Command);
        }
        let members = configuration.members.as_ref();
        let last = members.and_then(|members| Members::iter(members).last());
        let last = u64::from(last.unwrap_or(0));
        if configuration
            .seed
            .is_some_and(|seed| seed > LARGEST_SEED - last)
        {
            self.add(["seed"], Problem::Seed);
        }
    }
}
