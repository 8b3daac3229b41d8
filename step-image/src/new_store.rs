//! A new store and the variables that are copied into it.

use std::path::{Path, PathBuf};

use mlwm_datasets::{
    Dataset, Definition, Element, Form, StoredDefinition, Variable, Writer, ZarrFormat,
};
use mlwm_spec::bytes::ByteSize;
use serde_json::{Map, Value};

use crate::moving::{self, Budget, Costs, Part, Plan, Source, ZarrSink, ZarrSource, sink_grid};
use crate::{Error, Fault, Target};

/// A store that is written under another name until it is whole.
pub(crate) struct NewStore {
    target: Target,
    pub(crate) writer: Writer,
}

impl NewStore {
    pub(crate) fn begin(
        place: &Path,
        format: ZarrFormat,
        attributes: Map<String, Value>,
    ) -> Result<Self, Error> {
        let target = Target::begin(place)?;
        let writer = writer_in(target.folder(), format, attributes)?;
        Ok(Self { target, writer })
    }

    /// The folder that it is written into.
    pub(crate) fn folder(&self) -> PathBuf {
        self.target.folder().to_owned()
    }

    pub(crate) fn finish(self) -> Result<(), Error> {
        self.writer.finish().map_err(Fault::from)?;
        self.target.finish()
    }
}

/// A writer in an empty folder.
pub(crate) fn writer_in(
    folder: &Path,
    format: ZarrFormat,
    attributes: Map<String, Value>,
) -> Result<Writer, Fault> {
    // The writer makes its folder itself.
    std::fs::remove_dir(folder).map_err(Fault::write(folder))?;
    Ok(Writer::create(folder, format, attributes)?)
}

/// A variable on its way into a new store.
pub(crate) struct Job<'a> {
    pub(crate) definition: StoredDefinition,
    source: ZarrSource<'a>,
    axis: usize,
    first: u64,
    plan: Plan,
}

impl<'a> Job<'a> {
    /// Plans to copy parts that follow each other along a dimension into a variable, from its file of number `first`
    /// along that dimension on.
    pub(crate) fn plan(
        store: &Path,
        definition: StoredDefinition,
        parts: Vec<Part<'a>>,
        axis: usize,
        first: u64,
        budget: Budget,
    ) -> Result<Self, Fault> {
        let source = ZarrSource::of(parts, axis);
        let costs = Costs {
            size: definition.form.size(),
            source: source.largest(),
            target: definition.file_chunks().iter().product::<u64>() * definition.form.size(),
        };
        let sink = sink_grid(&definition, axis, first);
        let plan = moving::plan(source.grid(), &sink, costs, budget).map_err(|least| {
            const MIB: u64 = 1 << 20;
            Fault::Memory {
                store: store.to_owned(),
                variable: definition.name.clone(),
                given: ByteSize(budget.memory),
                least: ByteSize(least.next_multiple_of(MIB)),
            }
        })?;
        Ok(Self {
            definition,
            source,
            axis,
            first,
            plan,
        })
    }

    /// The bytes on a disk that the copy takes besides its result.
    pub(crate) fn disk(&self) -> u64 {
        self.plan.disk(self.definition.form.size())
    }

    /// Copies, into a variable that is defined.
    pub(crate) fn copy(self, writer: &Writer, folder: &Path) -> Result<(), Fault> {
        let sink = ZarrSink::new(writer, &self.definition, self.axis, self.first)?;
        let size = self.definition.form.size();
        moving::copy(&self.source, &sink, self.plan, size, folder)
    }
}

/// A whole variable as the only part of a copy.
pub(crate) fn whole(variable: &Variable) -> Vec<Part<'_>> {
    vec![Part {
        variable,
        offset: 0,
        first_chunk: 0,
    }]
}

/// Copies texts, which are always one chunk, with the attributes of decoded values.
pub(crate) fn copy_texts(
    writer: &mut Writer,
    name: &str,
    variable: &Variable,
    attributes: Map<String, Value>,
) -> Result<(), Fault> {
    let dims: Vec<(&str, u64)> = variable
        .dims()
        .iter()
        .map(String::as_str)
        .zip(variable.shape().iter().copied())
        .collect();
    let definition = Definition::new(name, &dims, Element::Text);
    writer.define(&definition.attributes(attributes))?;
    Ok(writer.write(name, variable.read()?)?)
}

/// The form of a variable's numbers; none of texts.
pub(crate) fn form<'a>(store: &Path, variable: &'a Variable) -> Result<Option<&'a Form>, Fault> {
    if let Some(empty) = variable.shape().iter().position(|&length| length == 0) {
        let reason = format!(
            "the dimension `{}` of `{}` has no values",
            variable.dims()[empty],
            variable.name()
        );
        return Err(Fault::store(store, reason));
    }
    match (variable.form(), variable.element()) {
        (Some(form), _) => Ok(Some(form)),
        (None, Element::Text) => Ok(None),
        (None, _) => Err(Fault::store(
            store,
            format!(
                "`{}` holds NumPy's own times, which not every reader knows: write it with CF units, as xarray does",
                variable.name()
            ),
        )),
    }
}

/// All variables of a store.
pub(crate) fn variables(dataset: &Dataset) -> Result<Vec<&Variable>, Fault> {
    let all = dataset.names().map(|name| dataset.variable(name));
    Ok(all.collect::<Result<_, _>>()?)
}

/// Whether a variable is the coordinate of its only dimension.
pub(crate) fn is_index(variable: &Variable) -> bool {
    variable.dims() == [variable.name().to_owned()]
}

/// Refuses a disk with too little space for files that are removed again.
pub(crate) fn check_space(place: &Path, need: u64, what: &str) -> Result<(), Fault> {
    if need == 0 {
        return Ok(());
    }
    let existing = place.ancestors().find(|path| path.is_dir());
    let folder = match existing {
        Some(folder) => folder,
        None => Path::new("."),
    };
    let disk = rustix::fs::statvfs(folder).map_err(|error| Fault::Read {
        path: folder.to_owned(),
        source: error.into(),
    })?;
    let free = disk.f_bavail.saturating_mul(disk.f_frsize);
    match free >= need {
        true => Ok(()),
        false => Err(Fault::Space {
            folder: folder.to_owned(),
            free: ByteSize(free),
            need: ByteSize(need),
            what: what.to_owned(),
        }),
    }
}

/// A line about what was done.
pub(crate) fn say(line: &str) {
    use std::io::Write;
    // Nobody may be listening.
    let _ = writeln!(std::io::stdout(), "{line}");
}
