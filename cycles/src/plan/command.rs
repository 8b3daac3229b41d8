//! The command of a task: what its configuration writes, with the paths that its container has.

use mlwm_spec::AnalysisTime;

use super::{PlannedInput, PlannedOutput};

/// The command with the paths of inputs and outputs, analysis time and member in it. An argument that is
/// nothing but an input that is several becomes as many. The error says what it names that is not there.
pub(super) fn settle(
    command: &[String],
    inputs: &[PlannedInput],
    outputs: &[PlannedOutput],
    analysis_time: AnalysisTime,
    member: u32,
) -> Result<Vec<String>, String> {
    let mut settled = Vec::with_capacity(command.len());
    for argument in command {
        let whole = argument
            .strip_prefix("{inputs.")
            .and_then(|rest| rest.strip_suffix('}'));
        if let Some(name) = whole.filter(|name| !name.contains(['{', '}'])) {
            settled.extend(paths(name, inputs)?.into_iter().map(str::to_owned));
            continue;
        }
        settled.push(fill(argument, inputs, outputs, analysis_time, member)?);
    }
    Ok(settled)
}

fn fill(
    argument: &str,
    inputs: &[PlannedInput],
    outputs: &[PlannedOutput],
    analysis_time: AnalysisTime,
    member: u32,
) -> Result<String, String> {
    let mut filled = String::with_capacity(argument.len());
    let mut rest = argument;
    while let Some((before, from)) = rest.split_once('{') {
        filled.push_str(before);
        let named = from.split_once('}').filter(|(name, _)| !name.contains('{'));
        let value = match named.map(|(name, _)| name) {
            Some("analysis_time") => Some(analysis_time.to_string()),
            Some("member") => Some(member.to_string()),
            Some(name) => match (name.strip_prefix("inputs."), name.strip_prefix("outputs.")) {
                (Some(name), _) => Some(one(name, inputs)?.to_owned()),
                (_, Some(name)) => Some(output(name, outputs)?.to_owned()),
                _ => None,
            },
            None => None,
        };
        match (value, named) {
            (Some(value), Some((_, after))) => {
                filled.push_str(&value);
                rest = after;
            }
            // Braces of the program's own.
            _ => {
                filled.push('{');
                rest = from;
            }
        }
    }
    filled.push_str(rest);
    Ok(filled)
}

/// The paths of an input, which is several if it comes from a step that is repeated.
fn paths<'a>(name: &str, inputs: &'a [PlannedInput]) -> Result<Vec<&'a str>, String> {
    let path = |input: &'a PlannedInput| &*input.internal_path;
    if let Some(input) = inputs.iter().find(|input| input.name == name) {
        return Ok(vec![path(input)]);
    }
    let is_one = |input: &&PlannedInput| {
        let rest = input.name.strip_prefix(name);
        rest.is_some_and(|rest| rest.starts_with('.'))
    };
    let all: Vec<&str> = inputs.iter().filter(is_one).map(path).collect();
    match all.is_empty() {
        true => Err(format!("there is no input `{name}`")),
        false => Ok(all),
    }
}

fn one<'a>(name: &str, inputs: &'a [PlannedInput]) -> Result<&'a str, String> {
    match paths(name, inputs)?.as_slice() {
        [path] => Ok(path),
        several => Err(format!(
            "input `{name}` is {} datasets: make `{{inputs.{name}}}` an argument of its own",
            several.len()
        )),
    }
}

fn output<'a>(name: &str, outputs: &'a [PlannedOutput]) -> Result<&'a str, String> {
    let found = outputs.iter().find(|output| output.name == name);
    found
        .map(|output| &*output.internal_path)
        .ok_or_else(|| format!("there is no output `{name}`"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn input(name: &str, path: &str) -> PlannedInput {
        PlannedInput {
            name: name.to_owned(),
            uri: "./x".to_owned(),
            dated: None,
            internal_path: path.to_owned(),
            until_read: false,
            datastore_inputs: Vec::new(),
            convert: None,
        }
    }

    fn settled(argument: &str) -> Result<Vec<String>, String> {
        let inputs = [
            input("mask", "/in/mask.nc"),
            input("months.01", "/in/01"),
            input("months.02", "/in/02"),
        ];
        let output = PlannedOutput {
            name: "store".to_owned(),
            uri: "./y".to_owned(),
            internal_path: "/out/store.zarr".to_owned(),
            ..PlannedOutput::default()
        };
        let time = "2020-01-01T00:00Z".parse().unwrap();
        settle(&[argument.to_owned()], &inputs, &[output], time, 3)
    }

    #[test]
    fn paths_time_and_member_are_filled_in() {
        for (argument, expected) in [
            ("--mask={inputs.mask}", "--mask=/in/mask.nc"),
            ("{outputs.store}", "/out/store.zarr"),
            ("{analysis_time} {member}", "2020-01-01T00:00Z 3"),
            ("{\"a\": ${x}} {", "{\"a\": ${x}} {"),
        ] {
            assert_eq!(settled(argument).unwrap(), [expected]);
        }
        assert_eq!(settled("{inputs.months}").unwrap(), ["/in/01", "/in/02"]);
    }

    #[test]
    fn what_is_not_there_is_named() {
        assert!(settled("{inputs.month}").unwrap_err().contains("`month`"));
        assert!(settled("{outputs.x}").unwrap_err().contains("`x`"));
        assert!(
            settled("--in={inputs.months}")
                .unwrap_err()
                .contains("2 datasets")
        );
    }
}
