//! What a configuration must obey beyond its types.

mod steps;
mod windows;

use std::collections::BTreeMap;

use indexmap::IndexMap;

use super::environment::{self, EnvironmentProblem};
use super::uri::{self, UriError};
use super::{ArtifactDelivery, Configuration, Gpus, Product, Resources, StepProblem, UriArgs};
use crate::dataset_path::is_plain_name;
use crate::{AnalysisTime, ArtifactReference, Digest, Members};

/// Folders of a container that belong to the system or to the contract: nothing is mounted there.
const RESERVED_FOLDERS: [&str; 10] = [
    "/workspace",
    "/proc",
    "/sys",
    "/dev",
    "/etc",
    "/usr",
    "/bin",
    "/sbin",
    "/lib",
    "/lib64",
];

/// A rule that a value breaks, and what to do.
#[derive(Clone, Debug, thiserror::Error, PartialEq, Eq)]
pub enum Problem {
    /// A forecast without an output is an error, so a configuration without one is.
    #[error("there is no output: add at least one")]
    NoOutput,
    /// A name of an input or output that cannot be the name of a file.
    #[error(
        "`{0}` cannot be the name of a dataset: use letters, digits, `_`, `-`, `+` and `.`, and do not start with a dot"
    )]
    Name(String),
    /// A place that cannot be written as a URI.
    #[error(transparent)]
    Uri(#[from] UriError),
    /// An area that is none.
    #[error(
        "the area is empty or not on the globe: give latitudes from -90 to 90 and longitudes from -360 to 360 degrees, with lat_min below lat_max and lon_min other than lon_max"
    )]
    Area,
    /// A resolution that is zero or negative.
    #[error("the resolution is not positive: give the distance between grid points")]
    Resolution,
    /// All members would be published at one place.
    #[error(
        "there are several members, and all would be published at this one place: add {{member}}"
    )]
    MemberPlaceholder,
    /// An output that would overwrite another dataset.
    #[error("this output would be published where `{other}` lies ({uri}): give each its own place")]
    SamePlace {
        /// Key of the other dataset.
        other: String,
        /// The URI of this output, for an example of an analysis time.
        uri: String,
    },
    /// A mount point that is not an absolute, plain path.
    #[error(
        "`{0}` is not an absolute path in its shortest form: start it with `/`, and leave out `.`, `..`, double and trailing slashes"
    )]
    PathForm(String),
    /// A mount point that the contract or the engine could not write down.
    #[error(
        "`{0}` holds a `,`, `=`, `:` or control character, which cannot be passed to a container: take it out"
    )]
    PathCharacters(String),
    /// A mount point in a folder of the system or of the contract.
    #[error(
        "`{path}` lies in `{folder}`, which the container needs itself: use a folder like `/volume`"
    )]
    PathReserved {
        /// The mount point.
        path: String,
        /// The folder that is not free.
        folder: &'static str,
    },
    /// Two mount points that hide one another.
    #[error(
        "`{path}` is the same as, or lies inside or around, `{other_path}` of `{other}`: give each dataset a folder of its own"
    )]
    PathOverlap {
        /// This mount point.
        path: String,
        /// Key of the other dataset.
        other: String,
        /// Its mount point.
        other_path: String,
    },
    /// Not the name of a datastore's input.
    #[error("`{0}` does not name an input of a datastore: write `datastore.input`")]
    DatastoreInput(String),
    /// A datastore's input that two datasets feed.
    #[error("`{input}` is already fed by `{other}`: a datastore's input has one dataset")]
    FedTwice {
        /// The input of a datastore.
        input: String,
        /// Key of the dataset that feeds it.
        other: String,
    },
    /// A list that says nothing.
    #[error(
        "the list is empty or repeats itself: name each once, or leave the key out for the default"
    )]
    List,
    /// A Zarr format that is not 2 or 3.
    #[error("{0} is not a Zarr format that mlwm writes: use 2 or 3")]
    ZarrFormat(u8),
    /// A range that no value lies in.
    #[error("this is no range: give the lowest and the highest value, in this order")]
    Range,
    /// A range of a variable that is not written.
    #[error(
        "`{0}` is not among the `variables` of this output: add it there, or take its range out"
    )]
    RangeOfNothing(String),
    /// Windows that cannot be named.
    #[error("windows have a length of whole hours, more than 0: `PT72H`")]
    WindowLength,
    /// Outputs that are not cut alike.
    #[error(
        "all outputs of a configuration are cut into windows of the same length, or none is: `{0}` is not cut like this one"
    )]
    CutOtherwise(String),
    /// A cut output of another Zarr format.
    #[error("an output that is cut into windows is of Zarr format 3: leave `zarr_format` out")]
    CutFormat,
    /// A variable that is not written.
    #[error("`{0}` is not among the `variables` of this output: add it there, or take it out here")]
    NotWritten(String),
    /// A quorum that is none.
    #[error(
        "a quorum is from 1 to the number of members, which is {members}: give one, or leave it out for all"
    )]
    Quorum {
        /// The members of the configuration.
        members: usize,
    },
    /// An ensemble's place that is another one for each member.
    #[error("an ensemble is published at one place: take {{member}} out")]
    EnsembleOfMember,
    /// The beginning of a file's name that cannot be one.
    #[error(
        "`{0}` cannot begin the name of a file: use letters, digits, `_`, `-`, `+` and `.`, and do not start with a dot"
    )]
    Prefix(String),
    /// A Zarr type of what is no Zarr store.
    #[error("values of GRIB are packed into bits: leave `stored_as` out, or say `bits_per_value`")]
    StoredAsGrib,
    /// A number of bits that no value has.
    #[error("a value has 1 to 32 bits: 16 are as precise as the 65,535th part of a field's range")]
    BitsPerValue,
    /// A size that no ensemble has.
    #[error("an ensemble in GRIB has 1 to 254 members: give their number")]
    EnsembleSize,
    /// A kind of a level that is not there.
    #[error("there is no `level` of this type: add it (0 at the surface), or leave the type out")]
    TypeOfNoLevel,
    /// Products of GRIB.
    #[error("products are made of a Zarr store, and this output is GRIB: declare another output")]
    ProductsOfGrib,
    /// Products of what is not cut into windows, or of nothing.
    #[error("products are made of an output that has `windows`: name one in `of`")]
    ProductsOf,
    /// A spread of one.
    #[error("one member has no spread: ask for a quorum of 2 or more")]
    SpreadOfOne,
    /// Not a reference of an image.
    #[error("`{0}` is not a reference: it is empty or holds white space")]
    Reference(String),
    /// A pin that is not a digest.
    #[error("`{0}` is not pinned by a digest: write `@sha256:` followed by 64 hexadecimal digits")]
    Pin(String),
    /// An artifact in a registry that is not pinned: another content could come in its place.
    #[error(
        "`{0}` is not pinned: append the `@sha256:…` that `mlwm artifact list` and `mlwm artifact push` print"
    )]
    NotPinned(String),
    /// Nothing that could be mounted.
    #[error("there is no `artifact` that could be mounted: name one, or leave this key out")]
    NothingToMount,
    /// A number of something that must be there.
    #[error(
        "{0} is not a positive number: give one, or leave the key out for the engine's default"
    )]
    NotPositive(String),
    /// A converter with GPUs.
    #[error("a converter runs beside models, and gets no GPU: take this key out")]
    ConverterGpus,
    /// Memory of GPUs that are not there.
    #[error("there is no `gpus` whose memory this could be: add that key, or take this one out")]
    MemoryOfNoGpus,
    /// A GPU by an impossible name.
    #[error("`{0}` does not name a GPU: give a number, `all`, or UUIDs or CDI names")]
    Gpu(String),
    /// A variable that must not be set.
    #[error(transparent)]
    Environment(#[from] EnvironmentProblem),
    /// A step that cannot be carried out.
    #[error(transparent)]
    Step(#[from] StepProblem),
    /// An output that is cut and replaced.
    #[error(
        "what is published in windows is replaced only by `mlwm run --republish`: take this key out"
    )]
    ReplaceWindows,
    /// Windows or members that would be removed.
    #[error(
        "what is published in windows, or of an ensemble, is not removed by mlwm: take this key out"
    )]
    KeepNeeded,
    /// Files that are asked about as if they were a Zarr store.
    #[error("an output of `files` is not looked into: take `{0}` out")]
    OfFiles(&'static str),
    /// A command that says nothing.
    #[error("the command is empty: give the program and its arguments, or leave the key out")]
    Command,
    /// A seed that not every reader of JSON can hold.
    #[error("a seed lies below 2^53, with the number of each member added: give a smaller one")]
    Seed,
}

/// The key of a value, step by step.
type Key = Vec<String>;

/// Every rule that the configuration breaks, with the key of the value that breaks it.
pub(super) fn broken(configuration: &Configuration) -> Vec<(Key, Problem)> {
    if !configuration.steps.is_empty() {
        return steps::broken(configuration);
    }
    let mut alone = Broken(Vec::new());
    alone.kept_alone(configuration);
    alone.0.extend(match configuration.has_parts() {
        true => steps::broken(configuration),
        false => broken_by_model(configuration),
    });
    alone.0
}

fn broken_by_model(configuration: &Configuration) -> Vec<(Key, Problem)> {
    let mut broken = Broken(Vec::new());
    broken.no_step(configuration);
    broken.references(configuration);
    let datasets = datasets(configuration);
    if configuration.outputs.is_empty() {
        broken.add(["outputs"], Problem::NoOutput);
    }
    for dataset in &datasets {
        broken.dataset(dataset);
    }
    broken.places(&datasets, configuration);
    broken.mount_points(&datasets);
    broken.datastore_inputs(configuration);
    for (name, output) in &configuration.outputs {
        if let Some(format) = output.zarr_format.filter(|format| ![2, 3].contains(format)) {
            broken.add(
                ["outputs", name, "zarr_format"],
                Problem::ZarrFormat(format),
            );
        }
        if output.variables.as_deref().is_some_and(is_empty_or_repeats) {
            broken.add(["outputs", name, "variables"], Problem::List);
        }
        for (variable, [low, high]) in &output.ranges {
            let key = ["outputs", name, "ranges", variable];
            if !(low.is_finite() && high.is_finite() && low < high) {
                broken.add(key, Problem::Range);
            }
            let wanted = output.variables.as_deref().unwrap_or_default();
            if !wanted.is_empty() && !wanted.contains(variable) {
                broken.add(key, Problem::RangeOfNothing(variable.clone()));
            }
        }
    }
    broken.command(configuration);
    broken.forms(configuration);
    broken.windows(configuration);
    broken.ensemble(configuration, &datasets);
    broken.resources(&["resources"], &configuration.resources);
    broken.environment(&["environment"], &configuration.environment);
    for (at, name) in configuration.credentials.iter().enumerate() {
        if let Some(problem) = environment::problem_of_credential(name) {
            broken.add(["credentials", &at.to_string()], problem.into());
        }
    }
    broken.converters(configuration);
    broken.0
}

/// What inputs and outputs have in common.
struct Dataset<'a> {
    section: &'static str,
    name: &'a str,
    uri_args: Option<&'a UriArgs>,
    template: Option<&'a str>,
    internal_path: &'a str,
    /// Its URI for an example of an analysis time, if it has one.
    uri: Result<String, UriError>,
}

impl Dataset<'_> {
    fn key(&self) -> String {
        format!("{}.{}", self.section, self.name)
    }

    /// The key that says where the dataset lies.
    fn place_key(&self) -> Key {
        let last = match (self.uri_args, self.template) {
            (Some(_), None) => Some("uri_args"),
            (None, Some(_)) => Some("uri"),
            _ => None,
        };
        let steps = [self.section, self.name].into_iter().chain(last);
        steps.map(str::to_owned).collect()
    }
}

fn datasets(configuration: &Configuration) -> Vec<Dataset<'_>> {
    let example = AnalysisTime::from_unix_seconds(0);
    let uri = |args: Option<&UriArgs>, template: Option<&str>| match example {
        Some(time) => uri::resolve(args, template, time, 0),
        None => Err(UriError::Missing),
    };
    let inputs = configuration.inputs.iter().map(|(name, input)| Dataset {
        section: "inputs",
        name,
        uri_args: input.uri_args.as_ref(),
        template: input.uri.as_deref(),
        internal_path: &input.internal_path,
        uri: uri(input.uri_args.as_ref(), input.uri.as_deref()),
    });
    let outputs = configuration.outputs.iter().map(|(name, output)| Dataset {
        section: "outputs",
        name,
        uri_args: output.uri_args.as_ref(),
        template: output.uri.as_deref(),
        internal_path: &output.internal_path,
        uri: uri(output.uri_args.as_ref(), output.uri.as_deref()),
    });
    inputs.chain(outputs).collect()
}

struct Broken(Vec<(Key, Problem)>);

impl Broken {
    fn add<'a>(&mut self, key: impl IntoIterator<Item = &'a str>, problem: Problem) {
        self.0
            .push((key.into_iter().map(str::to_owned).collect(), problem));
    }

    fn references(&mut self, configuration: &Configuration) {
        for (key, reference) in [
            ("docker_image", &configuration.docker_image),
            ("base_image", &configuration.base_image),
        ] {
            if let Some(reference) = reference {
                self.reference(&[key], reference);
            }
        }
        if let Some(ArtifactReference::Published(artifact)) = &configuration.artifact
            && artifact.digest.is_none()
        {
            self.add(["artifact"], Problem::NotPinned(artifact.to_string()));
        }
        if configuration.artifact_delivery == ArtifactDelivery::Mount
            && configuration.artifact.is_none()
        {
            self.add(["artifact_delivery"], Problem::NothingToMount);
        }
    }

    fn reference(&mut self, key: &[&str], reference: &str) {
        if reference.is_empty() || reference.contains(char::is_whitespace) {
            self.add(key.to_vec(), Problem::Reference(reference.to_owned()));
        } else if let Some((_, pin)) = reference.split_once("@sha256:")
            && format!("sha256:{pin}").parse::<Digest>().is_err()
        {
            self.add(key.to_vec(), Problem::Pin(reference.to_owned()));
        }
    }

    fn converters(&mut self, configuration: &Configuration) {
        for (name, input) in &configuration.inputs {
            let Some(convert) = &input.convert else {
                continue;
            };
            let key = |last: &'static str| ["inputs", name, "convert", last];
            self.reference(&key("docker_image"), &convert.docker_image);
            self.resources(&key("resources"), &convert.resources);
            if convert.resources.gpus.is_some() {
                let key = [&key("resources")[..], &["gpus"]].concat();
                self.add(key, Problem::ConverterGpus);
            }
            self.environment(&key("environment"), &convert.environment);
        }
    }

    fn environment(&mut self, key: &[&str], environment: &IndexMap<String, String>) {
        for (name, value) in environment {
            if let Some(problem) = environment::problem(name, value) {
                self.add([key, &[name]].concat(), problem.into());
            }
        }
    }

    fn dataset(&mut self, dataset: &Dataset<'_>) {
        let Dataset {
            section,
            name,
            internal_path,
            ..
        } = *dataset;
        if !is_plain_name(name) || name.contains([',', '=', ':']) {
            self.add([section, name], Problem::Name(name.to_owned()));
        }
        if let Err(error) = &dataset.uri {
            self.0.push((dataset.place_key(), error.clone().into()));
        }
        if let Some(args) = dataset.uri_args {
            if !is_area(args) {
                self.add([section, name, "uri_args", "bbox"], Problem::Area);
            }
            let resolution = args.resolution;
            if [resolution.lon_resolution, resolution.lat_resolution]
                .iter()
                .any(|distance| distance.value() <= 0.0)
            {
                self.add(
                    [section, name, "uri_args", "resolution"],
                    Problem::Resolution,
                );
            }
        }
        if let Some(problem) = mount_point_problem(internal_path) {
            self.add([section, name, "internal_path"], problem);
        }
    }

    /// No output may replace another output or an input, nor one member another.
    fn places(&mut self, datasets: &[Dataset<'_>], configuration: &Configuration) {
        let several = configuration
            .members
            .as_ref()
            .is_some_and(|m| m.iter().count() > 1);
        for (at, output) in datasets
            .iter()
            .enumerate()
            .filter(|(_, d)| d.section == "outputs")
        {
            let Ok(uri) = &output.uri else { continue };
            if several
                && output
                    .template
                    .is_some_and(|template| !uri::names_member(template))
            {
                self.0
                    .push((output.place_key(), Problem::MemberPlaceholder));
            }
            let earlier = datasets[..at]
                .iter()
                .find(|other| other.uri.as_ref().is_ok_and(|other| overlap(uri, other)));
            if let Some(other) = earlier {
                let problem = Problem::SamePlace {
                    other: other.key(),
                    uri: uri.clone(),
                };
                self.0.push((output.place_key(), problem));
            }
        }
    }

    fn mount_points(&mut self, datasets: &[Dataset<'_>]) {
        let sound = |d: &&Dataset<'_>| mount_point_problem(d.internal_path).is_none();
        let datasets: Vec<&Dataset<'_>> = datasets.iter().filter(sound).collect();
        for (at, dataset) in datasets.iter().enumerate() {
            let path = dataset.internal_path;
            let earlier = datasets[..at]
                .iter()
                .find(|other| overlap(path, other.internal_path));
            if let Some(other) = earlier {
                let problem = Problem::PathOverlap {
                    path: path.to_owned(),
                    other: other.key(),
                    other_path: other.internal_path.to_owned(),
                };
                self.add([dataset.section, dataset.name, "internal_path"], problem);
            }
        }
    }

    fn datastore_inputs(&mut self, configuration: &Configuration) {
        let mut fed: BTreeMap<&str, &str> = BTreeMap::new();
        for (name, input) in &configuration.inputs {
            for (at, datastore_input) in input.datastore_inputs.iter().enumerate() {
                let at = at.to_string();
                let key = ["inputs", name, "datastore_inputs", &at];
                if !is_datastore_input(datastore_input) {
                    self.add(key, Problem::DatastoreInput(datastore_input.clone()));
                } else if let Some(other) = fed.insert(datastore_input, name) {
                    let problem = Problem::FedTwice {
                        input: datastore_input.clone(),
                        other: format!("inputs.{other}"),
                    };
                    self.add(key, problem);
                }
            }
        }
    }

    fn ensemble(&mut self, configuration: &Configuration, datasets: &[Dataset<'_>]) {
        let Some(ensemble) = &configuration.ensemble else {
            return;
        };
        let members = configuration.members.as_ref().map_or(1, Members::count);
        let quorum = ensemble.quorum.map_or(members, |quorum| quorum as usize);
        if quorum == 0 || quorum > members {
            self.add(["ensemble", "quorum"], Problem::Quorum { members });
        }
        let example = AnalysisTime::from_unix_seconds(0).ok_or(UriError::Missing);
        match example.and_then(|time| ensemble.uri(time)) {
            _ if uri::names_member(&ensemble.uri) => {
                self.add(["ensemble", "uri"], Problem::EnsembleOfMember);
            }
            Err(error) => self.add(["ensemble", "uri"], error.into()),
            Ok(uri) => {
                let other = datasets
                    .iter()
                    .find(|other| other.uri.as_ref().is_ok_and(|other| overlap(&uri, other)));
                if let Some(other) = other {
                    let other = other.key();
                    self.add(["ensemble", "uri"], Problem::SamePlace { other, uri });
                }
            }
        }
        if ensemble.products.is_empty() {
            return;
        }
        let output = match &ensemble.of {
            Some(name) => configuration.outputs.get(name),
            None if configuration.outputs.len() == 1 => configuration.outputs.values().next(),
            None => None,
        };
        let Some(output) = output.filter(|output| output.windows.is_some()) else {
            self.add(["ensemble", "of"], Problem::ProductsOf);
            return;
        };
        if output
            .windows
            .as_ref()
            .is_some_and(|windows| windows.grib.is_some())
        {
            self.add(["ensemble", "of"], Problem::ProductsOfGrib);
        }
        for (variable, products) in &ensemble.products {
            let key = ["ensemble", "products", variable];
            let written = output.variables.as_ref();
            if written.is_some_and(|written| !written.contains(variable)) {
                self.add(key, Problem::NotWritten(variable.clone()));
            }
            let names: Vec<String> = products
                .iter()
                .map(|product| product.name(variable))
                .collect();
            if is_empty_or_repeats(&names) {
                self.add(key, Problem::List);
            }
            if products.contains(&Product::Spread) && quorum < 2 {
                self.add(key, Problem::SpreadOfOne);
            }
        }
    }

    fn resources(&mut self, key: &[&str], resources: &Resources) {
        let of = |last: &'static str| [key, &[last]].concat();
        match &resources.gpus {
            Some(Gpus::Count(0)) => self.add(of("gpus"), Problem::NotPositive("0".to_owned())),
            Some(Gpus::One(name)) if !is_gpu_name(name) => {
                self.add(of("gpus"), Problem::Gpu(name.clone()));
            }
            Some(Gpus::Devices(names)) => {
                if is_empty_or_repeats(names) {
                    self.add(of("gpus"), Problem::List);
                }
                for name in names.iter().filter(|name| !is_gpu_name(name)) {
                    self.add(of("gpus"), Problem::Gpu(name.clone()));
                }
            }
            _ => {}
        }
        if let Some(cpus) = resources
            .cpus
            .filter(|cpus| !(cpus.is_finite() && *cpus > 0.0))
        {
            self.add(of("cpus"), Problem::NotPositive(cpus.to_string()));
        }
        for (last, size) in [
            ("memory", resources.memory),
            ("gpu_memory", resources.gpu_memory),
            ("shm_size", resources.shm_size),
        ] {
            if size.is_some_and(|size| size.0 == 0) {
                self.add(of(last), Problem::NotPositive("0".to_owned()));
            }
        }
        if resources.gpu_memory.is_some() && resources.gpus.is_none() {
            self.add(of("gpu_memory"), Problem::MemoryOfNoGpus);
        }
        if resources.processes == Some(0) {
            self.add(of("processes"), Problem::NotPositive("0".to_owned()));
        }
    }
}

fn is_area(args: &UriArgs) -> bool {
    let bbox = args.bbox;
    let (west, east) = (bbox.lon_min.value(), bbox.lon_max.value());
    let (south, north) = (bbox.lat_min.value(), bbox.lat_max.value());
    let on_globe = |longitude: f64| (-360.0..=360.0).contains(&longitude);
    // West may be greater than east: an area may lie across the date line.
    on_globe(west)
        && on_globe(east)
        && west != east
        && -90.0 <= south
        && south < north
        && north <= 90.0
}

fn mount_point_problem(path: &str) -> Option<Problem> {
    let Some(below_root) = path.strip_prefix('/') else {
        return Some(Problem::PathForm(path.to_owned()));
    };
    if below_root
        .split('/')
        .any(|part| matches!(part, "" | "." | ".."))
    {
        return Some(Problem::PathForm(path.to_owned()));
    }
    if path.contains(|c: char| c.is_control() || matches!(c, ',' | '=' | ':')) {
        return Some(Problem::PathCharacters(path.to_owned()));
    }
    let folder = RESERVED_FOLDERS
        .into_iter()
        .find(|folder| overlap(path, folder))?;
    Some(Problem::PathReserved {
        path: path.to_owned(),
        folder,
    })
}

/// Whether two paths (or URIs) are equal or one holds the other.
fn overlap(one: &str, other: &str) -> bool {
    let (one, other) = (one.trim_end_matches('/'), other.trim_end_matches('/'));
    let holds = |outer: &str, inner: &str| {
        inner
            .strip_prefix(outer)
            .is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
    };
    holds(one, other) || holds(other, one)
}

/// `datastore.input`, so that it can be passed in `DATASTORE_INPUT_PATHS`: the datastore's name
/// ends at the first dot.
fn is_datastore_input(text: &str) -> bool {
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-');
    let special = |c: char| c.is_control() || c.is_whitespace() || matches!(c, ',' | '=');
    text.split_once('.').is_some_and(|(datastore, input)| {
        !datastore.is_empty()
            && datastore.chars().all(plain)
            && !input.is_empty()
            && !input.contains(special)
    })
}

fn is_gpu_name(name: &str) -> bool {
    !name.is_empty() && !name.contains(|c: char| c.is_whitespace() || c.is_control() || c == ',')
}

fn is_empty_or_repeats(names: &[String]) -> bool {
    let repeats = |(at, name): (usize, &String)| name.is_empty() || names[..at].contains(name);
    names.is_empty() || names.iter().enumerate().any(repeats)
}
