//! The parts of a configuration: of each step one for each of what it is repeated over.

use std::collections::BTreeMap;

use indexmap::IndexMap;

use super::StepProblem;
use super::foreach::Foreach;
use super::value::Value;
use crate::Members;
use crate::configuration::{Configuration, Input, Output};

/// What members are called in texts.
const MEMBER: &str = "member";

/// The names of the files that each pattern stands for.
pub type Files = BTreeMap<String, Vec<String>>;

/// What is run in one container (of each member): a configuration without steps, whose places have no
/// placeholders but analysis time and member.
#[derive(Clone, Debug, PartialEq)]
pub struct Part {
    /// Behind the name of the configuration: `grib2zarr/2020-02`; empty if the configuration has no steps.
    pub name: String,
    /// What it does.
    pub configuration: Configuration,
    /// Its place in `steps`; `None` if the configuration has none.
    pub step: Option<usize>,
}

/// A problem and the key of what has it, step by step.
type Refused = (Vec<String>, StepProblem);

impl Configuration {
    /// Whether it has steps, or is repeated: its tasks then have names behind its own.
    pub fn has_parts(&self) -> bool {
        !self.steps.is_empty() || self.foreach.is_some()
    }

    /// The patterns of files that its steps are repeated over.
    pub fn patterns(&self) -> impl Iterator<Item = &str> {
        let all = self.steps.iter().chain([self]);
        all.filter_map(|step| step.foreach.as_ref()?.pattern())
    }

    /// All that is run, each step behind those that it reads from; `files` says which files there are. A step
    /// without an image runs in that of the configuration, `image`.
    ///
    /// # Errors
    /// The key of what cannot be carried out, and why.
    pub fn parts(&self, image: &str, files: &Files) -> Result<Vec<Part>, Refused> {
        if self.steps.is_empty() {
            let mut one = self.clone();
            if one.foreach.is_some() {
                one.docker_image.get_or_insert_with(|| image.to_owned());
            }
            return one.repeated(None, "", &[], files);
        }
        let mut parts = Vec::new();
        for at in self.order()? {
            let mut step = self.steps[at].clone();
            let own = step
                .docker_image
                .take()
                .or_else(|| self.docker_image.clone());
            step.docker_image = Some(own.unwrap_or_else(|| image.to_owned()));
            step.timeout = step.timeout.or(self.timeout);
            step.retries = step.retries.take().or_else(|| self.retries.clone());
            for (name, value) in &self.environment {
                let set = step.environment.entry(name.clone());
                set.or_insert_with(|| value.clone());
            }
            let name = step.name.take().unwrap_or_default();
            parts.extend(step.repeated(Some(at), &name, &self.steps, files)?);
        }
        Ok(parts)
    }

    /// The places of the steps in their list, each behind those that it reads from, else as they are written.
    fn order(&self) -> Result<Vec<usize>, Refused> {
        let mut order: Vec<usize> = Vec::new();
        while order.len() < self.steps.len() {
            let is_ready = |at: &usize| {
                let mut inputs = self.steps[*at].inputs.values();
                !order.contains(at)
                    && inputs.all(|input| match sources(input, &self.steps) {
                        Some(source) => order.contains(&source),
                        None => true,
                    })
            };
            match (0..self.steps.len()).find(is_ready) {
                Some(ready) => order.push(ready),
                None => {
                    let waiting = (0..self.steps.len()).filter(|at| !order.contains(at));
                    let names: Vec<&str> = waiting
                        .filter_map(|at| self.steps[at].name.as_deref())
                        .collect();
                    return Err((
                        vec!["steps".to_owned()],
                        StepProblem::Circle(names.join(", ")),
                    ));
                }
            }
        }
        Ok(order)
    }

    /// This step for each of what it is repeated over.
    fn repeated(
        &self,
        at: Option<usize>,
        name: &str,
        steps: &[Configuration],
        files: &Files,
    ) -> Result<Vec<Part>, Refused> {
        let refused = |last: &[&str], problem| {
            let key = at.map(|at| vec!["steps".to_owned(), at.to_string()]);
            let last = last.iter().map(|key| (*key).to_owned());
            (
                key.unwrap_or_default().into_iter().chain(last).collect(),
                problem,
            )
        };
        let mut one = self.clone();
        let foreach = one.foreach.take();
        let values = match &foreach {
            None => Vec::new(),
            Some(_) if one.members.is_some() => {
                return Err(refused(&["members"], StepProblem::MembersTwice));
            }
            Some(foreach) if foreach.members().is_some() => {
                one.members = foreach.members().cloned();
                Vec::new()
            }
            Some(foreach) => foreach
                .values(files)
                .map_err(|problem| refused(&["foreach"], problem))?,
        };
        let settle = |mut one: Configuration, value: Option<&Value>| {
            let variable = foreach.as_ref().map_or("", Foreach::variable);
            let inputs = std::mem::take(&mut one.inputs);
            for (input, read) in inputs {
                let read = settle_input(
                    &input,
                    read,
                    (variable, value),
                    one.members.as_ref(),
                    steps,
                    files,
                )
                .map_err(|problem| refused(&["inputs", &input], problem))?;
                one.inputs.extend(read);
            }
            if let Some(value) = value {
                substitute(&mut one, value, variable)
                    .map_err(|(key, problem)| refused(&key, problem))?;
            }
            Ok(one)
        };
        let mut parts = Vec::new();
        for value in &values {
            let value_name = value.name();
            let name = match name.is_empty() {
                true => value_name,
                false => format!("{name}/{value_name}"),
            };
            parts.push(Part {
                name,
                configuration: settle(one.clone(), Some(value))?,
                step: at,
            });
        }
        if values.is_empty() {
            parts.push(Part {
                name: name.to_owned(),
                configuration: settle(one, None)?,
                step: at,
            });
        }
        Ok(parts)
    }
}

/// The step that an input comes from.
fn sources(input: &Input, steps: &[Configuration]) -> Option<usize> {
    let from = input.from.as_deref()?;
    let (step, _) = from.split_once('.').unwrap_or((from, ""));
    steps
        .iter()
        .position(|other| other.name.as_deref() == Some(step))
}

/// An input with its place: as many as there are outputs that it comes from.
fn settle_input(
    name: &str,
    mut input: Input,
    (variable, value): (&str, Option<&Value>),
    members: Option<&Members>,
    steps: &[Configuration],
    files: &Files,
) -> Result<IndexMap<String, Input>, StepProblem> {
    let Some(from) = input.from.take() else {
        return Ok(IndexMap::from([(name.to_owned(), input)]));
    };
    if input.uri.is_some() || input.uri_args.is_some() {
        return Err(StepProblem::FromAndPlace);
    }
    let (step, output) = match from.split_once('.') {
        Some((step, output)) => (step, Some(output)),
        None => (&*from, None),
    };
    let source = steps
        .iter()
        .find(|other| other.name.as_deref() == Some(step));
    let source = source.ok_or_else(|| StepProblem::NoSuchStep {
        step: step.to_owned(),
        known: listed(steps.iter().filter_map(|step| step.name.as_deref())),
    })?;
    let output = output_of(source, step, output)?;
    input.uri.clone_from(&output.uri);
    input.uri_args.clone_from(&output.uri_args);
    let (their_variable, theirs) = match (&source.foreach, &source.members) {
        (Some(foreach), _) => (foreach.variable(), foreach.values(files)?),
        (None, Some(members)) => (MEMBER, members.iter().map(Value::Member).collect()),
        (None, None) => return Ok(IndexMap::from([(name.to_owned(), input)])),
    };
    // Each member reads its own.
    let is_own_member = |value: &Value| matches!(value, Value::Member(_)) && members.is_some();
    if members.is_some() && theirs.iter().all(is_own_member) {
        let without = members
            .into_iter()
            .flat_map(Members::iter)
            .find(|member| !theirs.contains(&Value::Member(*member)));
        return match without {
            Some(member) => Err(no_such_value(step, &member.to_string())),
            None => Ok(IndexMap::from([(name.to_owned(), input)])),
        };
    }
    if their_variable == MEMBER && input.uri.is_none() {
        return Err(StepProblem::MembersByParts);
    }
    let fill = |input: &mut Input, value: &Value| {
        if let Some(uri) = &mut input.uri {
            *uri = value.substitute(uri, their_variable)?;
        }
        Ok(())
    };
    // What goes over the same reads the one that is its own.
    if let Some(value) = value.filter(|_| variable == their_variable) {
        if !theirs.contains(value) {
            return Err(no_such_value(step, &value.name()));
        }
        fill(&mut input, value)?;
        return Ok(IndexMap::from([(name.to_owned(), input)]));
    }
    let suffix = suffix(&output.internal_path);
    let mut all = IndexMap::new();
    for value in &theirs {
        let called = value.name();
        let mut one = input.clone();
        fill(&mut one, value)?;
        one.internal_path = format!("{}/{called}{suffix}", input.internal_path);
        all.insert(format!("{name}.{called}"), one);
    }
    Ok(all)
}

fn output_of<'a>(
    source: &'a Configuration,
    step: &str,
    wanted: Option<&str>,
) -> Result<&'a Output, StepProblem> {
    let found = match wanted {
        Some(name) => source.outputs.get(name),
        None if source.outputs.len() == 1 => source.outputs.values().next(),
        None => None,
    };
    found.ok_or_else(|| StepProblem::NoSuchOutput {
        step: step.to_owned(),
        known: listed(source.outputs.keys().map(String::as_str)),
    })
}

fn no_such_value(step: &str, value: &str) -> StepProblem {
    StepProblem::NoSuchValue {
        step: step.to_owned(),
        value: value.to_owned(),
    }
}

fn listed<'a>(names: impl Iterator<Item = &'a str>) -> String {
    let names: Vec<String> = names.map(|name| format!("`{name}`")).collect();
    names.join(", ")
}

/// `.zarr` of `/volume/out/store.zarr`.
fn suffix(path: &str) -> &str {
    let name = path.rsplit('/').next().unwrap_or_default();
    name.find('.').map_or("", |dot| &name[dot..])
}

/// Fills in the value in all texts that are made for each.
fn substitute<'a>(
    one: &mut Configuration,
    value: &Value,
    variable: &str,
) -> Result<(), (Vec<&'a str>, StepProblem)> {
    let fill = |text: &mut String| {
        *text = value.substitute(text, variable)?;
        Ok::<_, StepProblem>(())
    };
    for input in one.inputs.values_mut() {
        let mut texts = input.uri.iter_mut().chain([&mut input.internal_path]);
        texts
            .try_for_each(fill)
            .map_err(|problem| (vec!["inputs"], problem))?;
    }
    for output in one.outputs.values_mut() {
        let mut texts = output.uri.iter_mut().chain([&mut output.internal_path]);
        texts
            .try_for_each(fill)
            .map_err(|problem| (vec!["outputs"], problem))?;
    }
    let mut command = one.command.iter_mut().flatten();
    command
        .try_for_each(fill)
        .map_err(|problem| (vec!["command"], problem))?;
    let mut environment = one.environment.values_mut();
    environment
        .try_for_each(fill)
        .map_err(|problem| (vec!["environment"], problem))
}

#[cfg(test)]
mod tests {
    use super::*;

    const PIPELINE: &str = "
steps:
  - name: store
    command: [concat, '{inputs.months}', '{outputs.store}']
    inputs:
      months: {from: month, internal_path: /volume/months}
    outputs:
      store: {uri: ./out/store.zarr, internal_path: /volume/store.zarr}
  - name: month
    foreach: month in 2020-02..2020-04
    docker_image: tools:1
    command: [grib2zarr, '--from', '{month:%Y%m%d}']
    inputs:
      grib: {uri: './in/{month:%Y%m}', internal_path: /volume/grib}
    outputs:
      zarr: {uri: './out/{month}.zarr', internal_path: /volume/month.zarr}
  - name: check
    foreach: month in 2020-03..2020-04
    inputs:
      one: {from: month.zarr, internal_path: /volume/month.zarr}
    outputs:
      report: {uri: './out/report_{month}', internal_path: /volume/report, format: files}
";

    fn parts(text: &str) -> Result<Vec<Part>, Refused> {
        let configuration: Configuration = crate::yaml::parse(text, "x").unwrap();
        configuration.parts("mlwm/x:latest", &Files::new())
    }

    #[test]
    fn each_step_is_behind_those_that_it_reads_from() {
        let parts = parts(PIPELINE).unwrap();
        let names: Vec<&str> = parts.iter().map(|part| &*part.name).collect();
        assert_eq!(
            names,
            [
                "month/2020-02",
                "month/2020-03",
                "month/2020-04",
                "store",
                "check/2020-03",
                "check/2020-04"
            ]
        );
        let month = &parts[0].configuration;
        assert_eq!(month.docker_image.as_deref(), Some("tools:1"));
        assert_eq!(month.command.as_deref().unwrap()[2], "20200201");
        assert_eq!(month.inputs["grib"].uri.as_deref(), Some("./in/202002"));
        let store = &parts[3].configuration;
        assert_eq!(store.docker_image.as_deref(), Some("mlwm/x:latest"));
        let inputs: Vec<_> = store.inputs.iter().collect();
        assert_eq!(inputs.len(), 3);
        assert_eq!(inputs[2].0, "months.2020-04");
        assert_eq!(inputs[2].1.uri.as_deref(), Some("./out/2020-04.zarr"));
        assert_eq!(inputs[2].1.internal_path, "/volume/months/2020-04.zarr");
        let check = &parts[4].configuration;
        assert_eq!(
            check.inputs["one"].uri.as_deref(),
            Some("./out/2020-03.zarr")
        );
    }

    #[test]
    fn a_model_is_its_one_part() {
        let parts =
            parts("{outputs: {a: {uri: ./a.zarr, internal_path: /volume/a.zarr}}, members: 0-3}")
                .unwrap();
        assert_eq!(parts.len(), 1);
        assert_eq!(parts[0].name, "");
        assert_eq!(parts[0].configuration.members, "0-3".parse().ok());
    }

    #[test]
    fn members_read_their_own_and_all_are_read_by_what_has_none() {
        let text = "
steps:
  - name: run
    foreach: member in 0-1
    outputs: {a: {uri: './a/{member:03}.zarr', internal_path: /volume/a.zarr}}
  - name: each
    foreach: member in 0-1
    inputs: {a: {from: run, internal_path: /volume/a.zarr}}
    outputs: {b: {uri: './b/{member}.zarr', internal_path: /volume/b.zarr}}
  - name: mean
    inputs: {all: {from: each, internal_path: /volume/all}}
    outputs: {c: {uri: './c.zarr', internal_path: /volume/c.zarr}}
";
        let parts = parts(text).unwrap();
        assert_eq!(parts.len(), 3);
        let each = &parts[1].configuration;
        assert_eq!(each.members, "0-1".parse().ok());
        assert_eq!(
            each.inputs["a"].uri.as_deref(),
            Some("./a/{member:03}.zarr")
        );
        let mean = &parts[2].configuration;
        assert_eq!(mean.members, None);
        assert_eq!(mean.inputs["all.1"].uri.as_deref(), Some("./b/1.zarr"));
        assert_eq!(mean.inputs["all.1"].internal_path, "/volume/all/1.zarr");
    }

    #[test]
    fn what_cannot_be_carried_out_is_named() {
        let refused = |from: &str, to: &str| {
            assert!(PIPELINE.contains(from), "{from}");
            parts(&PIPELINE.replace(from, to)).unwrap_err()
        };
        let (key, problem) = refused("from: month,", "from: months,");
        assert_eq!(key.join("."), "steps.0.inputs.months");
        assert!(
            problem.to_string().contains("`store`, `month`, `check`"),
            "{problem}"
        );
        let (_, problem) = refused("from: month.zarr", "from: month.grib");
        assert!(matches!(problem, StepProblem::NoSuchOutput { .. }));
        let (_, problem) = refused("2020-03..2020-04", "2020-03..2020-05");
        assert!(
            matches!(problem, StepProblem::NoSuchValue { ref value, .. } if value == "2020-05")
        );
        let (_, problem) = refused("grib: {uri: './in/{month:%Y%m}'", "grib: {from: store");
        assert_eq!(
            problem,
            StepProblem::Circle("store, month, check".to_owned())
        );
        let (key, problem) = refused("{month:%Y%m%d}", "{month:%Q}");
        assert_eq!(key.join("."), "steps.1.command");
        assert!(matches!(problem, StepProblem::Placeholder(_)));
    }
}
