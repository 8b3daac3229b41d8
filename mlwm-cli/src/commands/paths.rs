//! `mlwm paths`: dataset paths from their parts, and back.

use clap::{Args, Subcommand};
use mlwm_spec::dataset_path::{BoundingBox, DatasetPath, Number, Resolution, Unit};
use mlwm_spec::{AnalysisTime, ExitCode};

use crate::Outcome;
use crate::failure::Failure;

#[derive(Subcommand)]
pub(crate) enum Command {
    /// Print the path of a dataset.
    Build(Build),
    /// Print the parts of a path as JSON.
    Parse(Parse),
}

#[derive(Args)]
pub(crate) struct Build {
    /// Model that makes the dataset.
    #[arg(long)]
    model_name: String,
    /// Configuration of that model.
    #[arg(long)]
    model_config: String,
    /// Area in degrees: west south east north.
    #[arg(long, num_args = 4, value_names = ["LON_MIN", "LAT_MIN", "LON_MAX", "LAT_MAX"], allow_negative_numbers = true)]
    bbox: Vec<Number>,
    /// Distance between grid points: along longitude, along latitude, and `m`, `km` or `deg`.
    #[arg(long, num_args = 3, value_names = ["LON", "LAT", "UNIT"])]
    resolution: Vec<String>,
    /// The time the forecast starts from, `2025-09-22T12:00Z`.
    #[arg(long)]
    analysis_time: AnalysisTime,
    /// Ensemble member.
    #[arg(long, default_value_t = 0)]
    member: u32,
    /// Kind of data, such as `pressure_levels`.
    #[arg(long)]
    data_kind: String,
}

#[derive(Args)]
pub(crate) struct Parse {
    /// The path, or a URI that ends with it.
    path: String,
}

pub(crate) fn main(command: Command) -> Outcome {
    match command {
        Command::Build(arguments) => build(arguments),
        Command::Parse(arguments) => parse(&arguments.path),
    }
}

fn build(arguments: Build) -> Outcome {
    let ([lon_min, lat_min, lon_max, lat_max], [lon, lat, unit]) =
        (arguments.bbox.as_slice(), arguments.resolution.as_slice())
    else {
        return Err(usage(
            "--bbox takes four numbers and --resolution two and a unit",
        ));
    };
    let path = DatasetPath {
        model_name: arguments.model_name,
        model_config: arguments.model_config,
        bbox: BoundingBox {
            lon_min: *lon_min,
            lat_min: *lat_min,
            lon_max: *lon_max,
            lat_max: *lat_max,
        },
        resolution: Resolution {
            lon_resolution: lon.parse().map_err(usage)?,
            lat_resolution: lat.parse().map_err(usage)?,
            unit: match unit.as_str() {
                "m" => Unit::M,
                "km" => Unit::Km,
                "deg" => Unit::Deg,
                other => return Err(usage(format!("`{other}` is not a unit: use m, km or deg"))),
            },
        },
        analysis_time: arguments.analysis_time,
        member: arguments.member,
        data_kind: arguments.data_kind,
    };
    say!("{}", path.relative_path().map_err(usage)?);
    Ok(ExitCode::Ok)
}

fn parse(text: &str) -> Outcome {
    // The path is the last seven parts; what stands before them is the store.
    let parts: Vec<&str> = text.trim_end_matches('/').split('/').collect();
    let path = parts[parts.len().saturating_sub(7)..].join("/");
    let path: DatasetPath = path.parse().map_err(usage)?;
    let json = serde_json::json!({
        "model_name": path.model_name,
        "model_config": path.model_config,
        "bbox": path.bbox,
        "resolution": path.resolution,
        "analysis_time": path.analysis_time,
        "member": path.member,
        "data_kind": path.data_kind,
    });
    say!("{json:#}");
    Ok(ExitCode::Ok)
}

fn usage(message: impl std::fmt::Display) -> Failure {
    Failure::new(ExitCode::Usage, message)
}
