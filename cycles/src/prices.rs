//! What a run costs, by a table of prices.

use std::collections::BTreeMap;

use mlwm_spec::yaml;
use serde::{Deserialize, Serialize};

use crate::Error;

/// Bytes of a GB.
const GB: f64 = 1e9;
/// Seconds of an hour.
const HOUR: f64 = 3600.0;

/// A table of prices. What is not in it costs nothing.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Prices {
    /// What the prices are in, such as `USD`.
    pub currency: String,
    /// One hour of this machine, whatever it does, from the beginning of the run to its end.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub machine_hour: Option<Price>,
    /// One hour of one GPU, while a model runs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gpu_hour: Option<Price>,
    /// One hour of one processor, while a model runs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cpu_hour: Option<Price>,
    /// 10⁹ bytes staged.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gb_in: Option<Price>,
    /// 10⁹ bytes published.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gb_out: Option<Price>,
}

/// A price: a finite number, 0 or more.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "f64", into = "f64")]
pub struct Price(f64);

/// A number that is no price.
#[derive(Clone, Copy, Debug, PartialEq, thiserror::Error)]
#[error("{0} is no price: write a number, 0 or more")]
pub struct InvalidPrice(f64);

impl TryFrom<f64> for Price {
    type Error = InvalidPrice;

    fn try_from(number: f64) -> Result<Self, InvalidPrice> {
        match number.is_finite() && number >= 0.0 {
            true => Ok(Self(number)),
            false => Err(InvalidPrice(number)),
        }
    }
}

impl From<Price> for f64 {
    fn from(price: Price) -> Self {
        price.0
    }
}

/// What something cost.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Cost {
    /// All of it.
    pub total: f64,
    /// By the price that it comes from.
    pub parts: BTreeMap<&'static str, f64>,
}

/// What a task used.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) struct Use {
    /// Seconds for which its model ran, in all attempts.
    pub(crate) model_seconds: f64,
    pub(crate) gpus: f64,
    pub(crate) cpus: f64,
    pub(crate) bytes_in: u64,
    pub(crate) bytes_out: u64,
}

impl Prices {
    /// Reads a table from YAML; `name` is what errors call it.
    ///
    /// # Errors
    /// [`Error::Prices`], with the line and key.
    pub fn parse(text: &str, name: &str) -> Result<Self, Error> {
        yaml::parse(text, name).map_err(Error::Prices)
    }

    /// What each task of a run cost, and the run. The machine is shared among the tasks by how long their models
    /// ran; if none did, it is part of the run's cost alone.
    pub(crate) fn costs(&self, run_seconds: f64, tasks: &[Use]) -> (Vec<Cost>, Cost) {
        let models: f64 = tasks.iter().map(|task| task.model_seconds).sum();
        let machine_seconds = |share: f64| share * run_seconds / HOUR;
        let costs: Vec<Cost> = tasks
            .iter()
            .map(|task| {
                let hours = task.model_seconds / HOUR;
                let share = match models > 0.0 {
                    true => task.model_seconds / models,
                    false => 0.0,
                };
                self.cost(&[
                    machine_seconds(share),
                    task.gpus * hours,
                    task.cpus * hours,
                    task.bytes_in as f64 / GB,
                    task.bytes_out as f64 / GB,
                ])
            })
            .collect();
        let mut all = Cost::default();
        for (name, cost) in costs.iter().flat_map(|cost| &cost.parts) {
            *all.parts.entry(name).or_default() += cost;
        }
        if let Some(price) = self.machine_hour {
            all.parts
                .insert("machine_hour", price.0 * machine_seconds(1.0));
        }
        all.total = all.parts.values().sum();
        (costs, all)
    }

    fn cost(&self, amounts: &[f64; 5]) -> Cost {
        let prices = [
            ("machine_hour", self.machine_hour),
            ("gpu_hour", self.gpu_hour),
            ("cpu_hour", self.cpu_hour),
            ("gb_in", self.gb_in),
            ("gb_out", self.gb_out),
        ];
        let parts: BTreeMap<&'static str, f64> = prices
            .into_iter()
            .zip(amounts)
            .filter_map(|((name, price), amount)| Some((name, price?.0 * amount)))
            .collect();
        Cost {
            total: parts.values().sum(),
            parts,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALL: &str = "currency: USD
machine_hour: 3.6
gpu_hour: 7.2
cpu_hour: 0.36
gb_in: 0.5
gb_out: 2
";

    fn close(found: f64, wanted: f64) {
        assert!((found - wanted).abs() < 1e-12, "{found} {wanted}");
    }

    #[test]
    fn a_run_costs_what_its_parts_do() {
        let prices = Prices::parse(ALL, "prices.yaml").unwrap();
        let used = |model_seconds, bytes_out| Use {
            model_seconds,
            gpus: 2.0,
            cpus: 4.0,
            bytes_in: 1_000_000_000,
            bytes_out,
        };
        let (tasks, all) = prices.costs(100.0, &[used(60.0, 500_000_000), used(20.0, 0)]);
        // 60 s are 1/60 of an hour: 2 GPUs at 7.2, 4 processors at 0.36, 3/4 of 100 s at 3.6.
        close(tasks[0].parts["gpu_hour"], 0.24);
        close(tasks[0].parts["cpu_hour"], 0.024);
        close(tasks[0].parts["machine_hour"], 0.075);
        close(tasks[0].parts["gb_in"], 0.5);
        close(tasks[0].parts["gb_out"], 1.0);
        close(tasks[0].total, 1.839);
        close(tasks[1].total, 0.08 + 0.008 + 0.025 + 0.5);
        close(all.parts["machine_hour"], 0.1);
        close(all.total, tasks[0].total + tasks[1].total);
    }

    #[test]
    fn what_has_no_price_is_no_part_and_a_machine_that_ran_nothing_is_paid_for() {
        let prices = Prices::parse("currency: EUR\nmachine_hour: 36", "p").unwrap();
        let (tasks, all) = prices.costs(10.0, &[Use::default()]);
        assert_eq!(tasks[0].total, 0.0);
        close(all.total, 0.1);
        assert_eq!(all.parts.len(), 1);
    }

    #[test]
    fn what_is_no_table_of_prices_is_refused_with_its_line() {
        for (wrong, said) in [
            ("currency: USD\ngpu_hours: 1", "gpu_hour"),
            ("currency: USD\ngpu_hour: -1", "0 or more"),
            ("currency: USD\ngb_in: .nan", "number"),
            ("currency: USD\ngb_in: .inf", "number"),
            ("currency: USD\ngb_in: much", "number"),
            ("gpu_hour: 1", "currency"),
            ("", "end of input"),
        ] {
            let error = Prices::parse(wrong, "prices.yaml").unwrap_err();
            assert_eq!(error.exit_code(), mlwm_spec::ExitCode::BadConfiguration);
            let error = error.to_string();
            assert!(error.contains(said), "{wrong}: {error}");
            assert!(error.contains("prices.yaml"), "{error}");
        }
    }
}
