//! What the windows of an output must obey.

use super::{Broken, Problem};
use crate::configuration::{Configuration, Grib, Output};
use crate::dataset_path::is_plain_name;

/// GRIB has a byte for the number of a member, and 255 stands for none.
const MOST_MEMBERS: u32 = 254;

impl Broken {
    pub(super) fn windows(&mut self, configuration: &Configuration) {
        let Some((first_name, first)) = configuration.outputs.first() else {
            return;
        };
        let length = |output: &Output| output.windows.as_ref().map(|windows| windows.length);
        for (name, output) in &configuration.outputs {
            if length(output) != length(first) {
                let problem = Problem::CutOtherwise(first_name.clone());
                self.add(["outputs", name, "windows"], problem);
            }
            let Some(windows) = &output.windows else {
                continue;
            };
            let seconds = windows.length.seconds();
            if seconds <= 0 || seconds % 3600 != 0 {
                self.add(
                    ["outputs", name, "windows", "length"],
                    Problem::WindowLength,
                );
            }
            if output.zarr_format.is_some_and(|format| format != 3) {
                self.add(["outputs", name, "zarr_format"], Problem::CutFormat);
            }
            let wanted = output.variables.as_deref().unwrap_or_default();
            let is_written = |variable: &String| wanted.is_empty() || wanted.contains(variable);
            for variable in windows.stored_as.keys().filter(|name| !is_written(name)) {
                let key = ["outputs", name, "windows", "stored_as", variable];
                self.add(key, Problem::NotWritten(variable.clone()));
            }
            for variable in windows.missing.iter().filter(|name| !is_written(name)) {
                let key = ["outputs", name, "windows", "missing"];
                self.add(key, Problem::NotWritten(variable.clone()));
            }
            if let Some(grib) = &windows.grib {
                if !windows.stored_as.is_empty() {
                    let key = ["outputs", name, "windows", "stored_as"];
                    self.add(key, Problem::StoredAsGrib);
                }
                self.grib(name, grib, is_written);
            }
        }
    }

    fn grib(&mut self, output: &str, grib: &Grib, is_written: impl Fn(&String) -> bool) {
        let key = |last| ["outputs", output, "windows", "grib", last];
        if !is_plain_name(&grib.prefix) {
            self.add(key("prefix"), Problem::Prefix(grib.prefix.clone()));
        }
        if !(1..=32).contains(&grib.bits_per_value) {
            self.add(key("bits_per_value"), Problem::BitsPerValue);
        }
        let size = grib.ensemble_size;
        if size.is_some_and(|size| !(1..=MOST_MEMBERS).contains(&size)) {
            self.add(key("ensemble_size"), Problem::EnsembleSize);
        }
        for (variable, parameter) in &grib.parameters {
            let key = || key("parameters").into_iter().chain([variable.as_str()]);
            if !is_written(variable) {
                self.add(key(), Problem::NotWritten(variable.clone()));
            }
            if parameter.type_of_level.is_some() && parameter.level.is_none() {
                self.add(key(), Problem::TypeOfNoLevel);
            }
        }
    }
}
